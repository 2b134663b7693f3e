"""The interface of what is kept: an append-only audit log, and the visits that can be read from it.

There is one way to write: :meth:`Storage.append`. The tables that lists and pages are read from (visits,
legs, turns, tool calls, decisions) are written in the transaction of the record that they follow from; they
can therefore never say something that the audit log does not.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from visits.audit import Anchors, AuditRecord, ErasedScope, Fault, Head

if TYPE_CHECKING:  # they rest on this file
    from storage.catalogue import Catalogue
    from storage.figures import Figures
    from storage.filters import RecordFilter, VisitFilter
    from storage.outbox import Outbox
    from storage.paging import Page

# --------------------------------------------------------------------------------------------------------
# Errors
# --------------------------------------------------------------------------------------------------------


class StorageError(Exception):
    """Nothing was stored, or nobody knows. Whoever gets this opens no gate."""


class StorageUnavailable(StorageError):
    """The store can't be read or written; ``reason`` says why."""

    def __init__(self, reason: Reason, message: str) -> None:
        """``message`` is for people and names the file."""
        super().__init__(message)
        self.reason = reason


Reason = Literal[
    "full",
    "read-only",
    "busy",
    "in-use",
    "io",
    "corrupt",
    "missing",
    "away",
    "not-ours",
    "newer",
    "older",
    "overloaded",
]
"""``newer``, ``older``: of another version of Porteiro. ``not-ours``: not a Porteiro database at all.

``busy``: another process writes and does not let go; ``in-use``: another service answers for it.
``overloaded``: more operations wait than are allowed to. ``away``: the database's server can't be reached.
"""


class StorageTimeout(StorageError):
    """The deadline passed. A record may or may not have been written: treat it as not written."""


class StorageRefused(StorageError):
    """The record is not allowed: not a record at all, a visit that never started, a second decision …"""


class StorageClosed(StorageError):
    """The store was closed."""


# --------------------------------------------------------------------------------------------------------
# What is read. Times are texts as visits.audit.stamp writes them; milliseconds count from visit.started.
# --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class VisitSummary:
    """One visit as a list shows it. ``None``: not known (yet)."""

    id: str
    tenant: str
    started_at: str
    ended_at: str | None
    outcome: str | None
    reason: str | None
    provider: str | None
    intent: str | None
    visitor_name: str | None
    apartment: str | None
    resident: str | None
    decision: str | None
    gate_requested_at: str | None
    gate_answered_at: str | None
    gate_opened: bool | None
    gate_detail: str | None
    cost: str | None
    """In ``currency``, a decimal text: so far, or in the end."""
    currency: str | None
    cost_complete: bool | None
    """False: it cost more than that, or still may."""
    verdict: str | None = None
    """What the last review says: ``right`` or ``wrong``."""


@dataclass(frozen=True, slots=True)
class LegView:
    """One phone call of a visit."""

    leg: str
    role: str
    endpoint: str | None
    peer: str | None
    provider: str | None
    connected_at: str
    ended_at: str | None
    reason: str | None
    recording: str | None


@dataclass(frozen=True, slots=True)
class TurnView:
    """One side's say."""

    seq: int
    leg: str
    role: str | None
    speaker: str
    text: str
    started_ms: float
    ended_ms: float
    response_ms: float | None
    interrupted: bool
    heard_ms: float | None


@dataclass(frozen=True, slots=True)
class ToolCallView:
    """One tool call; ``result``, ``ms`` and ``status`` are None while it is unanswered."""

    seq: int
    leg: str
    role: str | None
    call: str
    name: str
    arguments: Any
    called_at: str
    answered_at: str | None
    result: Any
    ms: float | None
    status: str | None


@dataclass(frozen=True, slots=True)
class DecisionView:
    """What was decided, and on what."""

    decision: str
    evidence: list[Any]
    reason: str | None
    at: str
    seq: int


@dataclass(frozen=True, slots=True)
class ReviewView:
    """What a person said last of a visit; ``by`` as in the record."""

    verdict: str
    note: str
    by: str
    at: str
    seq: int


@dataclass(frozen=True, slots=True)
class Spending:
    """What visits of one tenant cost together, of those that were reckoned in one currency."""

    currency: str
    cost: Decimal
    usd: Decimal
    visits: int


@dataclass(frozen=True, slots=True)
class ResponseTime:
    """How long a caller waited for one of our turns.

    Attributes:
        provider: whose session the leg began with.
        ms: from the end of the caller's turn to our first sound.
    """

    provider: str | None
    ms: float


