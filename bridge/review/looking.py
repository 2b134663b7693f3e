"""Looks a visit up and prepares what is shown of it. Files are read and pictures drawn in threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import tzinfo
from pathlib import Path
from typing import Final

from bridge.http.console.language import Language
from bridge.review.model import Timeline
from bridge.review.peaks import Peaks, PeaksCache
from bridge.review.picture import columns_for, picture
from bridge.review.sound import Track, tracks
from bridge.review.timeline import timeline
from storage.base import Storage, VisitView
from visits.audit import AuditRecord

MOST_RECORDS: Final = 20_000
"""So many records of a visit are looked at; the longest visits have a few thousand."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a person said of a visit."""

    verdict: str
    note: str
    by: str
    at: str


@dataclass(frozen=True, slots=True)
class Looked:
    """A visit, looked at."""

    view: VisitView
    read: Timeline
    tracks: tuple[Track, ...]
    missing: Mapping[str, str]
    """Why a leg can't be heard, by leg: not_recorded, missing, unreadable."""
    judgements: tuple[Judgement, ...]
    """The latest first."""


class Reviews:
    """Looks visits up."""

    def __init__(self, storage: Callable[[], Storage], recordings: Path) -> None:
        """
        Args:
            storage: where they are.
            recordings: the directory of all recordings.
        """
        self._storage = storage
        self._recordings = recordings
        self._peaks = PeaksCache()

    async def look(self, visit: str, sees: Callable[[str], bool]) -> Looked | None:
        """A visit; None where there is none, or where its tenant is none that `sees` lets see.

        Raises:
            StorageError: the database can't be asked.
        """
        storage = self._storage()
        view = await storage.visit(visit)
        if view is None or not sees(view.summary.tenant):
            return None
        records: list[AuditRecord] = []
        cut = False
        async for record in storage.audit(visit=visit):
            if len(records) >= MOST_RECORDS:
                cut = True
                break
            records.append(record)
        return await asyncio.to_thread(self._look, view, records, cut)

    def _look(self, view: VisitView, records: list[AuditRecord], cut: bool) -> Looked:
        read = replace(timeline(view, records), cut=cut)
        found, missing = tracks(self._recordings, view, read)
        said = [_judgement(record) for record in reversed(records) if record.kind == "visit.reviewed"]
        return Looked(view, read, tuple(found), missing, tuple(said))

    async def columns(self, track: Track, length_ms: float, width: int) -> Peaks:
        """How loud a leg is, in `width` columns from the visit's start to `length_ms`."""
        return await asyncio.to_thread(self._peaks.columns, track, length_ms, width)

    def draw(self, looked: Looked, t: Language, *, zoom: int, zone: tzinfo, alone: bool) -> str:
        """The visit's picture; reads its recordings: for a thread."""
        length, width = max(looked.read.length_ms, 1000.0), columns_for(zoom)
        waves = {track.leg: self._peaks.columns(track, length, width) for track in looked.tracks}
        return picture(looked.read, looked.view.summary, waves, t, zoom=zoom, zone=zone, alone=alone)


def _judgement(record: AuditRecord) -> Judgement:
    told = {name: record.data.get(name) for name in ("verdict", "note", "by")}
    texts = {name: value if isinstance(value, str) else "" for name, value in told.items()}
    return Judgement(**texts, at=record.at)
