"""Whether something grows: a straight line through samples of it, and how sure its slope is. No I/O.

Samples that follow each other are alike (a call that is long is in many of them), so that a line through all
of them would seem surer than it is: the line is laid through the means of blocks, far longer than a call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

BLOCKS: Final = 16
SURE: Final = 2.145
"""Student's t for 95 %, both sides, with 14 degrees of freedom: 16 blocks, less slope and place."""
HOUR_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Growth:
    """How something went over time.

    Attributes:
        first, last: its mean over the first and the last fourth of the time.
        most: the largest sample.
        per_hour: the line's slope.
        sure: half the width of the slope's 95 % confidence interval.
    """

    first: float
    last: float
    most: float
    per_hour: float
    sure: float

    def exceeds(self, per_hour: float) -> bool:
        """Whether it surely grows faster than this."""
        return self.per_hour - self.sure > per_hour


def growth(times_s: Sequence[float], values: Sequence[float]) -> Growth:
    """Lay the line.

    Raises:
        ValueError: fewer samples than blocks.
    """
    if len(times_s) < BLOCKS:
        raise ValueError(f"found {len(times_s)} samples; allowed are {BLOCKS} or more")
    at = np.array([float(np.mean(block)) for block in np.array_split(np.asarray(times_s), BLOCKS)]) / HOUR_S
    level = np.array([float(np.mean(block)) for block in np.array_split(np.asarray(values), BLOCKS)])
    away = at - at.mean()
    slope = float(np.dot(away, level) / np.dot(away, away))
    rest = level - level.mean() - slope * away
    error = float(np.sqrt(np.dot(rest, rest) / (BLOCKS - 2) / np.dot(away, away)))
    fourth = BLOCKS // 4
    return Growth(
        float(level[:fourth].mean()), float(level[-fourth:].mean()), float(max(values)), slope, SURE * error
    )


__all__ = ["BLOCKS", "Growth", "growth"]
