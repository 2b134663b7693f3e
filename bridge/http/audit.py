"""`/v1/audit`: the records of the audit log, for reading, for taking along, and whether they are whole."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import orjson
from fastapi import APIRouter, Query
from pydantic import BaseModel, field_validator
from starlette.responses import Response, StreamingResponse

from bridge.http.access import Caller, allowed, missing
from bridge.http.description import problems
from bridge.http.params import (
    TEXT,
    WORD,
    Cursor,
    Limit,
    Moment,
    PageOf,
    TenantQuery,
    as_stamp,
    page_of,
)
from bridge.http.problems import Problem
from bridge.http.route import GuardedRoute
from bridge.http.verifying import Verifying
from storage.base import Storage
from storage.filters import RecordFilter
from storage.paging import MAX_PAGE
from visits.audit import KINDS, AuditRecord

Words = Annotated[str, Query(max_length=80, pattern=TEXT)]
Outcome = Literal["authorized", "denied", "unreachable", "abandoned", "failed", "running"]
Reader = Annotated[Caller, allowed("audit:read")]
Exporter = Annotated[Caller, allowed("audit:read", role="reviewer")]
COLUMNS: Final = (
    "tenant",
    "seq",
    "at",
    "kind",
    "visit",
    "leg",
    "name",
    "text",
    "by",
    "data",
    "previous",
    "hash",
)
"""Of a table. `leg`, `name`, `text` and `by` stand in `data` as well: there they can be read by people."""
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


class RecordFilters(BaseModel, extra="forbid"):
    """Which records a list shows: those of which all of this is so."""

    tenant: TenantQuery = None
    service: bool = False
    """The service's own records, which are no tenant's; for whoever answers for all tenants."""
    since: Moment | None = None
    until: Moment | None = None
    kind: Annotated[list[str], Query(max_length=len(KINDS))] = []
    tool: Annotated[str, Query(pattern=rf"{WORD}|^$")] = ""
    """A tool was called by this name."""
    visit: UUID | None = None
    outcome: Annotated[list[Outcome], Query(max_length=6)] = []
    """Of visits that ended so."""
    resident: Words = ""
    """Of visits to somebody in whose name this is."""
    visitor: Words = ""

    @field_validator("kind")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        if unknown := [kind for kind in value if kind not in KINDS]:
            raise ValueError(f"{', '.join(KINDS)}; not {unknown[0]!r:.60}")
        return value


class RecordPage(RecordFilters):
    """The same, and which page of it."""

    limit: Limit = 50
    after: Cursor = None


class ExportFilters(RecordFilters):
    """The same, and how it is written."""

    format: Literal["csv", "jsonl"] = "csv"
    bom: bool = False
    """CSV begins with a byte order mark, by which Excel knows UTF-8."""
    delimiter: Literal["comma", "semicolon"] = "comma"
    """Of CSV; Excel in Portuguese expects semicolons."""


class Record(BaseModel):
    """One record; see docs/audit.md."""

    seq: int
    tenant: str
    """Whose chain; "" is the service's own."""
    visit: str
    at: str
    kind: str
    data: dict[str, Any]
    previous: str
    hash: str


class ChainHead(BaseModel):
    """The last record of a chain: what to note elsewhere as an anchor."""

    tenant: str
    records: int
    head: str


class Log:
    """Reads the audit log for those who may."""

    def __init__(self, storage: Callable[[], Storage]) -> None:
        self._storage = storage

    async def wanted(self, caller: Caller, filters: RecordFilters) -> RecordFilter:
        """What the store is asked for. Raises :class:`Problem`."""
        tenant = caller.filtered(filters.tenant)
        tenants: Sequence[str] | None = None if tenant is None else (tenant,)
        if filters.service:
            caller.own("", "chain")
            tenants = ("",)
        elif tenant is None and not caller.rules:
            tenants = [name for name in await self._storage().tenants() if name]
        return RecordFilter(
            tenants=tenants,
            since=as_stamp(filters.since),
            until=as_stamp(filters.until),
            kinds=filters.kind,
            tool=filters.tool,
            visit="" if filters.visit is None else str(filters.visit),
            outcomes=filters.outcome,
            resident=filters.resident,
            visitor=filters.visitor,
        )

    async def page(self, caller: Caller, filters: RecordPage) -> PageOf[Record]:
        """One page, the latest first."""
        wanted = await self.wanted(caller, filters)
        page = await self._storage().record_page(wanted, after=filters.after, limit=filters.limit)
        return page_of(page, lambda record: Record(**asdict(record)))

    async def heads(self, caller: Caller) -> list[ChainHead]:
        """The last record of each chain that the caller may see."""
        heads = await self._storage().heads()
        return [
            ChainHead(tenant=tenant, records=head.seq, head=str(head))
            for tenant, head in heads.items()
            if caller.sees(tenant)
        ]

    async def tenants(self) -> list[str]:
        """Those that have a chain."""
        return await self._storage().tenants()

    async def records(self, wanted: RecordFilter) -> AsyncIterator[tuple[AuditRecord, ...]]:
        """All of them, page after page: a long export holds nobody up."""
        after: str | None = None
        while True:
            page = await self._storage().record_page(wanted, after=after, limit=MAX_PAGE)
            yield page.items
            if page.next is None:
                return
            after = page.next


