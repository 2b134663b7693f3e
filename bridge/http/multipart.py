"""Reads a form that carries a file: multipart/form-data, as browsers send it (RFC 7578). Without I/O.

The body is in memory already, and no longer than an import may be (`bridge/http/bounds.py`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

KIND: Final = "multipart/form-data"
MOST_PARTS: Final = 20
MOST_HEAD: Final = 2000
"""Bytes of what stands before a part's content."""
_BOUNDARY: Final = re.compile(r";\s*boundary=(?:\"([^\"\r\n]{1,70})\"|([^\s;\"]{1,70}))", re.IGNORECASE)
_NAME: Final = re.compile(rb";\s*name=\"([^\"\r\n]{1,80})\"", re.IGNORECASE)
_FILE_NAME: Final = re.compile(rb";\s*filename=\"([^\"\r\n]{0,255})\"", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Part:
    """One field of such a form."""

    name: str
    file_name: str | None
    """None: it is no file."""
    content: bytes

    @property
    def text(self) -> str:
        """What was typed. Raises :class:`ValueError`."""
        return self.content.decode().strip()


def is_multipart(content_type: str) -> bool:
    """Whether a body of this type is such a form."""
    return content_type.partition(";")[0].strip().lower() == KIND


def parts_of(body: bytes, content_type: str) -> list[Part]:
    """The fields, in their order.

    Raises:
        ValueError: what was found, and what is allowed.
    """
    boundary = _BOUNDARY.search(content_type)
    if boundary is None:
        raise ValueError(f"found a {KIND} without its boundary; allowed: as browsers send it")
    mark = b"--" + (boundary[1] or boundary[2]).encode("latin-1", "replace")
    pieces = (b"\r\n" + body).split(b"\r\n" + mark, MOST_PARTS + 1)
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise ValueError(f"found a {KIND} that is cut off, or of more than {MOST_PARTS} fields")
    return [_part(piece) for piece in pieces[1:-1]]


def _part(piece: bytes) -> Part:
    head, blank, content = piece.partition(b"\r\n\r\n")
    name = _NAME.search(head[:MOST_HEAD])
    if not blank or name is None:
        raise ValueError("found a field without a name; allowed: as browsers send it")
    file_name = _FILE_NAME.search(head[:MOST_HEAD])
    told = None if file_name is None else file_name[1].decode("utf-8", "replace")
    return Part(name[1].decode("utf-8", "replace"), told, content)
