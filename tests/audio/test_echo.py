"""The echo guard: our own voice comes back and interrupts nobody; a caller over it does."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio import canceller, echo
from audio.echo import EchoGuard, EchoProfile
from audio.frames import FLOOR_DBOV, FRAME_BYTES, FRAME_SAMPLES, SILENCE, level_dbov, saturated
from bench.hearing import Found, Scene, at_level, run, street
from tests.audio.test_vad import RECORDINGS, model, over_the_line, recording, white

Doubles = npt.NDArray[np.float64]


def talk(seconds: float, seed: int = 1) -> Doubles:
    """Recorded sentences, one after the other, at −20 dBov."""
    chance = np.random.default_rng(seed)
    pieces = [at_level(recording(RECORDINGS[int(n)]), -20) for n in chance.integers(0, 84, 40)]
    return np.concatenate(pieces)[: round(seconds * 8000)]


def echoed(sound: Doubles, delay_ms: int, gain_db: float) -> Doubles:
    late = np.concatenate((np.zeros(delay_ms * 8), sound))[: len(sound)]
    return late * 10 ** (gain_db / 20) + white(len(sound) / 8000, -65)


def frames(sound: Doubles) -> list[bytes]:
    pcm = over_the_line(sound)
    return [pcm[place : place + FRAME_BYTES] for place in range(0, len(pcm) // 320 * 320, FRAME_BYTES)]


def listen(
    guard: EchoGuard, ours: list[bytes], heard: list[bytes], speaking: bool = False
) -> list[tuple[bytes, float]]:
    left = []
    for one, other in zip(ours, heard, strict=True):
        guard.played(one)
        left += guard.heard(other, speaking=speaking)
    return left


def taken_out_db(heard: list[bytes], left: list[tuple[bytes, float]]) -> float:
    return level_dbov(b"".join(heard)) - level_dbov(b"".join(pcm for pcm, _ in left))


@pytest.mark.parametrize("delay_ms", [20, 133, 300])
def test_the_echo_is_learnt_and_taken_out(delay_ms: int) -> None:
    sound = talk(8)
    ours, heard = (
        [saturated(sound[n : n + 160]) for n in range(0, 64000, 160)],
        frames(echoed(sound, delay_ms, -6)),
    )
    left = listen(EchoGuard(), ours, heard)
    assert taken_out_db(heard[:25], left[:25]) >= 0
    assert taken_out_db(heard[250:], left[250:]) > 10


@pytest.mark.parametrize("delay_ms", [45, 260])
def test_where_the_echo_begins_is_found_within_a_second_of_talk(delay_ms: int) -> None:
    sound = talk(4, 3)
    ours, heard = (
        [saturated(sound[n : n + 160]) for n in range(0, 32000, 160)],
        frames(echoed(sound, delay_ms, -6)),
    )
    guard = EchoGuard()
    left = listen(guard, ours, heard)
    assert guard._canceller is not None and guard._canceller.located is not None
    # Heard blocks are paired with the played block before: the filter has one block less to bridge.
    assert 0 <= delay_ms / 20 - guard._canceller.located <= 2
    assert taken_out_db(heard[100:150], left[100:150]) > 9, "in the third second"


@pytest.mark.parametrize("street_dbov", [-65, -30])
def test_a_caller_whom_nobody_noticed_does_not_spoil_what_was_learnt(street_dbov: float) -> None:
    sound, caller = talk(12), talk(12, 2)
    echo = echoed(sound, 133, -6)
    caller[: 3 * 8000] = 0
    caller[8 * 8000 :] = 0
    ours = [saturated(sound[n : n + 160]) for n in range(0, 96000, 160)]
    heard = frames(
        echo + caller + street(12, np.random.default_rng(1))[:96000] * 10 ** ((street_dbov + 30) / 20)
    )
    guard = EchoGuard()
    listen(guard, ours[:400], heard[:400])
    assert guard._canceller is not None
    only_echo = frames(echo)
    left = listen(guard, ours[400:], only_echo[400:])
    assert taken_out_db(only_echo[400:425], left[:25]) > 6, "at once when the caller is silent again"
    assert taken_out_db(only_echo[450:], left[50:]) > 12


def test_an_echo_that_comes_by_another_way_is_found_again() -> None:
    sound = talk(16)
    ours = [saturated(sound[n : n + 160]) for n in range(0, 128000, 160)]
    before, after = frames(echoed(sound, 60, -6)), frames(echoed(sound, 240, -6))
    guard = EchoGuard()
    listen(guard, ours[:250], before[:250])
    assert guard._canceller is not None
    assert guard._canceller.located in (1, 2, 3)
    left = listen(guard, ours[250:], after[250:])
    assert guard._canceller.located in (10, 11, 12)
    assert taken_out_db(after[550:], left[300:]) > 10


def test_the_bound_does_not_fall_below_the_street_as_soon_as_we_fall_silent() -> None:
    """A voice detector goes on hearing speech for some windows: what it hears then is no caller."""
    noise = street(6, np.random.default_rng(2))[:48000]
    sound = talk(6)
    sound[4 * 8000 :] = 0
    ours = [saturated(sound[n : n + 160]) for n in range(0, 48000, 160)]
    left = listen(EchoGuard(), ours, frames(echoed(sound, 100, -6) + noise))
    levels = [level_dbov(pcm) for pcm, _ in left]
    for number in range(201, 213):
        _, floor = left[number]
        assert floor >= min(np.median(levels[170:213]) - 3, left[number - 1][1] - 3.1), number


@pytest.mark.parametrize("delay_ms", [0, 300])
def test_from_the_first_block_on_the_echo_is_below_the_bound(delay_ms: int) -> None:
    sound = talk(4)
    ours, heard = (
        [saturated(sound[n : n + 160]) for n in range(0, 32000, 160)],
        frames(echoed(sound, delay_ms, -6)),
    )
    for number, (pcm, floor) in enumerate(listen(EchoGuard(), ours, heard)):
        assert level_dbov(pcm) <= max(floor, -60), number


def test_on_a_line_without_echo_a_soft_caller_soon_counts() -> None:
    sound = talk(3)
    ours = [saturated(sound[n : n + 160]) for n in range(0, 24000, 160)]
    guard = EchoGuard()
    left = listen(guard, ours, frames(white(3, -65)))
    assert max(floor for _, floor in left[:40]) > -25, "before anything is learnt an echo is assumed"
    assert guard.gain_db == -25
    assert max(floor for _, floor in left[100:]) < -30


def test_on_a_line_without_echo_the_filter_rests_until_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    worked = Mock(wraps=canceller.cancel)
    monkeypatch.setattr("audio.echo.cancel", worked)
    sound = talk(9)
    ours = [saturated(sound[n : n + 160]) for n in range(0, 72000, 160)]
    guard = EchoGuard()
    listen(guard, ours[:100], [SILENCE] * 100)
    worked.reset_mock()
    listen(guard, ours[100:150], [SILENCE] * 50)
    assert worked.call_count == 0
    heard = frames(echoed(sound, 60, -6))[150:]
    left = listen(guard, ours[150:], heard)
    assert worked.call_count > 100
    assert taken_out_db(heard[150:], left[150:]) > 10


def over_us(quiet: int, loud: int, then: str) -> bool:
    """Whether a filter that rested still does after so many loud blocks over our talk, and what came then."""
    rest = echo._Rest()
    for _ in range(canceller.BLOCKS + 1 + quiet):
        rest.over_us(quiet=True)
    assert rest.resting
    for _ in range(loud):
        rest.over_us(quiet=False)
    if then == "it ends before our voice":
        for _ in range(10):
            rest.over_us(quiet=True)
    else:
        rest.beside_us(quiet=then == "it ends with our voice")
    return rest.resting


@pytest.mark.parametrize("quiet", [0, 100])
def test_a_caller_who_speaks_on_as_we_fall_silent_wakes_no_filter(quiet: int) -> None:
    for loud in range(50):
        assert over_us(quiet, loud, "it goes on without us"), loud


@pytest.mark.parametrize("end", ["it ends before our voice", "it ends with our voice"])
def test_what_ends_with_our_voice_may_be_our_echo_and_wakes_the_filter(end: str) -> None:
    assert [over_us(3, loud, end) for loud in (0, 4, 5, 25, 49)] == [True, True, False, False, False]


def test_what_goes_on_for_a_second_of_our_talk_wakes_the_filter() -> None:
    assert not over_us(0, 50, "it goes on without us")


def test_pauses_in_our_talk_are_no_line_without_echo() -> None:
    """After an echo that comes soon it is quiet while something of ours might still come back."""
    sound = talk(30)
    for begin in range(8000, len(sound), 8000):
        sound[begin : begin + 3000] = 0
    ours = [saturated(sound[n : n + 160]) for n in range(0, 240000, 160)]
    guard = EchoGuard()
    assert guard._canceller is not None
    heard = frames(echoed(sound, 20, -6))
    for place in range(150, 1500, 50):
        listen(
            guard,
            ours[place - 50 if place > 150 else 0 : place],
            heard[place - 50 if place > 150 else 0 : place],
        )
        assert guard._canceller.located in (0, 1), place


def test_a_caller_teaches_it_nothing() -> None:
    sound, caller = talk(6), talk(6, 2)
    ours = [saturated(sound[n : n + 160]) for n in range(0, 48000, 160)]
    guard = EchoGuard()
    listen(guard, ours[:150], frames(white(3, -65)))
    before = guard.gain_db
    listen(guard, ours[150:], frames(caller[:24000]), speaking=True)
    assert guard.gain_db == before


def test_where_nothing_was_played_what_is_heard_is_left_alone() -> None:
    guard, heard = EchoGuard(), frames(talk(2))
    left = listen(guard, [SILENCE] * len(heard), heard)
    assert [pcm for pcm, _ in left] == heard
    assert {floor for _, floor in left} == {FLOOR_DBOV}


def test_lost_frames_and_a_standstill_are_paired_anew() -> None:
    sound = talk(20)
    ours = [saturated(sound[n : n + 160]) for n in range(0, 160000, 160)]
    heard = frames(echoed(sound, 100, -6))
    guard, left = EchoGuard(), []
    for number, (one, other) in enumerate(zip(ours, heard, strict=True)):
        guard.played(one, skipped=0)
        if number not in (300, 301, 302):  # never came
            left += guard.heard(other, speaking=False)
    assert guard.moved == 1
    assert taken_out_db(heard[600:], left[597:]) > 10
    # The clock stood still for 400 ms: nothing was played, and what was heard comes at once.
    more = listen(guard, ours[:1], [b"".join(heard[:1]) + SILENCE * 20])
    guard.played(SILENCE, skipped=19)
    assert len(more) == 21
    again = listen(guard, ours[300:600], heard[300:600])
    assert taken_out_db(heard[450:600], again[150:]) > 6


@pytest.mark.parametrize("missing", [20, 45, 64, 80, 200])
@pytest.mark.parametrize("turned", range(0, 64, 9))
def test_we_may_talk_on_for_long_while_nothing_is_heard(missing: int, turned: int) -> None:
    """What is heard then lags behind by more than is remembered, wherever in the ring that is."""
    sound = talk(12)
    ours = [saturated(sound[n : n + 160]) for n in range(0, 96000, 160)]
    heard = frames(echoed(sound, 300, -6))
    guard = EchoGuard()
    listen(guard, ours[: 200 + turned], heard[: 200 + turned])
    assert guard._canceller is not None and guard._canceller.located is not None
    for frame in ours[200 + turned : 200 + turned + missing]:
        guard.played(frame)
    left = listen(guard, ours[300:400], heard[300:400])
    assert len(left) == 100


def test_early_frames_are_paired_anew_at_once() -> None:
    sound = talk(8)
    ours = [saturated(sound[n : n + 160]) for n in range(0, 64000, 160)]
    heard = frames(echoed(sound, 100, -6))
    guard = EchoGuard()
    listen(guard, ours[:200], heard[:200])
    guard.heard(b"".join(heard[200:202]), speaking=False)
    assert guard.moved == 1
    left = listen(guard, ours[200:398], heard[202:400])
    assert taken_out_db(heard[202:400], left) > 6


def test_who_is_interrupted_time_and_again_begins_anew() -> None:
    """A path that has changed: what interrupts us is our echo, and must not do so for ever."""
    sound = talk(12)
    ours = [saturated(sound[n : n + 160]) for n in range(0, 96000, 160)]
    guard = EchoGuard()
    listen(guard, ours[:200], frames(white(4, -65)))
    learnt = guard.gain_db
    for start in (200, 240, 280):
        assert guard.begun_anew == 0
        listen(guard, ours[start : start + 20], frames(white(0.4, -65)), speaking=False)
        listen(guard, ours[start + 20 : start + 40], frames(white(0.4, -65)), speaking=True)
    assert guard.begun_anew == 1
    assert learnt == -25
    assert guard.gain_db == EchoProfile().assumed_gain_db


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.one_of(
            st.tuples(
                st.just("played"), st.binary(min_size=FRAME_BYTES, max_size=FRAME_BYTES), st.integers(0, 90)
            ),
            st.tuples(
                st.just("heard"), st.binary(max_size=1300).map(lambda b: b[: len(b) // 2 * 2]), st.booleans()
            ),
        ),
        max_size=120,
    )
)
def test_whatever_comes_it_gives_back_whole_blocks_and_never_more_than_it_heard(
    steps: list[tuple[str, bytes, int | bool]],
) -> None:
    guard, samples, blocks = EchoGuard(), 0, 0
    for what, pcm, more in steps:
        if what == "played":
            guard.played(pcm, int(more))
            continue
        samples += len(pcm) // 2
        for left, floor in guard.heard(pcm, speaking=bool(more)):
            blocks += 1
            assert len(left) == FRAME_BYTES
            assert FLOOR_DBOV <= floor <= 12
        assert blocks == samples // FRAME_SAMPLES


def tone(hertz: float, loud: float, square: bool, blocks: int) -> Doubles:
    sine = np.sin(2 * np.pi * hertz * np.arange(blocks * FRAME_SAMPLES) / 8000)
    return loud * (np.where(sine >= 0, 1.0, -1.0) if square else sine)


EXTREMES = st.one_of(
    st.builds(
        tone,
        st.sampled_from([50, 400, 425, 697, 1633, 2000, 3999]),
        st.sampled_from([1.0, 300.0, 32767.0]),
        st.booleans(),
        st.just(50),
    ),
    st.just(np.zeros(50 * FRAME_SAMPLES)),
    st.just(np.full(50 * FRAME_SAMPLES, -32768.0)),
    st.just(white(1, -3)),
)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(EXTREMES, EXTREMES, st.booleans()), min_size=1, max_size=6))
def test_however_loud_and_sudden_both_sides_are_its_numbers_stay_numbers(
    seconds: list[tuple[Doubles, Doubles, bool]],
) -> None:
    guard = EchoGuard()
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        for ours, heard, speaking in seconds:
            for place in range(0, len(ours), FRAME_SAMPLES):
                guard.played(saturated(ours[place : place + FRAME_SAMPLES]))
                came = saturated(heard[place : place + FRAME_SAMPLES])
                for left, _ in guard.heard(came, speaking=speaking):
                    # Below one step of a sample it is the rounding that is heard.
                    assert level_dbov(left) <= max(level_dbov(came) + 0.1, -90)


def test_tones_on_both_sides_do_not_cost_the_rest_of_the_call_its_echo_guard() -> None:
    """A key's loud tone from either side teaches the filter nonsense: it begins anew, and learns again."""
    guard = EchoGuard()
    ours, heard = tone(50, 32767, square=True, blocks=300), tone(1000, 32767, square=True, blocks=300)
    with np.errstate(over="raise", invalid="raise"):
        for place in range(0, len(ours), FRAME_SAMPLES):
            guard.played(saturated(ours[place : place + FRAME_SAMPLES]))
            guard.heard(saturated(heard[place : place + FRAME_SAMPLES]), speaking=False)
    sound = talk(12)
    said = [saturated(sound[n : n + 160]) for n in range(0, 96000, 160)]
    echo = frames(echoed(sound, 100, -6))
    left = listen(guard, said, echo)
    assert taken_out_db(echo[450:], left[450:]) > 10


