"""Silero's network at 8 kHz in numpy: what onnxruntime makes of the same file, in half the time.

The network is small, 0.7 million operations a window, and its file wraps it in conditions on shapes and rates
that cost more than they decide. What it computes of one window:

- four frames of 128 samples, 64 apart, the last of them over a mirrored end, and of each the 65 magnitudes of
  its spectrum;
- four convolutions of width 3 with ReLU, which make of four frames four, two, one, one. What one place of a
  layer sees is laid out as a row beforehand, so that one matrix product is the whole layer;
- an LSTM cell, and of its output one number.

A bias is the last row of its layer's weights: each row that is multiplied by them ends with a one.

Measured in turns on a busy machine with 2 virtual cores, µs of CPU a window, onnxruntime's and ours:

=======================  =========  ========  ========  ======  ======  ======
windows judged together          1         4         8      20      60     100
=======================  =========  ========  ========  ======  ======  ======
one call after another      99, 49    50, 18    44, 14  34, 11  35, 12  36, 11
each after 20 ms asleep   710, 447  206, 122   122, 65  72, 35  50, 22  44, 17
=======================  =========  ========  ========  ======  ======  ======

What the second row has more, about 0.4 ms a call, is the way of the weights and the code back into the
processor's cache. Over all recordings, down to 30 dB quieter, the probabilities of either are within
5·10⁻⁶ of what doubles give.
"""

from __future__ import annotations

import hashlib
import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

DIGEST: Final = "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3"
"""SHA-256 of the one file whose weights lie at :data:`_PLACES`: ``silero_vad.onnx`` of silero-vad 6.2.1."""
_PLACES: Final = {
    "stft.forward_basis_buffer": (340, (130, 1, 128)),
    "encoder.0.reparam_conv.weight": (67035, (128, 65, 3)),
    "encoder.0.reparam_conv.bias": (166998, (128,)),
    "encoder.1.reparam_conv.weight": (167645, (64, 128, 3)),
    "encoder.1.reparam_conv.bias": (266071, (64,)),
    "encoder.2.reparam_conv.weight": (266461, (64, 64, 3)),
    "encoder.2.reparam_conv.bias": (315735, (64,)),
    "encoder.3.reparam_conv.weight": (316126, (128, 64, 3)),
    "encoder.3.reparam_conv.bias": (414553, (128,)),
    "decoder.rnn.weight_ih": (415183, (512, 128)),
    "decoder.rnn.weight_hh": (677445, (512, 128)),
    "decoder.rnn.bias_ih": (939696, (512,)),
    "decoder.rnn.bias_hh": (941851, (512,)),
    "decoder.decoder.2.weight": (944020, (1, 128, 1)),
    "decoder.decoder.2.bias": (944640, (1,)),
}
"""Where in the file each weight of the 8 kHz branch begins, and its shape: little-endian float32, in C order.

Found with the package onnx: the constants in the ``else_branch`` of the graph's ``If``, named there by what
stands after the last ``__``; the place is ``file.index(constant.raw_data)``.
"""
_CONTEXT_AND_WINDOW: Final = 32 + 256
_MIRRORED: Final = 32
"""Samples by which the sound is made longer: those before its last one, backwards."""
_FRAMES: Final = 4
_FRAME_SAMPLES: Final = 128
_FRAME_STEP: Final = 64
_BINS: Final = _FRAME_SAMPLES // 2 + 1
_WIDTH: Final = 128
"""Of what the LSTM is given, gives out and holds."""
_GATES: Final = 4
_HALF: Final = np.float32(0.5)
_MOST: Final = 30
"""Windows that are judged in one go. OpenBLAS has a quicker way for products of up to 10⁶ multiplications, in
which it doesn't copy the weights first; 30 · 257 · 128, one gate of the LSTM, just stays below."""

Floats = npt.NDArray[np.float32]


class UnknownFile(ValueError):
    """Where this file's weights lie is not known."""


