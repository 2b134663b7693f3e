"""What the stamps of both edges amount to. No I/O: logs in, figures out.

Added latency up: from handing a caller's frame to its socket, to the model server's reading of the message
with that sound. The sample counts say which frame a message ends in: the mark aligns them, and every further
mark proves that nothing was lost. Two parts, apart:

- *processing*: from the frame which completed a message, to that message.
- *algorithmic*: how much of that frame the service still kept back (its resampler's delay).

Added latency down: from sending a reply's first audio, to the arrival of its first audible frame; also in two
parts:

- *grid*: until the next instant at which this call's frame was due anyway; 0 to 20 ms, 10 on average.
- *processing*: the rest. Sound that has just missed a tick waits for the next: 20 ms in this part.

*Each piece* of a reply is timed as well, behind the first: from the instant at which it could have been heard
at the earliest (its own, or once what came before it had been said) to its first frame's arrival.

Frame lateness is against the call's own 20 ms grid, laid through its earliest frame of each minute. Barge-in:
from the first sound in the caller's mouth (20 ms before its frame is complete) to the last audible frame that
came; that frame sounds for another 20 ms.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from audio.frames import FRAME_SAMPLES, TELEPHONE_RATE
from bench import media
from bench.callers import FRAME_S, Log

UNHEEDED_S = 1.5
"""A caller who is still talked over after that was not noticed at all."""
GAP_FRAMES = 8
"""So many frames of silence, or more, end a reply; fewer are a gap in it. Two replies are further apart."""
AT_ONCE_S = 1.0
"""A reply of which nothing is heard within this was not played."""
SLICE_FRAMES = 3000
"""Of a grid: a minute. A frame that was lost shifts all that come after it, to the slice's end."""

Doubles = npt.NDArray[np.float64]


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
    """What the model server knows of one call's session; see `bench.model_process.Session`."""

    append_times: Sequence[float] = ()
    append_samples: Sequence[int] = ()
    marks: Sequence[int] = ()
    replies: Sequence[tuple[float, str, float]] = ()
    deltas: Sequence[tuple[float, int, int]] = ()
    truncations: Sequence[tuple[float, str, int]] = ()
    rate: int = media.MODEL_RATE

    @classmethod
    def of(cls, session: Mapping[str, Any]) -> ModelLog:
        """What the model server said of it."""
        parts = ("append_times", "append_samples", "marks", "replies", "deltas", "truncations", "rate")
        return cls(**{part: session[part] for part in parts})


