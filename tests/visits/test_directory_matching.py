"""Finding the apartment and the resident: what is said must lead there, and what is near must not."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visits.directory import Apartment, Directory
from visits.name_likeness import THRESHOLD, name_score
from visits.phonetics import sound
from visits.words import fold

EXAMPLE = Path(__file__).parents[2] / "data" / "apartamentos.json"
DIRECTORY = Directory.from_records(json.loads(EXAMPLE.read_text(encoding="utf-8")))
BY_NUMBER = {apartment.number: apartment for apartment in DIRECTORY.apartments}
BLOCKS = Directory.from_records(
    [
        {"apartment_number": label, "residents": ["Ana Silva"], "voip_number": "1"}
        for label in (
            "102 bloco A",
            "102 bloco B",
            "103 bloco A",
            "cobertura 1",
            "cobertura 2",
            "2001",
            "201",
            "7",
        )
    ]
)

# The given names most often met in Brazil (census of names), and some that are only like the residents'.
COMMON_NAMES = """
    Maria José Ana João Antônio Francisco Carlos Paulo Pedro Lucas Luiz Luís Marcos Gabriel Rafael Daniel
    Marcelo Bruno Eduardo Felipe Raimundo Rodrigo Manoel Manuel Mateus Matheus André Fernando Fábio Leonardo
    Gustavo Guilherme Leandro Tiago Thiago Anderson Ricardo Márcio Jorge Sebastião Alexandre Roberto Edson
    Diego Vitor Victor Sérgio Cláudio Geraldo Adriano Luciano Júlio Renato Alex Vinícius Rogério Samuel
    Ronaldo Mário Flávio Douglas Igor Davi Manuela Jeferson Cícero Miguel Robson Mauro Danilo Henrique Artur
    Arthur Joaquim Caio Wagner Hélio Nelson Murilo Otávio Augusto Benedito Valdir Wilson Emerson Nilton
    Heitor Enzo Bernardo Theo Nicolas Benjamin Isaac Ivan Cristiano Francisca Antônia Adriana Juliana Márcia
    Fernanda Patrícia Aline Sandra Camila Amanda Bruna Jéssica Letícia Júlia Luciana Vanessa Mariana Gabriela
    Vera Vitória Larissa Cláudia Beatriz Rita Luana Sônia Renata Eliane Josefa Simone Natália Cristiane Carla
    Débora Rosângela Jaqueline Rosa Daniela Aparecida Marlene Terezinha Raimunda Andreia Fabiana Lúcia Raquel
    Angela Rafaela Joana Luzia Elaine Daniele Regina Daiane Alessandra Maíra Michele Isabel Tatiane Sabrina
    Bianca Isabela Helena Laura Alice Sofia Valentina Heloísa Lorena Cecília Eloá Lívia Giovanna Clara
    Emanuelly Yasmin Rebeca Sarah Elisa Milena Marina Olívia Pietra Melissa Nicole Cíntia Silvia Viviane
    Karina Tereza Teresa Paula Célia Lara Mônica Priscila Kelly Lilian Eunice Elza Ivone Neusa Eva Ester
    Miriam Noemi Agatha Caroline Carolina Monique
