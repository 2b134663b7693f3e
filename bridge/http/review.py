"""The review of a visit: its time line, picture and sound, and what people say of it.

`GET /v1/visits/{visit}/timeline`, `/picture`, `/peaks`, `/sound`; `GET` and `POST /v1/visits/{visit}/review`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import tzinfo
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Protocol
from uuid import UUID
from zoneinfo import ZoneInfo

import structlog
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from starlette.responses import Response, StreamingResponse

from bridge.http.access import Caller, allowed, missing, now
from bridge.http.console.language import Language, read_languages
from bridge.http.description import problems
from bridge.http.problems import Problem
from bridge.http.route import GuardedRoute
from bridge.review.looking import Judgement, Looked, Reviews
from bridge.review.model import Timeline
from bridge.review.peaks import WIDEST
from bridge.review.sound import Mix, Track
from bridge.settings import Tenant
from bridge.tenants import Tenancy
from storage.base import Storage
from storage.catalogue import Catalogue, Verdict

log = structlog.get_logger(__name__)

MOST_NOTE: Final = 2_000
"""Characters of a reviewer's note."""
# A note is shown to others: no control characters but line ends, nothing that turns the direction of writing.
NOTE: Final = r"^[^\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]*$"
_RANGE: Final = re.compile(r"bytes=([0-9]{0,15})-([0-9]{0,15})")

VisitId = UUID
Reads = Annotated[Caller, allowed("visits:read")]
Judges = Annotated[Caller, allowed("visits:review", role="reviewer")]
Leg = Annotated[
    str, Query(min_length=1, max_length=80, description="a leg of the visit, as its lanes name it")
]
Legs = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=80)]],
    Query(max_length=16, description="the legs to be heard; none: all that were recorded"),
]


class Behind(Protocol):
    """What the review needs of the service."""

    tenancy: Tenancy

    @property
    def storage(self) -> Storage:
        """Visits and the audit log."""

    @property
    def catalogue(self) -> Catalogue:
        """Where reviews are written."""


class Wave(BaseModel):
    """How loud a leg is over the visit's time: the loudest sample of each column, 0 to 255."""

    leg: str
    length_ms: float
    caller: list[Annotated[int, Field(ge=0, le=255)]]
    ours: list[Annotated[int, Field(ge=0, le=255)]]


_TIMELINE: Final = TypeAdapter(Timeline)
_WAVE: Final = TypeAdapter(Wave)


class Review(BaseModel):
    """What a reviewer says of a visit."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    verdict: Verdict
    note: Annotated[str, Field(max_length=MOST_NOTE, pattern=NOTE)] = ""


class SaidReview(BaseModel):
    """A review that is on record."""

    verdict: str
    note: str
    by: str
    at: str

    @classmethod
    def of(cls, judgement: Judgement) -> SaidReview:
        """As it is told."""
        return cls(verdict=judgement.verdict, note=judgement.note, by=judgement.by, at=judgement.at)


class SaidReviews(BaseModel):
    """All that was said of a visit; the latest first, which is the one that counts."""

    reviews: list[SaidReview]


def reviews_of(service: Behind) -> Reviews:
    """What looks a service's visits up."""
    root: Path = service.tenancy.settings.service.recordings_path
    return Reviews(lambda: service.storage, root)


def router(service: Behind, reviews: Reviews) -> APIRouter:
    """The resources of this file."""
    routes = APIRouter(route_class=GuardedRoute, tags=["review"])
    languages = read_languages()

    async def look(visit: VisitId, caller: Caller) -> Looked:
        looked = await reviews.look(str(visit), caller.sees)
        if looked is None:
            raise missing("visit")
        return looked

    @routes.get("/visits/{visit}/timeline", response_model=Timeline, responses=problems(404))
    async def timeline(visit: VisitId, caller: Reads) -> Response:
        """What happened in a visit, on one time line: milliseconds since it began.

        All of it is made out of the visit's records, the rules that held too.
        """
        looked = await look(visit, caller)
        return await _json(_TIMELINE, looked.read)

    @routes.get(
        "/visits/{visit}/picture",
        response_class=Response,
        responses={200: {"content": {"image/svg+xml": {}}, "description": "A picture"}, **problems(404)},
    )
    async def picture(
        visit: VisitId,
        caller: Reads,
        zoom: Literal["1", "2", "4", "8", "16"] = "1",
        language: Literal["pt-BR", "en"] = "pt-BR",
    ) -> Response:
        """The time line as a picture, in a file of its own (SVG)."""
        looked = await look(visit, caller)
        zone = zone_of(service.tenancy.current, looked.view.summary.tenant)
        drawn = await draw(reviews, looked, languages[language], zoom=int(zoom), zone=zone, alone=True)
        # Opened by itself it is a document: its own style, and nothing else.
        guard = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
        return Response(drawn, media_type="image/svg+xml", headers={"Content-Security-Policy": guard})

    @routes.get("/visits/{visit}/peaks", response_model=Wave, responses=problems(404))
    async def peaks(
        visit: VisitId, caller: Reads, leg: Leg, width: Annotated[int, Query(ge=1, le=WIDEST)] = 1000
    ) -> Response:
        """How loud a leg is: `width` columns from the visit's start to its length."""
        looked = await look(visit, caller)
        (track,) = heard(looked, [leg])
        found = await reviews.columns(track, looked.read.length_ms, width)
        sides = {"caller": found.caller.tolist(), "ours": found.ours.tolist()}
        return await _json(_WAVE, Wave.model_construct(leg=leg, length_ms=looked.read.length_ms, **sides))

    @routes.get(
        "/visits/{visit}/sound",
        response_class=Response,
        responses={
            200: {"content": {"audio/wav": {}}, "description": "All of it"},
            206: {"content": {"audio/wav": {}}, "description": "The part that `Range` asks for"},
            **problems(404, 416),
        },
    )
    async def sound(visit: VisitId, caller: Reads, request: Request, leg: Legs = []) -> Response:  # noqa: B006
        """The recordings as one WAV file, from the visit's start: 8 kHz, 16 bit, stereo.

        One leg has its caller on the left and the doorman on the right. Several are mixed: the visitor's call
        on the left, the resident's on the right. `Range` asks for a part of it.
        """
        looked = await look(visit, caller)
        tracks = heard(looked, leg)
        log.info("recording.played", visit=str(visit), legs=[track.leg for track in tracks], by=caller.by)
        return played(tracks, request.headers.get("range"))

    @routes.get("/visits/{visit}/review", responses=problems(404))
    async def said(visit: VisitId, caller: Reads) -> SaidReviews:
        """What people said of a visit."""
        looked = await look(visit, caller)
        return SaidReviews(reviews=[SaidReview.of(one) for one in looked.judgements])

    @routes.post("/visits/{visit}/review", status_code=201, responses=problems(404))
    async def review(visit: VisitId, caller: Judges, review: Review) -> SaidReview:
        """Say whether what the service did was right. It is on record then, and can't be taken back."""
        await look(visit, caller)
        return await judge(service, str(visit), caller, review)

    return routes


