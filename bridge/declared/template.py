"""Puts a model's arguments into a request, so that none of them can become part of its structure; no I/O.

`{name}` stands for an argument. In a URL it stands in the path, where it fills its place within one segment,
or in a query's value; the scheme, the host and the port are the settings' alone. A body is JSON that is built
of values and never of text. What can't be put where it belongs is refused, not mended.
"""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Collection, Mapping
from typing import Any, Final

Value = str | int | float | bool
Values = Mapping[str, Value]
"""Arguments by name; one that was left out is not there."""

ALWAYS: Final = ("call", "role", "tenant", "visit")
"""What a template knows of every call, beside the tool's own arguments."""
SOMETIMES: Final = ("caller",)
"""What it may know: the caller's number, where the PBX said it."""

MOST_OF_URL: Final = 2_000
MOST_OF_BODY: Final = 8_000
"""Characters of a body in the settings."""
DEEPEST: Final = 6
"""Tables and lists of a body within one another."""

_PLACEHOLDER: Final = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_BRACES: Final = re.compile(r"\{[^{}]*\}|[{}]")
_URL: Final = re.compile(r"[!-~]+")
_HEADER: Final = re.compile(r"[ -~]*")
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,80}")
OURS: Final = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "idempotency-key",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "webhook-id",
        "webhook-signature",
        "webhook-timestamp",
    }
)
"""Headers that no settings set: each request has its own, or none."""
_SECRET: Final = re.compile(r"auth|cookie|key|token|secret|password|senha", re.IGNORECASE)


class Unfit(ValueError):
    """An argument can't stand where the template has it; the text is for the model, without the argument."""


# --------------------------------------------------------------------------------------------------------
# What a template may be. Each raises ValueError with what is allowed.
# --------------------------------------------------------------------------------------------------------


def check_url(url: str, arguments: Collection[str], required: Collection[str]) -> None:
    """Whether a URL's template is one.

    Args:
        arguments: the names of the tool's arguments.
        required: those that a call always has.
    """
    if len(url) > MOST_OF_URL or not _URL.fullmatch(url) or "\\" in url or "#" in url:
        raise ValueError(f"a URL of up to {MOST_OF_URL} ASCII characters, without spaces, \\ and #")
    _check_braces(url)
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or "{" in parts.netloc or not parts.hostname:
        raise ValueError("a URL that begins with https:// or http:// and a host, without placeholders in it")
    if "@" in parts.netloc:
        raise ValueError("a URL without a user or password in it; secrets come from the environment")
    try:
        fits = parts.port != 0
    except ValueError:
        fits = False
    if not fits:
        raise ValueError("a port from 1 to 65535")
    if any(segment in (".", "..") for segment in urllib.parse.unquote(parts.path).split("/")):
        raise ValueError("a path without . and ..")
    _check_known(parts.path, [*required, *ALWAYS], "in the path: required arguments")
    for pair in parts.query.split("&"):
        name, _, text = pair.partition("=")
        if "{" in name:
            raise ValueError("placeholders in the values of a query, not in its names")
        _check_known(text, [*arguments, *ALWAYS, *SOMETIMES])


def check_header(name: str, text: str, arguments: Collection[str]) -> None:
    """Whether a header may be set, and by this template."""
    check_header_name(name)
    if _SECRET.search(name):
        raise ValueError(f"headers that are no secret; {name} is one: name its variable in headers_env")
    if len(text) > MOST_OF_URL or not _HEADER.fullmatch(text):
        raise ValueError("printable ASCII on one line")
    _check_known(text, [*arguments, *ALWAYS, *SOMETIMES])


def check_header_name(name: str) -> None:
    """Whether settings may have a header of this name."""
    if not _TOKEN.fullmatch(name) or name.lower() in OURS:
        raise ValueError(f"a header's name, and none of {', '.join(sorted(OURS))}; not {name[:80]!r}")


def check_body(body: Mapping[str, Any], arguments: Collection[str]) -> None:
    """Whether a body's template is one: JSON, with placeholders in its texts."""
    _check_value(body, [*arguments, *ALWAYS, *SOMETIMES], 0)
    if len(json.dumps(body)) > MOST_OF_BODY:
        raise ValueError(f"a body of up to {MOST_OF_BODY} characters")


