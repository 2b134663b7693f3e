"""Whether decoded words were said: sound, support and agreement decide; in doubt nothing was said.

Whisper always answers, also to noise, and a prompt makes it answer with the prompt's own phrases. An
invented "pode liberar" would open a gate, a lost one only costs a second asking: so every rule here leans to
silence. It is pure: numbers in, words out.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from rapidfuzz import fuzz

_SPEECH: Final = 0.5
"""A window at or above this probability counts as speech."""
_WINDOW_MS: Final = 32
_MIN_SPEECH_MS: Final = 96
"""The shortest "sim" of the recordings has 224 ms; cut-off syllables have less."""
_MIN_PEAK: Final = 0.6
_MIN_LEVEL_DBFS: Final = -58.0
_SUPPORTED: Final = -1.1
"""Mean support of what was said. Clean and mu-law recordings have -0.1 to -1.05; phrases that the prompt put
into babble have -1.8 to -5; "De jeito nenhum" in loud noise was read as "Beleza, menino" at -1.3."""
_QUESTION_SUPPORTED: Final = -1.7
"""A question opens nothing, so weaker support is enough: a short "quem é?" has about -1.6."""
_BLIP_MS: Final = 300
_BLIP_SUPPORTED: Final = -0.9
"""Of less than 300 ms of speech only what is plain counts ("sim" has -0.5): a syllable that was cut off
sounds like many a short word ("O quê" like "Ok" at -1.3)."""
_WEAKEST: Final = -5.0
"""The least supported token; an invented phrase behind real words shows here and not in the mean."""
_CLEAR: Final = -0.6
_NEARLY: Final = -1.8
_LOOK_AGAIN: Final = -2.6
"""Support that is worth a second look at the sound: a "Sim." at the start of a window has down to -2.4."""
_ALIKE: Final = 90.0
_AGREE: Final = 70.0
_MAX_COMPRESSION: Final = 2.2
_MAX_CHARS_PER_S: Final = 30.0
_MAX_NO_SPEECH: Final = 0.6
_MAX_NO_SPEECH_CLEAR: Final = 0.8


@dataclass(frozen=True, slots=True)
class Decoding:
    """One reading of the sound. Log-probabilities are natural, per token."""

    text: str
    mean: float
    """As decoded: with the prompt, where there was one."""
    support: float
    """Mean over the tokens, given the sound without any prompt."""
    weakest: float
    """The least supported token."""
    no_speech: float
    """Whisper's own probability that nobody spoke."""
    compression: float
    """How often it repeats itself: zlib's ratio."""


