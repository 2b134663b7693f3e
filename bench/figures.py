"""What the stamps of both edges amount to. No I/O: logs in, figures out.

Added latency up: from handing a caller's frame to its socket, to the model server's reading of the message
with that sound. The sample counts say which frame a message ends in: the mark aligns them, and every further
mark proves that nothing was lost. Two parts, apart:

- *processing*: from the frame which completed a message, to that message.
- *algorithmic*: how much of that frame the service still kept back (its resampler's delay).

Added latency down: from sending a reply's first audio, to reading its first audible frame; also in two parts:

- *grid*: until the next instant at which this call's frame was due anyway; 0 to 20 ms, 10 on average.
- *processing*: the rest. Sound that has just missed a tick waits for the next: 20 ms in this part.

Frame lateness is against the call's own 20 ms grid, laid through its earliest frame. Barge-in: from the first
sound in the caller's mouth (20 ms before its frame is complete) to the last audible frame that was read; that
frame sounds for another 20 ms.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from audio.frames import FRAME_SAMPLES, TELEPHONE_RATE
from bench import media
from bench.callers import FRAME_S, Log

UNHEEDED_S = 1.5
"""A caller who is still talked over after that was not noticed at all."""
GAP_FRAMES = 8
"""So many frames of silence, or more, end a reply; fewer are a gap in it. Two replies are further apart."""
AT_ONCE_S = 1.0
"""A reply of which nothing is heard within this was not played."""


@dataclass(frozen=True, slots=True)
class Window:
    """The measured time, in monotonic seconds."""

    start: float
    end: float

    def __contains__(self, at: float) -> bool:
        return self.start <= at < self.end

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class ModelLog:
    """What the model server knows of one call's session; see `bench.model_process.Replayed`."""

    appends: Sequence[tuple[float, int]]
    marks: Sequence[int]
    replies: Sequence[tuple[float, int]]


