"""What is installed is what is wanted: explained, used, pinned, and without torch."""

from __future__ import annotations

import ast
import importlib.util
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK: dict[str, Any] = tomllib.loads((ROOT / "uv.lock").read_text())

IMPORTED_AS = {
    "faster-whisper": "faster_whisper",
    "espeakng-loader": "espeakng_loader",
    "google-genai": "google.genai",
    "python-calamine": "python_calamine",
    "argon2-cffi": "argon2",
}
NOT_IMPORTED = {
    "silero-vad": "only its data file is read",
    "ctranslate2": "pinned for faster-whisper",
    "tzdata": "data, for zoneinfo",
}


def names(requirements: list[str]) -> list[str]:
    return [re.split(r"[<>=!~ ;\[]", requirement)[0] for requirement in requirements]


def every_dependency() -> list[str]:
    project = PROJECT["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values(),
              *PROJECT["dependency-groups"].values()]  # fmt: skip
    return [name for group in groups for name in names(group)]


def test_each_dependency_is_explained_and_nothing_else_is() -> None:
    text = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| ")]
    explained: set[str] = set()
    for row in rows:
        cell = row[2] if row[1].strip() in ("weights", "piper", "aec3", "sound") else row[1]
        explained.update(part.strip() for part in cell.split(","))
    assert explained - {"package", "extra", "packages"} == set(every_dependency())


def whole_and_parents(module: str) -> list[str]:
    """``google``, ``google.genai`` and ``google.genai.types`` of the last."""
    parts = module.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts) + 1)]


def test_each_dependency_of_the_service_is_used() -> None:
    imported: set[str] = set()
    for room in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        for file in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    imported.update(name for alias in node.names for name in whole_and_parents(alias.name))
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    imported.update(whole_and_parents(node.module))
    wanted = set(names(PROJECT["project"]["dependencies"])) - set(NOT_IMPORTED)
    assert {name for name in wanted if IMPORTED_AS.get(name, name) not in imported} == set()


@pytest.mark.parametrize("name", ["torch", "torchaudio"])
def test_torch_is_installed_nowhere(name: str) -> None:
    assert importlib.util.find_spec(name) is None
    markers = [
        dependency.get("marker", "")
        for package in LOCK["package"]
        for dependency in package.get("dependencies", [])
        if dependency["name"] == name
    ]
    assert all("sys_platform == 'never'" in marker for marker in markers), markers


def test_the_lock_has_a_digest_for_every_file() -> None:
    for package in LOCK["package"]:
        for file in [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]:
            assert file["hash"].startswith("sha256:"), package["name"]


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("python", ["cp311", "cp312", "cp313", "cp314"])
def test_nothing_that_the_service_needs_must_be_compiled(machine: str, python: str) -> None:
    """A bare machine has no compiler: there must be a wheel for each Python."""
    missing = []
    for package in needed():
        if not any(
            _fits(wheel["url"].rsplit("/", 1)[-1], machine, python) for wheel in package.get("wheels", [])
        ):
            missing.append(f"{package['name']} {package['version']}")
    # A version that is for other Pythons only has a sibling that fits.
    versions: dict[str, int] = {}
    for package in needed():
        versions[package["name"]] = versions.get(package["name"], 0) + 1
    assert [line for line in missing if versions[line.split()[0]] == 1] == []


def needed() -> list[dict[str, Any]]:
    """The locked packages that the service, its weights and its tests reach; not what only torch needs."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for package in LOCK["package"]:
        by_name.setdefault(package["name"], []).append(package)
    optional = PROJECT["project"]["optional-dependencies"]
    todo = [*names(PROJECT["project"]["dependencies"]), *names(optional["weights"]),
            *(name for group in PROJECT["dependency-groups"].values() for name in names(group))]  # fmt: skip
    seen: set[str] = set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        for package in by_name[name]:
            todo += [
                dependency["name"]
                for dependency in package.get("dependencies", [])
                if not re.search(r"'never'|'win32'|'Windows'|'PyPy'", dependency.get("marker", ""))
            ]
    return [package for name in sorted(seen) for package in by_name[name]]


def _fits(wheel: str, machine: str, python: str) -> bool:
    tag_python, tag_abi, tag_platform = wheel.removesuffix(".whl").split("-")[-3:]
    if tag_platform != "any" and not ("manylinux" in tag_platform and machine in tag_platform):
        return False
    if tag_abi == "abi3":
        return int(tag_python.split(".")[0][3:]) <= int(python[3:])
    return tag_abi == "none" or tag_python == python
