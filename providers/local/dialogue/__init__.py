"""The doorman's mind without a language model: what the local server's model says and calls."""

from __future__ import annotations

from providers.local.dialogue.base import DialogueEngine
from providers.local.dialogue.engine import Doorman


def new_engine() -> DialogueEngine:
    """A fresh engine, for one session."""
    return Doorman()


__all__ = ["new_engine"]
