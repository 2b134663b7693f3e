"""The tests' own instruments: a dropout, a late packet, a wrong tone, a configured mirror are noticed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bridge.softphone import load_wav
from tests.pbx.gatehouse import recording
from tests.pbx.installation import ANY_MIRROR, mirror
from tests.pbx.listening import compare, level, speech, tone, tone_seconds
from tests.pbx.rtp import BUFFER_S, FRAME, FRAME_S, Packet, Samples, play_out
from tests.pbx.sip import Message, SipError, authorization, description, media_of
from tests.pbx.whole import Followed, follow, in_order

SPOKEN: Samples = np.frombuffer(load_wav(recording("v05-leticia")), "<i2")


def packets(samples: Samples, *, lost: range = range(0), late_ms: float = 0.0) -> list[Packet]:
    """Samples as RTP packets that come on time, but for those that are lost or late."""
    found = []
    for number in range(len(samples) // FRAME):
        pcm = samples[number * FRAME : (number + 1) * FRAME].tobytes()
        at = 100.0 + number * FRAME_S
        if number in lost:
            if not late_ms:
                continue
            at += late_ms / 1000
        found.append(Packet(at, number, number * FRAME, 1, pcm))
    return found


def loudest_frame() -> int:
    """A frame in the middle of a word."""
    frames = SPOKEN[: len(SPOKEN) // FRAME * FRAME].astype(np.float64).reshape(-1, FRAME)
    power = np.convolve((frames**2).mean(axis=1), np.ones(5), "valid")
    return int(power.argmax())


def test_what_comes_in_time_is_heard_whole() -> None:
    found = compare(SPOKEN, play_out(packets(SPOKEN)))
    assert found.longest_dropout_ms == 0 and found.worst_likeness > 0.9999 and abs(found.gain_db) < 0.01


@pytest.mark.parametrize("frames", [1, 2, 3, 5])
def test_a_lost_packet_is_a_dropout_as_long_as_it(frames: int) -> None:
    at = loudest_frame()
    found = compare(SPOKEN, play_out(packets(SPOKEN, lost=range(at, at + frames))))
    assert found.longest_dropout_ms == pytest.approx(frames * 20, abs=1)


def test_a_late_packet_is_a_dropout_only_beyond_the_buffer() -> None:
    at = range(loudest_frame(), loudest_frame() + 3)
    in_time = play_out(packets(SPOKEN, lost=at, late_ms=BUFFER_S * 1000 - 5))
    too_late = play_out(packets(SPOKEN, lost=at, late_ms=BUFFER_S * 1000 + 5))
    assert (in_time.late, compare(SPOKEN, in_time).longest_dropout_ms) == (0, 0)
    assert too_late.late == 3
    assert compare(SPOKEN, too_late).longest_dropout_ms == pytest.approx(60, abs=1)


def test_silence_in_place_of_speech_is_a_dropout_though_every_packet_came() -> None:
    muted = SPOKEN.copy()
    at = loudest_frame() * FRAME
    muted[at : at + 4 * FRAME] = 0
    assert compare(SPOKEN, play_out(packets(muted))).longest_dropout_ms >= 70


def test_another_recording_is_not_alike() -> None:
    other = np.frombuffer(load_wav(recording("r05-grave")), "<i2")
    assert compare(SPOKEN, play_out(packets(other))).worst_likeness < 0.6


def test_a_quieter_recording_is_measured_so() -> None:
    assert compare(SPOKEN, play_out(packets((SPOKEN // 2).astype(np.int16)))).gain_db == pytest.approx(
        -6, abs=0.3
    )


def followed(samples: Samples) -> Followed:
    """What was said, along this, with a second of silence around it."""
    quiet = np.zeros(8000, np.int16)
    return follow(SPOKEN, np.concatenate([quiet, samples, quiet]))


def test_what_came_whole_is_followed_to_its_end() -> None:
    found = followed(SPOKEN)
    assert (found.begins, found.left_out_ms, found.put_in_ms) == (8000, 0, 0) and abs(found.gain_db) < 0.01


@pytest.mark.parametrize("frames", [1, 2, 3, 5, 30])
def test_what_was_left_out_put_in_said_twice_or_muted_is_found(frames: int) -> None:
    at, size = loudest_frame() * FRAME, frames * FRAME
    muted = SPOKEN.copy()
    muted[at : at + size] = 0
    ms = frames * 20.0
    left_out = followed(np.delete(SPOKEN, slice(at, at + size)))
    assert (left_out.left_out_ms, left_out.left_out_of_speech_ms, left_out.put_in_ms) == (ms, ms, 0)
    for put_in in (np.zeros(size, np.int16), SPOKEN[at - size : at]):
        assert followed(np.insert(SPOKEN, at, put_in)).put_in_ms == ms
    # What is no speech can't be missed: a long stretch has pauses in it.
    assert followed(muted).missing_ms == ms or (frames > 5 and followed(muted).missing_ms > 200)


def test_many_short_gaps_are_each_as_long_as_they_are() -> None:
    at = loudest_frame() * FRAME - 24 * FRAME
    torn = SPOKEN
    for number in range(4):
        torn = np.insert(torn, at + number * 7 * FRAME, np.zeros(FRAME, np.int16))
    found = followed(torn)
    assert (found.put_in_ms, found.left_out_ms, sum(found.slips_ms)) == (20, 0, 80)


def test_what_a_pause_is_longer_or_shorter_by_is_told_from_what_a_word_is() -> None:
    said = np.concatenate([SPOKEN, np.zeros(8000, np.int16), SPOKEN])
    first, second = speech(said)[:2]
    for at, in_speech in (((first.end + second.start) // 2, 0.0), (loudest_frame() * FRAME, 60.0)):
        longer = follow(said, np.insert(said, at, np.zeros(3 * FRAME, np.int16)), 0, FRAME)
        assert (longer.put_in_ms, longer.put_into_speech_ms) == (60, in_speech)
        shorter = follow(said, np.delete(said, slice(at, at + 3 * FRAME)), 0, FRAME)
        assert (shorter.left_out_ms, shorter.left_out_of_speech_ms) == (60, in_speech)


def test_a_path_that_is_late_by_a_part_of_a_sample_loses_nothing() -> None:
    turns = np.fft.rfftfreq(len(SPOKEN))
    late = np.fft.irfft(np.fft.rfft(SPOKEN) * np.exp(-2j * np.pi * turns * 0.5), len(SPOKEN))
    found = followed(late.astype(np.int16))
    assert (found.left_out_ms, found.put_in_ms) == (0, 0)


def test_packets_are_put_in_the_order_of_their_numbers_whenever_they_came() -> None:
    sent = [replace(each, sequence=(each.sequence + 65_500) % 65_536) for each in packets(SPOKEN)]
    whole = SPOKEN[: len(sent) * FRAME]
    at = loudest_frame()
    late = [replace(each, at=each.at + 0.7) for each in sent]
    swapped = [*sent[:at], sent[at + 1], sent[at], *sent[at + 2 :]]
    twice = [*sent[:at], sent[at], *sent[at:]]
    for came in (sent, late, swapped, twice):
        assert np.array_equal(in_order(came).samples, whole)
    lost = in_order([*sent[:at], *sent[at + 3 :]])
    assert len(lost.samples) == len(whole) and not lost.samples[at * FRAME : (at + 3) * FRAME].any()
    other = [replace(each, source=2, at=each.at + 60) for each in sent[:7]]
    both = in_order([*sent, *other])
    assert np.array_equal(both.samples, np.concatenate([whole, SPOKEN[: 7 * FRAME]]))
    assert len(both.since(other[0].at)) == 7 * FRAME


def test_speech_and_tones_are_told_from_silence() -> None:
    silence = np.zeros(8000, np.int16)
    burst = np.frombuffer(tone(700, 0.5), "<i2")
    assert not speech(silence) and level(silence) == -130
    assert len(speech(np.concatenate([silence, SPOKEN, silence, silence, SPOKEN]))) == 2
    assert tone_seconds(np.concatenate([silence, burst]), 700) == pytest.approx(0.5, abs=0.02)
    assert tone_seconds(burst, 950) == 0
    assert tone_seconds(SPOKEN, 700) < 0.1


def test_a_digest_is_the_one_that_rfc_2617_shows() -> None:
    challenge = 'Digest realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", opaque="5ccc"'
    found = authorization(challenge, "GET", "/dir/index.html", "Mufasa", "Circle Of Life")
    assert 'response="670fd8c2df070c60b045671b8b24ff02"' in found and 'opaque="5ccc"' in found
    with pytest.raises(SipError, match="SHA-256"):
        authorization('Digest realm="a", nonce="b", algorithm=SHA-256', "GET", "/", "u", "p")


def test_messages_are_read_as_they_were_written() -> None:
    body = description("127.0.0.1", 4000, ("PCMU",), 1)
    sent = Message("INVITE sip:a@b SIP/2.0", [("Via", "SIP/2.0/UDP h;branch=z9"), ("CSeq", "7 INVITE")], body)
    found = Message.parse(sent.encode())
    assert (found.method, found.cseq, found.branch, found.status) == ("INVITE", 7, "z9", 0)
    assert media_of(found.body, ("PCMA", "PCMU")).codec == "PCMU"
    assert found.answer(486).first == "SIP/2.0 486 Busy Here"
    with pytest.raises(SipError):
        media_of(found.body, ("PCMA",))
    with pytest.raises(SipError):
        Message.parse(b"GET / HTTP/1.1\r\n\r\n")


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("sources.list", "deb http://one.example/debian bookworm main\n", "http://one.example/debian"),
        (
            "sources.list",
            "# deb http://no.example/debian sid main\n"
            "deb [signed-by=/k] https://two.example/debian/ stable main\n",
            "https://two.example/debian",
        ),
        (
            "sources.list.d/debian.sources",
            "Types: deb\n# a comment\nURIs: http://three.example/debian\nSuites: bookworm bookworm-updates\n"
            "Components: main\n",
            "http://three.example/debian",
        ),
        (
            "sources.list.d/many.sources",
            "Types: deb\nURIs: http://four.example/debian-security\nSuites: trixie-security\n"
            "Components: main\n\n"
            "Types: deb\nEnabled: no\nURIs: http://off.example/debian\nSuites: trixie\nComponents: main\n\n"
            "Types: deb deb-src\nURIs:\n http://five.example/debian\nSuites: trixie\nComponents: main\n",
            "http://five.example/debian",
        ),
        ("sources.list.d/other.list", "deb https://packages.example cloud-bookworm main\n", ANY_MIRROR),
        ("sources.list", "deb http://archive.ubuntu.com/ubuntu noble main\n", ANY_MIRROR),
    ],
)
def test_the_mirror_is_the_machines_own(tmp_path: Path, name: str, text: str, expected: str) -> None:
    (tmp_path / "apt/sources.list.d").mkdir(parents=True)
    (tmp_path / "apt" / name).write_text(text)
    assert mirror(tmp_path) == expected
