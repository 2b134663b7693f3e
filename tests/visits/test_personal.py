"""What a record says of people is taken out of it whole, and put back the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from visits.audit import KINDS, StoredRecord, canonical, draft, intact
from visits.personal import (
    COMMITMENT,
    ERASED,
    PERSONAL,
    Each,
    Fields,
    Rule,
    blanked,
    commitment,
    committed,
    merged,
    split,
)

VISIT = "6f1c2e34-0000-4000-8000-00000000abcd"
AT = "2026-11-21T13:05:00.000250+00:00"
SALT = "00112233445566778899aabbccddeeff"
SECRET = "Maria Aparecida 551199"

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
names = st.sampled_from(
    [*(name for about in PERSONAL.values() for name in about.rule.named), COMMITMENT, "a/b", "~", "0", ""]
)
values = st.recursive(
    scalars | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names | texts, inner, max_size=3),
    max_leaves=8,
)
datas = st.dictionaries(names | texts, values, max_size=5)


@given(kind=st.sampled_from(sorted(KINDS)), data=datas)
@example(kind="note", data={"personal": None, "text": ""})
@example(kind="decision", data={"evidence": ["Pode entrar", {"by": "voice", "text": "Pode"}, None]})
@example(kind="turn", data={"personal": {"text": "x"}, "text": {"a": [1]}})
def test_together_again_it_is_what_it_was(kind: str, data: dict[str, Any]) -> None:
    before = canonical(data)
    public, taken = split(kind, data)
    assert canonical(data) == before
    assert COMMITMENT not in public
    sealed = {**json.loads(canonical(public)), **({COMMITMENT: "0" * 64} if taken else {})}
    assert canonical(merged(sealed, json.loads(canonical(taken)))) == before


def _poisoned(rule: Rule) -> Any:
    """Data of the rule's shape, with the secret wherever the rule says that a person is."""
    if isinstance(rule, Each):
        return [_poisoned(rule.rule), SECRET]
    if isinstance(rule, Fields):
        named = {name: _poisoned(below) for name, below in rule.named.items()}
        return {**named, **({"anything": {SECRET: SECRET}} if rule.others else {})}
    return SECRET if rule else "x"


@pytest.mark.parametrize("kind", sorted(PERSONAL))
def test_nothing_that_is_declared_remains_in_what_is_sealed(kind: str) -> None:
    data = _poisoned(PERSONAL[kind].rule)
    public, taken = split(kind, data)
    assert SECRET not in canonical(public)
    assert SECRET in canonical(taken)
    # Once it is gone its readers are told that something was there.
    left = blanked(kind, {**public, COMMITMENT: "0" * 64})
    assert SECRET not in canonical(left) and ERASED in canonical(left)


@given(kind=st.sampled_from(sorted(PERSONAL)), data=datas, secret=st.just(SECRET))
def test_whatever_the_data_nothing_declared_remains(kind: str, data: dict[str, Any], secret: str) -> None:
    about = PERSONAL[kind].rule
    poisoned = {
        name: [secret, {"x": secret}] if about.named.get(name, about.others) == "personal" else value
        for name, value in data.items()
    }
    assert secret not in canonical(split(kind, poisoned)[0])


def test_a_record_is_read_whole_changed_or_erased() -> None:
    data = {
        "attempt": "a1",
        "by": "voice",
        "reading": "consent",
        "text": "Pode entrar",
        "began_s": 1.5,
        "nothing": None,
    }
    made = draft(tenant="t", visit=VISIT, at=AT, kind="evidence", data=data, salt=SALT)
    assert made.personal is not None and "Pode" not in made.text
    sealed = made.sealed(None)
    kept = StoredRecord(1, "t", VISIT, AT, "evidence", made.text, sealed.previous, sealed.hash)
    whole = kept._replace(salt=made.personal.salt, personal=made.personal.text)
    assert whole.read() == sealed and sealed.data == data and intact(sealed)
    erased = kept.read()
    assert (erased.personal, intact(erased)) == ("erased", True)
    assert erased.data == {**data, "text": ERASED, "nothing": ERASED}
    for changed in (
        whole._replace(personal=made.personal.text.replace("Pode", "Não pode")),
        whole._replace(salt="ff" * 16),
        whole._replace(salt="zz"),
        whole._replace(personal="no JSON"),
        whole._replace(personal='{"/nowhere/at/all":1}'),
    ):
        assert changed.read().personal == "changed" and not intact(changed.read())


def test_words_that_are_the_same_are_not_recognised_by_their_commitment() -> None:
    text = canonical({"/text": "Pode entrar"})
    assert commitment(SALT, text) != commitment(SALT[::-1], text)
    with pytest.raises(ValueError, match="allowed: 16"):
        commitment("00", text)
    assert committed({"personal": commitment(SALT, text)}) == commitment(SALT, text)
    assert committed({"personal": "Maria"}) is None


def test_a_record_without_anybody_has_no_commitment() -> None:
    made = draft(tenant="t", visit=VISIT, at=AT, kind="briefing.played", data={"attempt": "a"}, salt=SALT)
    assert (made.personal, made.public, made.text) == (None, None, '{"attempt":"a"}')
