"""The whole suite in groups: each test in exactly one, and no group's failure is lost."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _suite() -> ModuleType:
    spec = importlib.util.spec_from_file_location("suite", ROOT / "setup" / "suite.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


suite = _suite()
PASSES = [sys.executable, "-c", "print('went well')"]
FAILS = [sys.executable, "-c", "print('went wrong'); raise SystemExit(1)"]


def _files(argument: str) -> set[Path]:
    path = suite.ROOT / argument
    return {path} if path.is_file() else set(path.rglob("test_*.py"))


def test_every_test_file_is_in_exactly_one_group() -> None:
    arguments = suite.real_time()
    ignored = {argument.removeprefix("--ignore=") for argument in arguments if argument.startswith("--")}
    groups = [
        set().union(*map(_files, suite.BESIDE)),
        set().union(*map(_files, suite.TELEPHONES)),
        set().union(*(_files(each) for each in arguments if not each.startswith("--")))
        - set().union(*map(_files, ignored)),
        set().union(*map(_files, suite.ALONE)),
    ]
    everything = set(suite.TESTS.rglob("test_*.py"))
    assert set().union(*groups) == everything
    assert sum(map(len, groups)) == len(everything)
    assert all((ROOT / each).exists() for each in (*suite.BESIDE, *suite.TELEPHONES, *suite.ALONE, *ignored))


def test_a_new_file_or_folder_of_tests_is_run_in_real_time(tmp_path: Path) -> None:
    tests = tmp_path / "tests"
    for name in ("new/test_a.py", "visits/test_b.py", "empty/helper.py", "test_c.py", "helper.py"):
        (tests / name).parent.mkdir(parents=True, exist_ok=True)
        (tests / name).touch()
    assert [each for each in suite.real_time(tests) if not each.startswith("--")] == [
        "tests/new",
        "tests/test_c.py",
    ]


@pytest.mark.parametrize("failing", [None, "telephones", "real time", "beside", "alone"])
def test_no_groups_failure_is_lost(
    failing: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def run(*_: object) -> dict[str, int]:
        lines = {
            name: FAILS if name == failing else PASSES
            for name in ("telephones", "real time", "beside", "alone")
        }
        main, alone = lines.pop("telephones"), lines.pop("alone")
        statuses: dict[str, int] = whole(main, lines, alone, tmp_path)
        return statuses

    whole = suite.run
    monkeypatch.setattr(suite, "run", run)
    assert suite.main() == (0 if failing is None else 1)
    said = capfd.readouterr().out
    assert said.count("went well") == (4 if failing is None else 3)
    assert ("all groups of tests passed" in said) is (failing is None)
    if failing is not None:
        assert f"the group {failing}" in said


def _flaky(folder: Path, *, tests: int, right_at_last: bool) -> list[str]:
    """A group of pytest's whose tests fail at their first run, and pass at the second where they may."""
    (folder / "test_flaky.py").write_text(
        "import pathlib, pytest\n"
        f"@pytest.mark.parametrize('number', range({tests}))\n"
        "def test_flaky(number, request):\n"
        "    mark = pathlib.Path(__file__).with_name(f'ran-{number}')\n"
        "    before = mark.exists()\n"
        "    mark.touch()\n"
        f"    assert before and {right_at_last}\n"
        "def test_steady():\n"
        "    pathlib.Path(__file__).with_name('steady').open('a').write('x')\n"
    )
    return [str(folder / "test_flaky.py"), "-q", f"--rootdir={folder}"]


@pytest.mark.parametrize(
    ("group", "tests", "right_at_last", "passes", "runs_again"),
    [
        ("telephones", 2, True, True, True),
        ("real time", 5, True, True, True),
        ("real time", 1, False, False, True),  # twice wrong is wrong
        ("real time", 6, True, False, False),  # too many for an accident
        ("beside", 1, True, False, False),  # what only computes is never wrong by accident
    ],
)
def test_what_fails_in_real_time_gets_a_second_run_alone(
    group: str,
    tests: int,
    right_at_last: bool,
    passes: bool,
    runs_again: bool,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    logs = tmp_path / "logs"
    flaky = _flaky(tmp_path, tests=tests, right_at_last=right_at_last)
    lines: dict[str, list[str]] = dict.fromkeys(("telephones", "real time", "beside"), PASSES)
    lines[group] = suite.command(flaky, suite.cache(logs, group))
    main = lines.pop("telephones")
    statuses = suite.run(main, lines, PASSES, logs)
    assert (statuses[group] == 0) is passes
    assert {name for name, status in statuses.items() if status} == (set() if passes else {group})
    assert (tmp_path / "steady").read_text() == "x"  # what was right runs once
    assert ("run again alone" in capfd.readouterr().out) is runs_again


def test_what_runs_beside_is_ended_where_the_rest_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    mark = tmp_path / "mark"
    sleeps = [sys.executable, "-c", f"import time; time.sleep(60); open({str(mark)!r}, 'w')"]
    monkeypatch.setattr(suite, "_watched", interrupted)
    with pytest.raises(KeyboardInterrupt):
        suite.run(PASSES, {"beside": sleeps, "real time": sleeps}, PASSES, tmp_path)  # and waits for its end
    assert not mark.exists()


def test_an_interrupted_suite_lets_each_group_tidy_up(tmp_path: Path) -> None:
    """What a group has started (Asterisk, the broker) it ends when interrupted, and not when killed."""

    def group(name: str) -> list[str]:
        began, tidied = str(tmp_path / f"{name}-began"), str(tmp_path / f"{name}-tidied")
        work = f"import time\nopen({began!r}, 'w')\ntry: time.sleep(60)\nfinally: open({tidied!r}, 'w')"
        return [sys.executable, "-c", work]

    program = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('suite', {str(ROOT / 'setup' / 'suite.py')!r})\n"
        "suite = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(suite)\n"
        f"side, main = {group('side')!r}, {group('main')!r}\n"
        "suite.command = lambda arguments, noted: side if arguments is suite.BESIDE else main\n"
        f"suite.ROOT = __import__('pathlib').Path({str(tmp_path)!r})\n"
        "sys.exit(suite.main())"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 30
    while not all((tmp_path / f"{name}-began").exists() for name in ("side", "main")):
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.05)
    process.terminate()
    assert process.wait(30) != 0
    assert (tmp_path / "side-tidied").exists() and (tmp_path / "main-tidied").exists()