""".split()  # noqa: SIM905


# --------------------------------------------------------------------------------------------------------
# Apartments
# --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoken", "number"),
    [
        ("quinhentos e um", "501"),
        ("cinco zero um", "501"),
        ("5-0-1", "501"),
        ("500 e 1", "501"),
        ("500 e um", "501"),
        ("Boa tarde, tem uma entrega para o apartamento 5001.", "501"),
        ("no 2001", "201"),
        ("cento e dois", "102"),
        ("um zero dois", "102"),
        ("no 1002", "102"),
        ("apartamento 500 e 2.", "502"),
        ("não, é no cento e um", "101"),
        ("no 502, quer dizer, 501", "501"),
        ("não é no 502, é no 501", "501"),
        ("501, isso, 501", "501"),
        ("vim buscar 15 caixas no 302", "302"),
    ],
)
def test_found(spoken: str, number: str) -> None:
    match = DIRECTORY.find_apartment(spoken)
    assert (match.status, match.apartment) == ("found", BY_NUMBER[number])
    assert match.candidates == (BY_NUMBER[number],)
    assert match.exact


@pytest.mark.parametrize(
    "spoken",
    [
        "511", "novecentos e noventa e nove", "no 211", "no 522.", "500", "50", "5", "1", "51", "5010", "601",
        "meia zero um", "2011", "um momento", "", "não sei o número", "do que em Ando-Ci-1.", "501 não, 999",
    ],
)  # fmt: skip
def test_a_near_number_is_never_guessed(spoken: str) -> None:
    match = DIRECTORY.find_apartment(spoken)
    assert (match.status, match.apartment) == ("not_found", None)


@given(st.integers(0, 99999))
def test_a_number_that_does_not_exist_is_found_only_where_it_is_the_glued_writing_of_one_that_does(
    number: int,
) -> None:
    match = DIRECTORY.find_apartment(f"apartamento {number}")
    if match.apartment is not None and match.apartment.number != str(number):
        hundreds, rest = match.apartment.number[0] + "00", str(int(match.apartment.number[1:]))
        assert str(number) in {hundreds + rest, hundreds + rest.zfill(2)}


def test_two_numbers_are_ambiguous() -> None:
    match = DIRECTORY.find_apartment("501 ou 502")
    assert match.status == "ambiguous"
    assert [apartment.number for apartment in match.candidates] == ["501", "502"]


def test_a_number_guessed_by_its_sound_is_found_but_marked() -> None:
    match = DIRECTORY.find_apartment("do quinhendo-se um.")
    assert (match.apartment, match.exact) == (BY_NUMBER["501"], False)


def test_a_number_in_two_blocks_is_ambiguous_until_the_block_is_said() -> None:
    match = BLOCKS.find_apartment("cento e dois")
    assert match.status == "ambiguous"
    assert [apartment.block for apartment in match.candidates] == ["A", "B"]
    for spoken in ("102 bloco B", "cento e dois do bloco bê", "bloco B, apartamento 102", "B-102"):
        found = BLOCKS.find_apartment(spoken)
        assert found.status == "found"
        assert found.apartment is not None
        assert found.apartment.label == "102 bloco B"


def test_a_number_in_one_block_needs_none() -> None:
    assert BLOCKS.find_apartment("103").status == "found"


def test_a_wrong_block_is_not_found_and_says_where_the_number_exists() -> None:
    match = BLOCKS.find_apartment("103 bloco B")
    assert (match.status, match.apartment) == ("not_found", None)
    assert [apartment.label for apartment in match.candidates] == ["103 bloco A"]


def test_an_exact_reading_that_exists_beats_an_alternative() -> None:
    apartment = BLOCKS.find_apartment("apartamento 2001").apartment
    assert apartment is not None
    assert apartment.number == "2001"


def test_penthouses() -> None:
    apartment = BLOCKS.find_apartment("na cobertura dois").apartment
    assert apartment is not None
    assert apartment.number == "cobertura 2"
    assert BLOCKS.find_apartment("cobertura 7").status == "found"
    assert BLOCKS.find_apartment("cobertura 9").status == "not_found"


# --------------------------------------------------------------------------------------------------------
# Residents
# --------------------------------------------------------------------------------------------------------


def matched(number: str, spoken: str) -> str | None:
    match = DIRECTORY.match_resident(BY_NUMBER[number], spoken)
    assert (match.status == "match") == (match.resident is not None)
    assert (match.score >= THRESHOLD) == (match.status != "no_match")
    assert 0.0 <= match.score <= 100.0
    return match.resident


@pytest.mark.parametrize(
    ("number", "spoken", "resident"),
    [
        ("501", "Daniel", "Daner dos Reis"),
        ("501", "Daner", "Daner dos Reis"),
        ("501", "Danieu", "Daner dos Reis"),
        ("501", "é para o Daniel, do quinhentos e um", "Daner dos Reis"),
        ("501", "Daniel dos Reis", "Daner dos Reis"),
        ("501", "Renata", "Renata Oliveira"),
        ("501", "renata", "Renata Oliveira"),
        ("501", "dona Renata", "Renata Oliveira"),
        ("501", "a senhora Renata Oliveira", "Renata Oliveira"),
        ("501", "Sra. Oliveira", "Renata Oliveira"),
        ("501", "a renata já autorizou", "Renata Oliveira"),
        ("501", "Renada", "Renata Oliveira"),
        ("501", "Renata Oliveira Santos", "Renata Oliveira"),
        ("501", "Renatinha", "Renata Oliveira"),
        ("501", "meu nome é Daniel, vim visitar a Renata", "Renata Oliveira"),
        ("201", "Fernanda", "Fernanda Souza"),
        ("201", "Fernando a Souza", "Fernanda Souza"),
        ("201", "vim visitar a Fernando a Souza no 201", "Fernanda Souza"),
        ("201", "Fernanda, Souza no 201", "Fernanda Souza"),
        ("201", "Nanda", "Fernanda Souza"),
        ("201", "Fê", "Fernanda Souza"),
        ("201", "Thiago", "Tiago Souza"),
        ("201", "Chiago", "Tiago Souza"),
        ("201", "Tiaguinho", "Tiago Souza"),
        ("502", "Rô", "Rogério Paranhos"),
        ("502", "Rogê", "Rogério Paranhos"),
        ("502", "seu Rogério", "Rogério Paranhos"),
        ("502", "Rogelio", "Rogério Paranhos"),
        ("502", "para o Rogério Paranhos no 500 e 2.", "Rogério Paranhos"),
        ("101", "Bia", "Ana Beatriz Silva"),
        ("101", "Ana", "Ana Beatriz Silva"),
        ("101", "Ana Silva", "Ana Beatriz Silva"),
        ("101", "Beatriz", "Ana Beatriz Silva"),
        ("101", "ana beatriz", "Ana Beatriz Silva"),
        ("101", "ANA BEATRIZ DA SILVA", "Ana Beatriz Silva"),
        ("101", "João", "João Pedro Silva"),
        ("101", "Joao Pedro", "João Pedro Silva"),
        ("101", "Joãozinho", "João Pedro Silva"),
        ("102", "Karlos", "Carlos Oliveira"),
        ("102", "Carlão", "Carlos Oliveira"),
        ("102", "Carlinhos", "Carlos Oliveira"),
        ("102", "doutor Carlos", "Carlos Oliveira"),
        ("301", "Lê", "Letícia Lima"),
        ("301", "Leticia", "Letícia Lima"),
        ("301", "Rodriguinho", "Rodrigo Lima"),
        ("302", "Luquinhas", "Lucas Martins"),
        ("302", "Não, é para o Lucas Martins.", "Lucas Martins"),
        ("401", "Paulinha", "Paula Fernandes"),
        ("402", "Dudu", "Eduardo Almeida"),
        ("402", "Edu", "Eduardo Almeida"),
        ("402", "Bruninha", "Bruna Almeida"),
        ("202", "Mari", "Mariana Costa"),
    ],
)
def test_a_name_leads_to_the_resident(number: str, spoken: str, resident: str) -> None:
    assert matched(number, spoken) == resident


@pytest.mark.parametrize(
    ("number", "spoken"),
    [
        ("501", "Lucas Martins"),
        ("501", "Carlos"),
        ("501", "Carlos Oliveira"),
        ("102", "Renata Oliveira"),
        ("501", "Fernando"),
        ("201", "Fernando"),
        ("501", "Renato"),
        ("501", "Renata Silva"),
        ("501", "Daniela"),
        ("501", "Patrícia Oliveira"),
        ("101", "João Paulo Silva"),
        ("101", "Ana Paula"),
        ("202", "Maria"),
        ("401", "Paulinho"),
        ("401", "Fernanda"),
        ("402", "Bruno Almeida"),
        ("301", "Lucas Lima"),
        ("501", ""),
        ("501", "?"),
        ("501", "a"),
        ("501", "dona"),
        ("501", "o morador"),
        ("501", "quinhentos e um"),
        ("501", "Meu nome é Renata."),
        ("501", "Renata Oliveira do Carmo Fernandes Augusto Lima"),
    ],
)
def test_another_name_does_not(number: str, spoken: str) -> None:
    assert matched(number, spoken) is None
    assert DIRECTORY.match_resident(BY_NUMBER[number], spoken).status == "no_match"


@pytest.mark.parametrize(
    ("number", "spoken"),
    [("101", "Silva"), ("201", "Souza"), ("201", "dona Souza"), ("501", "a Renata ou o Daner")],
)
def test_who_fits_two_residents_alike_is_asked(number: str, spoken: str) -> None:
    match = DIRECTORY.match_resident(BY_NUMBER[number], spoken)
    assert (match.status, match.resident) == ("ambiguous", None)


def test_the_better_of_two_like_names_wins() -> None:
    apartment = Apartment("1", None, ("Daniel Costa", "Daner dos Reis"), ("1",))
    assert DIRECTORY.match_resident(apartment, "Daniel").resident == "Daniel Costa"
    assert DIRECTORY.match_resident(apartment, "Daner").resident == "Daner dos Reis"


@pytest.mark.parametrize("apartment", DIRECTORY.apartments, ids=lambda apartment: apartment.number)
def test_every_resident_is_found_at_home_and_nowhere_else(apartment: Apartment) -> None:
    """The whole cross product: full names, given names and surnames that are not truly shared."""
    for other in DIRECTORY.apartments:
        for resident in other.residents:
            for spoken in (
                resident,
                resident.upper(),
                fold(resident),
                resident.split()[0],
                resident.split()[-1],
            ):
                match = DIRECTORY.match_resident(apartment, spoken)
                if other is apartment:
                    assert match.status != "no_match", spoken
                elif fold(spoken) in {fold(word) for name in apartment.residents for word in name.split()}:
                    assert fold(spoken) == "oliveira"
                else:
                    assert match.status == "no_match", (spoken, match)


def test_common_names_are_taken_for_a_resident_only_where_they_sound_like_one() -> None:
    """206 names × 16 residents. What is left is what a recogniser can't tell apart either."""
    pairs, taken = 0, set()
    for name in COMMON_NAMES:
        for apartment in DIRECTORY.apartments:
            for resident in apartment.residents:
                if sound(name) in {sound(word) for word in resident.split()}:
                    continue
                pairs += 1
                if name_score(name, resident) >= THRESHOLD:
                    taken.add((name, resident))
    assert pairs > 3000
    assert len(taken) / pairs <= 0.02
    assert taken == {("Daniel", "Daner dos Reis"), ("Marina", "Mariana Costa")}