# --------------------------------------------------------------------------------------------------------
# Taking along
# --------------------------------------------------------------------------------------------------------


async def as_csv(
    pages: AsyncIterator[tuple[AuditRecord, ...]], delimiter: str, bom: bool
) -> AsyncIterator[bytes]:
    """The records as a table that a spreadsheet program reads, and takes none of for a formula."""
    yield ("\ufeff" if bom else "").encode() + await asyncio.to_thread(_rows, [COLUMNS], delimiter)
    async for page in pages:
        yield await asyncio.to_thread(_table, page, delimiter)


async def as_lines(pages: AsyncIterator[tuple[AuditRecord, ...]]) -> AsyncIterator[bytes]:
    """The records as JSON, one a line."""
    async for page in pages:
        yield await asyncio.to_thread(_lines, page)


def _lines(page: Sequence[AuditRecord]) -> bytes:
    return b"".join(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in page)


def _table(page: Sequence[AuditRecord], delimiter: str) -> bytes:
    return _rows([_cells(record) for record in page], delimiter)


def _cells(record: AuditRecord) -> list[object]:
    told = {**asdict(record), "data": orjson.dumps(record.data).decode()}
    return [told[name] if name in told else record.data.get(name) for name in COLUMNS]


def _rows(rows: Sequence[Sequence[object]], delimiter: str) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\r\n")
    writer.writerows([harmless(cell) for cell in row] for row in rows)
    return text.getvalue().encode()


def harmless(cell: object) -> object:
    """A cell that no spreadsheet program computes: who rang the bell must not run anything at the desk."""
    if cell is None or isinstance(cell, int | float):
        return cell
    text = str(cell).replace("\0", "")
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text


# --------------------------------------------------------------------------------------------------------
# Resources
# --------------------------------------------------------------------------------------------------------

CSV: Final = "text/csv"
LINES: Final = "application/jsonl"


def router(log: Log, verifying: Verifying) -> APIRouter:
    """The resources of this file."""
    routes = APIRouter(prefix="/audit", tags=["audit"], route_class=GuardedRoute)
    text = {"schema": {"type": "string"}}

    @routes.get("", responses=problems(404))
    async def page(caller: Reader, filters: Annotated[RecordPage, Query()]) -> PageOf[Record]:
        """Records, the latest first."""
        return await log.page(caller, filters)

    @routes.get("/heads")
    async def heads(caller: Reader) -> list[ChainHead]:
        """The last record of each chain: noted elsewhere, they show later what was cut off or rewritten."""
        return await log.heads(caller)

    @routes.get(
        "/export",
        response_class=Response,
        responses={
            200: {"description": "The records", "content": {CSV: text, LINES: text}},
            **problems(404),
        },
    )
    async def export(caller: Exporter, filters: Annotated[ExportFilters, Query()]) -> Response:
        """All records that are wanted, the latest first, as CSV or as lines of JSON."""
        wanted = await log.wanted(caller, filters)
        pages = log.records(wanted)
        if filters.format == "csv":
            content = as_csv(pages, "," if filters.delimiter == "comma" else ";", filters.bom)
            return _file(content, CSV, "audit.csv")
        return _file(as_lines(pages), LINES, "audit.jsonl")

    @routes.post(
        "/verify",
        response_class=Response,
        responses={
            200: {"description": "A line each second, and the result in the last", "content": {LINES: text}},
            **problems(404, 409),
        },
    )
    async def verify(caller: Exporter, tenant: TenantQuery = None) -> Response:
        """Check the hash chains, and that the visits' rows are what their records say; one check at a time.

        Each line is an object: `seconds` so far; the last has `sound`, `records` and `faults` as well.
        """
        of = caller.filtered(tenant)
        if of is not None and of not in await log.tenants():
            raise missing("chain")
        running = verifying.begin(of, service=caller.rules)
        if running is None:
            raise Problem(409, "found a check that runs already; allowed: one at a time")
        return StreamingResponse(running, media_type=LINES)

    return routes


def _file(content: AsyncIterator[bytes], kind: str, name: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(content, headers=headers, media_type=kind)
