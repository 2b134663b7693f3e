"""The log: no names, no words, no secrets in it, and a reader who stalls holds up nobody."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.log import FORBIDDEN, REMOVED, Logging, Writer, bound, configure, describe, get_logger
from bridge.log import remove_forbidden as remove


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that stands still the writer's thread may need longer than a service waits at its end."""
    monkeypatch.setattr("bridge.log.CLOSE_S", 30.0)


class Log:
    """A configured log that is written into memory."""

    def __init__(self, **options: Any) -> None:
        self.stream = io.StringIO()
        self.logging: Logging = configure(stream=self.stream, **options)

    @property
    def text(self) -> str:
        self.logging.close()
        return self.stream.getvalue()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture
def log(patient: None) -> Iterator[Log]:
    made = Log(form="json")
    yield made
    made.logging.close()


def test_a_line_has_its_time_and_its_ids(log: Log) -> None:
    with bound(tenant="jardim", visit="v-1", leg="visitor"):
        get_logger("leg").info("leg_started", peer="10.0.0.7")
    get_logger("leg").warning("after")
    first, second = log.lines
    assert list(first) == ["timestamp", "level", "event", "tenant", "visit", "leg", "room", "peer"]
    assert first["event"] == "leg_started" and first["room"] == "leg" and first["level"] == "info"
    assert first["timestamp"].endswith("Z") and len(first["timestamp"]) == 27
    assert "visit" not in second


async def test_the_ids_of_two_visits_do_not_mix(log: Log) -> None:
    async def visit(name: str) -> None:
        with bound(visit=name):
            for _ in range(5):
                await asyncio.sleep(0)
                get_logger("host").info("step", mine=name)

    await asyncio.gather(*(visit(f"v{n}") for n in range(5)))
    lines = log.lines
    assert len(lines) == 25
    assert all(line["visit"] == line["mine"] for line in lines)


def test_lower_levels_are_left_out(log: Log) -> None:
    get_logger("x").debug("detail")
    assert log.lines == []


# ------------------------------------------------------------------------------ what is not written


def test_who_and_what_is_said_does_not_get_in(log: Log) -> None:
    get_logger("tools").info(
        "tool_called",
        tool="validate_resident",
        visitor_name="Letícia",
        transcript="pode entrar",
        arguments={"resident": "Ana"},
        outcome={"resident": "Ana", "score": 91, "list": [{"text": "oi"}, ("a", {"Api_Key": "sk-1"})]},
    )
    text = log.text
    (line,) = [json.loads(each) for each in text.splitlines()]
    for secret in ("Letícia", "Let\\u00edcia", "pode", "Ana", "oi", "sk-1"):
        assert secret not in text
    assert line["visitor_name"] == line["transcript"] == line["arguments"] == REMOVED
    assert line["outcome"]["score"] == 91
    assert line["tool"] == "validate_resident"


@given(
    key=st.sampled_from(sorted(FORBIDDEN)) | st.sampled_from(["first_name", "agent_text", "USER_TOKEN"]),
    depth=st.integers(0, 4),
    upper=st.booleans(),
)
def test_a_forbidden_key_is_removed_however_deep(key: str, depth: int, upper: bool) -> None:
    value: Any = {key.upper() if upper else key: "Ana Beatriz"}
    for level in range(depth):
        value = {"outcome": [value]} if level % 2 else {"outcome": (1, value)}
    assert "Ana Beatriz" not in repr(remove(None, "info", value))


def test_an_exception_says_where_and_what_but_quotes_nobody(log: Log) -> None:
    def find(residents: dict[str, str]) -> str:
        return residents["Ana Beatriz"]

    try:
        find({})
    except KeyError:
        get_logger("x").exception("lookup_failed")
    text = log.text
    assert "KeyError [" in text and "test_log.py" in text and " find" in text
    assert "Ana" not in text


def test_an_exceptions_message_is_kept_where_it_speaks_of_the_machine() -> None:
    try:
        try:
            raise ConnectionRefusedError(111, "Connection refused")
        except OSError as error:
            raise ValueError("Ana") from error
    except ValueError as error:
        said = describe(error)
    assert "Connection refused" in said and "ValueError" in said and "Ana" not in said


def test_a_group_of_exceptions_is_described_whole() -> None:
    group = ExceptionGroup(
        "Ana", [KeyError("Bia"), TimeoutError("late"), ExceptionGroup("x", [ValueError("Z")])]
    )
    said = describe(group)
    assert "KeyError" in said and "late" in said and "ValueError" in said
    assert "Ana" not in said and "Bia" not in said


def test_an_exception_that_causes_itself_is_described() -> None:
    error = ValueError("x")
    error.__cause__ = KeyError("y")
    error.__cause__.__cause__ = error
    assert "ValueError" in describe(error)


# --------------------------------------------------------------------------------- what others write


