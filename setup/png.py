"""Makes a screenshot small: a PNG of at most 256 colours; pages of text and plain areas need no more."""

from __future__ import annotations

import struct
import zlib
from typing import Final

import numpy as np
import numpy.typing as npt

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
COLOURS: Final = 256
BLOCK: Final = 1024
"""Colours that are compared with the palette at once."""

Pixels = npt.NDArray[np.uint8]


class PngError(ValueError):
    """No picture of the kind that browsers take: 8 bits a channel, RGB or RGBA, not interlaced."""


def smaller(png: bytes) -> bytes:
    """The same picture with a palette; the colours are the picture's own where it has few enough.

    Raises:
        PngError: it is of another kind.
    """
    pixels = decoded(png)
    colours, index = _palette(pixels)
    height, width = index.shape
    rows = np.zeros((height, width + 1), np.uint8)  # filter 0 before each row: best for a palette
    rows[:, 1:] = index
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    return b"".join(
        (
            SIGNATURE,
            _chunk(b"IHDR", header),
            _chunk(b"PLTE", colours.tobytes()),
            _chunk(b"IDAT", zlib.compress(rows.tobytes(), 9)),
            _chunk(b"IEND", b""),
        )
    )


def decoded(png: bytes) -> Pixels:
    """The pixels, [height, width, 3].

    Raises:
        PngError: as :func:`smaller`.
    """
    if not png.startswith(SIGNATURE):
        raise PngError("found no PNG")
    at, data = len(SIGNATURE), b""
    width = height = channels = 0
    while at < len(png):
        length, kind = struct.unpack_from(">I4s", png, at)
        body = png[at + 8 : at + 8 + length]
        at += 12 + length
        if kind == b"IHDR":
            width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", body)
            channels = {2: 3, 6: 4}.get(colour, 0)
            if depth != 8 or not channels or interlaced:
                raise PngError(f"found depth {depth}, kind {colour}, interlace {interlaced}")
        elif kind == b"IDAT":
            data += body
    return _unfiltered(zlib.decompress(data), width, height, channels)[:, :, :3]


def _unfiltered(data: bytes, width: int, height: int, channels: int) -> Pixels:
    """Undo the filter of each row (PNG specification, 9.2)."""
    stride = width * channels
    rows = np.frombuffer(data, np.uint8).reshape(height, stride + 1)
    out = np.zeros((height, stride), np.uint8)
    above = np.zeros(stride, np.uint8)
    for y in range(height):
        kind, row = rows[y, 0], rows[y, 1:]
        if kind == 0:
            above = row
        elif kind == 1:
            above = np.cumsum(row.reshape(width, channels), axis=0, dtype=np.uint8).reshape(stride)
        elif kind == 2:
            above = row + above
        else:
            above = _by_pixel(int(kind), row, above, channels)
        out[y] = above
    return out.reshape(height, width, channels)


def _by_pixel(kind: int, row: Pixels, above: Pixels, channels: int) -> Pixels:
    """Filters 3 (average) and 4 (Paeth), which need the pixel to the left."""
    made, up, line = [0] * len(row), above.tolist(), row.tolist()
    for x, value in enumerate(line):
        left = made[x - channels] if x >= channels else 0
        corner = up[x - channels] if x >= channels else 0
        if kind == 3:
            made[x] = (value + (left + up[x]) // 2) & 255
        else:
            guess = left + up[x] - corner
            near = min((abs(guess - each), place, each) for place, each in enumerate((left, up[x], corner)))[
                2
            ]
            made[x] = (value + near) & 255
    return np.array(made, np.uint8)


def _palette(pixels: Pixels) -> tuple[Pixels, Pixels]:
    """At most 256 colours, and which of them each pixel has: the most frequent, as they are.

    What is left are edges of letters and of curves: each becomes the nearest colour that there is.
    """
    flat = pixels.astype(np.uint32)
    whole = (flat[:, :, 0] << 16 | flat[:, :, 1] << 8 | flat[:, :, 2]).ravel()
    found, index, counts = np.unique(whole, return_inverse=True, return_counts=True)
    kept = found[np.argsort(-counts, kind="stable")[:COLOURS]]
    palette, others = _channels(kept), _channels(found)
    nearest = np.empty(len(found), np.uint8)
    for at in range(0, len(found), BLOCK):  # a block at a time: photographs have a colour a pixel
        block = others[at : at + BLOCK, None, :].astype(np.int32) - palette[None, :, :]
        nearest[at : at + BLOCK] = (block**2).sum(axis=2).argmin(axis=1)
    return palette, nearest[index].reshape(pixels.shape[:2])


def _channels(colours: npt.NDArray[np.uint32]) -> Pixels:
    """0xRRGGBB as [n, 3]."""
    return np.stack([(colours >> shift) & 255 for shift in (16, 8, 0)], axis=1).astype(np.uint8)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
