"""The page of one visit: why the gate opened, its picture and sound, what happened, what people say of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from pydantic import ValidationError
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from bridge.http.access import missing
from bridge.http.console.language import Language
from bridge.http.console.page import HEADERS
from bridge.http.console.site import Asked, Site, Times
from bridge.http.review import MOST_NOTE, Review, draw, judge
from bridge.review.looking import Looked, Reviews
from bridge.review.model import Rule, Timeline
from bridge.review.picture import ZOOMS
from bridge.review.story import amount, rows, sentence, shown

SPEEDS: Final = ("0.75", "1", "1.25", "1.5", "2")


@dataclass(frozen=True, slots=True)
class Told:
    """A rule as the page says it."""

    rule: Rule
    words: str


def routes(site: Site, reviews: Reviews) -> list[Route]:
    """The pages of this file."""

    async def visit(asked: Asked) -> Response:
        looked = await _look(asked, reviews)
        return await _show(asked, reviews, looked)

    async def picture(asked: Asked) -> Response:
        """The picture alone, at another zoom: the page's script puts it in the place of the one before."""
        looked = await _look(asked, reviews)
        zoom, zone = _zoom(asked), Times(asked.t, site.tenants()).zone(looked.view.summary.tenant)
        drawn = await draw(reviews, looked, asked.t, zoom=zoom, zone=zone, alone=False)
        return HTMLResponse(drawn, headers=HEADERS)

    async def review(asked: Asked) -> Response:
        looked = await _look(asked, reviews)
        form = await asked.form()
        note = form.one("note").replace("\r\n", "\n")
        try:
            said = Review.model_validate({"verdict": form.one("verdict"), "note": note})
        except ValidationError as error:
            wrong = {str(one["loc"][0]) for one in error.errors(include_url=False)}
            return await _show(asked, reviews, looked, wrong=wrong, note=note[: 2 * MOST_NOTE], status=422)
        await judge(site.service, looked.view.summary.id, asked.caller, said)
        return asked.see(f"/visits/{looked.view.summary.id}", "reviewed")

    return [
        site.page("/visits/{visit}", visit, "visits:read"),
        site.page("/visits/{visit}/picture", picture, "visits:read"),
        site.page("/visits/{visit}/review", review, "visits:review", role="reviewer", methods="POST"),
    ]


async def _look(asked: Asked, reviews: Reviews) -> Looked:
    try:
        visit = str(UUID(asked.path("visit")))
    except ValueError:
        raise missing("visit") from None
    looked = await reviews.look(visit, asked.caller.sees)
    if looked is None:
        raise missing("visit")
    return looked


def _zoom(asked: Asked) -> int:
    wanted = asked.query("zoom", 4)
    return int(wanted) if wanted.isdecimal() and int(wanted) in ZOOMS else 1


async def _show(
    asked: Asked,
    reviews: Reviews,
    looked: Looked,
    *,
    wrong: set[str] | frozenset[str] = frozenset(),
    note: str = "",
    status: int = 200,
) -> Response:
    t, zoom = asked.t, _zoom(asked)
    zone = Times(t, asked.site.tenants()).zone(looked.view.summary.tenant)
    drawn = await draw(reviews, looked, t, zoom=zoom, zone=zone, alone=False)
    given = await asyncio.to_thread(_given, looked, t, await asked.names())
    return await asked.show(
        "visit.html",
        status=status,
        picture=drawn,
        zoom=zoom,
        zooms=ZOOMS,
        speeds=SPEEDS,
        may_judge=asked.caller.may("visits:review") and asked.caller.at_least("reviewer"),
        may_erase=asked.caller.may("visits:review") and asked.caller.at_least("manager"),
        most_note=MOST_NOTE,
        wrong=wrong,
        note=note,
        **given,
    )


def _given(looked: Looked, t: Language, who: Callable[[str], str]) -> dict[str, Any]:
    read = looked.read
    return {
        "visit": looked.view.summary,
        "read": read,
        "told": [Told(rule, sentence(rule, t)) for rule in read.rules],
        "rows": rows(read, t, who),
        "cost": amount(read.costs[-1], t) if read.costs else None,
        "legs": [track.leg for track in looked.tracks],
        "mute": _mute(looked, t),
        "judgements": looked.judgements,
        "answer_ms": _answer(read),
        "shown": shown,
        "called": who,
        "clock": lambda ms: t.duration(ms // 1000),
    }


def _mute(looked: Looked, t: Language) -> list[tuple[str, str]]:
    """Why which calls can't be heard, or not to their end: pairs of a reason and whose call."""
    heard = {track.leg for track in looked.tracks}
    found = []
    for lane in looked.read.lanes:
        reason = looked.missing.get(lane.leg) or ("failed" if lane.recording_failed else None)
        if reason is not None and (lane.leg in heard) == (reason == "failed"):
            found.append((reason, t(f"review.lane.{lane.role}")))
    return found


def _answer(read: Timeline) -> float | None:
    """Where the words are that the decision rests on."""
    counted = read.decision.evidence if read.decision is not None else ()
    return next((one.at_ms for one in read.evidence if one.seq in counted), None)