@dataclass(frozen=True, slots=True)
class VisitView:
    """Everything about one visit. The gate's answer and the outcome are in ``summary``."""

    summary: VisitSummary
    legs: tuple[LegView, ...]
    turns: tuple[TurnView, ...]
    tool_calls: tuple[ToolCallView, ...]
    decision: DecisionView | None
    review: ReviewView | None = None


# --------------------------------------------------------------------------------------------------------
# What is erased
# --------------------------------------------------------------------------------------------------------


class Erasure(NamedTuple):
    """What was erased of a visit, by which record of its tenant's chain."""

    visit: str
    scope: str
    seq: int
    at: str


@dataclass(frozen=True, slots=True)
class Counted:
    """What an erasure is about."""

    visits: tuple[str, ...]
    """Those of which something was left."""
    records: int
    sealed: int
    """Records of an older version, which sealed what they say of people: they keep it."""
    recordings: tuple[str, ...]

    @property
    def removed(self) -> dict[str, int]:
        """As records say it."""
        return {
            "records": self.records,
            "recordings": len(self.recordings),
            **({"sealed": self.sealed} if self.sealed else {}),
        }


@dataclass(frozen=True, slots=True)
class Due:
    """A page of visits that started before some time."""

    visits: tuple[str, ...]
    """Those of which something is left to erase."""
    last: tuple[str, str] | None
    """Where the next page goes on; None: there is none."""


# --------------------------------------------------------------------------------------------------------
# The interface
# --------------------------------------------------------------------------------------------------------


