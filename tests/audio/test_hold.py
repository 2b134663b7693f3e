"""A house's hold sound: every kind of file that Asterisk or a recorder writes, and why it is no other."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio.frames import level_dbov, samples_of
from audio.g711 import alaw_encode, ulaw_encode
from audio.hold import MOST_BYTES, HoldSoundError, sound_of

SECONDS = 2


def wave(rate: int, hz: float = 440.0) -> bytes:
    """A sine, 16 bits."""
    at = np.arange(SECONDS * rate) / rate
    sine: bytes = np.rint(8000 * np.sin(2 * np.pi * hz * at)).astype("<i2").tobytes()
    return sine


def wav(data: bytes, *, coding: int = 1, channels: int = 1, rate: int = 8000, bits: int = 16) -> bytes:
    """A WAV file with a chunk before its sound, as editors write them."""
    width = bits // 8 * channels
    form = struct.pack("<HHIIHH", coding, channels, rate, rate * width, width, bits)
    chunks = b"fmt " + struct.pack("<I", len(form)) + form
    chunks += b"LIST" + struct.pack("<I", 3) + b"abc\0" + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def widened(pcm: bytes, bits: int) -> bytes:
    """16 bits as another number of them."""
    samples = samples_of(pcm).astype(np.int32)
    if bits == 8:
        return ((samples >> 8) + 128).astype(np.uint8).tobytes()
    whole = (samples << 16).astype("<i4")
    return whole.tobytes() if bits == 32 else whole.view(np.uint8).reshape(-1, 4)[:, 1:].tobytes()


PLAIN = wave(8000)
FILES = {
    "16 bits": (wav(PLAIN), "wav"),
    "8 bits": (wav(widened(PLAIN, 8), bits=8), "wav"),
    "24 bits": (wav(widened(PLAIN, 24), bits=24), "wav"),
    "32 bits": (wav(widened(PLAIN, 32), bits=32), "wav"),
    "A-law": (wav(alaw_encode(PLAIN), coding=6, bits=8), "wav"),
    "µ-law": (wav(ulaw_encode(PLAIN), coding=7, bits=8), "wav"),
    "stereo": (wav(np.repeat(samples_of(PLAIN), 2).tobytes(), channels=2), "wav"),
    "44.1 kHz": (wav(wave(44100), rate=44100), "WAV"),
    "48 kHz": (wav(wave(48000), rate=48000), "wav"),
    "bare µ-law": (ulaw_encode(PLAIN), "ulaw"),
    "bare A-law": (alaw_encode(PLAIN), "alaw"),
    "bare PCM": (PLAIN + b"\0", "sln"),
    "cut off": (wav(PLAIN)[:-3201], "wav"),
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_sounds_as_it_should(name: str) -> None:
    content, suffix = FILES[name]
    sound = sound_of(content, f".{suffix}")
    assert sound.foreign
    seconds = len(sound.pcm) / 16000
    assert seconds == pytest.approx(SECONDS - 0.2 * (name == "cut off"), abs=0.01)
    assert level_dbov(sound.pcm) == pytest.approx(level_dbov(PLAIN), abs=0.2)
    spectrum = np.abs(np.fft.rfft(samples_of(sound.pcm).astype(np.float64)))
    assert int(spectrum.argmax()) / seconds == pytest.approx(440, abs=2), "at its own pitch"


def test_a_sound_in_the_extensible_format_is_what_it_says_within() -> None:
    form = struct.pack("<HHIIHH", 0xFFFE, 1, 8000, 16000, 2, 16) + struct.pack("<HHIH14x", 22, 16, 4, 1)
    chunks = b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(PLAIN)) + PLAIN
    assert sound_of(b"RIFF" + bytes(4) + b"WAVE" + chunks, ".wav").pcm == PLAIN


@pytest.mark.parametrize(
    ("content", "suffix", "said"),
    [
        (b"ID3 and a song", ".mp3", "found no WAV; allowed: a WAV file, or one at 8 kHz"),
        (b"RIFF\0\0\0\0AVI ", ".wav", "no WAV; allowed: a WAV file"),
        (b"RIFF\0\0\0\0WAVE", ".wav", "without its format, or without sound"),
        (wav(PLAIN, coding=3, bits=32), ".wav", "format 3; allowed: PCM"),
        (wav(PLAIN, channels=6), ".wav", "found 6 channels; allowed are 1 or 2"),
        (wav(PLAIN, rate=11025), ".wav", "found 11025 samples a second; allowed are 8000, "),
        (wav(PLAIN, bits=12), ".wav", "found 12 bits a sample"),
        (wav(PLAIN[:3200]), ".wav", r"found 0.2 s of sound; allowed are 0.5 to 60 s"),
        (wav(bytes(16000 * 61)), ".wav", r"found 61.0 s of sound; allowed are 0.5 to 60 s"),
        (bytes(8000 * 61), ".ulaw", r"found 61.0 s of sound; allowed are 0.5 to 60 s"),
        (bytes(MOST_BYTES + 1), ".wav", "found 12000001 bytes; allowed are 12000000"),
        (b"", ".ulaw", r"found 0.0 s"),
    ],
)
def test_what_cannot_be_played_is_refused_with_what_can(content: bytes, suffix: str, said: str) -> None:
    with pytest.raises(HoldSoundError, match=said):
        sound_of(content, suffix)


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200).map(lambda rest: b"RIFF\0\0\0\0WAVE" + rest),
        st.builds(
            lambda at, bytes_: wav(PLAIN[:16000])[:at] + bytes_ + wav(PLAIN[:16000])[at + len(bytes_) :],
            st.integers(0, 80),
            st.binary(max_size=8),
        ),
        st.binary(max_size=9000),
    ),
    st.sampled_from([".wav", ".ulaw", ".alaw", ".sln", ""]),
)
def test_any_bytes_are_a_sound_or_refused(content: bytes, suffix: str) -> None:
    refused = ""
    try:
        pcm = sound_of(content, suffix).pcm
    except HoldSoundError as error:
        pcm, refused = bytes(16000), str(error)
    assert not refused or ("found" in refused and "allowed" in refused)
    assert len(pcm) % 2 == 0 and 0.5 <= len(pcm) / 16000 <= 60
