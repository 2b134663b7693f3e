"""`porteiro bench --soak`: whether anything grows while calls come and go, for hours if need be.

A new call comes each second and stays for 2 to 38 s: set-up, greeting, talk, barge-ins, and a hang-up at any
instant; about 20 at a time. Each 10 s the kernel tells what the service's processes hold, and the service
itself how many tasks it has (with several workers, the front alone). What is judged is growth, so it may run
on a busy machine.

The first fifth of the time is not judged: caches and histories of a fixed length fill up in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from random import Random
from typing import Any, Final
from uuid import uuid4

from audio.vad import VadModel
from bench.callers import Caller, Manner
from bench.drift import drift
from bench.growth import BLOCKS, Growth, growth
from bench.heard import RACES
from bench.processes import usage
from bench.run import Bench, Plan

NEW_CALL_EVERY_S: Final = 1.0
STAYS: Final = (0.1, 1.9)
"""How long a call stays, evenly between these two, in parts of what makes the number of calls right."""
SAMPLE_EVERY_S: Final = 10.0
UNJUDGED: Final = 0.2
"""Of the time, at its beginning."""
MINUTES: Final = (0.2, 600.0)
NOISE_HOURS: Final = 24.0
"""The VAD hears so many hours of noise for each hour of the soak."""
ALLOWED_PER_HOUR: Final = {"rss_mb": 1.0, "tasks": 1.0, "descriptors": 1.0, "threads": 1.0, "processes": 0.5}
"""What grows by surely more than this in an hour, which is thousands of calls, grows."""
VAD_LOSS: Final = 0.01
"""By so much fewer onsets may be heard after the noise than before."""


def measure_soak(
    minutes: float, calls: int, workers: int, model: VadModel, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Run for so long, with about so many calls at a time. `tell` is told, in words, what goes on.

    Raises:
        ValueError: a number that makes no sense.
        ChildError: a process did not do its part.
        CallLost: the service ended a call, or took none.
    """
    least, most = MINUTES
    if not least <= minutes <= most:
        raise ValueError(f"minutes: found {minutes:g}; allowed are {least:g} to {most:g}")
    manner = Manner(0.4, barge_every=2, barge_after_s=(0.3, 2.0))
    plan = Plan(calls, minutes * 60, workers=workers)
    with Bench(plan, tell, manner, room=2 * calls + 10, keeps=False) as bench:
        samples, placed = _soak(bench, tell)
        bench.model.tell({"count": True})
        model_says = bench.model.heard()
    tell("feeding the VAD with hours of noise …")
    heard = drift(model, NOISE_HOURS * minutes / 60)
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": version("porteiro"),
        "machine": bench.machine,
        "minutes": minutes,
        "calls_at_a_time": calls,
        "workers": workers,
        "calls": placed,
        "barge_ins": model_says["truncations"],
        "replies": model_says["replies"],
        "provider_errors": {
            name.removeprefix("error "): count
            for name, count in model_says.items()
            if name.startswith("error ")
        },
        "judged_from_minute": round(minutes * UNJUDGED, 2),
        "growth": {name: asdict(found) for name, found in judged(samples).items()},
        "vad": heard,
        "samples": samples,
    }


def _soak(bench: Bench, tell: Callable[[str], None]) -> tuple[list[dict[str, float]], int]:
    """Calls come and go until the time is over: the samples, and how many calls there were."""
    plan, callers = bench.plan, bench.callers
    chance = Random(29)
    mean_s = plan.calls * NEW_CALL_EVERY_S
    leaves: list[tuple[float, Caller]] = []
    samples: list[dict[str, float]] = []
    tell(f"calls come and go for {plan.seconds / 60:g} minutes …")
    began = bench.now()
    placed, next_call, next_sample, next_word = 0, began, began + SAMPLE_EVERY_S / 2, began + 60.0
    while (now := bench.now()) < began + plan.seconds:
        if now >= next_call:
            leaves.append((now + mean_s * chance.uniform(*STAYS), callers.place(uuid4())))
            next_call += NEW_CALL_EVERY_S
            placed += 1
        for leaving in [one for one in leaves if one[0] <= now]:
            callers.hang_up(leaving[1])
            leaves.remove(leaving)
        if now >= next_sample:
            samples.append(_sample(bench, began))
            del callers.lateness_s[:]
            next_sample += SAMPLE_EVERY_S
        if now >= next_word:
            last = samples[-1]
            tell(
                f"{last['at_s'] / 60:.0f} min: {placed} calls, {last['rss_mb']:.1f} MB, "
                f"{last['tasks']:g} tasks, {last['descriptors']:g} descriptors"
            )
            next_word += 60.0
        until = min([next_call, next_sample, *(at for at, _ in leaves)])
        callers.go_on(min(until, began + plan.seconds))
    return samples, placed


def _sample(bench: Bench, began: float) -> dict[str, float]:
    # What was freed goes back first: else the most that was ever used at once counts, which grows by chance.
    bench.service.tell({"trim": True})
    bench.service.heard()
    used = usage(bench.service.pid)
    bench.service.tell({"count": True})
    return {
        "at_s": round(used.at - began, 3),
        "calls": len(bench.callers.callers),
        "rss_mb": round(used.rss_bytes / 1e6, 3),
        "descriptors": used.descriptors,
        "threads": used.threads,
        "processes": used.processes,
        "cpu_s": round(used.user_s + used.system_s, 2),
        "tasks": bench.service.heard()["tasks"],
    }


def judged(samples: Sequence[Mapping[str, float]]) -> dict[str, Growth]:
    """How each of what is watched went, behind the time that isn't judged; nothing, of too few samples."""
    settled = samples[round(len(samples) * UNJUDGED) :]
    if len(settled) < BLOCKS:
        return {}
    times = [sample["at_s"] for sample in settled]
    return {name: growth(times, [sample[name] for sample in settled]) for name in ALLOWED_PER_HOUR}


def complaints(found: Mapping[str, Any]) -> list[str]:
    """What grows, and what else should not be, in words."""
    words = [
        f"{name} grows by {grown['per_hour']:.2f} ± {grown['sure']:.2f} an hour"
        for name, grown in found["growth"].items()
        if Growth(**grown).exceeds(ALLOWED_PER_HOUR[name])
    ]
    for code, count in found["provider_errors"].items():
        if code not in RACES:
            words.append(f"the provider refused {count} messages: {code}")
    before, after = found["vad"]["before"], found["vad"]["after"]
    if (before["heard"] - after["heard"]) / before["spoken"] > VAD_LOSS:
        words.append(
            f"the VAD heard {after['heard']} of {after['spoken']} onsets after the noise, "
            f"{before['heard']} before"
        )
    return words


__all__ = ["complaints", "judged", "measure_soak"]
