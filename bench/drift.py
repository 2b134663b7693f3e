"""Whether the VAD hears after hours of noise as it does at a call's start; in simulated time.

Several legs hear noise for hours, judged in one batch as the service does it. Before and after, each hears
recordings within that noise. Time is compressed by the processor's speed alone: every
window of those hours is judged, with each leg's state carried on; nothing is left out.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from audio.frames import TELEPHONE_RATE, samples_of, saturated
from audio.vad import SpeechOnset, VadBatch, VadModel, VadProfile, VoiceActivity
from bench.figures import spread
from bench.hearing import at_level, onset_of, street
from bench.quality import spoken

LEGS: Final = 12
NOISE_DBOV: Final = -40.0
SPEECH_DBOV: Final = -20.0
LOOP_S: Final = 30.0
"""Of noise, for each leg another; repeated from another place each time."""
STEP_S: Final = 1.0
BETWEEN_S: Final = 1.5
"""Of noise alone before each recording: the one before it has ended."""
WITHIN_S: Final = 0.2
"""An onset that is put later than this after the speech began has lost a syllable: it was missed."""
RECORDINGS: Final = 21
"""Of both speakers and both roles; each leg hears all of them."""


@dataclass(slots=True)
class _Leg:
    voice: VoiceActivity
    noise: bytes
    """Twice the loop, so that so much can be cut from any place of it."""
    chance: np.random.Generator

    def some_noise(self, samples: int) -> bytes:
        """At most a loop's length."""
        start = 2 * int(self.chance.integers(len(self.noise) // 4))
        return self.noise[start : start + 2 * samples]


def drift(
    model: VadModel, leg_hours: float, profile: VadProfile | None = None, recordings: int = RECORDINGS
) -> dict[str, Any]:
    """So many hours of noise, shared by all legs: what was heard of speech before and after them."""
    began = time.monotonic()
    batch = VadBatch(model)
    legs = []
    for number in range(LEGS):
        chance = np.random.default_rng((29, number))
        white = chance.normal(0, 1, round(LOOP_S * TELEPHONE_RATE))
        kind = street(LOOP_S, chance) if number % 2 else white
        loop = saturated(at_level(kind, NOISE_DBOV))
        legs.append(_Leg(batch.voice(profile), loop + loop, chance))
    before = _recall(batch, legs, recordings)
    false = 0
    for _ in range(round(leg_hours * 3600 / STEP_S / LEGS)):
        for leg in legs:
            leg.voice.hear(leg.some_noise(round(STEP_S * TELEPHONE_RATE)))
        batch.run()
        false += sum(isinstance(event, SpeechOnset) for leg in legs for event in leg.voice.take())
    after = _recall(batch, legs, recordings)
    return {
        "legs": LEGS,
        "leg_hours": leg_hours,
        "hours_each": round(leg_hours / LEGS, 3),
        "noise_dbov": NOISE_DBOV,
        "took_s": round(time.monotonic() - began, 1),
        "false_onsets_per_hour": round(false / leg_hours, 3),
        "before": before,
        "after": after,
    }


def _recall(batch: VadBatch, legs: Sequence[_Leg], recordings: int) -> dict[str, Any]:
    """Each leg hears so many recordings, one by one: how many beginnings it notices, and how late."""
    sounds = (samples_of(said.pcm).astype(np.float64) for said in spoken(recordings))
    speech = [at_level(sound, SPEECH_DBOV) for sound in sounds]
    late: list[float] = []
    longest = max(len(sound) for sound in speech)
    for number in range(len(speech)):
        begun = []
        for place, leg in enumerate(legs):
            sound = speech[(number + place) % len(speech)]
            quiet = round(BETWEEN_S * TELEPHONE_RATE)
            whole = samples_of(leg.some_noise(quiet + longest)).astype(np.float64)
            whole[quiet : quiet + len(sound)] += sound
            begun.append(leg.voice.samples_fed + quiet + onset_of(sound))
            leg.voice.hear(saturated(whole))
        batch.run()
        for leg, start in zip(legs, begun, strict=True):
            onsets = [event.at for event in leg.voice.take() if isinstance(event, SpeechOnset)]
            near = [at - start for at in onsets if abs(at - start) <= WITHIN_S * TELEPHONE_RATE]
            late += [max(0, near[0]) * 1000 / TELEPHONE_RATE] if near else []
    return {"spoken": len(legs) * len(speech), "heard": len(late), "late_ms": spread(late, 0)}


__all__ = ["drift"]
