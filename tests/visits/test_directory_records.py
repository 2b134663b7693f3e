"""Reading a directory: the example as it is, and errors that say which entry is wrong and what is allowed."""

import json
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visits.directory import Apartment, Contact, Directory, DirectoryError
from visits.hours import Hours
from visits.standing import StandingAuthorisation

EXAMPLE = Path(__file__).parents[2] / "data" / "apartamentos.json"


def record(**changes: Any) -> dict[str, Any]:
    return {"apartment_number": "101", "residents": ["Ana Silva"], "voip_number": "sip:101@x", **changes}


def test_the_example_directory_is_read_whole() -> None:
    directory = Directory.from_records(json.loads(EXAMPLE.read_text(encoding="utf-8")))
    assert len(directory.apartments) == 10
    assert directory.apartments[8] == Apartment(
        "501", None, ("Renata Oliveira", "Daner dos Reis"), ("1003030",)
    )


@pytest.mark.parametrize(
    ("written", "number", "block"),
    [
        ("102", "102", None),
        (102, "102", None),
        ("1", "1", None),
        ("0102", "102", None),
        ("102 bloco B", "102", "B"),
        ("Bloco B 102", "102", "B"),
        ("B-102", "102", "B"),
        ("102-B", "102", "B"),
        ("102A", "102", "A"),
        ("102 torre norte", "102", "NORTE"),
        ("bloco 2 102", "102", "2"),
        ("Apto. 12", "12", None),
        ("Casa 3", "3", None),
        ("Cobertura", "cobertura", None),
        ("cobertura 2", "cobertura 2", None),
        ("5001", "5001", None),
    ],
)
def test_labels(written: object, number: str, block: str | None) -> None:
    apartment = Directory.from_records([record(apartment_number=written)]).apartments[0]
    assert (apartment.number, apartment.block) == (number, block)


def test_several_ways_to_call_keep_their_order() -> None:
    directory = Directory.from_records([record(voip_number=["1001", "sip:ana@x"])])
    assert directory.apartments[0].dial == ("1001", "sip:ana@x")


FULL = {
    "apartment_number": "102 bloco B",
    "residents": [
        "Ana Silva",
        {"name": "João Silva", "voip_number": ["1", "2"], "quiet_hours": "22h às 7h", "do_not_call": True},
    ],
    "voip_number": [],
    "standing_authorisations": [
        {"name": "Maria Prado", "days": ["terça", "fri"], "hours": "08:00-12:00", "until": "2026-12-31"},
        {"name": "Água Boa", "call_resident": False},
    ],
}


def test_an_entry_with_all_that_it_may_have() -> None:
    directory = Directory.from_records([FULL])
    assert directory.apartments == (
        Apartment(
            "102",
            "B",
            ("Ana Silva", "João Silva"),
            (),
            (Contact("João Silva", ("1", "2"), (Hours(22 * 60, 7 * 60),), True),),
            (
                StandingAuthorisation(
                    "Maria Prado", frozenset({1, 4}), Hours(8 * 60, 12 * 60), date(2026, 12, 31)
                ),
                StandingAuthorisation("Água Boa", call_resident=False),
            ),
        ),
    )
    assert Directory.from_records(json.loads(json.dumps(directory.records()))) == directory


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([record(residents=[{"name": 1}])], "entry 1: residents must be .*int 1"),
        ([record(residents=[{"nome": "Ana"}])], "entry 1: resident: name is missing"),
        ([record(residents=[{"name": "Ana", "age": 1}])], "unknown field 'age'; allowed are name, voip"),
        ([record(residents=[{"name": "Ana", "do_not_call": 1}])], "'Ana': do_not_call: .*true or false"),
        ([record(residents=[{"name": "Ana", "quiet_hours": "22"}])], "quiet_hours: found str '22'; allowed"),
        ([record(residents=[{"name": "Ana", "quiet_hours": 7}])], "quiet_hours must be a list, found int 7"),
        ([record(residents=[{"name": "Ana", "voip_number": 7}])], "'Ana': voip_number must be .*int 7"),
        ([record(residents=["Ana", {"name": "Ana", "voip_number": "1"}])], "'Ana' is there twice"),
        ([record(standing_authorisations=7)], "standing_authorisations must be a list, found int 7"),
        ([record(standing_authorisations=["Ana"])], "standing authorisation: must be an object"),
        ([record(standing_authorisations=[{"name": "?"}])], "name must be a visitor's"),
        ([record(standing_authorisations=[{"name": "Ana", "days": ["x"]}])], "days: found str 'x'; allowed"),
        ([record(standing_authorisations=[{"name": "Ana", "until": "31/12"}])], "a date such as 2026-12-31"),
        ([record(voip_number=[], residents=[{"name": "Ana"}])], "voip_number must be"),
    ],
)
def test_what_an_entry_may_have_beside_is_checked_as_well(records: object, message: str) -> None:
    with pytest.raises(DirectoryError, match=message):
        Directory.from_records(records)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ({}, "must be a list"),
        ("[]", "must be a list"),
        (None, "must be a list"),
        ([], "empty"),
        ([1], "entry 1: must be an object"),
        ([record(), {"residents": ["A"], "voip_number": "1"}], "entry 2: apartment_number is missing"),
        ([record(apartment_number="")], "entry 1: apartment_number must be"),
        ([record(apartment_number="portaria")], "entry 1: apartment_number must be .*'portaria'"),
        ([record(apartment_number="101 e 102")], "entry 1: apartment_number must be"),
        ([record(apartment_number="101 fundos")], "entry 1: apartment_number must be"),
        ([record(apartment_number=True)], "entry 1: apartment_number must be .*bool"),
        ([record(apartment_number=1.5)], "entry 1: apartment_number must be .*float"),
        ([record(apartment_number="1234567")], "entry 1: apartment_number must be"),
        ([record(residents="Ana")], "entry 1: residents must be a list of full names, found str"),
        ([record(residents=[])], "entry 1: residents must be"),
        ([record(residents=["Ana", 7])], "entry 1: residents must be .*int 7"),
        ([record(residents=["Ana", " "])], "entry 1: residents must be"),
        ([record(residents=["?"])], "entry 1: resident .* holds no name"),
        ([record(voip_number=None)], "entry 1: voip_number must be .*NoneType"),
        ([record(voip_number="")], "entry 1: voip_number must be"),
        ([record(voip_number=[])], "entry 1: voip_number must be"),
        ([record(floor=1)], "entry 1: unknown field 'floor'; allowed are apartment_number"),
        ([record(), record(apartment_number="0101")], "entry 2: apartment '101' is already entry 1"),
        ([record(apartment_number="101 A"), record(apartment_number="A-101")], "entry 2: .* already entry 1"),
    ],
)
def test_a_wrong_directory_is_refused_with_the_reason(records: object, message: str) -> None:
    with pytest.raises(DirectoryError, match=message):
        Directory.from_records(records)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(json_values, json_values, json_values)
