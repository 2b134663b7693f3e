"""The schema's versions, for both databases: one file each in ``migrations/``, named by its number.

A file is SQL in SQLite's words; what is written only for one of them stands under a line ``-- for sqlite:``
or ``-- for postgresql:``, up to the next such line or ``-- for both:``. What is for both is put into
PostgreSQL's words here, which takes four: INTEGER, REAL, TEXT and STRICT.
"""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Final, Literal

Dialect = Literal["sqlite", "postgresql"]

_SECTION: Final = re.compile(r"^-- for (\w+):$", re.MULTILINE)
_SECTIONS: Final = ("both", "sqlite", "postgresql")


def scripts(dialect: Dialect) -> list[str]:
    """The scripts of all versions, from the first on."""
    found = sorted(
        (entry for entry in (files("storage") / "migrations").iterdir() if entry.name.endswith(".sql")),
        key=lambda entry: entry.name,
    )
    for number, entry in enumerate(found, 1):
        if not entry.name.startswith(f"{number:04}_"):
            raise RuntimeError(f"migration {number} is missing: found {entry.name}")
    return [script_for(dialect, entry.read_text("utf-8")) for entry in found]


def script_for(dialect: Dialect, text: str) -> str:
    """One version's script, in that database's words.

    Raises:
        ValueError: a section is for neither.
    """
    parts = ["both", *_SECTION.split(text)]
    script = ""
    for section, content in zip(parts[::2], parts[1::2], strict=True):
        if section not in _SECTIONS:
            raise ValueError(f"a migration's section: found {section!r}; allowed are {', '.join(_SECTIONS)}")
        if section == dialect:
            script += content
        elif section == "both":
            script += content if dialect == "sqlite" else _in_postgresql(content)
    return script


def _in_postgresql(sql: str) -> str:
    code = re.sub(r"--[^\n]*", "", sql)
    # "C": texts sort as their UTF-8 bytes do, whatever the database was made with; pages rest on that.
    words = {"INTEGER": "BIGINT", "REAL": "DOUBLE PRECISION", "TEXT": 'TEXT COLLATE "C"'}
    code = re.sub(r"\b(INTEGER|REAL|TEXT)\b", lambda word: words[word[1]], code)
    return re.sub(r"\) STRICT(, WITHOUT ROWID)?;", ");", code)
