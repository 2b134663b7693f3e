"""What no wording, spelling or mishearing may ever do: turn something else into consent."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.visits.answers import CASES, EXAMPLES
from visits.consent import Reading, classify

CONSENTS = [sentence for sentence, reading in CASES if reading is Reading.CONSENT]
OTHERS = [sentence for sentence, reading in CASES if reading is not Reading.CONSENT]
NEGATIONS = ["não", "Não,", "nunca", "jamais", "nem", "ninguém"]
QUESTIONS = [
    "quem é?",
    "Quem é",
    "é o Pedro?",
    "qual o nome dele",
    "de onde ele é?",
    "o que ele quer?",
    "como?",
]
DOUBTS = ["acho", "talvez", "não sei", "se for ele", "amanhã", "ela disse", "só", "depende"]

consents = st.sampled_from(CONSENTS)
sentences = st.sampled_from([sentence for sentence, _ in CASES])
vocabulary = st.sampled_from(sorted({word for sentence, _ in CASES for word in sentence.split()}))
babble = st.lists(vocabulary, max_size=9).map(" ".join)


@given(st.text())
def test_any_text_has_a_reading(text: str) -> None:
    assert isinstance(classify(text), Reading)


@given(st.text(alphabet="aãáeiouênsmpdrlbtqu ,.?!…'\"-\n\u0301\u0303", max_size=60))
def test_any_portuguese_looking_text_has_a_reading(text: str) -> None:
    assert isinstance(classify(text), Reading)


@given(babble)
def test_words_at_random_have_a_reading(text: str) -> None:
    assert isinstance(classify(text), Reading)


@pytest.mark.parametrize("negation", NEGATIONS)
@pytest.mark.parametrize("consent", CONSENTS)
def test_a_negation_before_any_word_takes_the_consent_away(consent: str, negation: str) -> None:
    words = consent.split()
    for place in range(len(words)):
        negated = " ".join([*words[:place], negation, *words[place:]])
        assert classify(negated) is not Reading.CONSENT, negated


@pytest.mark.parametrize("consent", CONSENTS)
def test_a_negation_after_the_permission_takes_the_consent_away(consent: str) -> None:
    bare = consent.rstrip(".!, ")
    if bare.endswith(("não tem problema", "Não tem problema")):
        return  # "não tem problema não" says it twice
    assert classify(f"{bare} não") is not Reading.CONSENT
    assert classify(f"{bare}. Não.") is Reading.REFUSAL


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("consent", CONSENTS)
def test_who_asks_has_not_consented(consent: str, question: str) -> None:
    assert classify(f"{consent} {question}") is not Reading.CONSENT
    assert classify(f"{consent.rstrip('.')} {question}") is not Reading.CONSENT
    assert classify(f"{question} {consent}") is not Reading.CONSENT


@pytest.mark.parametrize("consent", CONSENTS)
def test_a_question_mark_takes_the_consent_away(consent: str) -> None:
    assert classify(consent.rstrip(".!") + "?") is not Reading.CONSENT


@pytest.mark.parametrize("doubt", DOUBTS)
@pytest.mark.parametrize("consent", CONSENTS)
def test_doubt_and_conditions_never_count_as_consent(consent: str, doubt: str) -> None:
    bare = consent.rstrip(".")
    assert classify(f"{doubt} {consent}") is not Reading.CONSENT
    assert classify(f"{bare} {doubt}") is not Reading.CONSENT
    assert classify(f"{bare}, {doubt}.") is not Reading.CONSENT


@given(consents, st.text(alphabet="abcdefghijklmnopqrstuvwxyz", min_size=5, max_size=12), st.integers(0, 20))
def test_a_word_nobody_knows_is_never_taken_for_consent_at_the_front(
    consent: str, word: str, place: int
) -> None:
    """Garbage before the permission could have been "não"."""
    unknown = "xq" + word
    assert classify(f"{unknown} {consent}") is not Reading.CONSENT


@given(consents, st.sampled_from(OTHERS))
def test_anything_else_after_a_consent_takes_it_away_unless_harmless(consent: str, other: str) -> None:
    reading = classify(other)
    if classify(f"{consent} {other}") is Reading.CONSENT:
        assert reading in {Reading.HELLO, Reading.NOTHING} or other in HARMLESS


@given(st.sampled_from(OTHERS), consents)
def test_anything_else_before_a_consent_takes_it_away_unless_harmless(other: str, consent: str) -> None:
    reading = classify(other)
    if classify(f"{other} {consent}") is Reading.CONSENT:
        assert reading in {Reading.HELLO, Reading.NOTHING} or other in HARMLESS


HARMLESS = {
    *("Uhum", "Aham.", "Tá.", "É.", "Isso.", "Isso mesmo.", "aqui", "Está.", "Alô, sim.", "Liberar."),
    *("Autorizar.", "Tá bom, tchau.", "Ok, obrigada.", "Sim, conheço.", "Conheço.", "Ele entra."),
    *("Obrigada, estou esperando.", "Pode entrar com", "Pode liberar e"),
    *("Entrada autorizada.", "Entrada liberada.", "Acesso liberado."),
}
"""Not consent by themselves, but nothing against it either: "Tá. Pode subir.". Two are cut short; the last
three may be our own voice, given back by the telephone before the resident speaks."""


@given(babble)
def test_consent_never_holds_a_negation_that_no_saying_explains(text: str) -> None:
    if classify(text) is not Reading.CONSENT:
        return
    folded = unicodedata.normalize("NFKD", text.lower()).encode("ascii", "ignore").decode()
    rest = " ".join("".join(char if char.isalnum() else " " for char in folded).split())
    for saying in (
        "nao tem problema nao",
        "nao tem problema",
        "nao tem nenhum problema",
        "nao vejo problema",
        "nao vejo nenhum problema",
        "nao me importo",
        "pois nao",
        "nenhum",
    ):
        rest = rest.replace(saying, "")
    assert not {"nao", "nunca", "jamais", "nem", "ninguem", "num"} & set(rest.split()), text


def respelled(sentence: str) -> list[str]:
    """The same sentence as other recognisers write it."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", sentence) if not unicodedata.combining(c))
    return [
        sentence.lower(),
        sentence.upper(),
        sentence.title(),
        plain,
        unicodedata.normalize("NFD", sentence),
        f"  {sentence}\n",
        sentence.replace(" ", "   "),
        f"- {sentence}",
        f'"{sentence}"',
    ]


