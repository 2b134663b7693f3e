"""The walls between the rooms stand, and would be missed."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.log import ALLOWED, FORBIDDEN, FORBIDDEN_ENDINGS

ROOT = Path(__file__).resolve().parent.parent
LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")
ROOMS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"]
LOG_METHODS = {"debug", "info", "warning", "warn", "error", "critical", "exception", "log", "bind"}


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(LINT_IMPORTS), "--no-cache"], cwd=folder, capture_output=True, text=True, timeout=120
    )


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy of the rooms, to break into."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for room in ROOMS:
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_a_room_imports_from_lower_floors_only() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("visits", "import asyncio"),
        ("visits", "import time"),
        ("audio", "import random"),
        ("visits", "import audio"),
        ("audio", "import storage"),
        ("storage", "import tools"),
        ("tools", "import providers"),
        ("providers", "import bridge"),
        ("bridge/gates", "import bridge.service"),
        ("bridge/declared", "import bridge.gates"),
    ],
)
def test_a_wall_that_is_broken_through_is_noticed(house: Path, room: str, line: str) -> None:
    (house / room / "burglar.py").write_text(f"{line}\n")
    done = lint_imports(house)
    assert done.returncode != 0
    assert "burglar" in done.stdout


def log_calls() -> Iterator[tuple[str, ast.Call]]:
    """Every call of a log method in the rooms: `log.info(…)`, `self._log.warning(…)`."""
    for room in ROOMS:
        for file in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and _is_log_method(node.func):
                    yield f"{file.relative_to(ROOT)}:{node.lineno}", node


def _is_log_method(function: ast.expr) -> bool:
    if not isinstance(function, ast.Attribute) or function.attr not in LOG_METHODS:
        return False
    owner = function.value
    name = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
    return name.strip("_").lower() in ("log", "logger")


def test_an_event_is_a_fixed_word() -> None:
    """What varies goes into keys, which are watched; an f-string in the event could hold a name."""
    loose = [
        where
        for where, call in log_calls()
        if isinstance(call.func, ast.Attribute)
        and call.func.attr != "bind"
        and not (call.args and isinstance(call.args[0], ast.Constant) and len(call.args) == 1)
    ]
    assert loose == []


def test_no_line_of_the_log_is_written_with_a_key_that_would_be_removed() -> None:
    useless = [
        f"{where} {keyword.arg}"
        for where, call in log_calls()
        for keyword in call.keywords
        if keyword.arg is not None
        and keyword.arg not in ALLOWED
        and (keyword.arg in FORBIDDEN or keyword.arg.endswith(FORBIDDEN_ENDINGS))
    ]
    assert useless == []
