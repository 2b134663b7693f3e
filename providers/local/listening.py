"""The seam between a session and its speech recognition: turns in, as they go on, and words out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from providers.local.recognition import Recognised, RecognitionError
from providers.local.stage import Bill, StageError
from providers.local.turns import RATE

DEFAULT_LANGUAGE: Final = "pt"

Words = asyncio.Future[Recognised | RecognitionError | StageError]
"""What a turn said; a failure is a result, so that nobody need await it. :class:`RecognitionError`: its words
are lost. :class:`StageError`: so are those of all that follow."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a session tells its recognition.

    Attributes:
        language: ISO 639-1.
        prompt: words and phrases that are likely.
    """

    language: str = DEFAULT_LANGUAGE
    prompt: str = ""


class TurnListener(Protocol):
    """One session's recognition. All sound is s16 mono at 24 kHz. No call waits."""

    def configure(self, expected: Expected) -> None:
        """From the next turn on."""

    def began(self) -> None:
        """The caller begins a turn; one that had begun is no more."""

    def more(self, pcm: bytes) -> None:
        """What came of the running turn since the last call, all of it from its beginning."""

    def paused(self, turn: bytes) -> None:
        """The turn may be over; ``turn`` is what it would be."""

    def resumed(self) -> None:
        """It was not."""

    def ended(self, turn: bytes) -> Words:
        """The turn is over now; its words are looked for even where nothing was told before."""

    def close(self) -> None:
        """Nobody listens any more."""


Fail = Callable[[StageError], None]
"""Called where a listener fails between turns."""


class Hears(Protocol):
    """What all sessions' listeners share: a model, or an account."""

    def listener(self, tasks: asyncio.TaskGroup, fail: Fail, bill: Bill) -> TurnListener:
        """A session's own; ``tasks`` owns what runs for it, ``bill`` is told what is to be paid."""


class TurnRecogniser(Protocol):
    """Recognition that is given whole turns, one after the other, for all sessions."""

    @property
    def busy(self) -> bool:
        """A turn is being recognised, or waits to be."""

    async def recognise(self, pcm: bytes, rate: int, language: str, prompt: str) -> Recognised:
        """See :class:`providers.local.recognition.Recogniser`."""


class WholeTurns:
    """:class:`Hears` by a recogniser in this process."""

    def __init__(self, recogniser: TurnRecogniser) -> None:
        self._recogniser = recogniser

    def listener(self, tasks: asyncio.TaskGroup, fail: Fail, bill: Bill) -> TurnListener:
        """See :class:`Hears`. It costs nothing."""
        return _WholeTurnListener(self._recogniser, tasks)


class _WholeTurnListener:
    def __init__(self, recogniser: TurnRecogniser, tasks: asyncio.TaskGroup) -> None:
        self._recogniser = recogniser
        self._tasks = tasks
        self._expected = Expected()
        self._early: Words | None = None
        """The recognition of a turn that may be over."""

    def configure(self, expected: Expected) -> None:
        self._expected = expected

    def began(self) -> None:
        self._early = None

    def more(self, pcm: bytes) -> None:
        """It is given whole turns."""

    def paused(self, turn: bytes) -> None:
        """Begin before the turn is known to be over, where nobody else waits to be recognised.

        If the caller goes on the work was for nothing, and whatever it finds is forgotten.
        """
        if not self._recogniser.busy:
            self._early = self._begin(turn)

    def resumed(self) -> None:
        self._early = None

    def ended(self, turn: bytes) -> Words:
        early, self._early = self._early, None
        return early if early is not None else self._begin(turn)

    def _begin(self, turn: bytes) -> Words:
        return self._tasks.create_task(self._recognise(turn, self._expected), name="words")

    async def _recognise(self, turn: bytes, expected: Expected) -> Recognised | RecognitionError | StageError:
        try:
            return await self._recogniser.recognise(turn, RATE, expected.language, expected.prompt)
        except RecognitionError as error:
            return error

    def close(self) -> None:
        """What runs ends with its tasks."""
