"""How a stage of the pipeline fails: recognition, language model and speech, wherever each of them runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import urlsplit

from providers.base import Usage
from providers.openai_messages import http_refusal

Bill = Callable[[Usage], None]
"""Told what somebody is to be paid for, when it comes about."""

_PAYEES: Final[Mapping[str, str]] = {
    "api.openai.com": "openai",
    "api.groq.com": "groq",
    "api.deepgram.com": "deepgram",
}

_BODIES: Final[Mapping[bytes, tuple[str, str]]] = {
    b"voice": ("unsupported_voice", "the voice is not known there"),
    b"no such model": ("unknown_model", "the model is not known there, or not in this language"),
    b"model": ("unknown_model", "the model is not known there"),
}
"""What the body of a refusal with status 400 or 422 says, the first that fits."""


class StageError(Exception):
    """Nothing can come of this stage, and so of the session; the text says which stage, and why."""

    def __init__(self, stage: str, code: str, words: str) -> None:
        """
        Args:
            stage: which, and where: :func:`stage_at`.
            code: as in :class:`providers.base.Failed`.
        """
        super().__init__(f"{stage}: {words}")
        self.code = code


def stage_at(name: str, base_url: str) -> str:
    """A stage as people are told of it: what it does, and whose it is."""
    parts = urlsplit(base_url)
    return f"{name} ({parts.hostname}{f':{parts.port}' if parts.port else ''})"


def payee(base_url: str) -> str:
    """Who is paid for what a server does: a vendor's name, or the server's where it is nobody's we know."""
    host = urlsplit(base_url).hostname or ""
    return _PAYEES.get(host, host)


def refusal(status: int, body: bytes) -> tuple[str, str]:
    """Code and plain words for a request that was answered with this HTTP status."""
    lower = body.lower()
    if status in (400, 422):
        for mark, (code, words) in _BODIES.items():
            if mark in lower:
                return code, f"{words} (HTTP {status})"
        return "request_refused", f"the request was refused (HTTP {status})"
    if status == 402:
        return "quota", "the account's credit is used up (HTTP 402)"
    return http_refusal(status, body)