@pytest.mark.parametrize(("sentence", "reading"), CASES)
def test_case_accents_and_spaces_change_nothing(sentence: str, reading: Reading) -> None:
    for spelling in respelled(sentence):
        assert classify(spelling) is reading, spelling


@pytest.mark.parametrize("reading", [Reading.CONSENT, Reading.WAIT, Reading.DESK, Reading.UNCLEAR])
def test_how_a_sentence_ends_changes_nothing(reading: Reading) -> None:
    for sentence in (line.strip() for line in EXAMPLES[reading].splitlines() if line.strip()):
        if "?" not in sentence:
            bare = sentence.rstrip(".!")
            assert {classify(bare + end) for end in ("", ".", "!", "...", "…", " .")} == {reading}, sentence


@pytest.mark.parametrize("sentence", OTHERS)
def test_leaving_out_commas_never_makes_consent(sentence: str) -> None:
    assert classify(sentence.replace(",", "")) is not Reading.CONSENT


@pytest.mark.parametrize("sentence", [s for s, r in CASES if r is Reading.REFUSAL])
def test_a_refusal_without_punctuation_never_becomes_consent(sentence: str) -> None:
    bare = "".join(char for char in sentence if char.isalnum() or char in " -")
    assert classify(bare) is not Reading.CONSENT
    for place in range(1, len(bare.split())):
        words = bare.split()
        torn = " ".join(words[:place]) + ". " + " ".join(words[place:])
        assert classify(torn) is not Reading.CONSENT, torn


@given(
    st.sampled_from([s for s, r in CASES if r is Reading.REFUSAL]),
    st.integers(0, 30),
    st.characters(codec="ascii"),
)
def test_one_wrong_letter_in_a_refusal_never_makes_consent(sentence: str, place: int, letter: str) -> None:
    place %= len(sentence)
    wrong = sentence[:place] + letter + sentence[place + 1 :]
    words = {word.strip(".,!").lower() for word in sentence.split()}
    if words & {"não", "nao", "nem", "nunca", "jamais", "num"} and len(words) > 1:
        assert classify(wrong) is not Reading.CONSENT, wrong
