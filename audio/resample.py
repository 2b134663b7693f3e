"""Streaming sample-rate conversion of PCM, between any two of the rates that telephony and models use.

A linear-phase FIR low-pass in polyphase form, computed as one matrix product: 97 taps at 24 kHz for 8↔24, 65
at 16 kHz for 8↔16. Its passband reaches to 0.425 of the lower rate (3.4 kHz at 8 kHz), its stopband begins at
0.575 (4.6 kHz), and it holds back 16 samples of the lower rate: 2.0 ms at 8 kHz. soxr, fed in 20 ms pieces,
holds back 22 to 89 ms at its usable qualities (132 ms for 8 → 44.1 kHz), and at its quickest lets images
through at −10 dB: hence a filter of our own.

What holds for every pair:

- Output sample *k* stands at the instant of input sample *k*·from/to: the filter's delay shows as output that
  comes later, never as a shift. The first chunks therefore give fewer samples (perhaps none).
- How the stream is cut into chunks changes nothing, to the last bit: coefficients are multiples of 2⁻¹⁸, so
  that every product and sum is exact in a double, in whichever order they are added.
- After :meth:`Resampler.flush`, ⌈n·to/from⌉ samples have come out for n that went in.
- Output saturates, or is limited softly where that is asked for; it never wraps around. A peak between two
  samples, or of what the filter leaves of a clipped sound, is higher than any sample that went in.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

from audio.frames import SAMPLE_BYTES, is_silence, limited, samples_of, saturated

RATES: Final = (8000, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 96000, 192000)
"""The rates there are: AudioSocket's, the models', and those of speech synthesisers (22.05 kHz)."""

_HALF_WIDTH: Final = 16
"""Half the filter's length, in samples of the lower rate. Also its delay."""
_KAISER_BETA: Final = 6.9
"""With this length it gives the transition from 0.425 to 0.575 of the lower rate."""
_COEFFICIENT_BITS: Final = 18
_BLOCK_SAMPLES: Final = 60
"""About how long, on the faster side, the blocks are into which the matrix product cuts a chunk. Longer ones
multiply more zeros, shorter ones copy more overlap (30 to 60 cost the same, 96 half as much again)."""

Doubles = npt.NDArray[np.float64]


