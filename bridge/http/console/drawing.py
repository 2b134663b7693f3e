"""Charts as shapes: numbers in, places on a drawing out; without I/O. Templates draw them as SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

WIDTH: Final = 760.0
HEIGHT: Final = 220.0
LEFT: Final = 46.0
RIGHT: Final = 8.0
TOP: Final = 10.0
BOTTOM: Final = 24.0
LABELS: Final = 10
"""Days that are named below a chart, at most."""

Say = Callable[[float], str]


@dataclass(frozen=True)
class Tick:
    """A line across a chart, and what it stands for."""

    y: float
    text: str


@dataclass(frozen=True)
class Label:
    """A word below a chart."""

    x: float
    text: str


@dataclass(frozen=True)
class Bar:
    """One part of a column. ``text`` is what it says when it is pointed at."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    text: str


@dataclass(frozen=True)
class Line:
    """A line through some columns; where one has no value the line has a gap."""

    path: str
    kind: str
    dashed: bool
    points: tuple[tuple[float, float, str], ...]


@dataclass(frozen=True)
class Chart:
    """Bars or lines over columns."""

    ticks: tuple[Tick, ...]
    labels: tuple[Label, ...]
    bars: tuple[Bar, ...] = ()
    lines: tuple[Line, ...] = ()
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT


@dataclass(frozen=True)
class Cell:
    """One field of a heat map; ``level`` 0 to 5."""

    x: float
    y: float
    level: int
    text: str


def columns(
    names: Sequence[str],
    parts: Mapping[str, Sequence[float]],
    say: Say,
    words: Mapping[str, str],
    *,
    whole: bool = False,
) -> Chart:
    """Stacked columns: one for each name, the parts one on the other from the bottom.

    ``whole``: they are counts, and so are the lines across.
    """
    totals = [sum(values[at] for values in parts.values()) for at in range(len(names))]
    top, ticks = _scale(max(totals, default=0.0), say, whole)
    pitch = (WIDTH - LEFT - RIGHT) / max(1, len(names))
    width = max(1.5, pitch * 0.72)
    bars = []
    for at, name in enumerate(names):
        bottom = 0.0
        for kind, values in parts.items():
            if values[at] > 0:
                y = _y(bottom + values[at], top)
                text = f"{name} · {words[kind]}: {say(values[at])}"
                x = LEFT + pitch * at + (pitch - width) / 2
                bars.append(Bar(_r(x), y, _r(width), _r(_y(bottom, top) - y), kind, text))
                bottom += values[at]
    return Chart(ticks, _labels(names, pitch), tuple(bars))


def curves(
    names: Sequence[str], series: Sequence[tuple[str, str, bool, Sequence[float | None]]], say: Say
) -> Chart:
    """Lines over columns: (kind, word, dashed, values), None where a column has none."""
    values = [value for _, _, _, each in series for value in each if value is not None]
    top, ticks = _scale(max(values, default=0.0), say)
    pitch = (WIDTH - LEFT - RIGHT) / max(1, len(names))
    lines = []
    for kind, word, dashed, each in series:
        points = []
        path = []
        before = False
        for at, value in enumerate(each):
            if value is None:
                before = False
                continue
            x, y = _r(LEFT + pitch * (at + 0.5)), _y(value, top)
            path.append(f"{'L' if before else 'M'}{x} {y}")
            points.append((x, y, f"{names[at]} · {word}: {say(value)}"))
            before = True
        lines.append(Line(" ".join(path), kind, dashed, tuple(points)))
    return Chart(ticks, _labels(names, pitch), lines=tuple(lines))


def heat(counts: Mapping[tuple[int, int], int], say: Callable[[int, int, int], str]) -> tuple[Cell, ...]:
    """Days of the week by hours of the day; each field's level by its share of the fullest."""
    most = max(counts.values(), default=0)
    cells = []
    for day in range(7):
        for hour in range(24):
            count = counts.get((day, hour), 0)
            level = 0 if not count else max(1, math.ceil(5 * count / most))
            cells.append(Cell(46 + hour * 29.5, 6 + day * 26, level, say(day, hour, count)))
    return tuple(cells)


def percentile(counts: Mapping[int, int], share: float, step: int) -> float | None:
    """Below what value that share lies, of values counted by stretches; None where there are none."""
    wanted = share * sum(counts.values())
    if not wanted:
        return None
    seen = 0
    for begin in sorted(counts):
        if seen + counts[begin] >= wanted:
            return begin + step * (wanted - seen) / counts[begin]
        seen += counts[begin]
    return None


def _scale(most: float, say: Say, whole: bool = False) -> tuple[float, tuple[Tick, ...]]:
    """The value at the top, and round values up to it."""
    step = math.ceil(_round_step(most / 4)) if whole else _round_step(most / 4)
    count = max(1, math.ceil(most / step - 1e-9))
    top = count * step
    return top, tuple(Tick(_y(step * at, top), say(step * at)) for at in range(count + 1))


def _round_step(rough: float) -> float:
    if rough <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * each for each in (1, 2, 2.5, 5, 10) if power * each >= rough * 0.999)


def _y(value: float, top: float) -> float:
    return _r(HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * value / top)


def _labels(names: Sequence[str], pitch: float) -> tuple[Label, ...]:
    every = max(1, math.ceil(len(names) / LABELS))
    return tuple(
        Label(_r(LEFT + pitch * (at + 0.5)), name) for at, name in enumerate(names) if at % every == 0
    )


def _r(value: float) -> float:
    return round(value, 1)