def test_another_given_name_with_a_resident_s_surname_is_somebody_else() -> None:
    taken = set()
    for name in COMMON_NAMES:
        for apartment in DIRECTORY.apartments:
            for resident in apartment.residents:
                given, surname = resident.split()[:-1], resident.split()[-1]
                if sound(name) in {sound(word) for word in given}:
                    continue
                if name_score(f"{name} {surname}", resident) >= THRESHOLD:
                    taken.add((name, resident))
    assert taken == {("Daniel", "Daner dos Reis"), ("Marina", "Mariana Costa")}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Thiago", "Tiago"), ("Luís", "Luiz"), ("Carlos", "Karlos"), ("Júlia", "Julia"), ("Sousa", "Souza"),
        ("Letícia", "Letissia"), ("Jéferson", "Geferson"), ("Felipe", "Phelipe"), ("Mateus", "Matheus"),
        ("Artur", "Arthur"), ("Vítor", "Victor"), ("Helena", "Elena"), ("Cristiane", "Kristiane"),
        ("Michele", "Mixele"), ("Quézia", "Kezia"), ("Manoel", "Manuel"), ("Rafael", "Raphael"),
        ("Eloá", "Heloá"), ("Sara", "Sarah"),
    ],
)  # fmt: skip
def test_spellings_of_one_name_sound_the_same(one: str, other: str) -> None:
    assert sound(one) == sound(other)


@given(st.text(), st.text())
def test_any_two_texts_can_be_compared(spoken: str, resident: str) -> None:
    assert 0.0 <= name_score(spoken, resident) <= 100.0


@given(st.text())
def test_any_text_can_be_matched(spoken: str) -> None:
    for apartment in DIRECTORY.apartments:
        DIRECTORY.match_resident(apartment, spoken)
    DIRECTORY.find_apartment(spoken)
