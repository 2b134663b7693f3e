"""What leaves the speaker the turn, and what never does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.visits.answers import CASES
from visits.backchannel import AGREEMENT, LONGEST, SOUNDS, is_backchannel
from visits.consent import Reading, classify


@pytest.mark.parametrize(
    "text", ["Ahã.", "Uhum", "hum...", "Hm-hm", "Tá.", "Tá bom.", "Sim, sim.", "Ok", "É.", ""]
)
def test_a_listener_leaves_the_turn(text: str) -> None:
    assert is_backchannel(text)


@pytest.mark.parametrize(
    "text", ["Não.", "Hum, não sei.", "Quem é?", "Alô?", "Espera.", "Pedro.", "Sim sim sim sim sim", "501"]
)
def test_who_says_something_takes_it(text: str) -> None:
    assert not is_backchannel(text)


@pytest.mark.parametrize("text", ["Ahã.", "hum", "Uhum, uhum."])
def test_a_mere_sound_is_no_answer(text: str) -> None:
    assert is_backchannel(text, sounds_only=True)


@pytest.mark.parametrize("text", ["Sim.", "Tá bom.", "Ok.", "Isso.", "É.", "", "Não."])
def test_where_an_answer_is_awaited_agreement_is_one_and_so_may_be_what_was_not_understood(text: str) -> None:
    assert not is_backchannel(text, sounds_only=True)


@pytest.mark.parametrize(("text", "reading"), CASES)
def test_no_answer_that_decides_anything_is_taken_for_a_mere_sound(text: str, reading: Reading) -> None:
    if reading not in (Reading.NOTHING, Reading.UNCLEAR):
        assert not is_backchannel(text, sounds_only=True)
    if reading in (Reading.REFUSAL, Reading.WAIT, Reading.QUESTION, Reading.DESK):
        assert not is_backchannel(text)


@given(st.lists(st.sampled_from(sorted(SOUNDS)), min_size=1, max_size=LONGEST))
def test_no_sound_is_evidence_either_way(said: list[str]) -> None:
    assert classify(" ".join(said)) in (Reading.NOTHING, Reading.UNCLEAR)


@given(st.lists(st.sampled_from(sorted(SOUNDS | AGREEMENT)), min_size=1, max_size=LONGEST))
def test_no_backchannel_refuses_or_asks(said: list[str]) -> None:
    reading = classify(" ".join(said))
    assert reading not in (Reading.REFUSAL, Reading.WAIT, Reading.QUESTION), reading