def test_anything_is_read_or_refused_but_never_crashes(
    number: object, residents: object, voip: object
) -> None:
    entry = {"apartment_number": number, "residents": residents, "voip_number": voip}
    person = {"name": "Ana", "quiet_hours": number, "voip_number": voip}
    expected = {"name": "Ana", "days": number, "hours": residents, "until": voip}
    full = {**record(residents=[person]), "standing_authorisations": [expected]}
    for records in (number, [number], [entry], [full], [record(standing_authorisations=number)]):
        with suppress(DirectoryError):
            assert Directory.from_records(records).apartments


@given(st.integers(1, 9999), st.sampled_from(["", " bloco A", " bloco 2", " torre norte"]))
def test_every_label_is_found_by_its_own_words(number: int, block: str) -> None:
    directory = Directory.from_records([record(apartment_number=f"{number}{block}")])
    match = directory.find_apartment(f"apartamento {number}{block}")
    assert match.status == "found"
    assert match.apartment == directory.apartments[0]
    assert directory.find_apartment(directory.apartments[0].label).apartment == directory.apartments[0]


names = st.sampled_from(["Ana Prado", "João da Silva", "Bia Dias", "D'Ávila Melo"])
dials = st.lists(st.text(min_size=1, max_size=5).map(str.strip).filter(bool), max_size=3).map(tuple)
hours = st.builds(Hours, st.integers(0, 1439), st.integers(0, 1440)).filter(lambda one: one.begin != one.end)
standing = st.builds(
    StandingAuthorisation,
    names,
    st.frozensets(st.integers(0, 6)),
    st.none() | hours,
    st.none() | st.dates(),
    st.booleans(),
)


@st.composite
def homes(draw: st.DrawFn) -> Apartment:
    residents = tuple(draw(st.lists(names, min_size=1, max_size=4, unique=True)))
    several = draw(st.lists(st.sampled_from(residents), unique=True))
    contacts = [
        Contact(name, draw(dials), tuple(draw(st.lists(hours, max_size=2))), draw(st.booleans()))
        for name in residents
        if name in several
    ]
    kept = tuple(one for one in contacts if one != Contact(one.resident))
    dial = draw(dials)
    if not any(one.dial for one in kept):
        dial = (*dial, "1001")
    expected = tuple(draw(st.lists(standing, max_size=2)))
    block = draw(st.sampled_from([None, "B", "2", "NORTE"]))
    return Apartment(str(draw(st.integers(1, 9999))), block, residents, dial, kept, expected)


@given(st.lists(homes(), min_size=1, max_size=4, unique_by=lambda one: one.label))
def test_a_directory_that_is_written_is_read_again_as_it_was(apartments: list[Apartment]) -> None:
    directory = Directory(tuple(apartments))
    assert Directory.from_records(json.loads(json.dumps(directory.records()))) == directory
