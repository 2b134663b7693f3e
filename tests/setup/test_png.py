"""Screenshots made small: the same picture where its colours are few, nearly the same where they are many."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from setup.png import SIGNATURE, PngError, decoded, smaller


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _filtered(kind: int, pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    """Rows with one of the five filters (PNG specification, 9.2)."""
    height, width, channels = pixels.shape
    rows = pixels.reshape(height, width * channels).astype(int)
    out = b""
    for y in range(height):
        row = rows[y]
        up = rows[y - 1] if y else np.zeros_like(row)
        left = np.concatenate((np.zeros(channels, int), row[:-channels]))
        corner = np.concatenate((np.zeros(channels, int), up[:-channels]))
        guess = left + up - corner
        distances = np.abs(np.stack((guess - left, guess - up, guess - corner)))
        paeth = np.choose(distances.argmin(axis=0), (left, up, corner))
        told = (np.zeros_like(row), left, up, (left + up) // 2, paeth)[kind]
        out += bytes([kind]) + ((row - told) % 256).astype(np.uint8).tobytes()
    return out


def _png(kind: int, pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, {3: 2, 4: 6}[channels], 0, 0, 0)
    data = zlib.compress(_filtered(kind, pixels))
    return SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


@given(
    st.integers(0, 4),
    st.integers(3, 4),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(0, 2**32 - 1),
)
def test_few_colours_are_kept_as_they_are(
    kind: int, channels: int, width: int, height: int, seed: int
) -> None:
    chance = np.random.default_rng(seed)
    pixels = chance.integers(0, 256, (height, width, channels), dtype=np.uint8)
    picture = _png(kind, pixels)
    assert (decoded(picture) == pixels[:, :, :3]).all()
    small = smaller(picture)
    palette = small[small.index(b"PLTE") + 4 :]
    size = struct.unpack_from(">I", small, small.index(b"PLTE") - 4)[0]
    rows = np.frombuffer(
        zlib.decompress(small[small.index(b"IDAT") + 4 : small.index(b"IEND") - 8]), np.uint8
    ).reshape(height, width + 1)
    colours = np.frombuffer(palette[:size], np.uint8).reshape(-1, 3)
    assert (colours[rows[:, 1:]] == pixels[:, :, :3]).all()


def test_many_colours_become_256_near_ones() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    small = smaller(_png(4, pixels))
    assert len(small) < 80 * 80 * 1.1 and small.startswith(SIGNATURE)


def test_what_is_no_such_picture_is_refused() -> None:
    with pytest.raises(PngError, match="found no PNG"):
        smaller(b"GIF89a")
    with pytest.raises(PngError, match="found depth 16"):
        smaller(SIGNATURE + _chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)))


def test_every_picture_of_the_console_is_there_small_and_shown() -> None:
    docs = Path(__file__).resolve().parents[2] / "docs"
    shown = re.findall(r"\((images/console/[^)]+)\)", (docs / "console.md").read_text())
    assert sorted(shown) == sorted(str(each.relative_to(docs)) for each in docs.glob("images/console/*"))
    for each in shown:
        picture = (docs / each).read_bytes()
        assert picture.startswith(SIGNATURE) and len(picture) <= 150_000, each
