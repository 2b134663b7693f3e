"""espeak-ng's process: it may die, hang or be killed, and the words are said all the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from providers.local.espeak import MAX_TEXT, EspeakError
from providers.local.espeak_process import EspeakProcess, espeak

GREETING = "Bom dia, aqui é da portaria."


@pytest.fixture
def process() -> Iterator[EspeakProcess]:
    made = EspeakProcess()
    yield made
    made.close()


def _stand_in(body: str) -> list[str]:
    """A process that says its rate and then does something else than espeak-ng."""
    said = "import os, sys, time, signal\nfrom providers.local.espeak import ANSWER, OK\n"
    return [sys.executable, "-c", f"{said}os.write(1, ANSWER.pack(OK, 5) + b'22050')\n{body}"]


def test_a_process_that_was_killed_is_started_again(process: EspeakProcess) -> None:
    before = process.synthesize(GREETING)
    killed = process.pid
    assert killed is not None
    os.kill(killed, signal.SIGSEGV)
    after = process.synthesize(GREETING)
    assert process.pid not in (None, killed)
    # The voice's breath is noise: about as long, not the same samples.
    assert len(before) > process.rate and abs(len(after) - len(before)) < 0.1 * len(before)


@pytest.mark.parametrize(
    "body",
    [
        "os.kill(os.getpid(), signal.SIGSEGV)",
        "sys.stdin.readline(); os.kill(os.getpid(), signal.SIGKILL)",
        "sys.stdin.readline(); os.write(1, ANSWER.pack(OK, 4000) + bytes(100))",
        "sys.stdin.readline(); time.sleep(60)",
    ],
)
def test_a_process_that_always_dies_is_an_error_in_time(body: str) -> None:
    process = EspeakProcess(deadline_s=1.0, command=_stand_in(body))
    began = time.monotonic()
    with pytest.raises(EspeakError, match="died 3 times"):
        process.synthesize(GREETING)
    assert process.pid is None
    # Three deadlines, and as many waits for the process to go.
    assert time.monotonic() - began < 15


def test_a_process_that_dies_at_its_start_has_no_rate_and_the_next_one_has() -> None:
    """It once left a rate of 0, and a dead process that nobody started again."""
    process = EspeakProcess(deadline_s=5.0, command=[sys.executable, "-c", "import os; os.abort()"])
    for _ in range(2):
        with pytest.raises(EspeakError, match="died 3 times at its start"):
            _ = process.rate
        assert process.pid is None
    process._command = _stand_in("sys.stdin.readline()")
    assert process.rate == 22050
    process.close()


def test_a_library_that_is_not_there_is_an_error_and_not_a_retry(tmp_path: Path) -> None:
    counted = tmp_path / "starts"
    refuses = (
        "import os\nfrom providers.local.espeak import ANSWER, REFUSED\n"
        f"open({str(counted)!r}, 'a').write('x')\n"
        "os.write(1, ANSWER.pack(REFUSED, 9) + b'no voices')"
    )
    process = EspeakProcess(command=[sys.executable, "-c", refuses])
    with pytest.raises(EspeakError, match="no voices"):
        process.synthesize(GREETING)
    assert counted.read_text() == "x" and process.pid is None


def test_a_refused_text_does_not_end_the_process(process: EspeakProcess) -> None:
    process.synthesize("Um.")
    first = process.pid
    with pytest.raises(EspeakError, match="too long"):
        process.synthesize("a" * (MAX_TEXT + 1))
    assert process.synthesize("Dois.") and process.pid == first


def test_threads_that_begin_together_share_one_process() -> None:
    process, ready, said = EspeakProcess(), threading.Barrier(8), list[int]()

    def speak(count: int) -> None:
        ready.wait()
        said.append(len(process.synthesize("sim " * count)) // count)

    threads = [threading.Thread(target=speak, args=(count,)) for count in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pid = process.pid
    assert len(said) == 8 and pid is not None and process.synthesize("fim") and process.pid == pid
    process.close()
    assert espeak() is espeak()


def test_it_ends_with_the_process_that_started_it() -> None:
    """Also when that one is killed: no voice is left behind."""
    script = (
        "from providers.local.espeak_process import EspeakProcess\nimport os, signal\n"
        "process = EspeakProcess(); process.synthesize('Oi.'); print(process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    pid, end = int(done.stdout), time.monotonic() + 10
    while Path(f"/proc/{pid}/exe").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}/exe").exists()