def test_a_librarys_warning_comes_through_and_its_chatter_does_not(log: Log) -> None:
    logging.getLogger("websockets.client").info("chatter")
    logging.getLogger("websockets.client").warning("closing %s", "early")
    broken = logging.LogRecord("httpx2", logging.ERROR, "", 0, "broken %d", ("not a number",), None)
    ours = next(each for each in logging.getLogger().handlers if type(each).__module__ == "bridge.log")
    ours.handle(broken)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old ways", DeprecationWarning, stacklevel=1)
    lines = log.lines
    assert [line["event"] for line in lines[:2]] == ["closing early", "broken %d"]
    assert lines[0]["room"] == "websockets.client" and lines[0]["level"] == "warning"
    assert "old ways" in lines[2]["event"]


def test_asyncios_report_of_a_failed_task_does_not_quote(log: Log) -> None:
    message = "Task exception was never retrieved\nfuture: <Task exception=ValueError('Ana')>"
    logging.getLogger("asyncio").error(message, exc_info=(ValueError, ValueError("Ana"), None))
    text = log.text
    assert "Task exception was never retrieved" in text and "ValueError" in text
    assert "Ana" not in text


def test_closing_hands_standard_logging_back() -> None:
    before = list(logging.getLogger().handlers)
    configure(stream=io.StringIO()).close()
    assert logging.getLogger().handlers == before


# ------------------------------------------------------------------------------------------- its form


def test_pretty_is_for_people() -> None:
    log = Log(form="pretty")
    get_logger("leg").info("leg_started", peer="10.0.0.7")
    text = log.text
    assert "leg_started" in text and "peer=10.0.0.7" in text and not text.startswith("{")


def test_auto_is_json_where_nobody_watches() -> None:
    log = Log(form="auto")
    get_logger("x").info("a")
    assert log.lines[0]["event"] == "a"


@given(st.text(max_size=20), st.none() | st.integers() | st.floats() | st.binary(max_size=5))
def test_whatever_is_logged_is_one_line_of_json(text: str, value: Any) -> None:
    stream = io.StringIO()
    with configure("json", stream=stream):
        get_logger("x").info("a", said=text, value=value, other=object(), big=2**80, keys={1: 2})
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["event"] == "a"


def test_a_value_cannot_forge_a_line(log: Log) -> None:
    get_logger("x").info("a", said='\n{"event": "gate_opened"}')
    assert [line["event"] for line in log.lines] == ["a"]


# ------------------------------------------------------------------------------------------ its patience


def test_a_reader_who_stalls_costs_lines_and_no_time(patient: None) -> None:
    read_end, write_end = os.pipe()
    stream = os.fdopen(write_end, "w")
    writer = Writer(stream, max_queued=500)
    line = "x" * 1000
    worst = 0.0
    for _ in range(5000):
        began = time.perf_counter()
        writer.msg(line)
        worst = max(worst, time.perf_counter() - began)
    assert worst < 10  # a machine stands still for a second at times; the reader would for ever
    assert writer.dropped > 3000

    with os.fdopen(read_end) as reader:  # the reader wakes up
        told = 0
        while told < writer.dropped:  # at once or, where there was room for a moment, in two parts
            line = reader.readline()
            if "log_lines_dropped" in line:
                told += json.loads(line)["count"]
        assert told == writer.dropped
        assert writer.close()
        stream.close()


def test_closing_does_not_wait_for_a_reader_who_never_comes_back() -> None:
    read_end, write_end = os.pipe()
    stream = os.fdopen(write_end, "w")
    writer = Writer(stream)
    for _ in range(200):
        writer.msg("x" * 1000)
    began = time.perf_counter()
    assert not writer.close()
    assert time.perf_counter() - began < 15
    os.close(read_end)  # lets the thread end
    writer._thread.join(2)
    assert writer.dropped == 200
    stream.close()


def test_a_process_whose_reader_stalls_still_ends_well() -> None:
    """A thread that hangs in the buffer of standard error makes Python abort at its end."""
    program = """
from bridge.log import configure, get_logger
with configure("json"):
    for number in range(3000):
        get_logger("x").info("much", number=number)
"""
    child = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE)
    assert child.wait(30) == 0
    assert child.stderr is not None
    child.stderr.close()


def test_a_pipe_that_does_not_block_loses_nothing() -> None:
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    writer = Writer(os.fdopen(write_end, "w"))
    for number in range(300):
        writer.msg(f"{number} {'x' * 1000}")
    with os.fdopen(read_end) as reader:
        assert [int(reader.readline().split()[0]) for _ in range(300)] == list(range(300))
    assert writer.close()
    writer._stream.close()


def test_a_closed_stream_is_counted_and_raises_nothing() -> None:
    stream = io.StringIO()
    writer = Writer(stream)
    stream.close()
    writer.msg("lost")
    writer.close()
    assert writer.dropped == 1


def test_every_line_of_a_quick_burst_is_there_in_order(log: Log) -> None:
    for number in range(2000):
        get_logger("x").info("n", number=number)
    assert [line["number"] for line in log.lines] == list(range(2000))