def _check_value(value: Any, known: Collection[str], depth: int) -> None:
    if depth > DEEPEST:
        raise ValueError(f"tables and lists of up to {DEEPEST} within one another")
    if isinstance(value, Mapping):
        for name, below in value.items():
            if _PLACEHOLDER.search(name):
                raise ValueError("placeholders in the values of a body, not in its names")
            _check_value(below, known, depth + 1)
    elif isinstance(value, list | tuple):
        for below in value:
            _check_value(below, known, depth + 1)
    elif isinstance(value, str):
        _check_known(value, known)
    elif not isinstance(value, bool | int | float) or value != value or abs(value) == float("inf"):
        raise ValueError("text, numbers, true, false, lists and tables")


def _check_braces(text: str) -> None:
    for found in _BRACES.findall(text):
        if not _PLACEHOLDER.fullmatch(found):
            raise ValueError("braces around a name alone, such as {cpf}")


def _check_known(text: str, known: Collection[str], where: str = "") -> None:
    for name in _PLACEHOLDER.findall(text):
        if name not in known:
            allowed = ", ".join(f"{{{each}}}" for each in sorted(known))
            raise ValueError(f"{f'{where}, ' if where else ''}the placeholders {allowed}; not {{{name}}}")


# --------------------------------------------------------------------------------------------------------
# Filling. Each raises Unfit.
# --------------------------------------------------------------------------------------------------------


def fill_url(url: str, values: Values) -> str:
    """The URL of one request. A part of the query whose argument was left out is left out as a whole."""
    parts = urllib.parse.urlsplit(url)
    path = _PLACEHOLDER.sub(lambda found: _segment(found[1], values), parts.path)
    if any(urllib.parse.unquote(segment).strip(".") == "" for segment in _filled(parts.path, path)):
        raise Unfit("an argument that leads nowhere")
    pairs = [pair for pair in parts.query.split("&") if pair and _has_all(pair, values)]
    query = "&".join(_PLACEHOLDER.sub(lambda found: _quoted(values[found[1]]), pair) for pair in pairs)
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc, path, query, ""))


def _filled(template: str, path: str) -> list[str]:
    """The segments of a path that the template has placeholders in."""
    return [
        segment
        for meant, segment in zip(template.split("/"), path.split("/"), strict=True)
        if _PLACEHOLDER.search(meant)
    ]


def _segment(name: str, values: Values) -> str:
    text = as_text(values[name])
    if not text or "/" in text or "\\" in text or not text.isprintable():
        # Quoted it would do no harm here, but servers and proxies are known to undo that before they look.
        raise Unfit(f"{name} must not be empty nor hold a slash or a line break")
    return _quoted(text)


def _quoted(value: Value) -> str:
    return urllib.parse.quote(as_text(value), safe="")


def fill_header(text: str, values: Values) -> str | None:
    """A header's value; None where an argument in it was left out."""
    if not _has_all(text, values):
        return None
    filled = _PLACEHOLDER.sub(lambda found: as_text(values[found[1]]), text)
    if not _HEADER.fullmatch(filled):
        name = _PLACEHOLDER.findall(text)[0]
        raise Unfit(f"{name} must be printable ASCII on one line")
    return filled


def fill_body(body: Mapping[str, Any], values: Values) -> dict[str, Any]:
    """A body's JSON. A text that is one placeholder alone becomes the argument with its type; what names an
    argument that was left out is left out."""
    filled = _built(dict(body), values)
    assert isinstance(filled, dict)
    return filled


class _LeftOut:
    """Stands for a value that is not there."""


def _built(value: Any, values: Values) -> Any:
    if isinstance(value, Mapping):
        made = {name: _built(below, values) for name, below in value.items()}
        return {name: below for name, below in made.items() if below is not _LeftOut}
    if isinstance(value, list | tuple):
        return [below for below in (_built(each, values) for each in value) if below is not _LeftOut]
    if not isinstance(value, str):
        return value
    if not _has_all(value, values):
        return _LeftOut
    if (alone := _PLACEHOLDER.fullmatch(value)) is not None:
        return values[alone[1]]
    return _PLACEHOLDER.sub(lambda found: as_text(values[found[1]]), value)


def _has_all(text: str, values: Values) -> bool:
    return all(name in values for name in _PLACEHOLDER.findall(text))


def as_text(value: Value) -> str:
    """An argument as text: numbers and booleans as JSON writes them."""
    return value if isinstance(value, str) else json.dumps(value)
