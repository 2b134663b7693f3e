"""`porteiro demo` as a person runs it: what it takes, what it refuses, and the object that it prints."""

from __future__ import annotations

import json
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from bridge.demo.script import Barge, HangUp, Key, Say, ScriptError, Silence, step
from bridge.demo.stage import DATA

SPEECH = DATA / "audio"


def demo(*arguments: str, timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bridge.cli", "demo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)


def test_a_step_is_a_file_or_one_of_the_named_things() -> None:
    file = SPEECH / "v05-leticia.wav"
    assert step(str(file)) == Say(file)
    assert step(f"barge:{file}@1500") == Barge(file, 1500)
    assert step("key:#") == Key("#")
    assert step("silence:2.5") == Silence(2.5)
    assert step("hangup") == HangUp()


@pytest.mark.parametrize(
    "text", ["barge:nothing", "key:12", "key:x", "silence:long", "barge:gone.wav@5", "gone.wav"]
)
def test_a_step_that_is_none_is_named_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ScriptError, match=r"found .*allowed: FILE\.wav"):
        step(text)


@pytest.mark.timeout(300)
def test_the_last_thing_on_standard_output_is_the_visit_as_one_object(tmp_path: Path) -> None:
    done = demo(
        *("--visitor", str(SPEECH / "v05-leticia.wav"), "--resident", str(SPEECH / "r15-leticia.wav")),
        *("--json", "--out", str(tmp_path / "out")),
    )
    assert done.returncode == 0, done.stderr
    visit = json.loads(done.stdout)
    assert visit["outcome"] == "authorized" and visit["gate_opened"] is True and visit["audit_ok"] is True
    assert (visit["intent"], visit["apartment"], visit["resident"]) == ("visita", "201", "Fernanda Souza")
    assert [call["name"] for call in visit["tool_calls"]] == [
        *("lookup_apartment", "validate_resident", "call_resident", "authorize_entry"),
    ]
    assert all(set(call) == {"role", "name", "arguments", "result", "ms"} for call in visit["tool_calls"])
    assert all(
        set(turn) == {"leg", "speaker", "text", "started_ms", "ended_ms", "response_ms"}
        for turn in visit["turns"]
    )
    assert len(visit["recordings"]) == 2
    for recording in visit["recordings"]:
        with wave.open(recording) as file:
            assert (file.getnchannels(), file.getframerate()) == (2, 8000)
            caller, ours = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2).T
        assert np.abs(caller).max() > 3000 and 3000 < np.abs(ours).max() < 32_767
    told = subprocess.run(
        [
            sys.executable,
            "-m",
            "bridge.cli",
            "audit",
            "verify",
            "--db",
            str(tmp_path / "out" / "porteiro.db"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert told.returncode == 0, told.stderr


def test_what_cannot_be_is_said_in_one_line_and_nothing_is_started(tmp_path: Path) -> None:
    for arguments in (
        ("--visitor", "gone.wav"),
        ("--picture", str(tmp_path / "gone" / "x.svg")),
        ("--out", "/proc/nowhere"),
    ):
        done = demo(*arguments, timeout_s=60)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("porteiro demo: ") and done.stderr.count("\n") == 1
