"""What paths, queries and headers are made of: each bounded, and without control characters."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Generic, TypeVar
from uuid import UUID

from fastapi import Depends, Header, Path, Query
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict

from bridge.http.problems import Problem
from storage.paging import MAX_PAGE, Page, cursor_of, key_of
from visits.audit import stamp

T = TypeVar("T")
S = TypeVar("S")

TENANT: Final = r"^[a-z0-9][a-z0-9_-]{0,62}$"
TEXT: Final = r"^[^\x00-\x1f\x7f]*$"
WORD: Final = r"^[a-z][a-z0-9_.]{0,63}$"

TenantPath = Annotated[str, Path(pattern=TENANT, description="A tenant's id")]
VisitPath = Annotated[UUID, Path(description="A visit's id")]
LabelPath = Annotated[
    str, Path(pattern=TEXT, min_length=1, max_length=80, description="An apartment: `102 bloco B`")
]
IdPath = Annotated[str, Path(pattern=r"^[A-Za-z0-9_.@+-]{1,80}$")]

TenantQuery = Annotated[str | None, Query(pattern=TENANT, description="Of this tenant alone")]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="The longest page")]
Cursor = Annotated[
    str | None,
    Query(alias="after", pattern=r"^[A-Za-z0-9_-]{1,400}$", description="`next` of the page before"),
]


def _stamped(moment: datetime) -> datetime:
    # What leaves the calendar on its way to UTC is no time of ours.
    if not 1900 <= moment.year <= 9000:
        raise ValueError("a time between 1900 and 9000")
    return moment


def _written(moment: object) -> object:
    # Not the seconds since 1970, which pydantic would take as well.
    if not isinstance(moment, str) or not re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]", moment):
        raise ValueError("a time with its zone, such as 2026-11-21T13:05:00Z")
    return moment


Moment = Annotated[AwareDatetime, BeforeValidator(_written), AfterValidator(_stamped)]
"""A time with its zone, such as `2026-11-21T13:05:00Z`."""


def as_stamp(moment: datetime | None) -> str | None:
    """As the store has it."""
    return None if moment is None else stamp(moment.astimezone(UTC))


class Body(BaseModel):
    """What is sent: nothing beyond what is named."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class PageOf(BaseModel, Generic[T]):
    """One page of a list."""

    items: list[T]
    next: str | None
    """What `after` of the page behind it is; None: this is the last."""


def page_of(page: Page[Any], shown: Any = None) -> PageOf[Any]:
    """A page of the store's, each thing as it is shown."""
    items = list(page.items) if shown is None else [shown(item) for item in page.items]
    return PageOf(items=items, next=page.next)


def part_of(every: Sequence[T], key: Callable[[T], str], after: str | None, limit: int) -> Page[T]:
    """A page of a list that is at hand, which has its order from a key of each thing."""
    behind = key_of(after, str)[0] if after is not None else None
    keys = [key(each) for each in every]
    begin = keys.index(behind) + 1 if behind in keys else 0
    items = tuple(every[begin : begin + limit])
    return Page(items, cursor_of(key(items[-1])) if begin + limit < len(every) else None)


# --------------------------------------------------------------------------------------------------------
# Versions: who changes something says which version they have seen
# --------------------------------------------------------------------------------------------------------

_TAG: Final = re.compile(r'"([0-9]{1,15})"')
_IF_MATCH: Final = 'The version that was seen, as `ETag` had it: `"3"`'


def tag(version: int) -> dict[str, str]:
    """The header that tells a version."""
    return {"ETag": f'"{version}"'}


def expected_version(if_match: str | None, if_none_match: str | None) -> int | None:
    """The version that whoever changes something has seen; 0: that there is none; None: they don't say.

    Raises:
        Problem: they say it in another way.
    """
    if if_match is not None and if_none_match is not None:
        raise Problem(400, "found If-Match and If-None-Match; allowed: one of them")
    if if_none_match is not None:
        if if_none_match.strip() != "*":
            raise Problem(400, f"if-none-match: found {if_none_match[:80]!r}; allowed: *")
        return 0
    if if_match is None:
        return None
    found = _TAG.fullmatch(if_match.strip())
    if found is None:
        raise Problem(400, f'if-match: found {if_match[:80]!r}; allowed: a version in quotes, such as "3"')
    return int(found[1])


def _expected(
    if_match: Annotated[str | None, Header(description=_IF_MATCH)] = None,
    if_none_match: Annotated[str | None, Header(description="`*`: there is none yet")] = None,
) -> int | None:
    return expected_version(if_match, if_none_match)


def _needed(
    if_match: Annotated[str | None, Header(description=_IF_MATCH)] = None,
    if_none_match: Annotated[str | None, Header(description="`*`: there is none yet")] = None,
) -> int:
    version = expected_version(if_match, if_none_match)
    if version is None:
        raise Problem(428, 'found no If-Match; allowed: If-Match: "VERSION", or If-None-Match: *')
    return version


Expected = Annotated[int | None, Depends(_expected)]
"""The version that was seen, where the request says."""
Needed = Annotated[int, Depends(_needed)]
"""The version that was seen; a request that does not say is refused."""