@dataclass(frozen=True, slots=True)
class Sound:
    """What the VAD and a level meter say of the window."""

    speech_ms: int
    peak: float
    """The highest probability of speech."""
    level_dbfs: float
    """RMS over the windows of speech."""
    first_s: float = 0.0
    """Where speech begins."""

    def why_nothing(self) -> str | None:
        """Why there is nothing to be decoded; None where there may be."""
        if self.speech_ms < _MIN_SPEECH_MS or self.peak < _MIN_PEAK:
            return "no speech"
        if self.level_dbfs < _MIN_LEVEL_DBFS:
            return "too faint"
        return None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The words that were said (none: empty) and the rule that said so."""

    text: str
    why: str
    nearly: tuple[str, ...] = ()
    """Where nothing was said: readings that another look at the sound might bear out."""


def sound_of(narrow: npt.NDArray[np.int16], probabilities: npt.NDArray[np.float64]) -> Sound:
    """Sum up a window of audio at 8 kHz and its speech probabilities (one each 256 samples)."""
    voiced = np.flatnonzero(probabilities >= _SPEECH)
    if not len(voiced):
        peak = float(probabilities.max()) if len(probabilities) else 0.0
        return Sound(0, peak, -120.0)
    windows = narrow[: 256 * len(probabilities)].reshape(-1, 256)[voiced].astype(np.float64) / 32768
    power = float(np.mean(np.square(windows)))
    level = 10 * float(np.log10(power + 1e-12))
    first_s = float(voiced[0]) * _WINDOW_MS / 1000
    return Sound(_WINDOW_MS * len(voiced), float(probabilities.max()), level, first_s)


def needs_second_look(prompted: Decoding) -> bool:
    """Whether a decoding with a prompt must be compared with one without it."""
    return prompted.support < _CLEAR or prompted.weakest < _WEAKEST


def judge(prompted: Decoding | None, plain: Decoding | None, sound: Sound) -> Verdict:
    """What was said.

    Args:
        prompted: the decoding with the prompt; None: there is no prompt.
        plain: the one without; None where ``prompted`` needed no second look.
        sound: of the same window.
    """
    if prompted is not None and _holds(prompted, sound):
        return _words(prompted, "supported")
    if prompted is not None and plain is not None and _same_but_for_numbers(prompted, plain, sound):
        return _words(prompted, "same")
    if plain is not None and _holds(plain, sound):
        return _words(plain, "plain")
    if prompted is not None and plain is not None and _agree(prompted, plain) and _sane(prompted, sound):
        return _words(prompted, "agreed")
    readings = [one for one in (prompted, plain) if one is not None]
    near = [one.text for one in readings if _sane(one, sound) and one.support >= _LOOK_AGAIN]
    return Verdict("", "unsupported", tuple(near))


def borne_out(second: str, nearly: tuple[str, ...]) -> bool:
    """Whether a second look at the sound gave the words of the first, or of two questions another one."""
    return any(_alike(second, words) or (_is_question(second) and _is_question(words)) for words in nearly)


def _alike(one: str, other: str) -> bool:
    """The same words, but for their writing; nothing is like nothing."""
    return bool(one) and fuzz.ratio(_letters(one), _letters(other)) >= _ALIKE


def _holds(decoding: Decoding, sound: Sound) -> bool:
    if not _sane(decoding, sound):
        return False
    clear = decoding.support >= _CLEAR
    if decoding.no_speech > (_MAX_NO_SPEECH_CLEAR if clear else _MAX_NO_SPEECH):
        return False
    return decoding.support >= _least_support(decoding, sound) and decoding.weakest >= _WEAKEST


def _least_support(decoding: Decoding, sound: Sound) -> float:
    if _is_question(decoding.text):
        return _QUESTION_SUPPORTED
    return _BLIP_SUPPORTED if sound.speech_ms < _BLIP_MS else _SUPPORTED


def _same_but_for_numbers(prompted: Decoding, plain: Decoding, sound: Sound) -> bool:
    """The same words, but "quinhentos e um" where the sound alone gives "501": the words are the better ones.

    Nothing else may differ: a phrase that the prompt added to real words must not come in this way.
    """
    if not (_sane(prompted, sound) and prompted.support >= _SUPPORTED and plain.support >= _CLEAR):
        return False
    ours, theirs = _split(prompted.text), _split(plain.text)
    while ours and theirs and ours[0] == theirs[0]:
        del ours[0], theirs[0]
    while ours and theirs and ours[-1] == theirs[-1]:
        del ours[-1], theirs[-1]
    return (
        any(word.isdigit() for word in theirs)
        and all(word.isdigit() or word == "e" for word in theirs)
        and bool(ours)
        and all(_NUMBER.fullmatch(word) for word in ours)
    )


_NUMBER: Final = re.compile(
    r"e|zero|uma?|dois|duas|tres|quatro|cinco|seis|meia|sete|oito|nove|dez|onze|doze|treze|quatorze|catorze|"
    r"quinze|dezesseis|dezessete|dezoito|dezenove|vinte|trinta|[a-z]+enta|cem|cento|duzentos|trezentos|"
    r"quinhentos|[a-z]+centos|mil"
)


def _split(text: str) -> list[str]:
    plain = unicodedata.normalize("NFD", text.lower())
    return re.findall(r"[a-z0-9]+", "".join(sign for sign in plain if not unicodedata.combining(sign)))


def _is_question(text: str) -> bool:
    return text.endswith("?") and _ASKS.match(text) is not None


_ASKS: Final = re.compile(
    r"(?:(?:oi|ah|mas|é)\b[ ,]*)?(?:quem|que|quê|alô|o que|qual|como|onde|por qu[eê])\b", re.IGNORECASE
)


def _sane(decoding: Decoding, sound: Sound) -> bool:
    return (
        bool(decoding.text)
        and decoding.compression <= _MAX_COMPRESSION
        and len(decoding.text) * 1000 <= _MAX_CHARS_PER_S * (sound.speech_ms + 300)
    )


def _agree(prompted: Decoding, plain: Decoding) -> bool:
    """A short question, supported too little, but a question or alike in sound without the prompt too.

    Of "Quem é?" in a high voice the sound alone makes "E aí?" at -1.5: that somebody asks is plain enough.
    """
    if not _is_question(prompted.text) or prompted.mean < -1.4 or prompted.no_speech > 0.3:
        return False
    if plain.text.endswith("?") and plain.support >= _NEARLY:
        return True
    return plain.support >= -3.0 and fuzz.ratio(_letters(prompted.text), _letters(plain.text)) >= _AGREE


def _words(decoding: Decoding, why: str) -> Verdict:
    text = without_inventions(decoding.text)
    return Verdict(text, why if text else "invention")


# ---------------------------------------------------------------------------------- known inventions

_INVENTED: Final = re.compile(
    r"amara\.org|legendas? (?:pela|por|da|de|feita)|transcri[cç][aã]o (?:e|por|de) |legendado por|"
    r"obrigad[oa]s? por (?:assistir|ver|me assistir|nos assistir|n[aã]o me)|"
    r"inscreva-se|se inscreva|deixe? (?:o )?(?:seu )?like|at[eé] (?:o |a )pr[oó]xim[oa] v[ií]deo|"
    r"tchau,? tchau,? at[eé]|www\.|https?:|♪|subt[ií]tulos|sejam? bem[- ]vindos? ao (?:nosso |meu )?canal",
    re.IGNORECASE,
)
"""What whisper's training on subtitles makes of noise, seen by us or by its users."""


def without_inventions(text: str) -> str:
    """The text, or nothing where it is one of whisper's known inventions or holds no word."""
    if _INVENTED.search(text) or not any(sign.isalnum() for sign in text):
        return ""
    return text


def _letters(text: str) -> str:
    plain = unicodedata.normalize("NFD", text.lower())
    return "".join(sign for sign in plain if sign.isalnum())
