"""What a breaker says of its providers to those who watch, whatever happens to them in any order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from providers.breaker import FAILING_S, LASTING_S, Breaker, Standing

CODES = st.sampled_from(["key_refused", "rate_limit", "went_away", None])


def test_each_change_is_told_once() -> None:
    told: list[Standing] = []
    breaker = Breaker(2, told.append)
    breaker.well(0)
    breaker.well(0)
    breaker.failed(1, "went_away", 10.0)
    breaker.failed(1, "went_away", 10.0)
    breaker.failed(0, "key_refused", 20.0)
    breaker.well(1)
    assert told == [
        Standing(0, "well"),
        Standing(1, "failing", "went_away"),
        Standing(1, "passed_over", "went_away", FAILING_S),
        Standing(0, "passed_over", "key_refused", LASTING_S),
        Standing(1, "well"),
    ]


@given(st.lists(st.tuples(st.integers(0, 2), CODES, st.floats(0, 200))))
def test_what_is_told_is_what_the_breaker_does(happenings: list[tuple[int, str | None, float]]) -> None:
    last: dict[int, Standing] = {}
    breaker = Breaker(3, lambda standing: last.__setitem__(standing.at, standing))
    now = 0.0
    for at, code, later in happenings:
        now += later
        if code is None:
            breaker.well(at)
        else:
            breaker.failed(at, code, now)
        assert breaker.passed_over(at, now) == (last[at].state == "passed_over")
        assert (last[at].for_s > 0) == (last[at].state == "passed_over")
        assert (last[at].code == "") == (last[at].state == "well")
