"""Fragments of the settings, `porteiro.d` beside `porteiro.toml`: tenants that a program writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.settings import SettingsError, fragments_folder, load


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "porteiro.toml"
    file.write_text('[tenants.a]\nname = "By hand"\n', encoding="utf-8")
    fragments_folder(file).mkdir()
    return file


def fragment(config: Path, name: str, text: str) -> Path:
    file = fragments_folder(config) / name
    file.write_text(text, encoding="utf-8")
    return file


A = '[tenants.a]\nname = "By a program"\ndirectory = "d/a.json"\n'
B = '[tenants.b]\ndirectory = "d/b.json"\nvisitor_port = 9000\nresident_port = 9001\n'


def test_what_is_written_by_hand_counts_before_a_fragment(config: Path) -> None:
    fragment(config, "a.toml", A)
    fragment(config, "b.toml", B)
    tenants = load(config, {}).tenants
    assert tenants["a"].name == "By hand"
    assert tenants["a"].directory == config.parent / "d" / "a.json"
    assert tenants["b"].visitor_port == 9000


def test_the_environment_counts_before_both(config: Path) -> None:
    fragment(config, "a.toml", A)
    assert load(config, {"PORTEIRO_TENANTS__A__NAME": "By ops"}).tenants["a"].name == "By ops"


def test_fragments_alone_are_settings_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "porteiro.d").mkdir()
    (tmp_path / "porteiro.d" / "b.toml").write_text(B, encoding="utf-8")
    assert list(load(None, {}).tenants) == ["b"]


def test_a_plan_stands_for_what_is_not_written_yet(config: Path) -> None:
    a, b = fragment(config, "a.toml", A), fragments_folder(config) / "b.toml"
    assert list(load(config, {}, planned={b: B.encode()}).tenants) == ["a", "b"]
    assert load(config, {}).tenants["a"].directory is not None
    assert load(config, {}, planned={a: None}).tenants["a"].directory is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[service]\nmax_calls = 1\n", r"x\.toml: a fragment may hold tables \[tenants\.NAME\] alone"),
        ("tenants = 1\n", "a fragment may hold tables"),
        ("[tenants.b]\n", r"x\.toml: tenants\.b is in b\.toml already"),
        ("[", r"x\.toml: not valid TOML"),
        (
            "[tenants.c]\ndirectory = 1\n",
            r"c\.directory: found 1 \(from porteiro\.d/x\.toml\); allowed",
        ),
        ("[tenants.c.gate]\n", r"c\.gate\.kind: not set \(from porteiro\.d/x\.toml\); it must be given"),
    ],
)
def test_a_wrong_fragment_is_refused(config: Path, text: str, message: str) -> None:
    fragment(config, "a.toml", A)
    fragment(config, "b.toml", B)
    fragment(config, "x.toml", text)
    with pytest.raises(SettingsError, match=message):
        load(config, {})


def test_what_is_wrong_by_hand_is_not_blamed_on_a_fragment(config: Path) -> None:
    config.write_text('[tenants.a]\nvisitor_port = "x"\n', encoding="utf-8")
    fragment(config, "a.toml", A + "visitor_port = 1\n")
    with pytest.raises(SettingsError, match=r"a\.visitor_port: found 'x'; allowed"):
        load(config, {})


def test_fragments_that_can_not_be_listed_are_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "porteiro.toml").touch()
    (tmp_path / "porteiro.d").touch()
    with pytest.raises(SettingsError, match=r"porteiro\.d: can't be read: Not a directory"):
        load(tmp_path / "porteiro.toml", {})


def test_other_files_in_the_folder_are_no_fragments(config: Path) -> None:
    fragment(config, "a.toml", A)
    fragment(config, ".a.toml.1234", "[")
    fragment(config, "notes.txt", "[")
    assert list(load(config, {}).tenants) == ["a"]
