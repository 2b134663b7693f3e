"""Our sound as a row of short files, which the channel plays: for a module that plays nothing. Without I/O.

The leg's frames are gathered into segments, of which one plays and one waits, so that a barge-in drops
little and the ledger knows what was heard: FreeSWITCH tells when a file begins and ends. Up to a frame
passes between two files, so what waits grows while somebody talks on; then segments get longer, and silent
frames are left out until it has shrunk. What was given and not heard yet is `behind`: with files it is some
hundred milliseconds, and the leg counts a sentence as heard only after it.

``uuid_break`` with nothing to break is kept by the channel (CF_BREAK), and breaks the next file at its
first frame. So after a barge-in the first segment goes alone, and again where it was broken.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol

from bridge.endpoints.audio_stream_media import FRAME_S, SILENCE

FIRST_FRAMES = 8
"""Of speech in the first segment after a silence; what follows must be there before it ends, so …"""
CUSHION_FRAMES = 5
"""… so much silence goes before it."""
SEGMENT_FRAMES = 10
"""Of the others, at least …"""
LONGEST_FRAMES = 20
"""… and at most."""
BEHIND_FRAMES = 25.0
"""With more than so many given and not heard, silent frames are left out …"""
MOST_FRAMES = 50.0
"""… and with more than so many, spoken ones too: they would be heard a second late."""
TAIL_FRAMES = 10
"""After so many silent frames a say is over: what waits is given, and nothing more."""
BREAK_FRAMES = 3.0
"""Broken before so many of it were heard, a segment met a break that was not meant for it."""
LOST_S = 1.5
"""So long after its time the end of a segment is not awaited any more."""


class Sounds(Protocol):
    """Who has segments played. Neither waits."""

    def play(self, number: int, pcm: bytes) -> None:
        """Have a segment played behind those before it: 8 kHz, little-endian signed 16-bit mono."""

    def stop(self) -> None:
        """Have nothing more heard of the segments that were given."""

    def unheard(self, number: int) -> None:
        """Nobody told that a segment began, and nobody will."""


@dataclass(slots=True)
class _Segment:
    number: int
    pcm: bytes
    frames: int
    """Of the leg."""
    lead: int
    """Silent frames before them."""
    given: float
    began: float | None = None
    again: bool = False
    """It was given a second time."""

    def left(self, now: float) -> float:
        """Frames of the leg's in it that nobody has heard yet."""
        if self.began is None:
            return float(self.frames)
        elapsed = (now - self.began) / FRAME_S
        return min(float(self.frames), max(0.0, self.frames + self.lead - elapsed))

    def late(self, now: float) -> bool:
        """Nothing will be heard of it any more."""
        since = self.given + LOST_S if self.began is None else self.began
        return now > since + (self.frames + self.lead) * FRAME_S + LOST_S


class FilePlayer:
    """The :class:`~bridge.endpoints.websocket_connection.Player` of a channel that plays files.

    Times are seconds on any clock that only goes forward.
    """

    def __init__(self, sounds: Sounds) -> None:
        self.frames_sent = 0
        self.frames_dropped = 0
        self._sounds = sounds
        self._waiting: list[bytes] = []
        self._out: deque[_Segment] = deque()
        """Given, and not over."""
        self._number = 0
        self._now = 0.0
        self._talking = False
        self._silent = 0
        """Silent frames in a row."""
        self._careful = False
        """A break may be kept by the channel."""

    def held(self, now: float) -> float:
        """Frames of the leg's that nobody has heard yet."""
        return len(self._waiting) + sum(segment.left(now) for segment in self._out)

    def play(self, pcm: bytes, now: float) -> tuple[()]:
        """See :class:`~bridge.endpoints.websocket_connection.Player`."""
        self._now = now
        if pcm != SILENCE:
            self._silent = 0
            if self.held(now) >= MOST_FRAMES:
                self.frames_dropped += 1
            else:
                self._take(pcm)
        elif self._talking:
            self._silent += 1
            if self._silent >= TAIL_FRAMES:
                self._talking = False
                while self._waiting and self._waiting[-1] == SILENCE:
                    self._waiting.pop()
            elif self.held(now) < BEHIND_FRAMES:
                self._take(pcm)
        self._give(now)
        return ()

    def _take(self, pcm: bytes) -> None:
        self._talking = True
        self.frames_sent += 1
        self._waiting.append(pcm)

    def _give(self, now: float) -> None:
        """Have segments played, two at a time."""
        while self._out and self._out[0].late(now):
            segment = self._out.popleft()
            if segment.began is None:
                self.frames_dropped += segment.frames
                self._sounds.unheard(segment.number)
        while self._waiting and len(self._out) < (1 if self._careful else 2):
            enough = SEGMENT_FRAMES if self._out else FIRST_FRAMES
            if self._talking and len(self._waiting) < enough:
                return
            lead = 0 if self._out else CUSHION_FRAMES
            frames, self._waiting = self._waiting[:LONGEST_FRAMES], self._waiting[LONGEST_FRAMES:]
            pcm = b"".join([SILENCE] * lead + frames)
            self._send(_Segment(self._next(), pcm, len(frames), lead, now))

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _send(self, segment: _Segment) -> None:
        self._out.append(segment)
        self._sounds.play(segment.number, segment.pcm)

    def rest(self) -> tuple[()]:
        """No further frame comes: have all that waits played."""
        self._talking = False
        self._give(self._now)
        if self._waiting:  # behind two others: as one more
            pcm, frames = b"".join(self._waiting), len(self._waiting)
            self._waiting.clear()
            self._send(_Segment(self._next(), pcm, frames, 0, self._now))
        return ()

    def flush(self, now: float) -> tuple[tuple[()], float]:
        """See :class:`~bridge.endpoints.websocket_connection.Player`."""
        unheard = self.held(now)
        self._waiting.clear()
        self._talking = False
        if self._out:
            self._out.clear()
            self._careful = True
            self._sounds.stop()
        return (), unheard * FRAME_S

    # ---- What FreeSWITCH says --------------------------------------------------------------------------

    def started(self, number: int, now: float) -> None:
        """A segment's file began to play."""
        for segment in self._out:
            if segment.number == number:
                segment.began = now

    def ended(self, number: int, broken: bool, now: float) -> None:
        """A segment's file is over."""
        segment = next((one for one in self._out if one.number == number), None)
        if segment is None:  # flushed
            return
        while self._out.popleft() is not segment:
            pass
        played = 0.0 if segment.began is None else (now - segment.began) / FRAME_S
        if broken and played < BREAK_FRAMES and not segment.again:
            number = self._next()
            self._send(_Segment(number, segment.pcm, segment.frames, segment.lead, now, again=True))
            return
        self._careful = False
        self._give(now)

    def failed(self, number: int) -> bool:
        """A segment was not played, and won't be; whether it was still to be heard."""
        for segment in tuple(self._out):
            if segment.number == number:
                self._out.remove(segment)
                self.frames_dropped += segment.frames
                return True
        return False


__all__ = ["FilePlayer", "Sounds"]
