"""Operators' passwords: how they are kept, and how one is checked.

Argon2id with OWASP's second choice of parameters (19 MiB, two passes, one lane): about 30 ms of one CPU. A
guess costs an attacker as much, and a thread beside running calls no more than that.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

SHORTEST: Final = 12
"""Characters of a password."""
LONGEST: Final = 256
"""Likewise: a longer one would only cost time."""

_HASHER: Final = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


def password_problem(password: str) -> str | None:
    """Why this may not be a password, without the password; None where it may."""
    if not SHORTEST <= len(password) <= LONGEST:
        return f"found {len(password)} characters; allowed are {SHORTEST} to {LONGEST}"
    if len(set(password)) < 5:
        return f"found {len(set(password))} different characters; allowed are 5 or more"
    return None


def hashed(password: str) -> str:
    """What is kept of a password: a text with parameters, salt and hash. Takes about 30 ms: for a thread."""
    return _HASHER.hash(password)


def matches(kept: str | None, password: str) -> bool:
    """Whether it is the password; takes as long where there is nobody (None). For a thread.

    Raises:
        ValueError: what was kept is not a hash of ours.
    """
    try:
        right = _HASHER.verify(_nobody() if kept is None else kept, password)
    except VerifyMismatchError:
        return False
    except (InvalidHashError, VerificationError) as error:
        raise ValueError("found a password hash that can't be read; allowed: Argon2's") from error
    return right and kept is not None


@cache
def _nobody() -> str:
    return hashed("nobody's password")
