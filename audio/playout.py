"""The downlink queue of a leg, and the ledger: what has really been played of each model item, in samples.

Rules:

1. Items play strictly in the order in which they were begun, at 8 kHz, one frame of 20 ms at a time.
2. An item is *finished* once it ended and its last sample was given out. Each is reported once.
3. An item that runs dry before it ended is waited for: comfort noise goes out (``audio/comfort.py``), counted
   as an under-run and never as played, and no later item overtakes it. Who knows that no more will come says
   so (``end``, ``abandon``).
4. The last, partial frame of an item is filled with zeros; only its true samples count as played.
5. What was flushed is never heard again: audio that arrives late for such an item is dropped.
6. Where no item has anything to say the bed is heard (ring tone, hold sound), or else silence. It gives way
   to who speaks to us (``hush_bed``), and waits for our answer.
7. For every item, always: received = played + queued + dropped by a flush.
8. Paused, the queue stands still and silence goes out; what comes meanwhile queues. A pause ends by
   ``resume``, or by any flush. What is protected can't be paused. What the PBX gives back unheard is queued
   again, and counts as played once it was given out again.

"Played" means given out by :meth:`Playout.next_frame`; the endpoint below sends a frame at once.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from audio.comfort import begun_softly, comfort, faded_in
from audio.frames import FRAME_BYTES, FRAME_SAMPLES, SAMPLE_BYTES, SILENCE, samples_of, saturated

REMEMBERED_ITEMS: Final = 256
"""How many closed items (finished, flushed, abandoned) the ledger remembers."""
BED_BACK_FRAMES: Final = 75
"""How long after somebody spoke the bed comes back, where we say nothing to it: 1.5 s."""
KEPT_FRAMES: Final = 50
"""How much of what was given out can be taken back: 1 s, as much as a PBX that plays files is let hold."""

_FADE_IN: Final = np.linspace(0.0, 1.0, FRAME_SAMPLES, endpoint=False)


@dataclass(frozen=True, slots=True)
class ItemLedger:
    """What became of one item. Counts are samples at 8 kHz."""

    item: str
    received: int
    """Taken into the queue; audio that came after a flush, an end or an abandonment is not in it."""
    played: int
    ended: bool
    """The model said that this was all of it."""
    flushed: bool
    """A barge-in dropped what was left of it (``received - played``)."""
    protected: bool
    abandoned: bool = False
    """It was given up: what came of it is played, but it can never be complete."""

    @property
    def complete(self) -> bool:
        """It was played to its very end, and there was something to hear. False whenever in doubt."""
        return self.ended and not self.flushed and 0 < self.received == self.played


@dataclass(frozen=True, slots=True)
class Played:
    """An item that ended and was given out to its last sample. ``samples`` is 0 where it never had audio."""

    item: str
    samples: int


@dataclass(frozen=True, slots=True)
class Flushed:
    """What a barge-in dropped.

    Attributes:
        item: the first item that was dropped: the one that was being played, if it was not protected.
        played_samples: what was given out of it (0: nothing of what was dropped had been heard at all).
        received_samples: what had been received of it.
        dropped_items: the later items that were dropped, none of which had been heard.
    """

    item: str
    played_samples: int
    received_samples: int
    dropped_items: tuple[str, ...]


@dataclass(slots=True)
class _Item:
    """An item's account; ``chunks`` and ``offset`` (bytes into the first chunk) are what is still queued."""

    name: str
    protected: bool
    received: int = 0
    played: int = 0
    ended: bool = False
    abandoned: bool = False
    flushed: bool = False
    chunks: deque[bytes] = field(default_factory=deque)
    offset: int = 0

    @property
    def queued(self) -> int:
        return 0 if self.flushed else self.received - self.played

    @property
    def open(self) -> bool:
        """More audio may come."""
        return not (self.ended or self.abandoned or self.flushed)

    def take(self) -> bytes:
        """The next frame's worth of queued audio, or the last, shorter piece; counted as played."""
        wanted = min(FRAME_BYTES, self.queued * SAMPLE_BYTES)
        first = self.chunks[0]
        piece = first[self.offset : self.offset + wanted]
        self.offset += len(piece)
        while self.offset >= len(self.chunks[0]):
            self.chunks.popleft()
            self.offset = 0
            if not self.chunks or len(piece) == wanted:
                break
            more = self.chunks[0][: wanted - len(piece)]
            self.offset = len(more)
            piece += more
        self.played += len(piece) // SAMPLE_BYTES
        return piece

    def untake(self, pcm: bytes) -> None:
        """What was taken last was not played after all: it comes first again."""
        if self.offset:
            self.chunks[0] = self.chunks[0][self.offset :]
            self.offset = 0
        self.chunks.appendleft(pcm)
        self.played -= len(pcm) // SAMPLE_BYTES

    def ledger(self) -> ItemLedger:
        return ItemLedger(
            self.name, self.received, self.played, self.ended, self.flushed, self.protected, self.abandoned
        )