class Resampler:
    """Converts one stream from ``from_rate`` to ``to_rate``. The state lives as long as the stream.

    Costs about 7 µs for 20 ms at 8↔24 kHz, and the first use of a pair a few milliseconds.

    ``limit``: for what is played to people; peaks above −3 dBFS are bent (:func:`audio.frames.limited`) and
    not cut off. Equal rates make no new peaks, and hand the very bytes on.

    Raises:
        ValueError: a rate that is not in :data:`RATES`.
    """

    def __init__(self, from_rate: int, to_rate: int, *, limit: bool = False) -> None:
        for rate in (from_rate, to_rate):
            if rate not in RATES:
                raise ValueError(f"cannot resample {rate} Hz; the rates are {', '.join(map(str, RATES))}")
        self.from_rate = from_rate
        self.to_rate = to_rate
        common = math.gcd(from_rate, to_rate)
        self._kernel = _kernel(to_rate // common, from_rate // common)
        self._pcm_of = limited if limit else saturated
        self._start()

    def _start(self) -> None:
        # Both are counted from an instant that moves on with the stream by whole units of time (see _Kernel):
        # the inputs kept, of which the first `past` lie before that instant, and the outputs given.
        self._kept: Doubles = np.zeros(self._kernel.past)
        self._given = 0
        self._still: int | None = self._kernel.past
        """How many inputs are kept, where all are zero: no arithmetic is needed then. None: some are not."""

    @property
    def delay_ms(self) -> float:
        """How long a sample is held back before its output can be given. 0 where the rates are equal."""
        if self.from_rate == self.to_rate:
            return 0.0
        return _HALF_WIDTH * 1000 / min(self.from_rate, self.to_rate)

    def process(self, pcm: bytes) -> bytes:
        """What can be given out once ``pcm`` is known too: any length in, any length out, perhaps none.

        Raises:
            ValueError: ``pcm`` holds half a sample. Nothing of it is taken.
        """
        samples = samples_of(pcm)
        if self.from_rate == self.to_rate:
            return pcm
        silent = is_silence(pcm)
        if self._still is not None:
            if silent:
                self._still += len(samples)
                return self._give_silence(self._known(self._still))
            self._kept, self._still = np.zeros(self._still), None
        self._kept = np.concatenate((self._kept, samples), dtype=np.float64)
        output = self._give(self._known(len(self._kept)))
        if silent and len(self._kept) <= len(samples):
            self._still = len(self._kept)
        return output

    def _known(self, kept: int) -> int:
        """Up to which output so many kept inputs suffice."""
        kernel = self._kernel
        # Output m is known once no later input lies within its reach: m·down + half < received·up.
        return -((kernel.half - (kept - kernel.past) * kernel.up) // kernel.down)

    def flush(self) -> bytes:
        """What was held back, as if silence followed. The next :meth:`process` begins a new stream."""
        if self.from_rate == self.to_rate:
            return b""
        kernel, still = self._kernel, self._still
        received = (len(self._kept) if still is None else still) - kernel.past
        until = -(-received * kernel.up // kernel.down)
        rest = self._give(until) if still is None else self._give_silence(until)
        self._start()
        return rest

    def _give(self, until: int) -> bytes:
        """Outputs from ``_given`` up to ``until``; then lets go of what no later output depends on."""
        given, kernel = self._given, self._kernel
        if until <= given:
            return b""
        output = kernel.outputs(self._kept, until)[given:until]
        units = until // kernel.up
        self._kept = self._kept[units * kernel.down :]
        self._given = until - units * kernel.up
        return self._pcm_of(output)

    def _give_silence(self, until: int) -> bytes:
        """As :meth:`_give`, where the inputs kept are ``_still`` zeros."""
        assert self._still is not None
        count = until - self._given
        if count <= 0:
            return b""
        units = until // self._kernel.up
        self._still -= units * self._kernel.down
        self._given = until - units * self._kernel.up
        return bytes(count * SAMPLE_BYTES)


def low_pass(ratio: int) -> Doubles:
    """The prototype filter at ``ratio`` times the lower rate: 32·ratio + 1 taps.

    A Kaiser-windowed sinc, cut off at half the lower rate. Every ``ratio``-th tap but the middle one is zero,
    so that upwards, samples at instants which both rates share are passed on as they are.
    """
    half = _HALF_WIDTH * ratio
    at = np.arange(-half, half + 1)
    taps: Doubles = np.sinc(at / ratio) * np.kaiser(2 * half + 1, _KAISER_BETA)
    return taps


class _Kernel:
    """The matrix that turns a window of input into a block of output, for one pair of rates.

    In one *unit* of time ``up`` samples come out for every ``down`` that go in. Output m stands at place
    m·down of the grid that both rates share, input i at i·up; input i weighs h[m·down − i·up] in output m.
    """

    def __init__(self, up: int, down: int) -> None:
        ratio = max(up, down)
        units = max(1, _BLOCK_SAMPLES // ratio)
        self.up, self.down = up, down
        self.half = _HALF_WIDTH * ratio
        """Half the filter's length on the shared grid."""
        self.past = self.half // up
        """How many inputs before its own instant an output depends on, and as many after it."""
        self._step = units * down
        self._window = self._step + 2 * self.past
        self._block = units * up
        place = np.arange(self._block) * down
        source = (np.arange(self._window) - self.past) * up
        distance = place[None, :] - source[:, None]
        taps = low_pass(ratio)[np.clip(distance, -self.half, self.half) + self.half]
        self._matrix = _exact(np.where(np.abs(distance) <= self.half, taps, 0.0))

    def outputs(self, inputs: Doubles, count: int) -> Doubles:
        """At least the first ``count`` outputs; the first one's instant is that of ``inputs[past]``.

        What lies beyond ``inputs`` counts as silence.
        """
        blocks = -(-count // self._block)
        needed = (blocks - 1) * self._step + self._window
        if len(inputs) < needed:
            inputs = np.concatenate((inputs, np.zeros(needed - len(inputs))))
        stride = inputs.itemsize
        windows: Doubles = np.ndarray(
            (blocks, self._window), np.float64, inputs, 0, (self._step * stride, stride)
        )
        output: Doubles = np.dot(windows, self._matrix)
        return output.ravel()


def _exact(weights: Doubles) -> Doubles:
    """Rounded to multiples of 2⁻¹⁸, each column summing to exactly 1: a constant stays that constant."""
    scale = 2.0**_COEFFICIENT_BITS
    whole = np.rint(weights / weights.sum(axis=0) * scale)
    largest = np.abs(whole).argmax(axis=0)
    whole[largest, np.arange(whole.shape[1])] += scale - whole.sum(axis=0)
    return np.ascontiguousarray(whole / scale)


@cache
def _kernel(up: int, down: int) -> _Kernel:
    return _Kernel(up, down)
