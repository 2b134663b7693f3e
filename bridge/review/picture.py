"""A visit as a picture: an SVG that the server draws, for the page and as a file of its own.

From above: the time, the stages of the visit, the visitor's leg, the resident's leg, the decision and the
gate, the cost. In a leg the caller's voice stands above the middle line and ours below it. The words that the
decision rests on are golden, and a line leads from them to it. Colours are in `picture.css` alone; nothing
has a style of its own, so that the page's content security policy may forbid that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from decimal import Decimal, InvalidOperation
from functools import cache
from html import escape
from importlib.resources import files
from typing import Final

from bridge.http.console.language import Language
from bridge.review.model import Call, Dial, Evidence, Pause, Role, Span, Stretch, Timeline
from bridge.review.peaks import Columns, Peaks
from bridge.review.story import (
    FAILED,
    amount,
    as_json,
    dial_words,
    evidence_words,
    gate_words,
    sentence,
    shown,
    span_name,
    tool_name,
)
from storage.base import VisitSummary

ZOOMS: Final = (1, 2, 4, 8, 16)
PLOT: Final = 870.0
"""Width of the visit at zoom 1, in pixels."""
LEFT: Final = 92.0
RIGHT: Final = 24.0
DRAWN: Final = 4_000
"""So many things of a kind are drawn; the table has all of them."""
MOST_COLUMNS: Final = 4_000

QUIETEST: Final = 48
"""Of 255: a wave is not drawn taller than it would be with something so loud in it."""

HALF: Final = 38.0
WORDS: Final = 17.0
TOOL: Final = 14.0
TOOL_ROWS: Final = 4
LETTER: Final = 6.0
"""Width of a letter of words, about, in pixels."""
EVIDENCE_LETTERS: Final = 60
EVIDENCE_LETTER: Final = 6.8
"""Width of a letter where words are bold."""
STEPS_S: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200)
TICK_PX: Final = 76.0
ROLES: Final[tuple[Role, Role]] = ("visitor", "resident")


def columns_for(zoom: int) -> int:
    """How many columns a wave has at this zoom."""
    return min(MOST_COLUMNS, int(PLOT) * zoom)


def picture(
    read: Timeline,
    summary: VisitSummary,
    waves: Mapping[str, Peaks],
    t: Language,
    *,
    zoom: int = 1,
    zone: tzinfo = UTC,
    alone: bool = False,
) -> str:
    """The picture of a visit.

    Args:
        read: the visit.
        summary: who came for whom.
        waves: of each leg whose recording is there, as many columns as `columns_for` says, over `length_ms`.
        t: the language of its words.
        zoom: how many times `PLOT` it is wide; one of `ZOOMS`.
        zone: the time zone of its day and time.
        alone: as a file, with its colours and a title in it.
    """
    return _Picture(read, summary, waves, t, zoom, zone, alone).draw()


@cache
def style() -> str:
    """The style sheet of the picture."""
    return (files("bridge.http.console") / "static" / "picture.css").read_text(encoding="utf-8")


def _n(number: float) -> str:
    """A number as SVG has it: no more than a tenth of a pixel."""
    return f"{number:.1f}".removesuffix(".0")


_NO_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What no XML may hold, however it is written; a record may."""


def _escaped(text: str) -> str:
    return escape(_NO_XML.sub("\ufffd", text))


