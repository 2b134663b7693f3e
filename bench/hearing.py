"""How well a leg hears: barge-ins caught and how soon, and what is taken for one that isn't.

The ear and the playout of the service, in simulated time: recorded speech of two speakers (ours and the
caller's), echo paths with reverberation, noise and mu-law by computation. A frame that comes in is judged at
the tick after it, as in the service; nothing else is between telephone and us: a network's time comes on top.
"""

from __future__ import annotations

import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from audio.aec3 import Aec3, available
from audio.echo import EchoGuard, EchoProfile
from audio.frames import FRAME_SAMPLES, FULL_SCALE, TELEPHONE_RATE, samples_of, saturated
from audio.g711 import ulaw_decode, ulaw_encode
from audio.hearing import Ears
from audio.playout import Playout
from audio.vad import SpeechOnset, VadModel

EchoMode = Literal["none", "guard", "aec3"]
Doubles = npt.NDArray[np.float64]

RECORDINGS: Final = Path(__file__).parent.parent / "data" / "audio"
CALL_S: Final = 60.0
"""Each simulated call's length: what is not learnt yet at a call's start is in the figures."""
OURS_DBOV: Final = -20.0
CALLER_DBOV: Final = -20.0
FIRST_CALLER_S: Final = 2.0
"""When callers speak for the first time, at the earliest."""
PATH_SAMPLES: Final = 3200
TAIL_SAMPLES: Final = 400
"""Of reverberation: 50 ms."""
MISSED_S: Final = 1.5
"""A caller who speaks for so long without our falling silent was not heard."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One situation, over many calls."""

    name: str
    minutes: float
    we_talk: bool = True
    caller: bool = False
    echo_db: float | None = None
    """How loud our echo is beside what we played; None: there is none."""
    delays_ms: tuple[float, float] = (20.0, 300.0)
    """From the tick that plays a sample to where it is in what comes in, spread over the calls."""
    noise: Callable[[float, np.random.Generator], Doubles] | None = None
    """Seconds and chance → a noise, of any level."""
    noise_dbov: float = -65.0
    mode: EchoMode = "guard"
    """What is done about our echo."""


@dataclass(slots=True)
class Found:
    """What became of a scene."""

    seconds: float = 0.0
    spoken: int = 0
    """Times that a caller spoke over us."""
    caught_ms: list[float] = field(default_factory=list)
    """From where their speech begins to the end of our last audible frame."""
    false: int = 0
    """Onsets where no caller spoke."""

    def figures(self) -> dict[str, Any]:
        """For people and JSON."""
        caught = sorted(self.caught_ms)
        return {
            "minutes": round(self.seconds / 60, 2),
            "false": self.false,
            "spoken": self.spoken,
            "caught": len(caught),
            "p50_ms": round(float(np.percentile(caught, 50))) if caught else None,
            "p95_ms": round(float(np.percentile(caught, 95))) if caught else None,
        }


def scenes(minutes: float) -> list[Scene]:
    """The situations of the goals; ``minutes``: of each."""
    return [
        Scene("our echo at -6 dB, nobody speaks", minutes, echo_db=-6),
        Scene("our echo at -6 dB, the caller speaks over us", minutes, caller=True, echo_db=-6),
        Scene("our echo at -18 dB, the caller speaks over us", minutes, caller=True, echo_db=-18),
        Scene("no echo, the caller speaks over us", minutes, caller=True),
        Scene(
            "street noise 10 dB below speech, we are silent",
            minutes,
            we_talk=False,
            noise=street,
            noise_dbov=-30,
        ),
        Scene("street noise 10 dB below speech, we talk", minutes, noise=street, noise_dbov=-30),
        Scene(
            "street noise 10 dB below, no echo, the caller speaks",
            minutes,
            caller=True,
            noise=street,
            noise_dbov=-30,
        ),
        Scene(
            "street noise 10 dB below, echo at -6 dB, the caller speaks",
            minutes,
            caller=True,
            echo_db=-6,
            noise=street,
            noise_dbov=-30,
        ),
    ]


