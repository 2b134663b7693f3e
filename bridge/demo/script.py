"""What a person in the demo does: a list of says, read from the command line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from bridge.softphone import load_wav

ALLOWED = "FILE.wav, barge:FILE.wav@MS, key:DIGIT, silence:SECONDS or hangup"
_BARGE = re.compile(r"^barge:(?P<file>.+)@(?P<ms>\d+)$")
_KEY = re.compile(r"^key:(?P<digit>[0-9A-D*#])$")
_SILENCE = re.compile(r"^silence:(?P<seconds>\d+(\.\d+)?)$")


@dataclass(frozen=True, slots=True)
class Say:
    """Say a recording once it is this side's turn."""

    file: Path


@dataclass(frozen=True, slots=True)
class Barge:
    """Say a recording over the other side, so many milliseconds after it began to speak."""

    file: Path
    after_ms: int


@dataclass(frozen=True, slots=True)
class Key:
    """Press a key once it is this side's turn."""

    digit: str


@dataclass(frozen=True, slots=True)
class Silence:
    """Let the turn pass for so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class HangUp:
    """Put the phone down once it is this side's turn."""


Step = Say | Barge | Key | Silence | HangUp


class ScriptError(ValueError):
    """A step that can't be read, or a recording that isn't there."""


def step(text: str) -> Step:
    """One step, as the command line gives it.

    Raises:
        ScriptError: it is none of `ALLOWED`, or its file does not exist.
    """
    if text == "hangup":
        return HangUp()
    if found := _KEY.match(text):
        return Key(found["digit"])
    if found := _SILENCE.match(text):
        return Silence(float(found["seconds"]))
    if found := _BARGE.match(text):
        return Barge(_recording(found["file"]), int(found["ms"]))
    if text.startswith(("barge:", "key:", "silence:")):
        raise ScriptError(f"found {text!r}; allowed: {ALLOWED}")
    return Say(_recording(text))


def _recording(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise ScriptError(f"found {text!r}, and there is no such file; allowed: {ALLOWED}")
    try:
        load_wav(path)
    except ValueError as error:
        raise ScriptError(f"found {text!r}: {error}; allowed: {ALLOWED}") from None
    return path