class Storage(ABC):
    """A store of visits. Every operation has a deadline, and raises :class:`StorageError` on failure.

    Safe for any number of tasks of one event loop, and for several processes on the same store.
    """

    service: str | None = None
    """On whose behalf visits are begun, where several services share the store; None: there is one."""

    @property
    def warnings(self) -> list[str]:
        """What is amiss although records are durable, in fixed words: ``database_away``."""
        return []

    @property
    def troubles(self) -> list[str]:
        """Why no record can be made durable now, in fixed words: ``nothing_durable``."""
        return []

    @property
    @abstractmethod
    def catalogue(self) -> Catalogue:
        """Tenants, directories, operators, keys and reviews, in the same database."""

    @property
    @abstractmethod
    def outbox(self) -> Outbox:
        """What is still to be told to other systems, in the same database."""

    @abstractmethod
    async def append(
        self, tenant: str, visit: str, at: str, kind: str, data: Mapping[str, object]
    ) -> AuditRecord | None:
        """Seal a record into the tenant's chain; it is durable (on the disk) when this returns.

        None: it is durable beside the database, which is away, and gets its place in the chain later.

        Args:
            tenant: whose chain; "" is the service's own.
            visit: the visit's UUID, or "" (see ``visits.audit.KINDS``).
            at: as ``visits.audit.stamp`` writes it.
            kind: one of ``visits.audit.KINDS``.
            data: of the kind's shape.

        Raises:
            StorageRefused: not a record; or against the order of a visit: a record of a visit that has not
                started (or is another tenant's), a second start, decision, gate request or end, an answer
                without its call or request, a gate request without an authorized decision.
            StorageTimeout: not known to be stored.
            StorageUnavailable: not stored (a full disk, a read-only file …).

        Being cancelled while it waits means the same as :class:`StorageTimeout`.
        """

    @abstractmethod
    async def visits(
        self,
        *,
        tenant: str | None = None,
        since: str | None = None,
        until: str | None = None,
        outcome: str | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[VisitSummary]:
        """Visits, the latest first. ``since`` (inclusive) and ``until`` (exclusive) bound their start."""

    @abstractmethod
    async def visit_page(
        self, wanted: VisitFilter, *, after: str | None = None, limit: int = 50
    ) -> Page[VisitSummary]:
        """One page of the visits that are wanted, the latest first.

        Args:
            after: ``next`` of the page before; None: the first.
            limit: visits on it, at most :data:`storage.paging.MAX_PAGE`.

        Raises:
            StorageRefused: ``after`` is no cursor of such a page, or ``limit`` is too large.
        """

    @abstractmethod
    async def record_page(
        self, wanted: RecordFilter, *, after: str | None = None, limit: int = 50
    ) -> Page[AuditRecord]:
        """One page of the audit records that are wanted, the latest first. As :meth:`visit_page`."""

    @abstractmethod
    async def spending(self, tenant: str, since: str) -> list[Spending]:
        """What the tenant's visits that started since then have cost so far, running ones included."""

    @abstractmethod
    async def response_times(self, tenant: str, visits: int) -> list[ResponseTime]:
        """How quickly we answered in the tenant's last visits, so many of them, turn by turn."""

    @abstractmethod
    async def figures(self, tenants: Collection[str] | None, since: str, until: str) -> Figures:
        """What the visits that began within a span of time come to; of these tenants, or of all."""

    @abstractmethod
    async def visit(self, visit_id: str) -> VisitView | None:
        """Everything about one visit; None where there is none of that id."""

    @abstractmethod
    async def visit_exists(self, visit_id: str) -> bool:
        """Whether a visit of that id ever started."""

    @abstractmethod
    async def find_visits(self, prefix: str, limit: int = 10) -> list[str]:
        """Ids of visits that begin with ``prefix``."""

    @abstractmethod
    def audit(
        self,
        *,
        tenant: str | None = None,
        visit: str | None = None,
        since: str | None = None,
        until: str | None = None,
        kinds: Collection[str] | None = None,
    ) -> AsyncIterator[AuditRecord]:
        """The records, by tenant and then by number. Read in pages: a long export holds no writer up."""

    @abstractmethod
    async def tenants(self) -> list[str]:
        """The tenants that have a chain."""

    @abstractmethod
    async def heads(self) -> dict[str, Head]:
        """Each tenant's last record: what to note elsewhere as an anchor."""

    @abstractmethod
    async def verify(
        self, tenant: str | None = None, *, expected_heads: Mapping[str, Anchors] | None = None
    ) -> list[Fault]:
        """What is wrong with one tenant's chain, or with all: the chains first, then what follows from them.

        Compares the visits, row by row, with what their records give. A chain that lost its end, or is gone,
        shows by the heads that the store notes itself, as long as those were not changed with it.

        Args:
            tenant: None: all that have, or according to any note had, a chain.
            expected_heads: what was noted outside, by tenant; see ``visits.audit.verify``.
        """

    @abstractmethod
    async def open_visits(
        self, tenants: Collection[str] | None = None, services: Collection[str] | None = None
    ) -> list[VisitSummary]:
        """Visits without a ``visit.ended``, the oldest first; of those tenants, begun by those services."""

    @abstractmethod
    async def recover(
        self,
        at: str,
        tenants: Collection[str] | None = None,
        *,
        visits: Collection[str] | None = None,
        services: Collection[str] | None = None,
        why: str = "the service ended while the visit was running",
    ) -> list[str]:
        """Close the visits that a crash left open: ``visit.recovered``, then ``visit.ended`` with ``failed``.

        For the start of a service, before it takes calls, and only for the tenants that no other running
        service answers for; or with ``visits`` for those of them that are open and whose process is gone.

        Args:
            services: only visits that these services began (``service`` in ``visit.started``).
            why: the reason on record.

        Returns:
            The ids of the visits that were closed.
        """

    @abstractmethod
    async def erase(
        self,
        tenant: str,
        visits: Collection[str],
        *,
        scope: ErasedScope,
        kind: Literal["person.erased", "retention.carried_out"],
        by: str,
        at: str,
        more: Mapping[str, str] | None = None,
    ) -> Counted:
        """Erase what ended visits have of people, with a record of it in the tenant's chain.

        Recordings are noted in :meth:`recordings_to_remove`; their files are the caller's to remove.

        Args:
            tenant: whose visits.
            visits: their ids. Those of which nothing is left are passed over; of none there is no record.
            scope: how much of them.
            kind: on request, or because they were kept long enough.
            by: who has it done, as records say it.
            at: as ``visits.audit.stamp`` writes it.
            more: the record's other fields.

        Raises:
            StorageRefused: one is no visit of the tenant, still runs, or its records were changed.
        """

    @abstractmethod
    async def to_erase(self, tenant: str, visits: Collection[str], scope: ErasedScope) -> Counted:
        """What :meth:`erase` would remove. Raises :class:`StorageRefused` likewise."""

    @abstractmethod
    async def due(self, tenant: str, scope: ErasedScope, before: str, after: tuple[str, str]) -> Due:
        """The next page of a tenant's visits that started before then, and which of them are to be erased.

        ``after``: the (start, id) of the last visit of the page before; ("", "") for the first.
        """

    @abstractmethod
    async def erasures(self, visit_id: str) -> list[Erasure]:
        """What was erased of a visit, in its order."""

    @abstractmethod
    async def erased_visits(self, tenant: str | None = None) -> int:
        """Of how many visits something was erased."""

    @abstractmethod
    async def recordings_to_remove(self, service: str | None) -> list[str]:
        """Recordings of a service whose files are to be removed, or were and nobody said so yet."""

    @abstractmethod
    async def recording_removed(self, recording: str) -> None:
        """Say that the file is gone."""

    @abstractmethod
    async def close(self) -> None:
        """Finish what waits, and let go of the store. Bounded in time; more than once is harmless."""
