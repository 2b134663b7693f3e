"""A tenant's hold sound: made, or read from its file, while its settings are made ready; never in a call."""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Final

from audio import tones
from audio.comfort import second_of_comfort
from audio.hold import MOST_BYTES, HoldSound, HoldSoundError, sound_of
from bridge.settings_problems import SettingsError

if TYPE_CHECKING:
    from bridge.settings import Tenant

KEPT: Final = 32
"""So many files' sounds are kept, a megabyte each at most: houses share them, a change reads none anew."""


def hold_sound(tenant: Tenant) -> HoldSound:
    """What a tenant's visitors hear while nobody speaks to them.

    Raises:
        SettingsError: its file can't be played.
    """
    held = tenant.hold_audio
    if held.sound == "file":
        if problem := hold_file_problem(held.file):
            raise SettingsError([f"tenants.{tenant.id}.hold_audio.file: {problem}"])
        assert held.file is not None
        return _read(held.file)
    return _ours(held.sound)


def hold_file_problem(file: Path | None) -> str:
    """What is wrong with a hold sound's file; empty where nothing is."""
    if file is None:
        return "not set"
    try:
        _read(file)
    except HoldSoundError as error:
        return f"{file}: {error}"
    except OSError as error:
        return f"{file}: can't be read: {error.strerror}"
    return ""


def _read(file: Path) -> HoldSound:
    """Raises :class:`OSError`, :class:`HoldSoundError`."""
    about = file.stat()
    if not S_ISREG(about.st_mode):
        raise HoldSoundError("found something else; allowed: a file")
    if about.st_size > MOST_BYTES:
        raise HoldSoundError(f"found {about.st_size} bytes; allowed are {MOST_BYTES}")
    return _unpacked(file, about.st_mtime_ns, about.st_size)


@lru_cache(KEPT)
def _unpacked(file: Path, changed_ns: int, size: int) -> HoldSound:
    """What a file holds that was changed then."""
    with file.open("rb") as opened:
        return sound_of(opened.read(MOST_BYTES + 1), file.suffix)


@cache
def _ours(name: str) -> HoldSound:
    match name:
        case "ring":
            return HoldSound(tones.ring_back())
        case "chime":
            return HoldSound(tones.hold())
        case "noise":
            return HoldSound(second_of_comfort())
    return HoldSound()


__all__ = ["hold_file_problem", "hold_sound"]