class _Convolution(NamedTuple):
    """What a layer makes of what, for one window."""

    frames_in: int
    channels_in: int
    frames_out: int
    channels_out: int
    step: int
    """From one place to the next, in frames."""
    taps: range
    """Those of its three that somewhere see more than zeros."""
    zeros: tuple[int, int]
    """How many frames of zeros those taps see before the first frame and after the last one."""

    @property
    def seen(self) -> int:
        """How many numbers it sees at one place."""
        return len(self.taps) * self.channels_in


_CONVOLUTIONS: Final = (
    _Convolution(_FRAMES, _BINS, 4, 128, step=1, taps=range(3), zeros=(1, 1)),
    _Convolution(4, 128, 2, 64, step=2, taps=range(3), zeros=(1, 0)),
    _Convolution(2, 64, 1, 64, step=2, taps=range(1, 3), zeros=(0, 0)),
    _Convolution(1, 64, 1, _WIDTH, step=1, taps=range(1, 2), zeros=(0, 0)),
)


class Silero:
    """The network. Holds no state of any leg; several threads may use it at once."""

    def __init__(self, onnx: bytes) -> None:
        """``onnx``: the bytes of silero's ``silero_vad.onnx``.

        Raises:
            UnknownFile: they are of another file than the one with :data:`DIGEST`.
        """
        found = hashlib.sha256(onnx).hexdigest()
        if found != DIGEST:
            raise UnknownFile(f"silero's file: found the SHA-256 {found}; allowed is {DIGEST}")
        weights = {
            name: np.frombuffer(onnx, "<f4", math.prod(shape), place).reshape(shape).astype(np.float32)
            for name, (place, shape) in _PLACES.items()
        }
        self._spectrum = np.ascontiguousarray(weights["stft.forward_basis_buffer"][:, 0].T)
        # In rows, one after the other: a product with columns takes twice as long.
        self._layers = [
            np.ascontiguousarray(_layer_weights(weights, number)) for number in range(len(_CONVOLUTIONS))
        ]
        self._gates = np.ascontiguousarray(_gate_weights(weights))
        self._last = weights["decoder.decoder.2.weight"].reshape(_WIDTH) * _HALF
        self._last_bias = weights["decoder.decoder.2.bias"] * _HALF
        self._idle: list[_Scratch] = []
        """Nobody's at the moment: there come to be as many as threads have used the network at once."""

    def infer(self, windows: Floats, states: Floats) -> tuple[Floats, Floats]:
        """Judge one window of each of N legs, as :meth:`audio.vad.VadModel.infer` says.

        Raises:
            ValueError: the arrays have other shapes.
        """
        legs = len(windows)
        if windows.shape != (legs, _CONTEXT_AND_WINDOW) or states.shape != (2, legs, _WIDTH):
            raise ValueError(
                f"found windows {windows.shape} and states {states.shape}; "
                f"allowed are [N, {_CONTEXT_AND_WINDOW}] and [2, N, {_WIDTH}]"
            )
        try:
            scratch = self._idle.pop()
        except IndexError:
            scratch = _Scratch()
        found: Floats = np.empty(legs, np.float32)
        after: Floats = np.empty((2, legs, _WIDTH), np.float32)
        for begin in range(0, legs, _MOST):
            some = slice(begin, begin + _MOST)
            self._judge(scratch, windows[some], states[:, some], found[some], after[:, some])
        self._idle.append(scratch)
        found += self._last_bias
        np.tanh(found, out=found)
        _sigmoids(found)
        return found, after

    def _judge(
        self, scratch: _Scratch, windows: Floats, states: Floats, found: Floats, after: Floats
    ) -> None:
        """Judge at most :data:`_MOST` windows; ``found`` lacks the bias and the sigmoid still."""
        work = scratch.work(len(windows))
        work.heard[...] = windows
        work.end[...] = work.mirrored
        work.frames[...] = work.frames_heard
        np.dot(work.frame_rows, self._spectrum, out=work.spectrum)
        np.multiply(work.spectrum, work.spectrum, out=work.spectrum)
        np.add(work.real, work.imaginary, out=work.magnitudes)
        np.sqrt(work.magnitudes, out=work.magnitudes)
        for layer, weights in zip(work.layers, self._layers, strict=True):
            layer.laid_out[...] = layer.seen
            np.dot(layer.rows, weights, out=layer.product)
            np.maximum(layer.result, 0, out=layer.into)
        work.output_before[...] = states[0]
        np.matmul(work.cell_rows, self._gates, out=work.gates)
        np.tanh(work.gates, out=work.gates)
        _sigmoids(work.gates[:3])
        admit, keep, show, candidate = work.gates
        output, cell = after
        np.multiply(keep, states[1], out=cell)
        np.multiply(admit, candidate, out=candidate)
        np.add(cell, candidate, out=cell)
        np.tanh(cell, out=output)
        np.multiply(output, show, out=output)
        np.dot(np.maximum(output, 0, out=work.positive), self._last, out=found)


