"""Gives out recordings: the files that visits' records name, whole or in part, and no other file."""

from __future__ import annotations

import asyncio
import os
import re
import stat
from collections.abc import AsyncIterator, Callable
from datetime import date
from pathlib import Path, PurePath
from typing import Final

from starlette.responses import Response, StreamingResponse

from bridge.http.access import missing
from bridge.http.problems import Problem
from bridge.recorder import recording_name

CHUNK: Final = 64 * 1024
"""Bytes read at a time, in a thread."""
_RANGE: Final = re.compile(r"bytes=([0-9]{0,15})-([0-9]{0,15})")


class Recordings:
    """The recordings' directory.

    Args:
        root: the directory of all recordings.
    """

    def __init__(self, root: Callable[[], Path]) -> None:
        self._root = root

    async def answer(self, tenant: str, name: str | None, range: str | None) -> Response:
        """A recording, or the part of it that a `Range` header asks for.

        Args:
            tenant: whose visit it is of; its recordings lie in a directory of their own.
            name: the file below the root, as the record has it; None: nothing was recorded.

        Raises:
            Problem: 404 where it is not there; 416.
        """
        if name is None:
            raise missing("recording")
        path, size = await asyncio.to_thread(_find, self._root(), tenant, name)
        first, last = _part(range, size)
        headers = {"Accept-Ranges": "bytes", "Content-Length": str(last - first)}
        partial = (first, last) != (0, size)
        if partial:
            headers["Content-Range"] = f"bytes {first}-{last - 1}/{size}"
        return StreamingResponse(_read(path, first, last), 206 if partial else 200, headers, "audio/wav")


def _find(root: Path, tenant: str, name: str) -> tuple[Path, int]:
    """A recording's file, and its length now. Raises :class:`Problem`."""
    own = recording_name(tenant, date.min, "", "").parts[0]
    if PurePath(name).parts[:1] != (own,):
        raise missing("recording")
    try:
        base = root.resolve()
        path = (base / name).resolve(strict=True)
        if not path.is_relative_to(base / own):
            raise missing("recording")
        handle = _open(path)
    except (OSError, RuntimeError, ValueError):  # gone; links in a circle; a name that no file can have
        raise missing("recording") from None
    try:
        return path, os.fstat(handle).st_size
    finally:
        os.close(handle)


def _open(path: Path) -> int:
    """A descriptor of a plain file. Raises OSError."""
    # Not to be held up by whatever somebody put there in the file's place: a pipe, for instance.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError("found something that is no plain file")
    return handle


def _part(range: str | None, size: int) -> tuple[int, int]:
    """The bytes that are asked for, the end exclusive; all of them for what is no single range (RFC 9110)."""
    asked = _RANGE.fullmatch(range.strip()) if range is not None else None
    if asked is None or asked.group(0) == "bytes=-":
        return 0, size
    begin, end = asked.groups()
    if not begin:  # the last so many
        first, last = max(0, size - int(end)), size
    else:
        first, last = int(begin), min(size, int(end) + 1) if end else size
        if end and int(end) < first:
            return 0, size
    if first >= last:
        headers = {"Content-Range": f"bytes */{size}"}
        raise Problem(416, f"range: found {range!r:.80}; allowed are {size} bytes", headers)
    return first, last


async def _read(path: Path, first: int, last: int) -> AsyncIterator[bytes]:
    """The bytes, as they are taken. Raises OSError for a file that was cut off meanwhile."""
    handle = await asyncio.to_thread(_open, path)
    try:
        while first < last:
            chunk = await asyncio.to_thread(os.pread, handle, min(CHUNK, last - first), first)
            if not chunk:
                raise OSError("the recording got shorter while it was read")
            yield chunk
            first += len(chunk)
    finally:
        os.close(handle)
