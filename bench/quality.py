"""What the bridge does to sound, measured as a listener would judge it: in simulated time, without a network.

The way of a sample as the service has it: frames of 20 ms at 8 kHz are resampled to the model's 24 kHz, and
the model's pieces, of any length, are resampled back, queued for playout, and given out as frames of 20 ms.

- *Tones*, swept in steps over the band and beyond: ripple, images (up) and aliases (down).
- *Delay*: what a stream holds back, by counting, and by how much an impulse comes out beside its instant.
- *Distortion*: all that is not the tone, THD+N, of 1004 Hz (ITU-T O.131's frequency); also through G.711.
- *Clicks*: the largest deviation from a tone at any one sample, which a seam between two frames would show.
- *Gaps*: frames of a sentence that were not heard, or samples that cutting it up has changed.
- *Words*: how many of them the speech recogniser gets, straight from the line and behind the bridge.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from audio.frames import FRAME_BYTES, FRAME_SAMPLES, FULL_SCALE, TELEPHONE_RATE, samples_of, saturated
from audio.g711 import alaw_decode, alaw_encode, ulaw_decode, ulaw_encode
from audio.playout import Playout
from audio.resample import Resampler
from bench.hearing import at_level, street
from bridge.softphone import load_wav
from providers.local.recognition import Recogniser

Doubles = npt.NDArray[np.float64]
Line = Callable[[bytes], bytes]

MODEL_RATE: Final = 24000
RECORDINGS: Final = Path(__file__).resolve().parent.parent / "data" / "audio"
TONE_DBFS: Final = -10.0
"""The tones' peak, beside full scale."""
TONE_S: Final = 0.5
STEP_HZ: Final = 50
REFERENCE_HZ: Final = 1004.0
PASSBAND_HZ: Final = (50, 3400)
STOPBAND_HZ: Final = 4600
"""Where images and aliases are to be gone: the filter is symmetrical about 4 kHz, half the line's rate."""
SEED: Final = 7

PROMPT: Final = (
    "Portaria do condomínio. Apartamento quinhentos e um. Quem é? Pode liberar. Não autorizo a entrada."
)
"""What the recogniser is told to expect, in the manner of the doorman's own prompts."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measurement, and the most that it may be."""

    name: str
    value: float
    unit: str
    most: float | None = None

    @property
    def kept(self) -> bool:
        """Whether it is within its bound; where there is none it says only what to compare others with."""
        return self.most is None or self.value <= self.most


# -- the way of a sample -----------------------------------------------------------------------------------


def up(pcm: bytes) -> bytes:
    """What the model gets of a caller's sound."""
    resampler = Resampler(TELEPHONE_RATE, MODEL_RATE)
    frames = (pcm[at : at + FRAME_BYTES] for at in range(0, len(pcm), FRAME_BYTES))
    return b"".join(resampler.process(frame) for frame in frames) + resampler.flush()


