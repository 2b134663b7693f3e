"""What a real recogniser made of the recorded speech, read by the domain.

``heard.json`` holds the words that faster-whisper (base, int8, temperature 0, language pinned) wrote for
every recording, four times: with a beam of 5, greedy, prompted with the house's vocabulary, and greedy with
white noise 10 dB below the speech, through mu-law (measured 2026-11-21). In noise most words are wrong;
there only one thing is asked: nothing but consent is ever read as consent. Slow tests hear one speaker anew.
"""

import json
import os
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soxr
from faster_whisper import WhisperModel

from providers.local.models import default_sources, fetch, models_root, verified_dir
from visits.consent import Reading, classify
from visits.directory import Directory
from visits.names import person_mentions

ROOT = Path(__file__).parents[2]
HEARD: dict[str, dict[str, str]] = json.loads(
    (Path(__file__).parent / "heard.json").read_text(encoding="utf-8")
)
DIRECTORY = Directory.from_records(
    json.loads((ROOT / "data" / "apartamentos.json").read_text(encoding="utf-8"))
)
CLEAR = ("beam", "greedy", "prompted")

ANSWERS = {
    "r01": Reading.CONSENT,
    "r02": Reading.REFUSAL,
    "r03": Reading.CONSENT,
    "r04": Reading.REFUSAL,
    "r05": Reading.REFUSAL,
    "r06": Reading.QUESTION,
    "r07": Reading.QUESTION,
    "r08": Reading.CONSENT,
    "r09": Reading.REFUSAL,
    "r10": Reading.REFUSAL,
    "r11": Reading.DESK,
    "r12": Reading.WAIT,
    "r13": Reading.HELLO,
    "r14": Reading.QUESTION,
    "r15": Reading.CONSENT,
    "r16": Reading.REFUSAL,
    "r17": Reading.REFUSAL,
    "r18": Reading.UNCLEAR,
    "r19": Reading.CONSENT,
    "r20": Reading.UNCLEAR,
}
LOST = {
    ("r03-grave", "greedy"): Reading.UNCLEAR,  # "Pogilibera."
    ("r06-leticia", "beam"): Reading.HELLO,  # "E aí?"
    ("r06-leticia", "greedy"): Reading.UNCLEAR,  # "aqui"
}
"""Where the recogniser lost the words, and what is left: it is asked again."""

APARTMENTS = {
    "v01": "501", "v02": "501", "v04": "102", "v05": "201", "v08": "302", "v10": "501", "v18": "501",
    "v20": "502",
}  # fmt: skip
LOST_NUMBERS = {
    ("v02-grave", "prompted"),  # "Apartamento 5-0."
    ("v05-grave", "beam"), ("v05-grave", "greedy"), ("v05-grave", "prompted"),  # "no 211"
    ("v10-grave", "greedy"),  # "do que em Ando-Ci-1."
    ("v20-grave", "greedy"),  # "no 522."
}  # fmt: skip
RESIDENTS = {
    "v02": ("501", "Renata Oliveira"),
    "v04": ("102", "Carlos Oliveira"),
    "v05": ("201", "Fernanda Souza"),
    "v10": ("501", "Daner dos Reis"),
    "v14": ("302", "Lucas Martins"),
    "v19": ("501", "Renata Oliveira"),
    "v20": ("502", "Rogério Paranhos"),
}
OWN_NAMES = {"v03": "Pedro da Silva", "v05": "Julia", "v08": "Marcos"}


def hearings(role: str) -> list[tuple[str, str, str]]:
    """Recording, way of decoding, words."""
    return [
        (stem, way, text)
        for stem, ways in HEARD.items()
        if stem.startswith(role)
        for way, text in ways.items()
    ]


@pytest.mark.parametrize(("stem", "way", "text"), hearings("r"))
def test_an_answer_is_read_as_it_was_meant(stem: str, way: str, text: str) -> None:
    meant, reading = ANSWERS[stem[:3]], classify(text)
    if way in CLEAR:
        assert reading is LOST.get((stem, way), meant)
    elif reading is Reading.CONSENT:
        assert meant is Reading.CONSENT


@pytest.mark.parametrize(("stem", "way", "text"), hearings("v"))
def test_an_apartment_is_found_or_asked_for_again_but_never_another(stem: str, way: str, text: str) -> None:
    wanted = APARTMENTS.get(stem[:3])
    match = DIRECTORY.find_apartment(text)
    found = match.apartment.number if match.apartment else None
    assert found in {wanted, None}
    assert match.status != "ambiguous"
    if way in CLEAR and wanted and (stem, way) not in LOST_NUMBERS:
        assert found == wanted


@pytest.mark.parametrize(("stem", "way", "text"), hearings("v"))
def test_a_resident_is_matched_at_home_and_nowhere_else(stem: str, way: str, text: str) -> None:
    home, name = RESIDENTS.get(stem[:3], ("", ""))
    for apartment in DIRECTORY.apartments:
        match = DIRECTORY.match_resident(apartment, text)
        if apartment.number != home:
            assert match.status != "match" or "Oliveira" in str(match.resident)
        elif way in CLEAR:
            assert match.resident == name


@pytest.mark.parametrize(("stem", "way", "text"), hearings("v"))
def test_the_visitor_s_own_name_is_told_from_the_resident_s(stem: str, way: str, text: str) -> None:
    own = [mention.text for mention in person_mentions(text) if mention.kind == "self"]
    if way in CLEAR:
        assert own == ([OWN_NAMES[stem[:3]]] if stem[:3] in OWN_NAMES else [])


# --------------------------------------------------------------------------------------------------------
# Heard anew
# --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hear() -> Callable[[str], str]:
    """The real recogniser, greedy: the way that makes the most mistakes."""
    root = models_root(None, cwd=ROOT, environ=os.environ)
    fetch(root, default_sources(None))
    model = WhisperModel(str(verified_dir(root)), device="cpu", compute_type="int8", local_files_only=True)

    def words_of(stem: str) -> str:
        with wave.open(str(ROOT / "data" / "audio" / f"{stem}.wav")) as source:
            samples = np.frombuffer(source.readframes(source.getnframes()), "<i2").astype(np.float32) / 32768
        segments, _ = model.transcribe(
            soxr.resample(samples, 8000, 16000),
            language="pt",
            beam_size=1,
            temperature=0.0,
            condition_on_previous_text=False,
            without_timestamps=True,
        )
        return " ".join(segment.text.strip() for segment in segments)

    return words_of


@pytest.mark.slow
@pytest.mark.parametrize("stem", [stem for stem in HEARD if stem[0] == "r" and "grave" in stem])
def test_an_answer_heard_now_is_never_taken_for_consent_that_it_is_not(
    hear: Callable[[str], str], stem: str
) -> None:
    reading, meant = classify(hear(stem)), ANSWERS[stem[:3]]
    assert (reading is Reading.CONSENT) <= (meant is Reading.CONSENT)
    if meant is Reading.REFUSAL:
        assert reading is Reading.REFUSAL


@pytest.mark.slow
@pytest.mark.parametrize("stem", [f"{recording}-grave" for recording in APARTMENTS])
def test_an_apartment_heard_now_is_the_one_that_was_said(hear: Callable[[str], str], stem: str) -> None:
    match = DIRECTORY.find_apartment(hear(stem))
    assert match.apartment is None or match.apartment.number == APARTMENTS.get(stem[:3])
