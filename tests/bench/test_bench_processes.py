"""What processes use, told by the kernel: held against what this process knows of itself and its children."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from bench.processes import family, usage

ROOT: Final = Path(__file__).parents[2]

BUSY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; print(1, flush=True); time.sleep(60)"]) \
    if sys.argv[1] == "parent" else None
end = time.process_time() + 0.3
while time.process_time() < end: pass
kept = bytearray(30_000_000)
print(0, flush=True)
sys.stdin.read()
if child: child.kill(); child.wait()
"""


@pytest.fixture
def busy() -> Iterator[subprocess.Popen[bytes]]:
    """A process with a child, which has worked for 0.3 s and holds 30 MB."""
    with subprocess.Popen(
        [sys.executable, "-c", BUSY, "parent"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert {process.stdout.readline(), process.stdout.readline()} == {b"0\n", b"1\n"}
        yield process


def test_a_process_and_its_child_are_counted_together(busy: subprocess.Popen[bytes]) -> None:
    members = list(family(busy.pid))
    assert members[0] == busy.pid and len(members) == 2
    found = usage(busy.pid)
    assert (found.processes, found.threads) == (2, 2)
    assert 0.29 <= found.user_s + found.system_s < 3
    assert 30e6 < found.rss_bytes < 200e6
    assert found.descriptors >= 6
    assert found.waits > 0
    alone = usage(members[1])
    assert alone.rss_bytes < found.rss_bytes - 30e6


OF_ITSELF = """
import json, os, time
from bench.processes import usage, usage_here
while time.process_time() < 0.5: pass
here = usage_here()
print(json.dumps([here.as_dict(), usage(os.getpid()).as_dict()]))
"""


def test_a_process_knows_the_same_of_itself() -> None:
    """Asked in a new process: one that runs tests has children that others left it."""
    told = subprocess.run([sys.executable, "-c", OF_ITSELF], stdout=subprocess.PIPE, check=True, cwd=ROOT)
    here, seen = json.loads(told.stdout)
    assert seen["processes"] == here["processes"] == 1
    assert seen["user_s"] + seen["system_s"] == pytest.approx(here["user_s"] + here["system_s"], abs=0.1)
    assert seen["descriptors"] == pytest.approx(here["descriptors"], abs=3)
    assert here["at"] <= seen["at"] <= time.monotonic()


def test_a_process_that_is_gone_is_said() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    with pytest.raises(ProcessLookupError, match=f"there is no process {process.pid}"):
        usage(process.pid)