def _layer_weights(weights: dict[str, Floats], number: int) -> Floats:
    """[what is seen at one place and a one, channels]: what a convolution's rows are multiplied by."""
    convolution = _CONVOLUTIONS[number]
    kernel = weights[f"encoder.{number}.reparam_conv.weight"].transpose(2, 1, 0)
    kernel = kernel[convolution.taps.start : convolution.taps.stop]
    bias = weights[f"encoder.{number}.reparam_conv.bias"]
    return np.concatenate((kernel.reshape(convolution.seen, -1), bias[np.newaxis]))


def _gate_weights(weights: dict[str, Floats]) -> Floats:
    """[4, input and output before and a one, 128]: the LSTM's gates, the candidate last.

    Those that a sigmoid is taken of are halved, see :func:`_sigmoids`.
    """
    kernel = np.concatenate((weights["decoder.rnn.weight_ih"], weights["decoder.rnn.weight_hh"]), axis=1)
    bias = weights["decoder.rnn.bias_ih"] + weights["decoder.rnn.bias_hh"]
    rows = np.concatenate((kernel.T, bias[np.newaxis])).reshape(-1, _GATES, _WIDTH)
    admit, keep, candidate, show = rows.transpose(1, 0, 2)
    return np.stack((admit * _HALF, keep * _HALF, show * _HALF, candidate))


def _sigmoids(tangents: Floats) -> None:
    """Of numbers whose half's hyperbolic tangents these are, in their place."""
    tangents *= _HALF
    tangents += _HALF


class _Layer(NamedTuple):
    """What a convolution of N windows is computed in."""

    seen: Floats
    """[N, frames, what is seen there]: a view, in which what two places see stands twice."""
    laid_out: Floats
    """Where that is copied to."""
    rows: Floats
    """[N · frames, what is seen there and a one]."""
    product: Floats
    """[N · frames, channels]."""
    result: Floats
    """The same as [N, frames, channels]."""
    into: Floats
    """Where that goes: what the next layer sees, or the LSTM."""


class _Work(NamedTuple):
    """What N windows are judged in."""

    heard: Floats
    """[N, 288]: the context and the window."""
    end: Floats
    """[N, 32]: what is appended."""
    mirrored: Floats
    """And of what."""
    frames_heard: Floats
    """[N, 4, 128]: a view, in which what two frames share stands twice."""
    frames: Floats
    """Where that is copied to."""
    frame_rows: Floats
    """The same as [N · 4, 128]."""
    spectrum: Floats
    """[N · 4, 2 · 65]."""
    real: Floats
    """[N, 4, 65]."""
    imaginary: Floats
    """[N, 4, 65]."""
    magnitudes: Floats
    """[N, 4, 65]: what the first layer sees, without the zeros beside it."""
    layers: tuple[_Layer, ...]
    cell_rows: Floats
    """[N, 128 + 128 + 1]: the LSTM's input, its output before, and a one."""
    output_before: Floats
    """[N, 128] of it."""
    gates: Floats
    """[4, N, 128]."""
    positive: Floats
    """[N, 128]: what is positive of the LSTM's output."""


