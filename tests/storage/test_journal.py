"""The journal: what it says is kept is there after any crash, and nothing else is ever read from it."""

from __future__ import annotations

import asyncio
import resource
import signal
import subprocess
import sys
import time
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.base import StorageUnavailable
from storage.journal import HEADER, InUse, Journal, decode, encode
from visits.audit import Draft, draft, stamp

ROOT = Path(__file__).parents[2]
AT = stamp(datetime(2026, 11, 21, 20, tzinfo=UTC))
VISIT = "6f1c1f7e-0000-4000-8000-000000000001"


def note(text: Any, tenant: str = "jardim") -> Draft:
    return draft(tenant=tenant, visit=VISIT, at=AT, kind="note", data={"said": text})


def apart(text: Any, salt: bytes) -> Draft:
    """A note whose words are to be kept beside the chain."""
    data = {"about": "x", "said": text}
    return draft(tenant="jardim", visit=VISIT, at=AT, kind="note", data=data, salt=salt.hex())


SAID = st.text() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
NOTES = st.builds(note, SAID, st.text(st.characters(codec="utf-8"), max_size=8)) | st.builds(
    apart, SAID, st.binary(min_size=16, max_size=16)
)


async def whole(journal: Journal) -> list[Draft]:
    found: list[Draft] = []
    at = journal.begin
    while at < journal.end:
        some, at = await journal.read(at, 300)
        found += some
    return found


def test_a_record_of_an_older_journal_is_sealed_whole_as_it_was_then() -> None:
    payload = orjson.dumps(["jardim", VISIT, AT, "note", '{"said":"Oi"}'])
    entry = len(payload).to_bytes(4, "big") + zlib.crc32(payload).to_bytes(4, "big") + payload
    assert decode(entry) == ([note("Oi")], len(entry))


@given(st.lists(NOTES, max_size=6), st.integers(min_value=0), st.binary(max_size=40))
@settings(max_examples=150, deadline=None)
def test_of_a_file_that_is_cut_off_anywhere_the_whole_records_are_read(
    records: list[Draft], cut: int, behind: bytes
) -> None:
    entries = [encode(record) for record in records]
    data = b"".join(entries)
    assert decode(data) == (records, len(data))
    cut %= len(data) + 1
    read, used = decode(data[:cut])
    whole = 0
    while whole < len(entries) and len(b"".join(entries[: whole + 1])) <= cut:
        whole += 1
    assert read == records[:whole]
    assert used == len(b"".join(entries[:whole]))
    assert decode(data + behind)[0][: len(records)] == records


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_whatever_is_in_a_file_nothing_but_records_is_read(data: bytes) -> None:
    records, used = decode(data)
    assert used <= len(data)
    assert b"".join(map(encode, records)) == data[:used] or records == decode(data[:used])[0]


@given(st.lists(NOTES, min_size=1, max_size=4), st.integers(min_value=0), st.integers(1, 255))
@settings(max_examples=150, deadline=None)
def test_a_record_of_which_a_byte_is_another_is_not_read(
    records: list[Draft], place: int, change: int
) -> None:
    data = bytearray(b"".join(map(encode, records)))
    place %= len(data)
    data[place] ^= change
    read, _ = decode(bytes(data))
    assert read == records[: len(read)] and len(read) < len(records)


async def test_what_was_kept_is_read_after_it_was_opened_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    journal = Journal.open(path)
    records = [note(n) for n in range(40)]
    await asyncio.gather(*(journal.append(record, 5) for record in records))
    assert await whole(journal) == records
    with pytest.raises(InUse):
        Journal.open(path)
    await journal.close()
    journal = Journal.open(path)
    assert await whole(journal) == records
    await journal.clear()
    assert await whole(journal) == []
    await journal.append(records[3], 5)
    await journal.close()
    journal = Journal.open(path)
    assert await whole(journal) == [records[3]]
    await journal.close(remove=True)
    assert not path.exists()


async def test_what_a_crash_left_half_written_is_put_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    path.write_bytes(HEADER + encode(note(1)) + encode(note(2))[:-3])
    journal = Journal.open(path)
    assert await whole(journal) == [note(1)]
    await journal.append(note(3), 5)
    assert await whole(journal) == [note(1), note(3)]
    await journal.close()
    assert (tmp_path / "a.journal.torn").read_bytes() == encode(note(2))[:-3]


@pytest.mark.parametrize("content", [b"#!/bin/sh\nrm -rf\n" * 9, b"porteiro-journal-2\n"])
def test_a_file_of_another_program_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.journal"
    path.write_bytes(content)
    with pytest.raises(StorageUnavailable) as caught:
        Journal.open(path)
    assert caught.value.reason == "not-ours"
    assert path.read_bytes() == content


async def test_a_file_that_may_not_grow_is_an_error_and_what_is_kept_stays(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "a.journal")
    await journal.append(note("kept"), 5)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, hard))
    try:
        with pytest.raises(StorageUnavailable):
            await journal.append(note("x" * 9_000), 5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert not journal.broken
    await journal.append(note("later"), 5)
    assert await whole(journal) == [note("kept"), note("later")]
    await journal.close()


WRITER = """
import asyncio, os, sys
from pathlib import Path
from storage.journal import Journal
from tests.storage.test_journal import note

async def main():
    journal = Journal.open(Path(sys.argv[1]))
    async def one(task):
        for n in range(100_000):
            await journal.append(note(f"{task} {n}"), 30)
            os.write(1, f"{task} {n}\\n".encode())
    await asyncio.gather(*(one(task) for task in range(4)))

asyncio.run(main())
"""


def lines_of_a_killed_writer(path: Path, after_s: float) -> list[str]:
    """What a process said is kept, until it was killed so long after its first word."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], cwd=ROOT, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        time.sleep(after_s)
        process.kill()
        said += process.stdout.read()
    return [line.decode() for line in said.split(b"\n")[:-1]]


async def test_nothing_that_was_kept_is_lost_by_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "killed.journal"
    for round_ in range(3):
        lines = await asyncio.to_thread(lines_of_a_killed_writer, path, 0.02 * round_)
        journal = Journal.open(path)
        kept = [record.data["said"] for record in await whole(journal)]
        assert set(lines) <= set(kept)
        for task in range(4):
            mine = [text for text in kept if text.startswith(f"{task} ")]
            assert mine == [f"{task} {n}" for n in range(len(mine))]
        await journal.clear()
        await journal.close()
    assert path.read_bytes() == HEADER
