"""What the pages say in each language, and how a language writes numbers, days and durations.

The texts are data: `languages/LANGUAGE/AREA.toml`. A text's key is its area, a dot and its place in the file:
`visits.empty.title`. A text may hold `{name}` for a value. Where a number decides, a table has `one` and
`other`, and the value is called `n`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from decimal import Decimal
from importlib.resources import files
from typing import Any, Final

LANGUAGES: Final = ("pt-BR", "en")
"""The first one is spoken where nothing is said."""
COOKIE: Final = "porteiro_language"


@dataclass(frozen=True)
class Language:
    """One language's texts. A template has it as ``t``."""

    code: str
    texts: Mapping[str, str]

    def __call__(self, key: str, /, **values: object) -> str:
        """A text with its values in it.

        Raises:
            KeyError: there is none by that key; the tests see to it that there is.
        """
        if "n" in values and key not in self.texts:
            key = f"{key}.{'one' if values['n'] == 1 else 'other'}"
            values = {**values, "n": self.number(values["n"])}
        text = self.texts[key]
        return text.format(**values) if values else text

    def of(self, area: str, value: str | None) -> str:
        """The word for a value that records hold (`outcome`, `state` …); without one the value itself."""
        if value is None:
            return "—"
        return self.texts.get(f"{area}.{value}", value)

    def has(self, key: str) -> bool:
        """Whether there is a text by that key."""
        return key in self.texts

    # ----------------------------------------------------------------------------------------------------
    # Numbers and times
    # ----------------------------------------------------------------------------------------------------

    def number(self, value: Any, digits: int = 0) -> str:
        """A number with the language's marks: 1.234,5 or 1,234.5."""
        text = f"{value:,.{digits}f}"
        return text.translate(str.maketrans(",.", ".,")) if self.code == "pt-BR" else text

    def money(self, amount: str | Decimal) -> str:
        """An amount, to a hundredth; smaller ones to four places, since a visit may cost less than a cent."""
        value = Decimal(amount)
        return self.number(value, 4 if 0 < abs(value) < Decimal("0.1") else 2)

    def day(self, at: datetime, zone: tzinfo) -> str:
        """21/11/2026, or 2026-11-21 in English, where the order of day and month is anybody's guess."""
        return at.astimezone(zone).strftime("%d/%m/%Y" if self.code == "pt-BR" else "%Y-%m-%d")

    def day_of(self, day: str) -> str:
        """A day without a time: `2026-12-31`."""
        return date.fromisoformat(day).strftime("%d/%m/%Y" if self.code == "pt-BR" else "%Y-%m-%d")

    def clock(self, at: datetime, zone: tzinfo, *, seconds: bool = False) -> str:
        """17:32, with seconds 17:32:08."""
        return at.astimezone(zone).strftime("%H:%M:%S" if seconds else "%H:%M")

    def moment(self, at: datetime, zone: tzinfo, *, seconds: bool = False) -> str:
        """Day and time."""
        return f"{self.day(at, zone)} {self.clock(at, zone, seconds=seconds)}"

    def duration(self, seconds: float) -> str:
        """1:23, or 1:02:03 from an hour on."""
        whole = timedelta(seconds=max(0, round(seconds)))
        minutes, left = divmod(int(whole.total_seconds()), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def read_languages() -> dict[str, Language]:
    """All of them, by code."""
    return {code: Language(code, _texts(code)) for code in LANGUAGES}


def choose(cookie: str | None, accepted: str | None) -> str:
    """Which language is spoken with whoever asks.

    Args:
        cookie: what they chose, if they did.
        accepted: the header Accept-Language (RFC 9110, 12.5.4).
    """
    if cookie in LANGUAGES:
        return cookie
    for wanted in _wanted(accepted or ""):
        for code in LANGUAGES:
            if wanted == "*" or wanted.partition("-")[0] == code.partition("-")[0].lower():
                return code
    return LANGUAGES[0]


def _wanted(header: str) -> Sequence[str]:
    """The languages of an Accept-Language, the dearest first; what is no number counts as 0."""
    weighed = []
    for part in header.split(",")[:20]:
        name, _, quality = part.strip().lower().partition(";")
        weight = quality.strip().removeprefix("q=") or "1"
        try:
            weighed.append((float(weight), name.strip()))
        except ValueError:
            continue
    return [name for weight, name in sorted(weighed, key=lambda each: -each[0]) if weight > 0 and name]


def _texts(code: str) -> dict[str, str]:
    texts: dict[str, str] = {}
    folder = files(__package__) / "languages" / code
    for file in sorted(folder.iterdir(), key=lambda each: each.name):
        area, _, kind = file.name.rpartition(".")
        if kind == "toml":
            _flatten(area, tomllib.loads(file.read_text(encoding="utf-8")), texts)
    return texts


def _flatten(prefix: str, tree: Mapping[str, Any], texts: dict[str, str]) -> None:
    for name, value in tree.items():
        if isinstance(value, dict):
            _flatten(f"{prefix}.{name}", value, texts)
        else:
            texts[f"{prefix}.{name}"] = value