def spread(values: Iterable[float], digits: int = 2) -> dict[str, float | int | None]:
    """p50, p95, p99 (nearest rank) and max of milliseconds; None where there was nothing to measure."""
    ordered = np.sort(np.asarray(values if isinstance(values, np.ndarray) else list(values), np.float64))
    found: dict[str, float | int | None] = {"count": len(ordered)}
    for name, share in (("p50", 0.50), ("p95", 0.95), ("p99", 0.99), ("max", 1.0)):
        rank = max(0, -int(-share * len(ordered) // 1) - 1)
        found[name] = round(float(ordered[rank]), digits) + 0.0 if len(ordered) else None  # never -0.0
    return found


# --------------------------------------------------------------------------------------------------------
# Up
# --------------------------------------------------------------------------------------------------------


def _none() -> Doubles:
    return np.zeros(0)


@dataclass(frozen=True, slots=True)
class Up:
    """Milliseconds, one each for every message; and what was lost on the way."""

    lost_ms: float
    """Sound that never came, by the marks."""
    unmatched_marks: int
    """Marks that were sent and not found, or the other way round."""
    processing: Doubles = field(default_factory=_none)
    algorithmic: Doubles = field(default_factory=_none)

    @property
    def total(self) -> Doubles:
        """Both parts."""
        return self.processing + self.algorithmic


def uplink(log: Log, model: ModelLog, window: Window) -> Up:
    """How long the caller's sound took to the model. Nothing, where no mark came through."""
    shifts = _shifts(log.marks, model)
    lost = sum(max(0, before - after) for before, after in pairwise(shifts)) * 1000 / TELEPHONE_RATE
    unmatched = abs(len(log.marks) - len(model.marks))
    if not shifts:
        return Up(lost, unmatched)
    at = np.asarray(model.append_times, np.float64)
    samples = np.asarray(model.append_samples, np.int64)
    within = (window.start <= at) & (at < window.end)
    at, samples = at[within], samples[within]
    # The shift of the last mark before it; before the first mark, that one's.
    mark = np.searchsorted(np.asarray(model.marks[: len(shifts)]), samples, side="right") - 1
    through = samples * TELEPHONE_RATE / model.rate - np.asarray(shifts)[np.maximum(mark, 0)]
    frame = np.ceil(through / FRAME_SAMPLES).astype(np.int64) - 1
    known = (frame >= 0) & (frame < len(log.sent))
    sent = np.asarray(log.sent, np.float64)[frame[known]]
    return Up(
        lost,
        unmatched,
        (at[known] - sent) * 1000,
        ((frame[known] + 1) * FRAME_SAMPLES - through[known]) * 1000 / TELEPHONE_RATE,
    )


def _shifts(sent: Sequence[int], model: ModelLog) -> list[int]:
    """By how many of the caller's samples the model's count is ahead of the caller's, at each mark."""
    lead = media.mark_lead(model.rate)
    ratio = model.rate / TELEPHONE_RATE
    return [round((there - lead) / ratio) - here for here, there in zip(sent, model.marks, strict=False)]


# --------------------------------------------------------------------------------------------------------
# Down
# --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Down:
    """Milliseconds: one each for every reply of which something was heard, and for every piece of it."""

    grid: list[float] = field(default_factory=list)
    processing: list[float] = field(default_factory=list)
    each_piece: list[float] = field(default_factory=list)
    unheard: int = 0

    @property
    def total(self) -> list[float]:
        """Both parts."""
        return [a + b for a, b in zip(self.grid, self.processing, strict=True)]


def downlink(log: Log, model: ModelLog, window: Window) -> Down:
    """How long each reply's first sound took to the caller, and each piece of it."""
    down = Down()
    origin = grid_origin(log, window)
    pieces: dict[int, list[tuple[float, int]]] = {}
    for at, number, place in model.deltas:
        pieces.setdefault(number, []).append((at, place))
    for number, (at, _, _) in enumerate(model.replies):
        if at not in window or origin is None:
            continue
        first = _onset_after(log, at)
        if first is None:
            down.unheard += 1
            continue
        wait = (origin - at) % FRAME_S
        down.grid.append(wait * 1000)
        down.processing.append((log.arrived[first] - at - wait) * 1000)
        down.each_piece += _pieces(log, model, first, origin, pieces.get(number, ()))
    return down


def _pieces(
    log: Log, model: ModelLog, first: int, origin: float, pieces: Sequence[tuple[float, int]]
) -> list[float]:
    """Of the pieces behind the first, how late each was heard; only of what was heard without a gap."""
    found = []
    begun = origin + round((log.arrived[first] - origin) / FRAME_S) * FRAME_S
    for at, place in pieces[1:]:
        frames = place * TELEPHONE_RATE // model.rate // FRAME_SAMPLES
        if not all(log.audible[first : first + frames + 1]) or first + frames >= len(log.arrived):
            break
        earliest = max(begun + frames * FRAME_S, at + (origin - at) % FRAME_S)
        found.append((log.arrived[first + frames] - earliest) * 1000)
    return found


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
    off = _off_grid(log, _numbers(log, window))
    return float(off.min()) if len(off) else None


def lateness(log: Log, window: Window) -> Doubles:
    """Of each frame in the window, milliseconds behind the grid."""
    numbers = _numbers(log, window)
    slices = [
        _off_grid(log, numbers[start : start + SLICE_FRAMES])
        for start in range(0, len(numbers), SLICE_FRAMES)
    ]
    return np.concatenate([(off - off.min()) * 1000 for off in slices]) if slices else np.zeros(0)


def _off_grid(log: Log, numbers: range) -> Doubles:
    """Of these frames, when each came, less its number times 20 ms."""
    came = np.asarray(log.arrived[numbers.start : numbers.stop], np.float64)
    return came - np.arange(numbers.start, numbers.stop) * FRAME_S


def gaps(log: Log, window: Window) -> int:
    """Frames of silence in the midst of replies."""
    numbers = _numbers(log, window)
    heard = np.flatnonzero(np.frombuffer(log.audible, np.uint8)[numbers.start : numbers.stop])
    between = np.diff(heard) - 1
    return int(between[between < GAP_FRAMES].sum())


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
            "total": spread(_all(up.total for up in ups)),
            "algorithmic": spread(_all(up.algorithmic for up in ups)),
            "processing": spread(_all(up.processing for up in ups)),
        },
        "latency_down_ms": {
            "total": spread(value for down in downs for value in down.total),
            "grid": spread(value for down in downs for value in down.grid),
            "processing": spread(value for down in downs for value in down.processing),
            "each_piece": spread(value for down in downs for value in down.each_piece),
        },
        "frame_lateness_ms": spread(_all(lateness(log, window) for log in logs)),
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


def _all(parts: Iterable[Doubles]) -> Doubles:
    return np.concatenate([np.zeros(0), *parts])


def spoken_share(logs: Sequence[Log], window: Window) -> float:
    """Of the window's time, the share in which callers spoke."""
    spoken = 0
    for log in logs:
        start, end = bisect_left(log.sent, window.start), bisect_left(log.sent, window.end)
        spoken += sum(
            max(0, min(first + frames, end) - max(first, start)) for first, frames, _, _ in log.says
        )
    return round(spoken * FRAME_S / (window.seconds * len(logs)), 3)


def cpu(before: Mapping[str, float], after: Mapping[str, float], call_seconds: float) -> dict[str, float]:
    """CPU time between two snapshots, for each second of each call."""
    user = (after["user_s"] - before["user_s"]) * 1000
    system = (after["system_s"] - before["system_s"]) * 1000
    elapsed = after["at"] - before["at"]
    found = {
        "ms_per_call_second": round((user + system) / call_seconds, 3),
        "user_ms_per_call_second": round(user / call_seconds, 3),
        "system_ms_per_call_second": round(system / call_seconds, 3),
        "share_of_a_core": round((user + system) / 1000 / elapsed, 3),
    }
    if "waits" in after:
        found["waits_per_second"] = round((after["waits"] - before["waits"]) / elapsed, 1)
    return found


__all__ = ["ModelLog", "Window", "cpu", "of_calls", "spoken_share", "spread"]
