"""The caller's turns in OpenAI's protocol where our VAD says where they begin and end. No I/O.

Between turns nothing is sent. A turn is ``clear``, what came in the half second before it, its audio, and
``commit``; the response to it is asked for behind the commit, on the same connection, and only once the one
before is done: that is the sequencer's. The server names a turn when it is committed, and we when it begins.

A turn that lasts too long is committed before its end, and what is still said is a turn of its own that
nobody hears: heard without its beginning, the end of "não libera" would be a consent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from providers import openai_messages as wire
from providers.base import AudioSent, Event, SpeechStarted, SpeechStopped, TranscriptFailed
from providers.formats import AudioFormat
from providers.pre_roll import PreRoll

MIN_COMMIT_MS: Final = 100
"""The server refuses a turn that is shorter."""
OPENING_MS: Final = 1000
"""So much of what is said while the session opens is kept for it."""


@dataclass(slots=True)
class _Turn:
    name: str
    sent: int = 0
    """Bytes of PCM."""
    rest_of: Literal["ended", "lost", None] = None
    """What came of the turn whose unheard rest this is; None: it is heard."""


class CallerTurns:
    """See the module. ``emit`` gets events, ``send`` messages; ``event_id`` names one."""

    def __init__(
        self,
        form: AudioFormat,
        emit: Callable[[Event], None],
        send: Callable[[dict[str, Any]], None],
        event_id: Callable[[str], str],
    ) -> None:
        self._form = form
        self._emit = emit
        self._send = send
        self._event_id = event_id
        self._pre_roll = PreRoll(form.pcm_bytes_per_ms)
        self._open = False
        self._speaking = False
        self._turn: _Turn | None = None
        self._count = 0
        self._committing: deque[tuple[str, str]] = deque()
        """(event, turn) of commits that the server has not answered."""
        self._names: dict[str, str] = {}
        """The server's name of a turn → ours."""

    @property
    def sent(self) -> AudioSent:
        """See :class:`providers.base.SparesSilence`."""
        return self._pre_roll.share

    def opened(self, form: AudioFormat) -> bool:
        """The session is up, and takes audio in this format. True: a turn began, of who speaks already."""
        self._open = True
        if form is not self._form:
            self._form = form
            self._pre_roll.forget(form.pcm_bytes_per_ms)
        return self._speaking and self.begin()

    def hear(self, pcm: bytes) -> None:
        """The caller's audio, in whole samples: part of a turn, or kept in case one begins."""
        if self._turn is not None:
            if self._turn.rest_of is None:
                self._append(pcm)
        elif self._speaking:
            self._pre_roll.keep(pcm, OPENING_MS)
        else:
            self._pre_roll.keep(pcm)

    def begin(self) -> bool:
        """The caller speaks. True: a turn began by it."""
        self._speaking = True
        if not self._open or self._turn is not None:
            return False
        self._turn = self._new_turn()
        self._clear()
        if pre_roll := b"".join(self._pre_roll.take()):
            self._append(pre_roll)
        return True

    def end(self) -> Literal["ended", "lost", None]:
        """The caller's turn is over. "lost": too little came of it for the server; None: there was none."""
        self._speaking = False
        turn, self._turn = self._turn, None
        if turn is None:
            return None
        self._emit(SpeechStopped(turn.name))
        if turn.rest_of is not None:
            self._emit(TranscriptFailed(turn.name, "the turn was too long"))
            return turn.rest_of
        if turn.sent < MIN_COMMIT_MS * self._form.pcm_bytes_per_ms:
            self._clear()
            self._emit(TranscriptFailed(turn.name, "too short"))
            return "lost"
        event = self._event_id("commit")
        self._committing.append((event, turn.name))
        self._send({"type": "input_audio_buffer.commit", "event_id": event})
        return "ended"

    def cut(self) -> None:
        """The turn lasts too long: what was said so far is all that is heard of it."""
        if self._turn is None or self._turn.rest_of is not None:
            return
        came = self.end()
        self._speaking = True
        self._turn = self._new_turn()
        self._turn.rest_of = came

    def committed(self, item: str) -> None:
        """The server took the oldest turn that it had not answered, and calls it so."""
        if item not in self._names and self._committing:
            self._names[item] = self._committing.popleft()[1]

    def refused(self, event: str, reason: str) -> None:
        """The server would not take a turn. Another event's refusal changes nothing here."""
        for waiting in self._committing:
            if waiting[0] == event:
                self._committing.remove(waiting)
                self._emit(TranscriptFailed(waiting[1], reason))
                return

    def name(self, item: str) -> str:
        """Our name of a turn; its words may overtake the word that it was taken."""
        self.committed(item)
        return self._names.get(item, item)

    def _new_turn(self) -> _Turn:
        self._count += 1
        turn = _Turn(f"turn_{self._count}")
        self._emit(SpeechStarted(turn.name))
        return turn

    def _append(self, pcm: bytes) -> None:
        assert self._turn is not None
        self._turn.sent += len(pcm)
        self._pre_roll.sent(pcm)
        self._send(wire.audio_append_message(self._form.encode(pcm)))

    def _clear(self) -> None:
        self._send({"type": "input_audio_buffer.clear", "event_id": self._event_id("clear")})


__all__ = ["MIN_COMMIT_MS", "OPENING_MS", "CallerTurns"]
