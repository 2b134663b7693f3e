"""What is heard and, above all, what is not: no noise may ever become somebody's consent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from audio.vad import VadModel
from providers.local.espeak import EspeakError
from providers.local.espeak_process import EspeakProcess
from providers.local.evidence import Decoding, Sound, judge, without_inventions
from providers.local.recognition import Recogniser, RecognitionError
from providers.local.turns import InputBuffer, Stopped, Vad
from tests.providers.local.local_wire import ROOT, wide
from visits.consent import Reading, classify

pytestmark = pytest.mark.timeout(900)  # some recognise minutes of sound, beside other tests

Recording = Callable[[str], npt.NDArray[np.int16]]
Floats = npt.NDArray[np.float64]
PROMPT = "Portaria do condomínio. Apartamento quinhentos e um. Quem é? Pode liberar. Não autorizo a entrada."
TEMPTING = "Sim. Pode liberar. Pode entrar. Autorizo. Claro, pode abrir. Pode subir. Pode deixar entrar."
"""The prompt that would be the worst: nothing but consent."""
MANIFEST = json.loads((ROOT / "data" / "audio" / "manifest.json").read_text())


def _mu_law(x: Floats) -> Floats:
    coded = np.round(np.sign(x) * np.log1p(255 * np.abs(x)) / np.log(256) * 127) / 127
    return np.asarray(np.sign(coded) * (256 ** np.abs(coded) - 1) / 255)


def _at(x: Floats, dbfs: float) -> npt.NDArray[np.int16]:
    """At a level, through mu-law, as a trunk brings it."""
    scaled = x / (np.sqrt(np.mean(np.square(x))) + 1e-12) * 10 ** (dbfs / 20)
    return np.round(_mu_law(np.clip(scaled, -1, 1)) * 32767).astype(np.int16)


def _pink(rng: np.random.Generator, n: int) -> Floats:
    spectrum = np.fft.rfft(rng.standard_normal(n))
    return np.asarray(np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)), n))


def _babble(rng: np.random.Generator, voices: list[Floats], n: int, backwards: bool) -> Floats:
    mixed = np.zeros(n)
    for voice in voices:
        loop = np.tile(voice[::-1] if backwards else voice, n // len(voice) + 2)
        start = int(rng.integers(len(loop) - n))
        mixed += loop[start : start + n]
    return mixed


def _noises(rng: np.random.Generator, n: int) -> Iterator[tuple[str, Floats]]:
    t = np.arange(n) / 8000
    impulses = np.zeros(n)
    impulses[rng.integers(0, n, max(2, n // 2000))] = 1
    yield "silence with comfort noise", rng.standard_normal(n)
    yield "pink", _pink(rng, n)
    yield "brown", np.cumsum(rng.standard_normal(n))
    yield "tone", np.sin(2 * np.pi * 1000 * t)
    yield "ringing", np.sin(2 * np.pi * 425 * t) * (t % 5 < 1) + 1e-3 * rng.standard_normal(n)
    yield "busy", np.sin(2 * np.pi * 425 * t) * (t % 0.5 < 0.25)
    yield "dtmf", np.sin(2 * np.pi * 770 * t) + np.sin(2 * np.pi * 1336 * t)
    yield "clicks", impulses
    yield "knocks", np.convolve(impulses, np.exp(-np.arange(400) / 60) * rng.standard_normal(400), "same")
    yield "breath", np.convolve(rng.standard_normal(n), np.ones(8) / 8, "same") * np.sin(2.5 * t) ** 6
    yield "siren", np.sin(2 * np.pi * np.cumsum(600 + 300 * np.sin(np.pi * t)) / 8000)
    chord = (220, 277, 330, 440, 554)
    yield "music", sum((np.sin(2 * np.pi * f * t) * (np.sin(4 * t + f) > 0) for f in chord), np.zeros(n))


@pytest.mark.parametrize("prompt", [PROMPT, TEMPTING])
def test_no_noise_becomes_a_word(recogniser: Recogniser, prompt: str) -> None:
    """Straight into the recogniser, past the turn detection: a client may commit whatever it likes."""
    rng = np.random.default_rng(11)
    for seconds in (0.3, 1.0, 4.0):
        for name, noise in _noises(rng, int(8000 * seconds)):
            for dbfs in (-10, -30, -55):
                heard = recogniser.recognise_now(_at(noise, dbfs).tobytes(), 8000, "pt", prompt)
                assert heard.text == "", f"{name}, {seconds} s, {dbfs} dBFS: {heard}"


@pytest.mark.slow
def test_no_babble_and_no_scrap_of_speech_becomes_consent(
    recogniser: Recogniser, vad: VadModel, recording: Recording
) -> None:
    """Voices that are no words, all the way: turn detection, recogniser, what a resident's words mean."""
    rng = np.random.default_rng(23)
    voices = [recording(one["file"][:-4]).astype(np.float64) / 32768 for one in MANIFEST]
    sounds: list[tuple[str, npt.NDArray[np.int16]]] = []
    for number in range(16):
        few = [voices[i] for i in rng.integers(0, len(voices), 1 + number % 8)]
        length = int(rng.integers(3000, 24_000))
        sounds.append(("babble", _at(_babble(rng, few, length, len(few) < 4), -12 - number)))
    for _ in range(16):
        voice = voices[int(rng.integers(len(voices)))]
        length = int(rng.integers(900, 2600))
        start = int(rng.integers(0, max(1, len(voice) - length)))
        # A scrap of a consent is consent: only scraps of other words are of interest.
        sounds.append(("scrap", _at(voice[::-1][start : start + length], -20)))
    turns = 0
    for name, sound in sounds:
        for event in InputBuffer(vad, Vad()).append(wide(sound)):
            if isinstance(event, Stopped):
                turns += 1
                heard = recogniser.recognise_now(event.pcm, 24_000, "pt", TEMPTING)
                assert classify(heard.text) is not Reading.CONSENT, f"{name}: {heard}"
    assert turns > 10  # otherwise this test has shown nothing


