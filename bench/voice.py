"""How well the voice detector hears over hours and in a crowd, with and without forgetting its state.

Its model's state drifts in long noise; after two seconds of clear non-speech it is forgotten
(`audio/vad.py`). What that gains, speech that is heard after two minutes of noise, and what it costs, voices
of a crowd that are taken for a caller's, stand side by side here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from audio.frames import FRAME_BYTES, TELEPHONE_RATE, saturated
from audio.g711 import ulaw_decode, ulaw_encode
from audio.vad import SpeechOnset, VadBatch, VadModel, VadProfile
from bench.hearing import Doubles, any_of, at_level, onset_of, recordings

NOISE_S: Final = 120.0
NOISE_DBOV: Final = -40.0
SPEECH_DBOV: Final = -30.0
CROWD_DBOV: Final = -40.0
HEARD_WITHIN_S: Final = 1.0
"""From where speech begins; who is heard later than that was missed."""
NEVER_MS: Final = 10**9


def over_the_line(sound: Doubles) -> bytes:
    """The sound over mu-law, 16-bit samples."""
    return ulaw_decode(ulaw_encode(saturated(sound)))


def onsets(model: VadModel, lines: Sequence[bytes], profile: VadProfile) -> list[list[int]]:
    """Where speech was heard to begin on each line, in samples; all are judged together."""
    batch = VadBatch(model)
    voices = [batch.voice(profile) for _ in lines]
    found: list[list[int]] = [[] for _ in lines]
    for place in range(0, max(map(len, lines)), FRAME_BYTES):
        for voice, line in zip(voices, lines, strict=True):
            voice.hear(line[place : place + FRAME_BYTES])
        batch.run()
        for voice, begun in zip(voices, found, strict=True):
            begun += [event.at for event in voice.take() if isinstance(event, SpeechOnset)]
    return found


def missed_after_noise(model: VadModel, profile: VadProfile, each: int = 1, seconds: float = NOISE_S) -> Any:
    """Of every ``each``-th recording, spoken after so much noise and in it, how many were not heard.

    ``p95_ms``: from where speech begins to where it was found to begin.
    """
    chance = np.random.default_rng(1)
    before = round(seconds * TELEPHONE_RATE)
    lines, begins = [], []
    for speech in [speech for who in ("grave", "leticia") for speech in recordings(who)][::each]:
        sound = at_level(chance.normal(0, 1, before + len(speech) + TELEPHONE_RATE), NOISE_DBOV)
        sound[before : before + len(speech)] += at_level(speech, SPEECH_DBOV)
        lines.append(over_the_line(sound))
        begins.append(before + onset_of(speech))
    early, late = TELEPHONE_RATE // 10, round(HEARD_WITHIN_S * TELEPHONE_RATE)
    offsets = [
        next((at - begin for at in found if begin - early <= at <= begin + late), None)
        for begin, found in zip(begins, onsets(model, lines, profile), strict=True)
    ]
    heard = [offset for offset in offsets if offset is not None]
    return {
        "spoken": len(offsets),
        "missed": len(offsets) - len(heard),
        "p95_ms": round(float(np.percentile(heard, 95)) * 1000 / TELEPHONE_RATE) if heard else None,
    }


def crowd(voices: int, seconds: float, chance: np.random.Generator) -> Doubles:
    """So many people who talk all the time, equally loud."""
    count = round(seconds * TELEPHONE_RATE)
    sound = np.zeros(count)
    for number in range(voices):
        who = ("grave", "leticia")[number % 2]
        talk = np.concatenate([at_level(any_of(who, chance), -30) for _ in range(12)])
        sound += np.resize(np.roll(talk, int(chance.integers(len(talk)))), count)
    return at_level(sound, CROWD_DBOV)


def triggers_in_a_crowd(model: VadModel, profile: VadProfile, voices: int, minutes: int) -> Any:
    """Onsets a minute where only a crowd is heard, each minute another one."""
    chance = np.random.default_rng(voices)
    found = onsets(model, [over_the_line(crowd(voices, 60, chance)) for _ in range(minutes)], profile)
    return {"minutes": minutes, "triggers_a_minute": round(sum(map(len, found)) / minutes, 2)}


def measure_voice(
    model: VadModel, minutes: int = 10, each: int = 1, noise_s: float = NOISE_S
) -> dict[str, Any]:
    """All of it, with the state forgotten in clear pauses, as in a call, and kept for ever."""
    usual = VadProfile()
    figures: dict[str, Any] = {}
    for name, profile in (("forgets", usual), ("keeps", replace(usual, reset_after_ms=NEVER_MS))):
        figures[name] = {
            "after_noise": missed_after_noise(model, profile, each, noise_s),
            "crowd_of_10": triggers_in_a_crowd(model, profile, 10, minutes),
            "crowd_of_20": triggers_in_a_crowd(model, profile, 20, minutes),
        }
    return figures
