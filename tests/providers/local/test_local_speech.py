"""Speech: numbers are read as words, the level is right, and nothing clips."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.local.espeak import MAX_TEXT
from providers.local.espeak_process import espeak
from providers.local.speech import RATE, SentenceCache, Speaker, SpeechError, level, make_voice, render
from providers.local.spoken import LONGEST, sentences, spoken_form


def _sounds(text: str) -> str:
    """The phonemes, without stress and pauses."""
    return "".join(sign for sign in espeak().phonemes(text) if sign not in "ˈˌ ").replace("w", "u")


@pytest.mark.parametrize(
    ("digits", "words"),
    [
        ("501", "quinhentos e um"),
        ("102", "cento e dois"),
        ("1002", "mil e dois"),
        ("302", "trezentos e dois"),
    ],
)
def test_numbers_are_read_as_people_say_them(digits: str, words: str) -> None:
    assert _sounds(f"apartamento {digits}") == _sounds(f"apartamento {words}")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("São R$ 50,00.", "São 50 reais."),
        ("R$ 12,50", "12 reais e 50 centavos"),
        ("O Sr. João e a Sra. Ana", "O senhor João e a senhora Ana"),
        ("apto. 501, bl. B", "apartamento 501, bloco B"),
        ("código 5-0-1", "código 5, 0, 1"),
        ("no 102-B", "no 102 B"),
        ("**Atenção** [aqui]", "Atenção aqui"),
    ],
)
def test_signs_are_spoken(written: str, said: str) -> None:
    assert spoken_form(written) == said


@given(st.text(max_size=600))
def test_money_is_never_spelt_and_any_text_has_a_spoken_form(text: str) -> None:
    assert "R$" not in spoken_form(f"{text} R$ 5 {text}").replace(text, "")
    parts = sentences(text)
    assert all(part and len(part) <= LONGEST for part in parts)
    assert "".join("".join(parts).split()) == "".join(text.split())


def test_sentences_leave_one_by_one() -> None:
    assert sentences("Boa tarde! O Sr. João está?  Sim… Então espere.") == [
        "Boa tarde!",
        "O Sr. João está?",
        "Sim…",
        "Então espere.",
    ]


@pytest.mark.parametrize(
    "text", ["Boa tarde!", "O apartamento 501 autorizou a entrada.", "Não.", "Quem é? É uma entrega."]
)
async def test_speech_is_level_unclipped_and_clear_of_silence(text: str, speaker: Speaker) -> None:
    pcm = np.frombuffer(await speaker.say(text), "<i2").astype(np.float64) / 32768
    peak_db = 20 * np.log10(np.max(np.abs(pcm)))
    voiced = pcm[: -int(0.2 * RATE)]
    rms_db = 10 * np.log10(np.mean(np.square(voiced)))
    assert peak_db <= -2.9
    assert -25 < rms_db <= -19.5
    assert 0.2 < len(pcm) / RATE < 10
    # The ends are silent, so that sentences join without clicks.
    assert abs(pcm[0]) < 0.001 and abs(pcm[-1]) < 0.001


@given(st.lists(st.floats(-1, 1, width=32), max_size=500))
def test_no_level_clips(samples: list[float]) -> None:
    out = level(np.array(samples, np.float32))
    assert len(out) == len(samples)
    assert not len(out) or float(np.max(np.abs(out))) <= 10 ** (-3 / 20) + 1e-6


async def test_what_was_said_before_comes_from_the_cache() -> None:
    speaker = Speaker(make_voice(None))
    first = await speaker.say("Um momento, por favor.")
    assert await speaker.say("Um momento, por favor.") == first
    assert await speaker.say("Um momento, por favor.", 1.3) != first
    assert (speaker.cache.counts.hits, speaker.cache.counts.misses) == (1, 2)
    speaker.close()


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 60)), max_size=60))
def test_the_cache_never_outgrows_its_bound(puts: list[tuple[int, int]]) -> None:
    cache, kept = SentenceCache(100), dict[tuple[str, str, float], bytes]()
    for number, size in puts:
        key = ("v", str(number), 1.0)
        kept[key] = bytes(size)
        cache.put(key, kept[key])
        assert cache.counts.bytes <= 100
        assert cache.get(key) == kept[key]


async def test_many_at_once_don_t_mix_their_words() -> None:
    """The library has one state a process: two speakers in two threads must not share their samples."""
    # Lengths, about: the voice's breath is noise, so two renderings differ in samples and where they end.
    alone = {text: len(render(make_voice(None), text, 1.0)) for text in ("Bom dia.", "Boa noite, tudo bem?")}
    speakers = [Speaker(make_voice(None), cache_bytes=0) for _ in range(3)]
    asked = [(speaker, text) for speaker in speakers for text in alone for _ in range(5)]
    said = await asyncio.gather(*(speaker.say(text) for speaker, text in asked))
    assert all(abs(len(pcm) - alone[text]) < 2400 for (_, text), pcm in zip(asked, said, strict=True))
    assert abs(alone["Bom dia."] - alone["Boa noite, tudo bem?"]) > 9600
    for speaker in speakers:
        speaker.close()


@pytest.mark.parametrize("text", ["", "   ", "...", "\0", "🙂", "<break/>"])
async def test_a_text_without_words_is_silence_not_a_crash(text: str, speaker: Speaker) -> None:
    pcm = await speaker.say(text)
    assert len(pcm) % 2 == 0


async def test_a_text_too_long_is_an_error(speaker: Speaker) -> None:
    with pytest.raises(SpeechError, match="too long"):
        await speaker.say("a" * (MAX_TEXT + 1))


def test_a_piper_voice_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpeechError, match=r"faber\.onnx"):
        make_voice(tmp_path / "faber.onnx")


def test_piper_that_is_not_installed_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "piper", None)
    voice = tmp_path / "faber.onnx"
    voice.touch()
    voice.with_name("faber.onnx.json").touch()
    with pytest.raises(SpeechError, match="--extra piper"):
        make_voice(voice)
