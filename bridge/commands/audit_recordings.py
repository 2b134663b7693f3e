"""Holds the recordings' files against what the audit log says of them."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final

from storage.base import Storage
from visits.audit import ERASURES, AuditRecord, Fault, FaultKind

_CHUNK: Final = 1 << 20


@dataclass(slots=True)
class Looked:
    """What was found."""

    faults: list[Fault] = field(default_factory=list)
    sound: int = 0
    erased: int = 0
    """Recordings that are gone, or about to, by a record that says so."""
    unsealed: int = 0
    """Recordings of calls that ended, without a digest in the log: the disk gave up, or a crash came."""


async def look_at_recordings(storage: Storage, root: Path | None, tenant: str | None) -> Looked:
    """Compare each recording's length and SHA-256 with the log; reads every file once.

    Args:
        storage: the audit log.
        root: the directory of all recordings; None: only count them.
        tenant: whose recordings; None: all.
    """
    looked = Looked()
    erased = await _erased(storage, tenant)
    begun: set[tuple[str, str]] = set()
    sealed: set[tuple[str, str]] = set()
    async for record in storage.audit(tenant=tenant, kinds=["leg.ended", "recording.closed"]):
        name = record.data.get("recording")
        if not isinstance(name, str):
            continue
        if record.kind == "leg.ended":
            begun.add((record.tenant, name))
            continue
        sealed.add((record.tenant, name))
        if (record.tenant, record.visit) in erased:
            looked.erased += 1
            continue
        fault = _fault(record, name, root) if root is not None else None
        if fault is not None:
            looked.faults.append(fault)
        elif root is not None:
            looked.sound += 1
    looked.unsealed = len(begun - sealed)
    return looked


async def _erased(storage: Storage, tenant: str | None) -> set[tuple[str, str]]:
    """The visits whose recordings a record says are erased: (tenant, visit)."""
    found: set[tuple[str, str]] = set()
    async for record in storage.audit(tenant=tenant, kinds=ERASURES):
        visits = record.data.get("visits")
        if record.data.get("scope") in ("recordings", "visit") and isinstance(visits, list):
            found.update((record.tenant, visit) for visit in visits if isinstance(visit, str))
    return found


def _fault(record: AuditRecord, name: str, root: Path) -> Fault | None:
    """What is wrong with one recording's file."""

    def fault(kind: FaultKind, detail: str) -> Fault:
        return Fault(kind, record.tenant, record.seq, record.seq, record.visit, detail, name)

    try:
        found = _read(root / name)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return fault("recording-missing", f"it can't be read below {root}: {reason}")
    expected = record.data.get("bytes"), record.data.get("sha256")
    if found != expected:
        return fault(
            "recording-changed",
            f"record {record.seq} says {expected[0]} bytes, SHA-256 {expected[1]}; "
            f"the file has {found[0]} bytes, {found[1]}",
        )
    return None


def _read(path: Path) -> tuple[int, str]:
    """(bytes, SHA-256) of a plain file. Raises OSError."""
    # Not to be held up by whatever somebody put there in the file's place: a pipe, for instance.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(0, "not a plain file")
        state, length = sha256(), 0
        while chunk := file.read(_CHUNK):
            state.update(chunk)
            length += len(chunk)
    return length, state.hexdigest()