class _Scratch:
    """Memory to work in, the same for any number of windows: so it stays in the processor's cache.

    The zeros beside the frames and the ones at the rows' ends are written once.
    """

    def __init__(self) -> None:
        self._sound = _zeros(_MOST, _CONTEXT_AND_WINDOW + _MIRRORED)
        self._frames = _zeros(_MOST * _FRAMES, _FRAME_SAMPLES)
        self._spectrum = _zeros(_MOST * _FRAMES, 2 * _BINS)
        self._inputs = [
            _zeros(_MOST, sum(layer.zeros) + layer.frames_in, layer.channels_in) for layer in _CONVOLUTIONS
        ]
        self._rows = [_ending_with_one(_MOST * layer.frames_out, layer.seen) for layer in _CONVOLUTIONS]
        self._products = [_zeros(_MOST * layer.frames_out, layer.channels_out) for layer in _CONVOLUTIONS]
        self._cell_rows = _ending_with_one(_MOST, 2 * _WIDTH)
        self._gates = _zeros(_GATES, _MOST, _WIDTH)
        self._positive = _zeros(_MOST, _WIDTH)
        self._works: dict[int, _Work] = {}

    def work(self, windows: int) -> _Work:
        """The part of it for so many windows, at most :data:`_MOST`."""
        work = self._works.get(windows)
        if work is None:
            work = self._works[windows] = self._cut(windows)
        return work

    def _cut(self, windows: int) -> _Work:
        sound = self._sound[:windows]
        last = _CONTEXT_AND_WINDOW - 1
        frame_rows = self._frames[: windows * _FRAMES]
        spectrum = self._spectrum[: windows * _FRAMES]
        parts = spectrum.reshape(windows, _FRAMES, 2, _BINS)
        inputs = [
            whole[:windows, layer.zeros[0] : layer.zeros[0] + layer.frames_in]
            for layer, whole in zip(_CONVOLUTIONS, self._inputs, strict=True)
        ]
        cell_rows = self._cell_rows[:windows]
        into = [*inputs[1:], cell_rows[:, np.newaxis, :_WIDTH]]
        return _Work(
            heard=sound[:, :_CONTEXT_AND_WINDOW],
            end=sound[:, _CONTEXT_AND_WINDOW:],
            mirrored=sound[:, last - 1 : last - 1 - _MIRRORED : -1],
            frames_heard=sliding_window_view(sound, _FRAME_SAMPLES, axis=1)[:, ::_FRAME_STEP],
            frames=frame_rows.reshape(windows, _FRAMES, _FRAME_SAMPLES),
            frame_rows=frame_rows,
            spectrum=spectrum,
            real=parts[:, :, 0],
            imaginary=parts[:, :, 1],
            magnitudes=inputs[0],
            layers=tuple(self._layer(number, windows, there) for number, there in enumerate(into)),
            cell_rows=cell_rows,
            output_before=cell_rows[:, _WIDTH : 2 * _WIDTH],
            gates=self._gates[:, :windows],
            positive=self._positive[:windows],
        )

    def _layer(self, number: int, windows: int, into: Floats) -> _Layer:
        layer = _CONVOLUTIONS[number]
        places = windows * layer.frames_out
        rows = self._rows[number][:places]
        product = self._products[number][:places]
        views = sliding_window_view(self._inputs[number][:windows].reshape(windows, -1), layer.seen, axis=1)
        return _Layer(
            seen=views[:, :: layer.step * layer.channels_in],
            laid_out=rows.reshape(windows, layer.frames_out, -1)[:, :, : layer.seen],
            rows=rows,
            product=product,
            result=product.reshape(into.shape),
            into=into,
        )


def _zeros(*shape: int) -> Floats:
    return np.zeros(shape, np.float32)


def _ending_with_one(rows: int, width: int) -> Floats:
    """[rows, width + 1]."""
    found = _zeros(rows, width + 1)
    found[:, -1] = 1
    return found