def run(model: VadModel, scene: Scene, seed: int = 1, profile: EchoProfile | None = None) -> Found:
    """Play a scene, all of its calls at the same time through one batch."""
    calls = max(1, round(scene.minutes * 60 / CALL_S))
    seconds = scene.minutes * 60 / calls
    ears = Ears(model)
    found = Found(seconds * calls)
    delays = np.linspace(*scene.delays_ms, calls)
    lines = [
        _Line(scene, ears, seconds, float(delay), np.random.default_rng((seed, n)), found, profile)
        for n, delay in enumerate(delays)
    ]
    for step in range(round(seconds * TELEPHONE_RATE / FRAME_SAMPLES)):
        ears.run()
        for line in lines:
            line.tick(step)
    return found


def modes(scene: Scene) -> list[EchoMode]:
    """What may be done about our echo in a scene; AEC3 where it is installed."""
    if not scene.we_talk:
        return ["guard"]
    return ["guard", "aec3", "none"] if available() else ["guard", "none"]


class _Line:
    """One call: who talks, what of it comes back, and what the ear makes of it."""

    def __init__(
        self,
        scene: Scene,
        ears: Ears,
        seconds: float,
        delay_ms: float,
        chance: np.random.Generator,
        found: Found,
        profile: EchoProfile | None,
    ) -> None:
        self._scene, self._found, self._chance = scene, found, chance
        self._ear = ears.ear(guard=_guard(scene.mode, profile))
        self._playout = Playout()
        self._path = _path(delay_ms, scene.echo_db, chance) if scene.echo_db is not None else None
        self._echo = np.zeros(PATH_SAMPLES + FRAME_SAMPLES)
        noise = (
            scene.noise(seconds, chance)
            if scene.noise is not None
            else chance.normal(0, 1, round(seconds * 8000) + 8000)
        )
        self._noise = at_level(noise, scene.noise_dbov)
        self._items = 0
        self._caller = np.zeros(0)
        self._begun: int | None = None
        """Where the caller's speech began, in samples of the call; None: nobody speaks."""
        self._quiet_until = 0
        self._next_caller = round(chance.uniform(FIRST_CALLER_S, 8) * 8000) if scene.caller else None
        self._pause = 0

    def tick(self, step: int) -> None:
        """20 ms: events of what came in before, then a frame out, then one in."""
        now = step * FRAME_SAMPLES
        for event in self._ear.take():
            if isinstance(event, SpeechOnset):
                self._onset(now)
        self._talk(now)
        frame = self._playout.next_frame()
        self._ear.played(frame, 0, ours=self._playout.audible)
        echo = self._come_back(samples_of(frame).astype(np.float64))
        heard = echo + self._speak(now) + self._noise[now : now + FRAME_SAMPLES]
        self._ear.heard(ulaw_decode(ulaw_encode(saturated(heard))))

    def _onset(self, now: int) -> None:
        if self._begun is not None or now < self._quiet_until:
            if self._playout.flush() is not None and self._begun is not None:
                self._found.caught_ms.append((now - self._begun) / 8)
                self._begun = None
                self._quiet_until = now + len(self._caller) + 8000
            return
        self._found.false += 1
        self._playout.flush()

    def _talk(self, now: int) -> None:
        """We always have something to say, with short pauses, but let callers finish."""
        if not self._scene.we_talk or self._playout.pending_samples or now < self._quiet_until:
            return
        if self._pause > 0:
            self._pause -= 1
            return
        self._pause = int(self._chance.integers(5, 40))
        self._items += 1
        item = f"item-{self._items}"
        self._playout.push(item, saturated(at_level(any_of("grave", self._chance), OURS_DBOV)))
        self._playout.end(item)

    def _speak(self, now: int) -> Doubles:
        """What the caller says in this frame."""
        due = self._next_caller is not None and now >= self._next_caller
        if (
            due
            and not len(self._caller)
            and self._playout.pending_samples > 6000
            and now >= self._quiet_until
        ):
            self._caller = at_level(any_of("leticia", self._chance), CALLER_DBOV)
            offset = int(self._chance.integers(0, FRAME_SAMPLES))
            self._caller = np.concatenate((np.zeros(offset), self._caller))
            self._begun = now + onset_of(self._caller)
            self._found.spoken += 1
        piece, self._caller = self._caller[:FRAME_SAMPLES], self._caller[FRAME_SAMPLES:]
        if self._begun is not None and (now - self._begun > MISSED_S * 8000 or not len(self._caller)):
            self._begun = None
            self._quiet_until = now + len(self._caller) + 8000
        if self._next_caller is not None and not len(self._caller) and len(piece):
            self._next_caller = now + round(self._chance.uniform(2, 7) * 8000)
        return np.concatenate((piece, np.zeros(FRAME_SAMPLES - len(piece))))

    def _come_back(self, played: Doubles) -> Doubles:
        """The echo that is heard while this frame is played."""
        if self._path is None:
            return np.zeros(FRAME_SAMPLES)
        self._echo = np.concatenate((self._echo[FRAME_SAMPLES:], np.zeros(FRAME_SAMPLES)))
        if played.any():
            size = 4096
            self._echo[: PATH_SAMPLES + FRAME_SAMPLES] += np.fft.irfft(
                np.fft.rfft(played, size) * np.fft.rfft(self._path, size)
            )[: PATH_SAMPLES + FRAME_SAMPLES]
        return self._echo[:FRAME_SAMPLES]


