"""Whatever is appended, erased and begun again: readers get what they may, and it verifies.

And whatever is edited in what is left by that: verify finds it.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from pathlib import Path
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.base import StorageRefused
from storage.projection import TABLES
from storage.sqlite import SqliteStorage
from storage.store import SqlStorage
from tests.storage.places import Place
from tests.storage.test_store import START
from visits.audit import ErasedScope, stamp
from visits.personal import ERASED

AT = stamp(START)
VISITS = 3
SCOPES: tuple[ErasedScope, ...] = ("recordings", "transcripts", "visit")

Act = tuple[str, int, int]
acts = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.integers(0, VISITS - 1), st.integers(0, 9)),
        st.tuples(st.just("call"), st.integers(0, VISITS - 1), st.integers(0, 9)),
        st.tuples(st.just("end"), st.integers(0, VISITS - 1), st.integers(0, 9)),
        st.tuples(st.just("erase"), st.integers(0, VISITS - 1), st.integers(0, 2)),
        st.tuples(st.just("again"), st.just(0), st.just(0)),
    ),
    max_size=14,
)


class Model:
    """What the store must say, by visit: words, names and whether it has ended."""

    def __init__(self, tenant: str, number: int) -> None:
        self.tenant = tenant
        self.ids = [str(UUID(int=(number << 64) + n, version=4)) for n in range(VISITS)]
        self.words: dict[str, list[str]] = {}
        self.calls: dict[str, list[str]] = {}
        self.names: dict[str, str | None] = {}

    async def play(self, storage: SqlStorage, act: Act) -> None:
        """One act, on both sides."""
        what, which, how = act
        visit = self.ids[which]
        if what == "erase":
            await self.erase(storage, visit, SCOPES[how])
            return
        if visit not in self.words:
            await self.append(storage, visit, "visit.started", caller_id=f"+5511{how}")
            self.words[visit], self.calls[visit] = [], []
        if what == "say":
            word = f"palavra{how}"
            times = {"started_ms": 1, "ended_ms": 2}
            await self.append(storage, visit, "turn", leg="v", speaker="caller", text=word, **times)
            self.words[visit].append(word)
        elif what == "call":
            spoken = f"b{how}"
            told = {"leg": "v", "call": "c", "name": "lookup_apartment"}
            await self.append(storage, visit, "tool.called", **told, arguments={"z": spoken, "a": 1})
            self.calls[visit].append(spoken)
        elif visit not in self.names:
            name = f"Nome {how}" if how else None
            ended = {"outcome": "abandoned", "visitor_name": name, "apartment": "501"}
            await self.append(storage, visit, "visit.ended", **ended)
            self.names[visit] = name

    async def append(self, storage: SqlStorage, visit: str, kind: str, **data: Any) -> None:
        assert await storage.append(self.tenant, visit, AT, kind, data) is not None

    async def erase(self, storage: SqlStorage, visit: str, scope: ErasedScope) -> None:
        try:
            await storage.erase(self.tenant, [visit], scope=scope, kind="person.erased", by="x", at=AT)
        except StorageRefused:
            assert visit not in self.names  # it never began, or still runs
            return
        assert visit in self.names
        if scope != "recordings":
            self.words[visit] = [ERASED] * len(self.words[visit])
            self.calls[visit] = [ERASED] * len(self.calls[visit])
        if scope == "visit":
            self.names[visit] = ERASED

    async def agrees(self, storage: SqlStorage) -> None:
        """Whether readers get just that, and the chain is sound."""
        assert await storage.verify(self.tenant) == []
        for visit, words in self.words.items():
            view = await storage.visit(visit)
            assert view is not None
            assert [turn.text for turn in view.turns] == words
            arguments = [call.arguments for call in view.tool_calls]
            assert [one if one == ERASED else one["z"] for one in arguments] == self.calls[visit]
            name = self.names.get(visit)
            assert view.summary.visitor_name in ((name, ERASED) if name is None else (name,))
            told = [record async for record in storage.audit(visit=visit)]
            assert [r.data["text"] for r in told if r.kind == "turn"] == words


_numbers = iter(range(1, 1_000_000))


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(done=acts)
def test_readers_get_what_was_not_erased(place: Place, done: list[Act]) -> None:
    async def play() -> None:
        number = next(_numbers)
        model = Model(f"t{number}", number)
        storage = await place.open()
        try:
            for act in done:
                if act[0] == "again":  # as after a crash: nothing but the disk is left
                    await storage.close()
                    storage = await place.open()
                else:
                    await model.play(storage, act)
            await model.agrees(storage)
        finally:
            await storage.close()

    asyncio.run(play())


EDITED = ("audit", "audit_personal", "erasures", "heads", *TABLES)
FREE = {"visitor_words", "resident_words"}
"""What only searches use, and no reader is shown."""


@settings(max_examples=40, deadline=None)
@given(done=acts, source=st.data())
def test_whatever_is_edited_is_found(done: list[Act], source: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "porteiro.db"
        asyncio.run(_filled(file, [("say", 0, 1), ("call", 0, 2), ("end", 0, 3), *done]))
        shell = sqlite3.connect(file, isolation_level=None)
        shell.row_factory = sqlite3.Row
        for (trigger,) in shell.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
            shell.execute(f"DROP TRIGGER {trigger}")
        table = source.draw(st.sampled_from(EDITED))
        rows = shell.execute(f"SELECT * FROM {table}").fetchall()
        if rows:
            row = source.draw(st.sampled_from(rows))
            where = " AND ".join(f"{name} IS ?" for name in row.keys())  # noqa: SIM118 - a row is no dict
            column = source.draw(st.sampled_from([*sorted(set(row.keys()) - FREE), ""]))
            if column:
                old = row[column]
                new = old + 1000 if isinstance(old, int | float) else f"{old or ''}x"
                if column in ("gate_opened", "cost", "cost_usd", "cost_complete", "ms") and old is None:
                    new = 1
                if column == "scope":
                    new = "transcripts" if old != "transcripts" else "visit"
                if column in ("response_ms", "heard_ms") and old is None:
                    new = 1.5
                edit = f"UPDATE {table} SET {column} = ? WHERE {where}"
                try:
                    assert shell.execute(edit, (new, *row)).rowcount == 1
                except sqlite3.IntegrityError:  # what is left of the database's guards is enough
                    return
            else:
                assert shell.execute(f"DELETE FROM {table} WHERE {where}", tuple(row)).rowcount == 1
            assert asyncio.run(_faults(file)) > 0
        shell.close()


async def _filled(file: Path, done: list[Act]) -> None:
    model = Model("jardim", 1)
    async with await SqliteStorage.open(file, deadline_s=30) as storage:
        for act in done:
            if act[0] != "again":
                await model.play(storage, act)


async def _faults(file: Path) -> int:
    async with await SqliteStorage.open(file, read_only=True, deadline_s=30) as storage:
        return len(await storage.verify())
