"""G.711 against its definition, on every sample and every code.

The oracle is the recommendation's own construction (tables 1a to 2b of ITU-T G.711): a list of decision
values, built segment by segment; the code of a sample is the interval that it lies in, and a code decodes to
the middle of its interval (µ-law's first one to zero).
"""

from __future__ import annotations

import bisect

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio import g711

ALL_SAMPLES = np.arange(-32768, 32768, dtype="<i2")
ALL_CODES = bytes(range(256))


def decisions(law: str) -> list[int]:
    """The 129 ends of the positive intervals: x1 … x129, on the recommendation's own 13- or 14-bit scale."""
    ends = [0]
    if law == "u":
        # Segment 1: one interval of 1 and fifteen of 2; then sixteen of 4, of 8, … of 256.
        widths = [1] + [2] * 15 + [width for k in range(1, 8) for width in [2 << k] * 16]
    else:
        # Segment 1 has 32 intervals of 2; then sixteen of 4, of 8, … of 128.
        widths = [2] * 32 + [width for k in range(1, 7) for width in [2 << k] * 16]
    for width in widths:
        ends.append(ends[-1] + width)
    return ends


def interval_of(law: str, sample: int) -> int:
    ends = [end * (4 if law == "u" else 8) for end in decisions(law)]
    return min(127, bisect.bisect_right(ends, abs(sample)) - 1)


def code_of(law: str, interval: int, positive: bool) -> int:
    """The character signal: µ-law sends all bits inverted, A-law every even one."""
    if law == "u":
        return ~(interval | (0 if positive else 0x80)) & 0xFF
    return (interval | (0x80 if positive else 0)) ^ 0x55


def middle_of(law: str, interval: int) -> int:
    low, high = decisions(law)[interval : interval + 2]
    if law == "u":
        return 0 if interval == 0 else (low + high) // 2 * 4
    return (low + high) // 2 * 8


LAWS = {"u": (g711.ulaw_encode, g711.ulaw_decode), "a": (g711.alaw_encode, g711.alaw_decode)}


def decoded(law: str, codes: bytes) -> npt.NDArray[np.int16]:
    return np.frombuffer(LAWS[law][1](codes), "<i2")


def test_the_oracle_ends_where_the_recommendation_ends() -> None:
    assert decisions("u")[-1] == 8159 and len(decisions("u")) == 129
    assert decisions("a")[-1] == 4096 and len(decisions("a")) == 129


@pytest.mark.parametrize("law", ["u", "a"])
def test_every_sample_gets_the_code_of_its_interval(law: str) -> None:
    expected = bytes(code_of(law, interval_of(law, s), s >= 0) for s in ALL_SAMPLES.tolist())
    assert LAWS[law][0](ALL_SAMPLES.tobytes()) == expected


@pytest.mark.parametrize("law", ["u", "a"])
def test_every_code_gives_the_middle_of_its_interval(law: str) -> None:
    out = decoded(law, ALL_CODES)
    for interval in range(128):
        assert out[code_of(law, interval, True)] == middle_of(law, interval)
        assert out[code_of(law, interval, False)] == -middle_of(law, interval)


@pytest.mark.parametrize("law", ["u", "a"])
def test_coding_what_was_decoded_changes_nothing(law: str) -> None:
    encode, decode = LAWS[law]
    pcm = decode(ALL_CODES)
    assert decode(encode(pcm)) == pcm
    # µ-law has two zeros; the negative one comes back as the positive.
    expected = ALL_CODES.replace(b"\x7f", b"\xff") if law == "u" else ALL_CODES
    assert encode(pcm) == expected


def test_silence_codes_as_the_telephone_network_expects() -> None:
    assert set(g711.ulaw_encode(bytes(320))) == {g711.ULAW_SILENCE}
    assert set(g711.alaw_encode(bytes(320))) == {g711.ALAW_SILENCE}


@pytest.mark.parametrize("law", ["u", "a"])
def test_the_extremes_keep_their_sign(law: str) -> None:
    low, high = decoded(law, LAWS[law][0](np.array([-32768, 32767], dtype="<i2").tobytes()))
    assert -32768 < low < -32000 < 32000 < high


@pytest.mark.parametrize("law", ["u", "a"])
@given(codes=st.binary(max_size=400))
def test_any_bytes_at_all_decode(law: str, codes: bytes) -> None:
    assert len(LAWS[law][1](codes)) == 2 * len(codes)


@pytest.mark.parametrize("law", ["u", "a"])
def test_half_a_sample_is_an_error(law: str) -> None:
    with pytest.raises(ValueError, match="whole number"):
        LAWS[law][0](b"\x00\x00\x00")