def _guard(mode: EchoMode, profile: EchoProfile | None) -> EchoGuard | None:
    if mode == "none":
        return None
    return EchoGuard(profile, before=Aec3() if mode == "aec3" else None)


# -- sounds ------------------------------------------------------------------------------------------------


@cache
def recordings(speaker: str) -> Sequence[Doubles]:
    """All that a speaker says."""
    sounds = []
    for path in sorted(RECORDINGS.glob(f"*-{speaker}.wav")):
        with wave.open(str(path)) as file:
            sounds.append(np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float64))
    return sounds


def any_of(speaker: str, chance: np.random.Generator) -> Doubles:
    """Something that a speaker says."""
    sounds = recordings(speaker)
    return sounds[int(chance.integers(len(sounds)))]


def at_level(sound: Doubles, dbov: float) -> Doubles:
    """The sound at an RMS level in dBov."""
    rms = float(np.sqrt((sound**2).mean()))
    return sound * (FULL_SCALE * 10 ** (dbov / 20) / rms)


def onset_of(speech: Doubles) -> int:
    """Where speech begins: the first 10 ms within 30 dB of its loudest 10 ms."""
    tens = speech[: len(speech) // 80 * 80].reshape(-1, 80)
    levels = np.sqrt((tens**2).mean(axis=1))
    return int(np.argmax(levels > levels.max() * 10 ** (-30 / 20))) * 80


def _path(delay_ms: float, echo_db: float, chance: np.random.Generator) -> Doubles:
    """An echo's way: its delay, a direct sound, and a decaying tail a third as loud."""
    path = np.zeros(PATH_SAMPLES)
    direct = round(delay_ms * 8)
    path[direct] = 1
    tail = chance.normal(0, 0.3, TAIL_SAMPLES) * np.exp(-np.arange(TAIL_SAMPLES) / 80)
    end = min(PATH_SAMPLES, direct + 1 + TAIL_SAMPLES)
    path[direct + 1 : end] += tail[: end - direct - 1]
    return path * (10 ** (echo_db / 20) / float(np.sqrt((path**2).sum())))


def street(seconds: float, chance: np.random.Generator) -> Doubles:
    """Traffic: noise that falls with frequency and swells as cars pass, and people talking far away."""
    count = round(seconds * 8000) + 8000
    spectrum = np.fft.rfft(chance.normal(0, 1, count))
    spectrum /= np.sqrt(np.maximum(np.fft.rfftfreq(count, 1 / 8000), 30))
    traffic = at_level(np.fft.irfft(spectrum, count), -30)
    swell = np.interp(np.arange(count), *_swells(count, chance))
    crowd = np.zeros(count)
    for _ in range(8):
        voice = np.concatenate([any_of(who, chance) for who in ("grave", "leticia") * 8])
        crowd += np.resize(np.roll(voice, int(chance.integers(len(voice)))), count)
    return traffic * 10 ** (swell / 20) + at_level(crowd, -45)


def _swells(count: int, chance: np.random.Generator) -> tuple[Doubles, Doubles]:
    """When, and by how many dB the traffic is louder than usual."""
    places = np.arange(0, count + 16000, 16000, dtype=np.float64)
    return places, chance.uniform(-6, 6, len(places))
