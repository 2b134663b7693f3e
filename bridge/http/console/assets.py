"""Style sheets, scripts and pictures: read once, sent with a name that changes with what they hold.

All stand below one digest of them all, so that a script's `import "./other.js"` finds the one of its own
version, and a browser may keep everything for good.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bridge.http.problems import Problem

KINDS: Final = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
FOR_GOOD: Final = "public, max-age=31536000, immutable"
"""Of an answer to an address that holds the digest."""


class Assets:
    """What lies in `static/`."""

    def __init__(self) -> None:
        self._files = {
            each.name: each.read_bytes()
            for each in (files(__package__) / "static").iterdir()
            if each.name.rpartition(".")[2] in KINDS
        }
        digest = hashlib.sha256()
        for name in sorted(self._files):
            digest.update(name.encode() + b"\0" + self._files[name] + b"\0")
        self._version = digest.hexdigest()[:16]

    def path(self, name: str) -> str:
        """The address of a file.

        Raises:
            KeyError: there is none by that name.
        """
        if name not in self._files:
            raise KeyError(name)
        return f"/console/static/{self._version}/{name}"

    def routes(self) -> list[Route]:
        """The resources of this file. They need no log-in: they tell nothing of anybody."""
        return [Route("/static/{version}/{name}", self._answer, methods=["GET"])]

    async def _answer(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._files:
            raise Problem(404, f"found {name[:80]!r}; allowed: a file of the console's")
        # A page of an older version may still ask for its own: it gets today's, and keeps it not.
        current = request.path_params["version"] == self._version
        return Response(
            self._files[name],
            media_type=KINDS[name.rpartition(".")[2]],
            headers={"cache-control": FOR_GOOD if current else "no-cache"},
        )