async def judge(service: Behind, visit: str, caller: Caller, review: Review) -> SaidReview:
    """Put a review on record."""
    at = now()
    note = review.note.strip()
    await service.catalogue.review(visit, review.verdict, note, by=caller.by, at=at)
    return SaidReview(verdict=review.verdict, note=note, by=caller.by, at=at)


async def _json(kind: TypeAdapter[Any], value: object) -> Response:
    """A large answer, written in a thread: the event loop may carry calls."""
    return Response(await asyncio.to_thread(kind.dump_json, value), media_type="application/json")


async def draw(reviews: Reviews, looked: Looked, t: Language, *, zoom: int, zone: tzinfo, alone: bool) -> str:
    """A visit's picture."""
    return await asyncio.to_thread(reviews.draw, looked, t, zoom=zoom, zone=zone, alone=alone)


def zone_of(tenants: Mapping[str, Tenant], tenant: str) -> ZoneInfo:
    """A tenant's time zone; São Paulo's where the tenant is gone."""
    known = tenants.get(tenant)
    return ZoneInfo(known.timezone if known is not None else "America/Sao_Paulo")


def heard(looked: Looked, legs: Sequence[str]) -> list[Track]:
    """The recordings that are to be heard.

    Raises:
        Problem: 404: there are none, or one of them is not there.
    """
    there = {track.leg: track for track in looked.tracks}
    gone = [leg for leg in legs if leg not in there]
    if gone or not there:
        told = ", ".join(there) or "none of this visit"
        raise Problem(404, f"found no recording of {', '.join(gone) or 'any leg'}; allowed: {told}")
    return [there[leg] for leg in dict.fromkeys(legs)] if legs else list(there.values())


def played(tracks: Sequence[Track], wanted: str | None) -> Response:
    """A WAV file, or the part of it that a `Range` asks for (RFC 9110, 14.2).

    Raises:
        Problem: 416: there is no such part.
    """
    mix = Mix(tracks)
    headers = {"Accept-Ranges": "bytes", "Cache-Control": "private, no-store"}
    part = _part(wanted, len(mix))
    if part is None:
        return _streamed(mix, 0, len(mix), 200, headers)
    start, end = part
    headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(mix)}"
    return _streamed(mix, start, end, 206, headers)


def _streamed(mix: Mix, start: int, end: int, status: int, headers: dict[str, str]) -> Response:
    def pieces() -> Iterator[bytes]:  # Starlette takes them in a thread, one at a time
        yield from mix.read(start, end)

    headers["Content-Length"] = str(end - start)
    return StreamingResponse(pieces(), status, headers, "audio/wav")


def _part(wanted: str | None, length: int) -> tuple[int, int] | None:
    """The bytes that are asked for, from and up to; None: all. Several parts at once are given as all."""
    match = _RANGE.fullmatch(wanted.strip()) if wanted is not None else None
    if match is None or match[1] == match[2] == "":
        return None
    if match[1]:
        start, end = int(match[1]), min(int(match[2]) + 1 if match[2] else length, length)
    else:  # the last so many
        start, end = max(0, length - int(match[2])), length
    if match[1] and match[2] and int(match[2]) < int(match[1]):
        return None  # not a range at all
    if start >= length or start >= end:
        raise Problem(
            416,
            f"range: found bytes from {start}; allowed: up to {length - 1}",
            {"Content-Range": f"bytes */{length}"},
        )
    return start, end
