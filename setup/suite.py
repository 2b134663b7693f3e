"""Run the whole test suite: what only computes beside what waits in real time, what measures time alone.

Most of the suite's time is calls that last as long as calls do, in two groups at the same time. They use half
of two cores, so the tests that need no clock run beside them, at a lower priority that leaves the calls
undisturbed. Tests that hold the clock itself to its milliseconds run when all that is done, with the machine
to themselves.

A machine that stands still for seconds, as virtual ones do, fails tests that wait in real time and are right.
Up to five of those get a second run by themselves; which ones needed it is said, whatever came of it. What
only computes has no such excuse.

Standard library only. Each group is a pytest process of its own: what one loads of speech libraries does not
slow the forks of another. Every test file is in exactly one group, a new one in the real-time group.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests"

BESIDE = (
    "tests/providers",
    "tests/conformance",
    "tests/visits",
    "tests/audio",
    "tests/tools",
    "tests/prompts",
    "tests/storage",
    "tests/importing",
    "tests/review",
    "tests/setup",
    "tests/amqp",
    "tests/chaos",
    "tests/test_rooms.py",
    "tests/test_conftest.py",
)
TELEPHONES = ("tests/e2e", "tests/pbx", "tests/dialing", "tests/console")
"""Whole visits on recorded speech, calls over a real Asterisk, and people at a real browser."""
ALONE = ("tests/service/test_clock_service.py", "tests/service/test_kills.py", "tests/bench")
"""What measures time, and twenty visits in ten processes, which would keep the others from theirs."""
NICENESS = 10
"""Of what runs beside: a tenth of a processor that both want."""

AGAIN = ("telephones", "real time")
"""Groups whose failed tests run a second time, with the machine to themselves."""
MOST_AGAIN = 5
"""More than so many failures are no accident."""

STOP_S = 30.0
"""For a group to end by itself, its Asterisk and its broker too, before it is killed."""


def real_time(tests: Path = TESTS) -> list[str]:
    """What is in no other group, as arguments of pytest: all other folders and files of tests."""
    entries = sorted(
        entry
        for entry in tests.iterdir()
        if (entry.is_dir() and any(entry.rglob("test_*.py")))
        or (entry.name.startswith("test_") and entry.suffix == ".py")
    )
    names = [f"{tests.name}/{entry.name}" for entry in entries]
    return [name for name in names if name not in (*BESIDE, *TELEPHONES, *ALONE)] + [
        f"--ignore={name}" for name in ALONE if Path(name).parent != Path(tests.name)
    ]


def command(arguments: Sequence[str], noted: Path) -> list[str]:
    """One group's pytest. Two at once do not share a cache of what failed last."""
    return [str(Path(sys.executable).with_name("pytest")), "-o", f"cache_dir={noted}", *arguments]


def cache(logs: Path, name: str) -> Path:
    """Where a group notes what failed."""
    return logs / f"cache-{name.replace(' ', '-')}"


def failed_tests(noted: Path) -> list[str]:
    """The tests that failed in a group's last run, by their ids."""
    file = noted / "v" / "cache" / "lastfailed"
    return sorted(json.loads(file.read_text())) if file.exists() else []


def _nice() -> None:
    os.nice(NICENESS)


def run(
    main: Sequence[str], others: Mapping[str, Sequence[str]], alone: Sequence[str], logs: Path
) -> dict[str, int]:
    """Run the groups, given as command lines; the exit status of each by its name.

    The main one is seen as it goes; what the others say meanwhile is kept in `logs`, a file each, and shown
    when they are over. Whichever is named "beside" has a lower priority.
    """
    logs.mkdir(parents=True, exist_ok=True)
    for name in ("telephones", "alone", *others):
        shutil.rmtree(cache(logs, name), ignore_errors=True)
    statuses: dict[str, int] = {}
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, line in others.items():
            with (logs / f"{name}.log").open("wb") as out:
                running[name] = subprocess.Popen(
                    line,
                    cwd=ROOT,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    preexec_fn=_nice if name == "beside" else None,
                    process_group=0,
                )
        statuses["telephones"] = _watched(main)
        for name, process in running.items():
            statuses[name] = process.wait()
    finally:
        for process in running.values():
            _end(process)
    for name in others:
        log = logs / f"{name}.log"
        print(f"\n==== {name} ({log}) ====\n{log.read_text(errors='replace')}", flush=True)
    statuses["alone"] = _watched(alone)
    for name, line in {"telephones": main, **others}.items():
        if name in AGAIN and statuses[name] == 1:
            statuses[name] = _second_run(name, line, cache(logs, name))
    return statuses


def _second_run(name: str, line: Sequence[str], noted: Path) -> int:
    """Run again what failed in a group, where that may have been the machine; the status that counts."""
    failed = failed_tests(noted)
    if not 0 < len(failed) <= MOST_AGAIN:
        return 1
    print(f"\n==== {name}: failed beside the others, run again alone ====", *failed, sep="\n", flush=True)
    status = _watched([*line, "--last-failed", "--last-failed-no-failures=none"])
    print(
        f"{name}: {'passed at the second run' if status == 0 else 'failed twice'}: {', '.join(failed)}",
        flush=True,
    )
    return status


def _watched(group: Sequence[str]) -> int:
    """Run a group that is seen as it goes; its exit status. An interrupt ends it before it ends us."""
    # In a process group of its own: a terminal's interrupt reaches it once, through us.
    process = subprocess.Popen(group, cwd=ROOT, process_group=0)
    try:
        return process.wait()
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a group that is left over, where it or another one was interrupted."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGINT)  # at SIGTERM pytest dies at once, and its broker is nobody's any more
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # both groups are ended in order
    began = time.monotonic()
    logs = ROOT / "out" / "tests"

    def group(name: str, arguments: Sequence[str]) -> list[str]:
        return command(arguments, cache(logs, name))

    others = {"real time": group("real time", real_time()), "beside": group("beside", BESIDE)}
    statuses = run(group("telephones", TELEPHONES), others, group("alone", ALONE), logs)
    failed = [name for name, status in statuses.items() if status != 0]
    took = f"in {(time.monotonic() - began) / 60:.1f} min"
    if failed:
        print(f"FAILED {took}: the tests of the group {', '.join(failed)}", flush=True)
        return 1
    print(f"all groups of tests passed {took}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
