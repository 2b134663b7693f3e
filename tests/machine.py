"""What the machine has once, whoever tests on it."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = Path(__file__).resolve().parents[1] / ".cache" / "apt.lock"


@contextmanager
def package_manager() -> Iterator[None]:
    """Have apt-get to oneself: tests that run at the same time each install what they need."""
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
