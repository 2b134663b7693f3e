"""Texts of callers and models, so that a terminal or a page can only show them."""

from __future__ import annotations


def safe(text: str) -> str:
    """Text that can only be shown.

    Callers' and models' words may hold escape sequences, or signs that turn the direction of writing:
    whatever is not printable is written as its code.
    """
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)