def down(pcm: bytes, chance: np.random.Generator) -> tuple[bytes, int]:
    """What a caller hears of a model's sound, which comes in pieces of any length, and the frames it lacked.

    While pieces come, half of what waits is played after each: what is cut up anew is played in between.
    """
    resampler, playout = Resampler(MODEL_RATE, TELEPHONE_RATE), Playout()
    heard = bytearray()
    at = 0
    while at < len(pcm):
        size = 2 * int(chance.integers(1, MODEL_RATE // 4))
        playout.push("item", resampler.process(pcm[at : at + size]))
        at += size
        for _ in range(playout.pending_samples // FRAME_SAMPLES // 2):
            heard += playout.next_frame()
    playout.push("item", resampler.flush())
    playout.end("item")
    while playout.pending_samples:
        heard += playout.next_frame()
    return bytes(heard), playout.underrun_frames


def there_and_back(pcm: bytes) -> bytes:
    """Both ways, one after the other."""
    return down(up(pcm), np.random.default_rng(SEED))[0][: len(pcm)]


# -- tones -------------------------------------------------------------------------------------------------


def sound_figures(step_hz: int = STEP_HZ, seconds: float = 10.0) -> list[Figure]:
    """Everything that needs no recogniser. ``step_hz``: of the swept tones; ``seconds``: of the other one."""
    passed = range(PASSBAND_HZ[0], PASSBAND_HZ[1] + 1, step_hz)
    ups = [_spectrum(up(tone(hz, TELEPHONE_RATE)), MODEL_RATE, hz) for hz in passed]
    # What lies between 3.4 and 4.6 kHz is the filter's slope; beyond it nothing is to come through.
    beyond = range(STOPBAND_HZ, MODEL_RATE // 2, step_hz)
    aliases = [_loudest(_down(tone(hz, MODEL_RATE))) for hz in beyond]
    downs = [_spectrum(_down(tone(hz, MODEL_RATE)), TELEPHONE_RATE, hz) for hz in passed]
    reference = tone(REFERENCE_HZ, TELEPHONE_RATE, seconds)
    through = there_and_back(reference)
    return [
        Figure("ripple up, 50 Hz to 3.4 kHz", max(abs(gain) for gain, _ in ups), "dB", most=0.2),
        Figure("ripple down, 50 Hz to 3.4 kHz", max(abs(gain) for gain, _ in downs), "dB", most=0.2),
        Figure("images up, beyond 4.6 kHz", max(image for _, image in ups), "dB", most=-50),
        Figure("aliases down, from beyond 4.6 kHz", max(aliases), "dB", most=-50),
        Figure("delay up", held_back_ms(TELEPHONE_RATE, MODEL_RATE), "ms", most=2.5),
        Figure("delay down", held_back_ms(MODEL_RATE, TELEPHONE_RATE), "ms", most=2.5),
        Figure("an impulse beside its instant, both ways", displaced_ms(), "ms", most=0.02),
        Figure("THD+N at 1004 Hz, the line itself", thd_n(reference), "dB"),
        Figure("THD+N, both ways", thd_n(through), "dB", most=-70),
        Figure("THD+N, mu-law and both ways", thd_n(there_and_back(_ulaw(reference))), "dB", most=-34),
        Figure("THD+N, A-law and both ways", thd_n(there_and_back(_alaw(reference))), "dB", most=-34),
        Figure("the loudest click in a tone, both ways", _click(through), "dB", most=-60),
        *_gaps(),
    ]


def tone(hz: float, rate: int, seconds: float = TONE_S) -> bytes:
    """A sine at :data:`TONE_DBFS`."""
    at = np.arange(round(rate * seconds)) / rate
    return saturated(FULL_SCALE * 10 ** (TONE_DBFS / 20) * np.sin(2 * np.pi * hz * at))


def held_back_ms(from_rate: int, to_rate: int) -> float:
    """How much of a long stream, cut into frames, has not come out when its last frame went in."""
    resampler = Resampler(from_rate, to_rate)
    frame = bytes(2 * from_rate // 50)
    given = sum(len(resampler.process(frame)) for _ in range(50)) // 2
    return 1000 * (1 - given / to_rate)


def displaced_ms() -> float:
    """By how much a soft impulse comes out beside the instant at which it went in: its centre of mass."""
    at = np.arange(TELEPHONE_RATE // 5) / TELEPHONE_RATE
    pulse = np.where(abs(at - 0.1) < 0.005, 0.5 + 0.5 * np.cos((at - 0.1) * 200 * np.pi), 0) * 20000
    out = samples_of(there_and_back(saturated(pulse))).astype(np.float64)
    return float(abs(np.dot(out, at) / out.sum() - 0.1) * 1000)


def thd_n(pcm: bytes) -> float:
    """All that is not the tone of :data:`REFERENCE_HZ`, beside it, in dB."""
    wave, fit = _fitted(pcm)
    return _db(float(np.sqrt(np.mean((wave - fit) ** 2) / np.mean(fit**2))))


def _click(pcm: bytes) -> float:
    """The largest deviation from the tone at any one sample, beside the tone's peak, in dB."""
    wave, fit = _fitted(pcm)
    return _db(float(abs(wave - fit).max() / abs(fit).max()))


def _fitted(pcm: bytes) -> tuple[Doubles, Doubles]:
    """A tone away from its ends, and the sine of its frequency that comes closest to it."""
    wave = samples_of(pcm).astype(np.float64)[400:-400]
    turn = 2 * np.pi * REFERENCE_HZ * np.arange(len(wave)) / TELEPHONE_RATE
    basis = np.stack((np.sin(turn), np.cos(turn), np.ones(len(wave))), axis=1)
    weights = np.linalg.lstsq(basis, wave, rcond=None)[0]
    return wave, basis[:, :2] @ weights[:2]


def _down(pcm: bytes) -> bytes:
    return down(pcm, np.random.default_rng(SEED))[0]


def _spectrum(pcm: bytes, rate: int, hz: float) -> tuple[float, float]:
    """A tone's gain in dB, and the loudest other thing beyond the stopband's edge, beside the tone."""
    wave = samples_of(pcm).astype(np.float64)[rate // 20 : -rate // 20]
    window = np.blackman(len(wave))
    turn = np.exp(-2j * np.pi * hz * np.arange(len(wave)) / rate)
    amplitude = 2 * abs(np.dot(wave * window, turn)) / window.sum()
    spectrum = 2 * np.abs(np.fft.rfft(wave * window)) / window.sum()
    outside = spectrum[np.fft.rfftfreq(len(wave), 1 / rate) >= STOPBAND_HZ]
    gain = _db(float(amplitude / (FULL_SCALE * 10 ** (TONE_DBFS / 20))))
    return gain, _db(float(outside.max() / amplitude)) if outside.size else -np.inf


def _loudest(pcm: bytes) -> float:
    """The loudest thing in what came of a tone that was to vanish, beside that tone, in dB."""
    wave = samples_of(pcm).astype(np.float64)[400:-400]
    window = np.blackman(len(wave))
    spectrum = 2 * np.abs(np.fft.rfft(wave * window)) / window.sum()
    return _db(float(spectrum.max() / (FULL_SCALE * 10 ** (TONE_DBFS / 20))))


def _gaps() -> list[Figure]:
    """What cutting sentences into frames and pieces has cost them."""
    missing = changed = 0
    chance = np.random.default_rng(SEED)
    for said in spoken(4):
        wide = up(said.pcm)
        whole = Resampler(MODEL_RATE, TELEPHONE_RATE)
        wanted = whole.process(wide) + whole.flush()
        heard, lacking = down(wide, chance)
        missing += lacking
        changed += int(np.count_nonzero(samples_of(heard[: len(wanted)]) != samples_of(wanted)))
    return [
        Figure("frames missing in sentences", missing, "", most=0),
        Figure("samples that cutting up has changed", changed, "", most=0),
    ]


def _db(ratio: float) -> float:
    return 20 * float(np.log10(max(ratio, 1e-9)))


# -- words -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Said:
    """A recording and its words."""

    text: str
    pcm: bytes


@dataclass(frozen=True, slots=True)
class Words:
    """How many of the words were recognised, of sentences that came over one kind of line."""

    line: str
    words: int
    direct: float
    """The share of the words that was right, straight from the line at 8 kHz."""
    bridged: float
    """The same, of what the model gets."""


def spoken(count: int) -> Sequence[Said]:
    """``count`` of the recordings, of both speakers and both roles in turn; all, where there are fewer."""
    entries = json.loads((RECORDINGS / "manifest.json").read_text(encoding="utf-8"))
    step = max(1, len(entries) // count)
    chosen = [entries[place] for place in range(0, len(entries), step | 1)][:count]
    chosen += [entry for entry in entries if entry not in chosen][: count - len(chosen)]
    return [Said(entry["text"], load_wav(RECORDINGS / entry["file"])) for entry in chosen]


def lines(seed: int = SEED) -> dict[str, Line]:
    """The kinds of lines over which a caller's sound may come to us."""
    chance = np.random.default_rng(seed)

    def noisy(pcm: bytes) -> bytes:
        sound = samples_of(pcm).astype(np.float64)
        level = 20 * np.log10(float(np.sqrt(np.mean(sound**2))) / FULL_SCALE) - 10
        noise = street(len(sound) / TELEPHONE_RATE, chance)[: len(sound)]
        return saturated(sound + at_level(noise, level))

    return {
        "as recorded": lambda pcm: pcm,
        "mu-law": _ulaw,
        "A-law": _alaw,
        "mu-law, street noise 10 dB below": lambda pcm: _ulaw(noisy(pcm)),
        "mu-law, echo of an entrance hall": lambda pcm: _ulaw(_hall(pcm)),
    }


def recognised(recogniser: Recogniser, name: str, line: Line, said: Sequence[Said]) -> Words:
    """The share of the words that the recogniser gets over a line, before and behind the bridge."""
    total = direct = bridged = 0
    for one in said:
        wanted = plain(one.text)
        pcm = line(one.pcm)
        total += len(wanted)
        straight = recogniser.recognise_now(pcm, TELEPHONE_RATE, "pt", PROMPT).text
        wide = recogniser.recognise_now(up(pcm), MODEL_RATE, "pt", PROMPT).text
        direct += min(len(wanted), word_errors(wanted, plain(straight)))
        bridged += min(len(wanted), word_errors(wanted, plain(wide)))
    return Words(name, total, 1 - direct / total, 1 - bridged / total)


def plain(text: str) -> list[str]:
    """Its words, without punctuation and capitals."""
    return "".join(sign for sign in text.lower() if sign.isalnum() or sign.isspace()).split()


def word_errors(wanted: Sequence[str], got: Sequence[str]) -> int:
    """Words put in, left out or changed: the Levenshtein distance in words."""
    row = list(range(len(got) + 1))
    for number, word in enumerate(wanted, 1):
        before, row[0] = row[0], number
        for place, other in enumerate(got, 1):
            least = min(row[place] + 1, row[place - 1] + 1, before + (word != other))
            before, row[place] = row[place], least
    return row[-1]


def _ulaw(pcm: bytes) -> bytes:
    return ulaw_decode(ulaw_encode(pcm))


def _alaw(pcm: bytes) -> bytes:
    return alaw_decode(alaw_encode(pcm))


def _hall(pcm: bytes) -> bytes:
    """A first echo 60 ms later and 10 dB quieter, and a tail that falls by 60 dB in 0.6 s."""
    chance = np.random.default_rng(SEED)
    length = round(0.6 * TELEPHONE_RATE)
    path = chance.normal(0, 1, length) * 10 ** (-3 * np.arange(length) / length)
    path *= 10 ** (-12 / 20) / float(np.sqrt(np.sum(path**2)))
    path[0] = 1.0
    path[round(0.06 * TELEPHONE_RATE)] += 10 ** (-10 / 20)
    sound = samples_of(pcm).astype(np.float64)
    size = 1 << (len(sound) + length).bit_length()
    return saturated(np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(path, size), size)[: len(sound)])


__all__ = [
    "Figure",
    "Line",
    "Said",
    "Words",
    "down",
    "lines",
    "recognised",
    "sound_figures",
    "spoken",
    "up",
    "word_errors",
]
