"""How passwords are kept and checked."""

from __future__ import annotations

import pytest

from bridge.passwords import hashed, matches, password_problem

PASSWORD = "açaí com granola"


def test_the_password_matches_and_no_other_does() -> None:
    kept = hashed(PASSWORD)
    assert kept.startswith("$argon2id$") and PASSWORD not in kept
    assert kept != hashed(PASSWORD)
    assert matches(kept, PASSWORD)
    assert not matches(kept, PASSWORD + " ")
    assert not matches(kept, "")


def test_nobody_has_no_password() -> None:
    assert not matches(None, PASSWORD)
    assert not matches(None, "nobody's password")


def test_what_is_no_hash_is_said() -> None:
    with pytest.raises(ValueError, match="Argon2"):
        matches("plain", PASSWORD)


@pytest.mark.parametrize("password", ["", "short", "x" * 257, "aaaaaaaaaaaaaa"])
def test_what_may_be_no_password_is_said_and_not_repeated(password: str) -> None:
    problem = password_problem(password)
    assert problem is not None and (not password or password not in problem)
    assert password_problem(PASSWORD) is None