def spread(values: Iterable[float], digits: int = 2) -> dict[str, float | int | None]:
    """p50, p95, p99 (nearest rank) and max of milliseconds; None where there was nothing to measure."""
    ordered = sorted(values)
    found: dict[str, float | int | None] = {"count": len(ordered)}
    for name, share in (("p50", 0.50), ("p95", 0.95), ("p99", 0.99), ("max", 1.0)):
        rank = max(0, -int(-share * len(ordered) // 1) - 1)
        found[name] = round(ordered[rank], digits) + 0.0 if ordered else None  # never -0.0
    return found


# --------------------------------------------------------------------------------------------------------
# Up
# --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Up:
    """Milliseconds, one each for every message; and what was lost on the way."""

    processing: list[float]
    algorithmic: list[float]
    lost_ms: float
    """Sound that never came, by the marks."""
    unmatched_marks: int
    """Marks that were sent and not found, or the other way round."""

    @property
    def total(self) -> list[float]:
        """Both parts."""
        return [a + b for a, b in zip(self.processing, self.algorithmic, strict=True)]


def uplink(log: Log, model: ModelLog, window: Window) -> Up:
    """How long the caller's sound took to the model. Nothing, where no mark came through."""
    shifts = _shifts(log.marks, model.marks)
    lost = sum(max(0, before - after) for before, after in pairwise(shifts)) * 1000 / TELEPHONE_RATE
    up = Up([], [], lost, abs(len(log.marks) - len(model.marks)))
    if not shifts:
        return up
    for at, samples in model.appends:
        if at not in window:
            continue
        # The shift of the last mark before it; before the first mark, that one's.
        shift = shifts[max(0, bisect_right(model.marks[: len(shifts)], samples) - 1)]
        through = samples / media.RATIO - shift
        frame = int(-(-through // FRAME_SAMPLES)) - 1
        if not 0 <= frame < len(log.sent):
            continue
        up.processing.append((at - log.sent[frame]) * 1000)
        up.algorithmic.append(((frame + 1) * FRAME_SAMPLES - through) * 1000 / TELEPHONE_RATE)
    return up


def _shifts(sent: Sequence[int], found: Sequence[int]) -> list[int]:
    """By how many of the caller's samples the model's count is ahead of the caller's, at each mark."""
    lead = media.mark_lead()
    return [round((there - lead) / media.RATIO) - here for here, there in zip(sent, found, strict=False)]


# --------------------------------------------------------------------------------------------------------
# Down
# --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Down:
    """Milliseconds, one each for every reply of which something was heard."""

    grid: list[float]
    processing: list[float]
    unheard: int

    @property
    def total(self) -> list[float]:
        """Both parts."""
        return [a + b for a, b in zip(self.grid, self.processing, strict=True)]


def downlink(log: Log, model: ModelLog, window: Window) -> Down:
    """How long the first sound of each reply took to the caller."""
    down = Down([], [], 0)
    unheard = 0
    origin = grid_origin(log, window)
    for at, _ in model.replies:
        if at not in window or origin is None:
            continue
        first = _onset_after(log, at)
        if first is None:
            unheard += 1
            continue
        wait = (origin - at) % FRAME_S
        down.grid.append(wait * 1000)
        down.processing.append((log.arrived[first] - at - wait) * 1000)
    return Down(down.grid, down.processing, unheard)


def _onset_after(log: Log, at: float) -> int | None:
    """The first audible frame after `at`, where there was silence before it."""
    start = bisect_right(log.arrived, at)
    until = bisect_right(log.arrived, at + AT_ONCE_S)
    first = log.audible.find(1, start, until)
    if first < 1 or log.audible[first - 1]:
        return None
    return first


# --------------------------------------------------------------------------------------------------------
# Frames
# --------------------------------------------------------------------------------------------------------


def grid_origin(log: Log, window: Window) -> float | None:
    """When the call's frame number 0 was due: no frame in the window came before its own instant."""
    numbers = _numbers(log, window)
    return min((log.arrived[n] - n * FRAME_S for n in numbers), default=None)


def lateness(log: Log, window: Window) -> list[float]:
    """Of each frame in the window, milliseconds behind the grid."""
    origin = grid_origin(log, window)
    if origin is None:
        return []
    return [(log.arrived[n] - origin - n * FRAME_S) * 1000 for n in _numbers(log, window)]


def gaps(log: Log, window: Window) -> int:
    """Frames of silence in the midst of replies."""
    missing = quiet = 0
    started = False
    for number in _numbers(log, window):
        if not log.audible[number]:
            quiet += 1
            continue
        if started and quiet < GAP_FRAMES:
            missing += quiet
        started, quiet = True, 0
    return missing


def _numbers(log: Log, window: Window) -> range:
    return range(bisect_left(log.arrived, window.start), bisect_left(log.arrived, window.end))


# --------------------------------------------------------------------------------------------------------
# Barge-in
# --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BargeIns:
    """Milliseconds from a caller's first sound to our last audible frame; and how often we went on."""

    silent_after: list[float]
    unheeded: int


def barge_ins(log: Log, window: Window) -> BargeIns:
    """Of the says in the window that spoke over us."""
    found: list[float] = []
    unheeded = 0
    for _, _, sample, barging in log.says:
        frame = sample // FRAME_SAMPLES
        if not barging or frame >= len(log.sent):
            continue
        onset = log.sent[frame] - ((frame + 1) * FRAME_SAMPLES - sample) / TELEPHONE_RATE
        if onset not in window:
            continue
        last = _last_audible(log, onset)
        if last is None:
            continue  # the reply was over by itself
        if last - onset > UNHEEDED_S:
            unheeded += 1
        else:
            found.append((last - onset) * 1000)
    return BargeIns(found, unheeded)


def _last_audible(log: Log, after: float) -> float | None:
    """When the last frame was read of what was being heard at `after`."""
    number = bisect_left(log.arrived, after)
    if not any(log.audible[max(0, number - GAP_FRAMES) : number + 1]):
        return None
    last: int | None = None
    quiet = 0
    for at in range(number, len(log.arrived)):
        if log.audible[at]:
            last, quiet = at, 0
        else:
            quiet += 1
            if quiet >= GAP_FRAMES:
                break
    return log.arrived[last] if last is not None else None


# --------------------------------------------------------------------------------------------------------
# All calls together
# --------------------------------------------------------------------------------------------------------


def of_calls(logs: Sequence[Log], models: Sequence[ModelLog], window: Window) -> dict[str, Any]:
    """The figures that the two edges give, all calls taken together."""
    ups = [uplink(log, model, window) for log, model in zip(logs, models, strict=True)]
    downs = [downlink(log, model, window) for log, model in zip(logs, models, strict=True)]
    barged = [barge_ins(log, window) for log in logs]
    frames = sum(len(_numbers(log, window)) for log in logs)
    return {
        "latency_up_ms": {
            "total": spread(value for up in ups for value in up.total),
            "algorithmic": spread(value for up in ups for value in up.algorithmic),
            "processing": spread(value for up in ups for value in up.processing),
        },
        "latency_down_ms": {
            "total": spread(value for down in downs for value in down.total),
            "grid": spread(value for down in downs for value in down.grid),
            "processing": spread(value for down in downs for value in down.processing),
        },
        "frame_lateness_ms": spread(value for log in logs for value in lateness(log, window)),
        "barge_in_ms": spread(value for each in barged for value in each.silent_after),
        "lost": {
            "up_ms": sum(up.lost_ms for up in ups),
            "unmatched_marks": sum(up.unmatched_marks for up in ups),
            "frames_missing": max(0, round(window.seconds / FRAME_S) * len(logs) - frames - len(logs)),
            "gap_frames": sum(gaps(log, window) for log in logs),
            "replies_unheard": sum(down.unheard for down in downs),
            "barge_ins_unheeded": sum(each.unheeded for each in barged),
        },
        "frames": frames,
        "spoken_share": spoken_share(logs, window),
    }


def spoken_share(logs: Sequence[Log], window: Window) -> float:
    """Of the window's time, the share in which callers spoke."""
    spoken = sum(
        sum(at in window for at in log.sent[first : first + frames])
        for log in logs
        for first, frames, _, _ in log.says
    )
    return round(spoken * FRAME_S / (window.seconds * len(logs)), 3)


def service_cpu(before: Mapping[str, Any], after: Mapping[str, Any], call_seconds: float) -> dict[str, float]:
    """The service's own CPU time between two snapshots, for each second of each call."""
    user = (after["user_s"] - before["user_s"]) * 1000
    system = (after["system_s"] - before["system_s"]) * 1000
    elapsed = after["at"] - before["at"]
    return {
        "ms_per_call_second": round((user + system) / call_seconds, 3),
        "user_ms_per_call_second": round(user / call_seconds, 3),
        "system_ms_per_call_second": round(system / call_seconds, 3),
        "share_of_a_core": round((user + system) / 1000 / elapsed, 3),
        "waits_per_second": round((after["waits"] - before["waits"]) / elapsed, 1),
    }


__all__ = ["ModelLog", "Window", "of_calls", "service_cpu", "spoken_share", "spread"]
