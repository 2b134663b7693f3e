"""Each sentence of the table is read as people mean it; keys are read as they are set."""

import pytest

from tests.visits.answers import CASES
from visits.consent import Reading, classify, key_reading


@pytest.mark.parametrize(("sentence", "reading"), CASES, ids=[sentence for sentence, _ in CASES])
def test_a_sentence_is_read_as_people_mean_it(sentence: str, reading: Reading) -> None:
    assert classify(sentence) is reading


def test_the_table_is_large_enough_to_mean_something() -> None:
    assert len(CASES) >= 400
    assert {reading for _, reading in CASES} == set(Reading)
    assert len({sentence for sentence, _ in CASES}) == len(CASES)


def test_a_full_stop_before_the_last_no_makes_it_a_refusal_of_its_own() -> None:
    assert classify("Não tem problema não.") is Reading.CONSENT
    assert classify("Não tem problema. Não.") is Reading.REFUSAL


@pytest.mark.parametrize("text", ["", " ", "\n", "\t \n", "\u200b"])
def test_silence_is_nothing(text: str) -> None:
    assert classify(text) is Reading.NOTHING


def test_keys() -> None:
    assert key_reading("1") is Reading.CONSENT
    assert key_reading("2") is Reading.REFUSAL
    assert {key_reading(key) for key in ("0", "3", "9", "*", "#", "", "11", "A")} == {Reading.UNCLEAR}
    assert key_reading("*", authorize_key="*", deny_key="#") is Reading.CONSENT
    assert key_reading("1", authorize_key="*", deny_key="#") is Reading.UNCLEAR


def test_keys_that_a_tenant_set_to_the_same_digit_decide_nothing() -> None:
    assert key_reading("1", authorize_key="1", deny_key="1") is Reading.UNCLEAR


def test_no_key_is_never_consent_even_where_the_setting_is_empty() -> None:
    assert key_reading("", authorize_key="", deny_key="2") is Reading.UNCLEAR