def test_half_a_sample_is_an_error_and_nothing_of_it_is_taken() -> None:
    guard = EchoGuard()
    with pytest.raises(ValueError, match="whole number"):
        guard.heard(bytes(321), speaking=False)
    assert guard.heard(bytes(320), speaking=False) == [(bytes(320), FLOOR_DBOV)]


@pytest.mark.parametrize(
    ("wrong", "allowed"),
    [({"assumed_gain_db": 13}, "-40 to 12"), ({"margin_db": -1}, "0 to 24")],
)
def test_a_profile_that_makes_no_sense_is_refused(wrong: dict[str, float], allowed: str) -> None:
    with pytest.raises(ValueError, match=allowed):
        EchoProfile(**wrong)


# -- with the ear and the playout, as in a call ------------------------------------------------------------

ECHO = Scene("our echo at -6 dB", 2, echo_db=-6)


def scene(**changed: object) -> Found:
    return run(model(), replace(ECHO, **changed))  # type: ignore[arg-type]


def test_our_echo_interrupts_nobody_and_without_the_guard_it_would() -> None:
    assert scene().false == 0
    assert scene(minutes=0.5, mode="none").false > 5


def test_callers_are_heard_over_our_echo_and_without_it() -> None:
    over_echo = scene(minutes=3, caller=True)
    assert over_echo.spoken >= 20
    assert len(over_echo.caught_ms) >= 0.9 * over_echo.spoken  # a short run, with each call's first seconds
    assert over_echo.false == 0
    assert np.median(over_echo.caught_ms) <= 90
    clean = scene(minutes=3, caller=True, echo_db=None)
    assert (len(clean.caught_ms), clean.false) == (clean.spoken, 0)
    assert np.median(clean.caught_ms) <= 100


def test_callers_are_heard_over_our_echo_on_a_loud_street() -> None:
    found = scene(minutes=3, caller=True, noise=street, noise_dbov=-30)
    assert len(found.caught_ms) >= 0.85 * found.spoken
    assert found.false <= 1
    assert np.median(found.caught_ms) <= 110


def test_the_street_is_no_caller() -> None:
    assert scene(echo_db=None, noise=street, noise_dbov=-30).false == 0
    assert scene(echo_db=None, noise=street, noise_dbov=-30, we_talk=False).false == 0
