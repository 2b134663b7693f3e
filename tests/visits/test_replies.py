"""What people say at the intercom without meaning it as an answer never opens; what they mean as one does."""

import pytest

from tests.visits.answers import CASES
from tests.visits.replies import SAID
from visits.consent import Reading, classify

CONSENTS = [sentence for sentence, reading in SAID if reading is Reading.CONSENT]
OTHERS = [sentence for sentence, reading in SAID if reading is not Reading.CONSENT]


def respelled(sentence: str) -> set[str]:
    """As a recogniser may write it: with or without capitals and a full stop, its commas as full stops."""
    return {
        sentence,
        sentence + ".",
        sentence.capitalize() + ".",
        sentence.upper(),
        sentence.replace(",", "."),
    }


@pytest.mark.parametrize(("sentence", "reading"), SAID, ids=[sentence for sentence, _ in SAID])
def test_a_reply_is_read_as_it_was_meant(sentence: str, reading: Reading) -> None:
    assert classify(sentence) is reading


def test_the_table_is_large_and_says_nothing_twice() -> None:
    assert len(CONSENTS) >= 100
    assert len(OTHERS) >= 300
    assert len({sentence for sentence, _ in SAID}) == len(SAID)
    assert not {sentence for sentence, _ in SAID} & {sentence for sentence, _ in CASES}


@pytest.mark.parametrize("sentence", OTHERS)
def test_no_spelling_of_another_reply_is_consent(sentence: str) -> None:
    for spelling in respelled(sentence) | {sentence.replace(",", "")}:
        assert classify(spelling) is not Reading.CONSENT, spelling


@pytest.mark.parametrize("sentence", CONSENTS)
def test_a_plain_consent_is_understood_however_it_is_punctuated(sentence: str) -> None:
    for spelling in respelled(sentence):
        assert classify(spelling) is Reading.CONSENT, spelling


@pytest.mark.parametrize("sentence", CONSENTS)
def test_a_no_or_a_question_anywhere_takes_the_consent_away(sentence: str) -> None:
    words = sentence.split()
    for place in range(len(words)):
        for no in ("não", "nem", "nunca"):
            negated = " ".join([*words[:place], no, *words[place:]])
            assert classify(negated) is not Reading.CONSENT, negated
    assert classify(sentence + "?") is not Reading.CONSENT
    assert classify(f"{sentence} não") is not Reading.CONSENT
    assert classify(f"se {sentence}") is not Reading.CONSENT
