"""The image: as small and as powerless as it can be. No container engine is needed to read it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bridge.settings import load

ROOT = Path(__file__).resolve().parents[2]


def instructions() -> list[tuple[str, str]]:
    """(word, the rest) of each instruction, continued lines joined."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    joined = re.sub(r"\\\n\s*", " ", text)
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in joined.splitlines() if line.strip()]


def stages() -> list[list[tuple[str, str]]]:
    found: list[list[tuple[str, str]]] = []
    for word, rest in instructions():
        if word == "FROM":
            found.append([])
        if found:
            found[-1].append((word, rest))
    return found


def test_it_is_built_in_one_stage_and_run_in_another() -> None:
    build, image = stages()
    assert dict(build)["FROM"].endswith("AS build")
    copies = [rest for word, rest in image if word == "COPY"]
    assert copies and all("--from=build" in rest for rest in copies)
    assert not any("uv" in rest.split() or "pip" in rest for word, rest in image if word == "RUN")


def test_it_is_slim_and_its_base_has_a_version() -> None:
    assert ("ARG", "PYTHON=3.12-slim-bookworm") in instructions()
    assert all(rest.startswith("python:${PYTHON}") for word, rest in instructions() if word == "FROM")


def test_it_runs_as_a_user_without_rights() -> None:
    words = [word for word, _ in stages()[-1]]
    user = dict(stages()[-1])["USER"]
    assert re.fullmatch(r"\d+:\d+", user), "a number, so that an orchestrator can see that it is not root"
    assert int(user.split(":")[0]) >= 1000
    assert "RUN" not in words[words.index("USER") :]
    assert f"useradd --uid {user.split(':')[0]}" in " ".join(rest for _, rest in stages()[-1])
    code = next(rest for word, rest in stages()[-1] if word == "COPY" and ".venv" in rest)
    assert "--chown" not in code, "the service must not be able to change its own code"


def test_it_says_how_it_is() -> None:
    image = dict(stages()[-1])
    assert 'CMD ["porteiro", "health"]' in image["HEALTHCHECK"]
    assert image["EXPOSE"] == "8080 8081 8082"
    assert image["ENTRYPOINT"] == '["porteiro"]'
    assert image["CMD"] == '["serve"]'
    assert image["STOPSIGNAL"] == "SIGTERM"


def test_what_is_installed_is_what_is_locked_and_no_tools_of_development() -> None:
    syncs = re.findall(r"uv sync [^&;\\]*", " ".join(rest for word, rest in stages()[0] if word == "RUN"))
    assert len(syncs) == 3
    assert all("--locked" in sync and "--no-dev" in sync for sync in syncs)
    assert "--no-editable" in syncs[-1]
    assert "weights" not in syncs[-1], "the models would be in the image twice"
    assert not re.search(r"apt|torch", " ".join(rest for word, rest in instructions() if word == "RUN"))


def test_its_settings_are_settings(tmp_path: Path) -> None:
    variables = dict(re.findall(r"(PORTEIRO_[A-Z_]+)=(\S+)", dict(stages()[-1])["ENV"]))
    assert len(variables) >= 3
    (tmp_path / "porteiro.toml").write_text("")
    service = load(tmp_path / "porteiro.toml", variables).service
    assert service.listen == ("0.0.0.0", "::")
    assert service.database_path == Path("/var/lib/porteiro/porteiro.db")


@pytest.mark.parametrize("name", [".env", ".git", ".venv", "porteiro.toml", "var", "recordings"])
def test_secrets_and_state_stay_outside(name: str) -> None:
    assert name in (ROOT / ".dockerignore").read_text().splitlines()


@pytest.mark.parametrize(
    "name", ["README.md", "pyproject.toml", "uv.lock", "setup", "data", "prompts", "bridge"]
)
def test_what_it_is_built_from_is_let_in(name: str) -> None:
    assert name not in (ROOT / ".dockerignore").read_text().splitlines()
    assert (ROOT / name).exists()


def test_what_it_copies_is_there() -> None:
    for word, rest in stages()[0]:
        if word == "COPY":
            *sources, _ = rest.split()
            assert all((ROOT / source).exists() for source in sources), rest
