"""Takes secrets out of texts that people are shown: of URLs above all, which messages like to quote."""

from __future__ import annotations

import re
from typing import Final

MASK: Final = "…"

_NAME: Final = r"[\w.\-]*(?:pass|pwd|senha|token|secret|segredo|key|chave|auth|signature|credential)[\w.\-]*"
_PLACEHOLDER: Final = r"(?!\{\w+\}(?:[&;\s'\"]|$))"
_USER_INFO: Final = re.compile(r"://[^/?#\s]*@")
_PARAMETER: Final = re.compile(rf"(?P<before>[?&;]{_NAME}=){_PLACEHOLDER}[^&;\s'\"#]+", re.IGNORECASE)
_FIELD: Final = re.compile(
    rf"(?P<before>(?:^|(?<=[\s'\"])){_NAME}=|['\"]{_NAME}['\"]\s*:\s*['\"]?){_PLACEHOLDER}[^&;\s'\"#,}}]+",
    re.IGNORECASE,
)
_BEARER: Final = re.compile(r"(?P<before>\b(?:bearer|token)\s+)[\w.\-+/~=]{16,}", re.IGNORECASE)
_KEY: Final = re.compile(r"\b(?:sk-|gsk_|AIza|eyJ)[\w.\-*]{8,}")
"""How the keys of OpenAI, Groq and Google begin, and signed tokens: some vendors repeat what they refuse."""


def masked(text: str) -> str:
    """The text without the secrets that can be told by their names or their place.

    `http://user:word@host/?token=abc` becomes `http://…@host/?token=…`; of a form (`password=abc&…`) and of
    JSON (`"password": "abc"`) the values go as well, and so does what begins as a key does (`sk-…`). A
    placeholder such as `{password}` stays: it is none.
    """
    if "@" in text:
        text = _USER_INFO.sub(f"://{MASK}@", text)
    if "=" in text or ":" in text:
        text = _PARAMETER.sub(rf"\g<before>{MASK}", text)
        text = _FIELD.sub(rf"\g<before>{MASK}", text)
    text = _BEARER.sub(rf"\g<before>{MASK}", text)
    return _KEY.sub(MASK, text)