class _Bed:
    """A loop of PCM that is heard where no item plays."""

    def __init__(self, pcm: bytes) -> None:
        # Never copied, however long it is: a short one is repeated until it holds a frame.
        self._loop = pcm if len(pcm) >= FRAME_BYTES else pcm * -(-FRAME_BYTES // len(pcm))
        self._at = 0

    def frame(self) -> bytes:
        piece = self._loop[self._at : self._at + FRAME_BYTES]
        self._at += len(piece)
        if len(piece) < FRAME_BYTES:
            self._at = FRAME_BYTES - len(piece)
            piece += self._loop[: self._at]
        return piece


class Playout:
    """The queue of one leg's downlink. Not thread-safe; does no I/O and reads no clock."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Item] = {}
        self._queue: deque[_Item] = deque()
        self._closed: deque[str] = deque()
        self._finished: list[Played] = []
        self._bed: _Bed | None = None
        self._bed_interrupted = False
        self._bed_hushed = False
        """Somebody speaks to us."""
        self._bed_waits = 0
        """Frames until the bed comes back after that."""
        self.bed_heard = False
        """The last frame given out was the bed's."""
        self._starving = False
        self._broken_off = False
        """The item being played was interrupted by a gap or a pause: it comes back softly."""
        self._pending = 0
        self._given: deque[bytes] = deque(maxlen=KEPT_FRAMES)
        """The last pieces given out of the item that is being played."""
        self.paused = False
        """Silence goes out, and nothing of the queue."""
        self.audible = False
        """The last frame given out carried an item's audio."""
        self.underruns = 0
        """How often an item ran dry in its middle."""
        self.underrun_frames = 0
        """How many frames of noise that cost."""
        self.late_samples = 0
        """Audio dropped because its item had been flushed, ended or abandoned before it came."""

    # -- what the model says ---------------------------------------------------------------------------

    def begin(self, item: str, *, protected: bool = False) -> None:
        """Queue ``item`` behind those begun before it. Begun again, an open item can only become protected.

        A protected item survives a barge-in (:meth:`flush`); order is kept.
        """
        account = self._accounts.get(item)
        if account is None:
            account = self._accounts[item] = _Item(item, protected)
            self._queue.append(account)
        elif protected and not account.flushed:
            account.protected = True

    def push(self, item: str, pcm: bytes) -> None:
        """Audio of ``item``, any number of samples; begins it where it was not begun.

        Dropped, and counted in :attr:`late_samples`, where the item was flushed, ended or abandoned.

        Raises:
            ValueError: ``pcm`` holds half a sample. Nothing of it is taken.
        """
        if len(pcm) % SAMPLE_BYTES:
            raise ValueError(f"{len(pcm)} bytes are not a whole number of 16-bit samples")
        self.begin(item)
        account = self._accounts[item]
        samples = len(pcm) // SAMPLE_BYTES
        if not account.open:
            self.late_samples += samples
        elif samples:
            account.chunks.append(pcm)
            account.received += samples
            self._pending += samples

    def end(self, item: str) -> None:
        """No more audio comes for ``item``. One that never had any is finished as soon as its turn comes."""
        self.begin(item)
        account = self._accounts[item]
        if account.open:
            account.ended = True
            self._settle()

    def abandon(self, item: str) -> None:
        """Nobody will send the rest of ``item``: play what there is of it and go on; it is never finished."""
        self.begin(item)
        account = self._accounts[item]
        if account.open:
            account.abandoned = True
            self._settle()

    # -- what the caller hears -------------------------------------------------------------------------

    def next_frame(self) -> bytes:
        """The next 20 ms, always :data:`FRAME_BYTES` bytes: item audio, else the bed, else silence."""
        self.bed_heard = False
        if self.paused:
            self.audible = False
            return SILENCE
        head = self._queue[0] if self._queue else None
        if head is not None and (head.queued >= FRAME_SAMPLES or (head.queued and not head.open)):
            return self._item_frame(head)
        self.audible = False
        if head is not None and head.played:
            # Mid-way: hold music must not burst into a sentence, and less than a frame is kept back.
            return self._gap_frame()
        return self._bed_frame()

    def set_bed(self, pcm: bytes | None) -> None:
        """Loop ``pcm`` wherever no item plays, at its own level, from its start; None or nothing: silence.

        It stands still while an item plays, and comes back softly.

        Raises:
            ValueError: ``pcm`` holds half a sample.
        """
        if pcm is not None and len(pcm) % SAMPLE_BYTES:
            raise ValueError(f"{len(pcm)} bytes are not a whole number of 16-bit samples")
        self._bed = _Bed(pcm) if pcm else None
        self._bed_interrupted = False

    def hush_bed(self, on: bool) -> None:
        """Whether somebody speaks to us: the bed stands still, and comes back softly after our answer.

        Without one it does after :data:`BED_BACK_FRAMES`.
        """
        if self._bed_hushed and not on:
            self._bed_waits = BED_BACK_FRAMES
        self._bed_hushed = on

    # -- pause -----------------------------------------------------------------------------------------

    def pause(self) -> bool:
        """Fall silent for a moment, where an item is being played that may be; says whether that is so."""
        head = self._queue[0] if self._queue else None
        self.paused = head is not None and head.played > 0 and not head.protected
        return self.paused

    def resume(self) -> None:
        """Go on where the pause began."""
        self._broken_off |= self.paused
        self.paused = False

    def take_back(self, samples: int) -> int:
        """The last ``samples`` given out of the item being played will not be heard: queue them again.

        Returns:
            How many that were: no more than were played of it, nor than :data:`KEPT_FRAMES` hold.
        """
        if samples <= 0 or not self._queue or not self._queue[0].played:
            return 0
        back = b"".join(self._given)[-samples * SAMPLE_BYTES :]
        self._given.clear()
        if back:
            self._queue[0].untake(back)
            self._pending += len(back) // SAMPLE_BYTES
        return len(back) // SAMPLE_BYTES

    # -- barge-in --------------------------------------------------------------------------------------

    def flush(self, *, force: bool = False) -> Flushed | None:
        """Drop every item that is not protected (with ``force``: all). None: there was none to drop.

        A pause is over with it.
        """
        self.paused = False
        dropped = [account for account in self._queue if force or not account.protected]
        if not dropped:
            return None
        if dropped[0] is self._queue[0]:
            self._given.clear()
            self._broken_off = False
        for account in dropped:
            self._pending -= account.queued
            account.flushed = True
            account.chunks.clear()
            self._close(account)
        self._queue = deque(account for account in self._queue if not account.flushed)
        self._starving = False
        self._settle()
        first = dropped[0]
        later = tuple(account.name for account in dropped[1:])
        return Flushed(first.name, first.played, first.received, later)

    # -- the ledger ------------------------------------------------------------------------------------

    def take_finished(self) -> list[Played]:
        """The items that were finished since this was last asked, in order."""
        finished, self._finished = self._finished, []
        return finished

    def ledger(self, item: str) -> ItemLedger:
        """The account of ``item``; of one that is not known (any more), that nothing of it was played."""
        account = self._accounts.get(item)
        return account.ledger() if account is not None else ItemLedger(item, 0, 0, False, False, False)

    def over(self, item: str) -> bool:
        """Nothing more of ``item`` will be heard: all there will be of it was played, or it was flushed."""
        account = self._accounts.get(item)
        return account is not None and not account.open and not account.queued

    @property
    def pending_samples(self) -> int:
        """Queued and not yet played, of all items."""
        return self._pending

    @property
    def playing(self) -> str | None:
        """The item of which a part was played and more is to come."""
        return self._queue[0].name if self._queue and self._queue[0].played else None

    # -- inside ----------------------------------------------------------------------------------------

    def _item_frame(self, head: _Item) -> bytes:
        piece = head.take()
        self._given.append(piece)
        self._pending -= len(piece) // SAMPLE_BYTES
        if self._broken_off:
            self._broken_off = False
            piece = faded_in(piece)
        self.audible = True
        self._bed_interrupted = True
        self._bed_waits = 0
        self._starving = False
        if not head.open:
            self._settle()
        return piece if len(piece) == FRAME_BYTES else piece + SILENCE[len(piece) :]

    def _gap_frame(self) -> bytes:
        frame = comfort(self.underrun_frames)
        self.underrun_frames += 1
        if not self._starving:
            self.underruns += 1
            self._starving = self._broken_off = True
            frame = begun_softly(self._given[-1] if self._given else b"", frame)
        return frame

    def _bed_frame(self) -> bytes:
        if self._bed_hushed or self._bed_waits:
            self._bed_waits = 0 if self._bed_hushed else self._bed_waits - 1
            self._bed_interrupted = True
            return SILENCE
        if self._bed is None:
            return SILENCE
        self.bed_heard = True
        frame = self._bed.frame()
        if self._bed_interrupted:
            self._bed_interrupted = False
            return saturated(samples_of(frame) * _FADE_IN)
        return frame

    def _settle(self) -> None:
        """Let go of every item at the head that has nothing left to play and nothing more to come."""
        while self._queue and not self._queue[0].open and not self._queue[0].queued:
            account = self._queue.popleft()
            self._given.clear()
            self._starving = self._broken_off = False
            if account.ended:
                self._finished.append(Played(account.name, account.played))
            self._close(account)

    def _close(self, account: _Item) -> None:
        self._closed.append(account.name)
        while len(self._closed) > REMEMBERED_ITEMS:
            del self._accounts[self._closed.popleft()]