class _Picture:
    """One picture, being drawn from above."""

    def __init__(
        self,
        read: Timeline,
        summary: VisitSummary,
        waves: Mapping[str, Peaks],
        t: Language,
        zoom: int,
        zone: tzinfo,
        alone: bool,
    ) -> None:
        self._read = read
        self._summary = summary
        self._waves = waves
        self._t = t
        self._zone = zone
        self._alone = alone
        self._length = max(read.length_ms, 1000.0)
        self._plot = PLOT * zoom
        self._width = LEFT + self._plot + RIGHT
        self._parts: list[str] = []
        self._names: list[str] = []
        """What the lanes are called: the page keeps it in sight where the picture is moved aside."""
        loudest = max(
            (int(side.max(initial=0)) for one in waves.values() for side in (one.caller, one.ours)), default=0
        )
        self._loudest = max(loudest, QUIETEST)
        self._middle: dict[str, float] = {}
        """By role: where its middle line is."""
        self._ticks: list[float] = []
        self._y = 10.0

    # ---- what things are drawn with ----------------------------------------------------------------------

    def _x(self, ms: float) -> float:
        return LEFT + min(max(ms, 0.0), self._length) * self._plot / self._length

    def _add(self, part: str) -> None:
        self._parts.append(part)

    def _rect(self, kind: str, x: float, y: float, width: float, height: float, radius: float = 0) -> None:
        round_ = f' rx="{_n(radius)}"' if radius else ""
        self._add(
            f'<rect class="{kind}" x="{_n(x)}" y="{_n(y)}" width="{_n(max(width, 0.0))}" '
            f'height="{_n(height)}"{round_}/>'
        )

    def _line(self, kind: str, x1: float, y1: float, x2: float, y2: float) -> None:
        self._add(f'<line class="{kind}" x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}"/>')

    def _path(self, kind: str, d: str) -> None:
        self._add(f'<path class="{kind}" d="{d}"/>')

    def _text(self, kind: str, x: float, y: float, text: str, *, end: bool = False) -> None:
        anchor = ' text-anchor="end"' if end else ""
        self._add(f'<text class="{kind}" x="{_n(x)}" y="{_n(y)}"{anchor}>{_escaped(shown(text))}</text>')

    def _name(self, kind: str, y: float, text: str) -> None:
        """What a lane is called, before it."""
        self._names.append(f'<text class="{kind}" x="14" y="{_n(y)}">{_escaped(shown(text))}</text>')

    def _fitting(self, kind: str, x: float, y: float, text: str, width: float) -> None:
        """As much of a text as fits; nothing where not even a few letters do."""
        letters = int(width / LETTER)
        text = shown(text)
        if len(text) > letters:
            text = f"{text[: letters - 1].rstrip()}…" if letters >= 4 else ""
        if text:
            self._text(kind, x, y, text)

    def _begin(self, kind: str, ms: float, record: int, title: str) -> None:
        """Something that is played from by a click."""
        self._add(
            f'<g class="at {kind}" data-ms="{_n(ms)}" data-record="{record}"><title>{_escaped(title)}</title>'
        )

    def _end(self) -> None:
        self._add("</g>")

    # ---- from above --------------------------------------------------------------------------------------

    def draw(self) -> str:
        """The whole SVG."""
        if self._alone:
            self._draw_title()
        top = self._y
        self._draw_time()
        self._draw_stages()
        for role in ROLES:
            self._draw_leg(role)
        self._draw_together()
        self._draw_decision()
        self._draw_cost()
        bottom = self._y
        self._line("cursor", LEFT, top, LEFT, bottom)
        height = bottom + 10
        return "".join(
            [
                '<svg xmlns="http://www.w3.org/2000/svg" class="visit-picture" role="img" ',
                f'lang="{self._t.code}" width="{_n(self._width)}" height="{_n(height)}" ',
                f'viewBox="0 0 {_n(self._width)} {_n(height)}" ',
                'aria-labelledby="picture-title picture-desc" ',
                f'data-left="{_n(LEFT)}" data-plot="{_n(self._plot)}" data-length="{self._length:.1f}">',
                f'<title id="picture-title">{_escaped(self._title())}</title>',
                f'<desc id="picture-desc">{_escaped(self._description())}</desc>',
                f"<style>{style()}</style>" if self._alone else "",
                f'<rect class="ground" width="{_n(self._width)}" height="{_n(height)}"/>',
                self._grid(top + 20, bottom),
                *self._parts,
                '<g data-names="">',
                f'<rect class="ground" y="{_n(top + 20)}" width="{_n(LEFT)}" height="{_n(bottom - top)}"/>',
                *self._names,
                "</g></svg>",
            ]
        )

    def _grid(self, top: float, bottom: float) -> str:
        lines = "".join(f"M{_n(x)} {_n(top)}V{_n(bottom)}" for x in self._ticks)
        return f'<path class="grid" d="{lines}"/>'

    def _title(self) -> str:
        t, summary = self._t, self._summary
        who = shown(summary.visitor_name) or t("review.nobody")
        told = [t("review.of", who=who)]
        if summary.apartment:
            told.append(t("review.to_apartment", apartment=shown(summary.apartment)))
        return f"{', '.join(told)}: {t.of('outcome', self._read.outcome or 'running').lower()}"

    def _description(self) -> str:
        sentences = " ".join(sentence(rule, self._t) for rule in self._read.rules)
        return f"{self._t('review.desc_lanes')} {sentences}"

    def _draw_title(self) -> None:
        started = datetime.fromisoformat(self._read.started_at)
        length = self._t.duration(self._read.length_ms / 1000)
        about = [self._t.moment(started, self._zone), self._t("review.length", length=length)]
        if self._read.tested_by is not None:
            about.append(self._t("review.test"))
        self._text("title", 14, self._y + 14, self._title())
        self._text("subtitle", 14, self._y + 32, " · ".join(about))
        self._y += 46

    def _draw_time(self) -> None:
        step = next((s for s in STEPS_S if s * 1000 * self._plot / self._length >= TICK_PX), STEPS_S[-1])
        for second in range(0, int(self._length / 1000) + 1, step):
            x = self._x(second * 1000)
            self._ticks.append(x)
            self._text("tick", x + 3, self._y + 13, self._t.duration(second))
        self._y += 20

    def _draw_stages(self) -> None:
        for number, stage in enumerate(self._read.stages[:DRAWN]):
            x = self._x(stage.start_ms)
            width = self._x(self._until(stage)) - x
            name = self._t(f"review.stage.{stage.name}")
            self._begin(f"stage-{stage.name}", stage.start_ms, stage.seq, name)
            gate = " gate" if stage.name == "gate" else ""
            self._rect(f"stage{' odd' if number % 2 else ''}{gate}", x, self._y, max(width, 2.0), 20)
            self._fitting("dim", x + 5, self._y + 14, name, width - 8)
            self._end()
        for moment in self._read.moments[:DRAWN]:
            # Who hung up is called by their name in the story, which knows it.
            detail = "" if moment.kind == "visit.hung_up" else shown(moment.detail)
            title = ": ".join(filter(None, (self._t.of("review.kind", moment.kind), detail)))
            self._begin("moment-at", moment.at_ms, moment.seq, title)
            x, y = self._x(moment.at_ms), self._y + 24
            self._path("moment", f"M{_n(x)} {_n(y)}l-3.5 5h7z")
            self._end()
        self._y += 34

    def _until(self, stretch: Stretch) -> float:
        return stretch.end_ms if stretch.end_ms is not None else self._length

    # ---- a leg -------------------------------------------------------------------------------------------

    def _draw_leg(self, role: Role) -> None:
        read = self._read
        lanes = [lane for lane in read.lanes if lane.role == role][:DRAWN]
        top = self._y
        middle = self._middle[role] = top + WORDS + HALF
        self._name(f"label {role} who", middle - 4, self._t(f"review.lane.{role}"))
        self._name("dim", middle + 13, self._t("review.speaker.agent"))
        self._line("middle", LEFT, middle, LEFT + self._plot, middle)
        for lane in lanes:
            x = self._x(lane.start_ms)
            end = self._x(lane.end_ms if lane.end_ms is not None else self._length)
            title = self._t("review.event.connected", who=self._t(f"review.lane.{role}"))
            self._begin(role, lane.start_ms, lane.seq, title)
            self._rect("band", x, top, end - x, 2 * (WORDS + HALF), 6)
            if lane.end_ms is None:
                self._rect("still", x, top, end - x, 2 * (WORDS + HALF), 6)
            self._line("middle", x, middle, end, middle)
            self._end()
        if role == "resident":
            self._draw_dials(middle)
        for span in [span for span in read.spans if span.role == role][:DRAWN]:
            self._draw_span(span, top, middle)
        for lane in lanes:
            if lane.leg in self._waves:
                wave = self._waves[lane.leg]
                self._path(f"wave {role}", self._wave(wave.caller, middle - 1, -1))
                self._path("wave agent", self._wave(wave.ours, middle + 1, 1))
        self._draw_marks(role, top, middle)
        self._y = top + 2 * (WORDS + HALF) + 4
        self._draw_calls([call for call in read.calls if call.role == role][:DRAWN])
        self._y += 10

    def _wave(self, columns: Columns, middle: float, way: int) -> str:
        """One bar a column, as a path; a soft voice must be seen beside a loud one."""
        step = self._plot / max(len(columns), 1)
        parts = []
        for number in columns.nonzero()[0].tolist():
            high = (HALF - 3) * (int(columns[number]) / self._loudest) ** 0.6
            if high >= 0.7:
                x = LEFT + (number + 0.5) * step
                parts.append(f"M{_n(x)} {_n(middle)}v{_n(way * high)}")
        return "".join(parts)

    def _draw_span(self, span: Span, top: float, middle: float) -> None:
        x, end = self._x(span.start_ms), self._x(span.end_ms)
        width = max(end - x, 2.0)
        caller = span.speaker == "caller"
        who = span.role if caller else "agent"
        title = f"{span_name(span, self._t)}: “{shown(span.text)}”"
        self._begin(f"{who}{' evidence' if span.evidence else ''}", span.start_ms, span.seq, title)
        if caller:
            self._rect("span", x, top + 1, width, WORDS + HALF - 2, 4)
            if span.evidence:
                self._draw_evidence_words(span, x, end, top + 13)
            else:
                self._fitting("words", x + 4, top + 13, span.text, width - 5)
        else:
            self._rect("span", x, middle + 1, width, WORDS + HALF - 2, 4)
            self._fitting("words", x + 4, middle + HALF + 12, span.text, width - 5)
        self._end()

    def _draw_evidence_words(self, span: Span, x: float, end: float, y: float) -> None:
        """The words that the decision rests on, longer than their sound where need be."""
        text = shown(span.text)
        text = text if len(text) <= EVIDENCE_LETTERS else f"{text[:EVIDENCE_LETTERS]}…"
        if x + 4 + len(text) * EVIDENCE_LETTER <= LEFT + self._plot + RIGHT:
            self._text("words", x + 4, y, text)
        else:
            self._text("words", end - 4, y, text, end=True)

    def _draw_dials(self, middle: float) -> None:
        for dial in self._read.dials[:DRAWN]:
            x = self._x(dial.at_ms)
            end = self._x(dial.end_ms if dial.end_ms is not None else self._length)
            attempt = self._t("review.dial.attempt", number=dial.number or "?")
            title = self._t("review.event.dial", attempt=attempt, outcome=dial_words(dial, self._t))
            self._begin("resident", dial.at_ms, dial.seq, title)
            self._rect("ring", x, middle - 14, max(end - x, 3.0), 28, 6)
            self._draw_dial_words(dial, x, max(end - x, 3.0), middle)
            self._end()

    def _draw_dial_words(self, dial: Dial, x: float, width: float, middle: float) -> None:
        """The outcome: within the ring where there is room, else before it: after it the leg begins."""
        words = dial_words(dial, self._t)
        kind = "words" if dial.outcome in (None, "answered") else "warn"
        if len(words) * LETTER + 8 <= width:
            self._text(kind, x + 5, middle + 4, words)
        else:
            self._text(kind, x - 5, middle + 4, words, end=True)

    def _draw_marks(self, role: Role, top: float, middle: float) -> None:
        t, read = self._t, self._read
        for stretch in [one for one in read.lost if self._role_of(one.leg) == role][:DRAWN]:
            x = self._x(stretch.start_ms)
            self._begin("lost-at", stretch.start_ms, stretch.seq, t("review.event.lost"))
            self._rect("lost", x, top, max(self._x(self._until(stretch)) - x, 3.0), 2 * (WORDS + HALF), 3)
            self._end()
        for barge_in in [one for one in read.barge_ins if one.role == role][:DRAWN]:
            told = [t("review.event.barge_in")]
            if barge_in.speech_to_silence_ms is not None:
                told.append(t("review.event.silence", ms=t.number(barge_in.speech_to_silence_ms)))
            self._begin("barge-at", barge_in.at_ms, barge_in.seq, ", ".join(told))
            x = self._x(barge_in.at_ms)
            self._path("barge", f"M{_n(x + 3)} {_n(middle - 15)}l-6 16h7l-6 16")
            self._end()
        for pause in [one for one in read.pauses if one.role == role][:DRAWN]:
            self._draw_pause(pause, middle)
        if role == "resident":
            for one in [one for one in read.evidence if one.key is not None][:DRAWN]:
                self._draw_key(one, middle)

    def _draw_pause(self, pause: Pause, middle: float) -> None:
        title = self._t("review.event.pause", ms=self._t.number(pause.ms))
        self._begin("pause-at", pause.at_ms, pause.seq, title)
        x = self._x(pause.at_ms)
        self._line("pause", x, middle + 6, x, middle + 20)
        self._line("pause", x + 4, middle + 6, x + 4, middle + 20)
        self._end()

    def _draw_key(self, one: Evidence, middle: float) -> None:
        self._begin("evidence", one.at_ms, one.seq, evidence_words(one, self._t))
        x, y = self._x(one.at_ms), middle - 20
        self._rect("key", x - 9, y - 9, 18, 18, 5)
        self._text("key-digit", x, y + 4, one.key or "")
        self._end()

    def _role_of(self, leg: str | None) -> Role | None:
        return next((lane.role for lane in self._read.lanes if lane.leg == leg), None)

    def _draw_calls(self, calls: Sequence[Call]) -> None:
        """What was asked of the tools, each on the first row that has room; without any, only its mark."""
        free = [LEFT] * TOOL_ROWS
        used = 0
        for call in calls:
            x, name = self._x(call.at_ms), tool_name(call, self._t)
            row = next((n for n, until in enumerate(free) if until <= x), None)
            y = self._y + (row or 0) * TOOL + 8
            bad = call.status in FAILED
            title = f"{name}: {call.name}({as_json(call.arguments)})"
            if call.end_ms is not None:
                title += f" → {as_json(call.result)}"
            self._begin("call", call.at_ms, call.seq, shown(title))
            width = max(self._x(call.end_ms) - x if call.end_ms is not None else 0.0, 5.0)
            self._rect("bad" if bad else "tool", x, y - 2.5, width, 5, 2)
            if row is not None:
                self._text("bad" if bad else "tool", x + width + 4, y + 3.5, name)
                free[row] = x + width + 4 + len(name) * LETTER + 10
                used = max(used, row + 1)
            self._end()
        self._y += max(used, 1) * TOOL

    def _draw_together(self) -> None:
        """The two hear each other: over both legs."""
        top = self._middle["visitor"] - HALF
        height = self._middle["resident"] + HALF - top
        for stretch in self._read.connected[:DRAWN]:
            x = self._x(stretch.start_ms)
            width = max(self._x(self._until(stretch)) - x, 3.0)
            words = self._t("review.event.parties")
            self._begin("together-at", stretch.start_ms, stretch.seq, words)
            self._rect("together", x, top, width, height, 6)
            self._fitting("good", x + 6, top + 14, words, width - 8)
            self._end()

    # ---- the decision and the gate -----------------------------------------------------------------------

    def _draw_decision(self) -> None:
        read, t = self._read, self._t
        y = self._y + 4
        self._name("label", y + 31, t("review.lane.decision"))
        for briefing in read.briefings[:DRAWN]:
            self._begin("brief-at", briefing.at_ms, briefing.seq, t("review.event.briefing"))
            x = self._x(briefing.at_ms)
            self._line("brief", x, self._middle["resident"] + 4, x, y + 10)
            self._path("brief", f"M{_n(x)} {_n(y + 4)}l-4 4l4 4l4 -4z")
            self._beside("dim", x, y + 12, t("review.event.briefed"))
            self._end()
        decision = read.decision
        if decision is None:
            words = t("review.none_yet" if read.running else "review.no_decision")
            self._text("dim", LEFT, y + 31, words)
        else:
            x = self._x(decision.at_ms)
            counted = [one for one in read.evidence if one.seq in decision.evidence]
            self._draw_links(counted, x, y + 27)
            good = decision.decision == "authorized"
            word = t.of("review.decision", shown(decision.decision))
            title = t("review.event.decision", decision=word)
            self._begin("decision", decision.at_ms, decision.seq, title)
            self._path("good" if good else "bad", f"M{_n(x)} {_n(y + 18)}l9 9l-9 9l-9 -9z")
            self._end()
            told = [word] + ([gate_words(read.gate, t)] if read.gate is not None else [])
            opened = good and (read.gate is None or read.gate.opened is True)
            self._draw_verdict(f"strong {'good' if opened else 'bad'}", x, y, " → ".join(told))
        self._y += 56

    def _draw_verdict(self, kind: str, x: float, y: float, text: str) -> None:
        """Beside the decision, or below it: from the left comes the line from the words."""
        if x + 14 + len(text) * EVIDENCE_LETTER <= LEFT + self._plot + RIGHT:
            self._text(kind, x + 14, y + 31, text)
        else:
            self._text(kind, min(x + 9, LEFT + self._plot), y + 50, text, end=True)

    def _draw_links(self, counted: Iterable[Evidence], x: float, y: float) -> None:
        """From the words, or the key, to the decision."""
        spans = {span.seq: span for span in self._read.spans}
        for one in counted:
            span = spans.get(one.turn) if one.turn is not None else None
            at = (span.start_ms + span.end_ms) / 2 if span is not None else one.at_ms
            from_x, from_y = self._x(at), self._middle["resident"] + (2 if one.key is None else -10)
            self._path(
                "link",
                f"M{_n(from_x)} {_n(from_y)}C{_n(from_x)} {_n(y)} {_n(from_x)} {_n(y)} {_n(x - 12)} {_n(y)}",
            )

    def _beside(self, kind: str, x: float, y: float, text: str) -> None:
        """A text before a mark, or behind it where there is no room before it."""
        if x - len(text) * LETTER - 14 > LEFT:
            self._text(kind, x - 14, y, text, end=True)
        else:
            self._text(kind, x + 14, y, text)

    def _draw_cost(self) -> None:
        costs = self._read.costs[:DRAWN]
        if not costs:
            return
        y = self._y
        self._name("dim", y + 14, self._t("review.cost"))
        values = [_value(cost.amount) for cost in costs]
        most = max(values)
        steps = [f"M{_n(LEFT)} {_n(y + 16)}"]
        for cost, value in zip(costs, values, strict=True):
            high = 14 * value / most if most else 0.0
            steps.append(f"H{_n(self._x(cost.at_ms))}V{_n(y + 16 - high)}")
        self._path("cost", "".join(steps))
        last = costs[-1]
        self._begin("cost-at", last.at_ms, last.seq, amount(last, self._t))
        self._text("dim", self._x(last.at_ms) - 6, y + 12, amount(last, self._t), end=True)
        self._end()
        self._y += 20


def _value(amount: str) -> float:
    try:
        return max(0.0, float(Decimal(amount)))
    except (InvalidOperation, OverflowError, ValueError):
        return 0.0