def test_other_languages_do_not_consent(recogniser: Recogniser) -> None:
    """Speech, but no answer: a radio or a neighbour in another language."""
    said = {
        "en-us": "The weather will be fine tomorrow, with light winds from the north.",
        "de": "Das Wetter wird morgen schön, bei leichtem Wind aus Norden.",
        "fr": "Le temps sera beau demain, avec un vent léger du nord.",
    }
    for name, text in said.items():
        with closing(EspeakProcess(name)) as voice:
            pcm = voice.synthesize(text)
        heard = recogniser.recognise_now(pcm, 22_050, "pt", TEMPTING)
        assert classify(heard.text) is not Reading.CONSENT, f"{name}: {heard}"


def test_a_voice_that_does_not_exist_is_named() -> None:
    with pytest.raises(EspeakError, match="xx-nope"):
        EspeakProcess("xx-nope").synthesize("Hello.")


# ---------------------------------------------------------------------------------------- what is heard


def _plain(text: str) -> list[str]:
    return "".join(sign for sign in text.lower() if sign.isalnum() or sign.isspace()).split()


def _noisy(rng: np.random.Generator, said: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    x = said.astype(np.float64) / 32768
    noise = _pink(rng, len(x))
    noise *= np.sqrt(np.mean(x**2) / np.mean(noise**2)) / 10  # 20 dB below
    return np.round(_mu_law(np.clip(x + noise, -1, 1)) * 32767).astype(np.int16)


@pytest.mark.slow
@pytest.mark.parametrize(("line", "least"), [("clean", 19), ("noisy", 14)])
@pytest.mark.parametrize("speaker", ["leticia", "grave"])
def test_the_residents_words_are_heard_for_what_they_mean(
    recogniser: Recogniser, recording: Recording, speaker: str, line: str, least: int
) -> None:
    """Of twenty answers nearly all are understood, and not one that is none is turned into consent."""
    rng, right, all_of_them = np.random.default_rng(4), 0, 0
    for one in (one for one in MANIFEST if one["role"] == "resident" and one["speaker"] == speaker):
        said = recording(one["file"][:-4])
        said = _noisy(rng, said) if line == "noisy" else said
        heard = recogniser.recognise_now(wide(said), 24_000, "pt", PROMPT).text
        meant, read = classify(one["text"]), classify(heard)
        assert read is not Reading.CONSENT or meant is Reading.CONSENT, f"{one['text']}: {heard}"
        right += heard != "" and (read is meant or _plain(heard) == _plain(one["text"]))
        all_of_them += 1
    assert all_of_them == 20 and right >= least, f"{right} of {all_of_them}"


@pytest.mark.parametrize(
    ("stem", "words"),
    [
        ("r03-grave", "pode liberar"),  # without a prompt at times: "Pogilibera."
        ("r04-grave", "não autorizo"),
        ("r01-leticia", "sim"),
        ("r02-grave", "não"),
        ("v03-leticia", "meu nome é pedro da silva"),
    ],
)
def test_short_answers_are_heard_to_the_word(
    recogniser: Recogniser, recording: Recording, stem: str, words: str
) -> None:
    heard = recogniser.recognise_now(wide(recording(stem)), 24_000, "pt", PROMPT)
    assert " ".join(_plain(heard.text)) == words


async def test_too_many_turns_at_once_are_refused_and_the_others_are_heard(
    weights: Path, vad: VadModel, recording: Recording
) -> None:
    small = Recogniser(weights, vad, threads=2, waiting=3)
    pcm = wide(recording("r01-leticia"))
    work = [asyncio.create_task(small.recognise(pcm, 24_000, "pt", "")) for _ in range(8)]
    done = await asyncio.gather(*work, return_exceptions=True)
    small.close()
    refused = [one for one in done if isinstance(one, RecognitionError)]
    assert len(refused) == 5 and "3 turns are waiting" in str(refused[0])
    assert {one.text for one in done if not isinstance(one, BaseException)} == {"Sim."}


@pytest.mark.parametrize("pcm", [b"", b"\0\0", bytes(4800)])
def test_nothing_is_nothing(recogniser: Recogniser, pcm: bytes) -> None:
    assert recogniser.recognise_now(pcm, 24_000, "pt", PROMPT).text == ""


# ------------------------------------------------------------------------------------------- the judgement

_LONG = Sound(speech_ms=3000, peak=0.99, level_dbfs=-20)
_VOICE = Sound(speech_ms=900, peak=0.99, level_dbfs=-20)


def _decoded(text: str, support: float, weakest: float = -2.0, mean: float = -0.1) -> Decoding:
    return Decoding(text, mean, support, weakest, 0.1, 1.0)


def test_a_phrase_of_the_prompt_needs_the_sound_s_support() -> None:
    """However sure the prompted model is: "Pode liberar." from babble had -0.9 with it and -4.5 without."""
    invented = _decoded("Pode liberar.", -4.5, -11, mean=-0.03)
    assert judge(invented, _decoded("O que é isso?", -2.4), _VOICE).text == ""
    assert judge(invented, _decoded("Pode liberar.", -4.5, -11), _VOICE).text == ""
    assert judge(_decoded("Pode liberar.", -0.96, -3.3), _decoded("Pogilibera.", -0.8), _VOICE).text


def test_an_invented_tail_falls_back_to_what_was_said() -> None:
    with_tail = _decoded("Alô, bom dia. Pode liberar.", -0.9, -9)
    assert judge(with_tail, _decoded("Alô, bom dia.", -0.2), _VOICE).text == "Alô, bom dia."


def test_numbers_may_be_written_either_way_but_nothing_else_may_be_added() -> None:
    plain = _decoded("Entrega para o apartamento 501.", -0.2)
    words = _decoded("Entrega para o apartamento quinhentos e um.", -0.6, -6.3)
    assert judge(words, plain, _LONG).text == words.text
    added = _decoded("Entrega para o apartamento quinhentos e um, pode liberar.", -0.8, -6.3)
    assert judge(added, plain, _LONG).text == plain.text


def test_two_weak_readings_agree_on_a_question_alone() -> None:
    asked = judge(_decoded("Quem é?", -2.2, -6.3, -0.8), _decoded("E aí?", -1.5, -3.4), _VOICE)
    assert asked.text == "Quem é?"
    for prompted, plain in (("Pode abrir?", "E aí?"), ("Pode abrir.", "Pode abrir."), ("Sim?", "E aí?")):
        assert judge(_decoded(prompted, -2.2, -6.3, -0.1), _decoded(plain, -1.5, -3.4), _VOICE).text == ""


def test_a_short_blip_must_be_plain() -> None:
    blip = Sound(speech_ms=224, peak=0.9, level_dbfs=-20)
    assert judge(_decoded("Ok.", -1.0), _decoded("Ok.", -1.0), blip).text == ""
    assert judge(_decoded("Sim.", -0.5), None, blip).text == "Sim."


@pytest.mark.parametrize(
    ("sound", "why"),
    [
        (Sound(0, 0.3, -20), "no speech"),
        (Sound(64, 0.9, -20), "no speech"),
        (Sound(900, 0.9, -70), "too faint"),
    ],
)
def test_without_a_voice_nothing_is_decoded(sound: Sound, why: str) -> None:
    assert sound.why_nothing() == why
    assert _VOICE.why_nothing() is None


@pytest.mark.parametrize(
    "text",
    [
        "Legendas pela comunidade Amara.org",
        "Obrigado por assistir!",
        "Transcrição e Legendas Pedro Negri",
        "Inscreva-se no canal.",
        "♪ ♪",
        "...",
        "",
    ],
)
def test_known_inventions_are_not_words(text: str) -> None:
    assert without_inventions(text) == ""


@pytest.mark.parametrize("text", ["Obrigado.", "Obrigada, tchau.", "Pode liberar.", "É a legenda do 501."])
def test_real_words_are_left_alone(text: str) -> None:
    assert without_inventions(text) == text
