"""In whatever order turns, pauses, answers and broken connections come: each turn gets its own words."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosedError

from providers.base import Usage
from providers.local.deepgram import Deepgram, DeepgramListener, DeepgramSettings, _Connection
from providers.local.listening import Expected, Words
from providers.local.recognition import Recognised
from providers.local.stage import StageError
from providers.local.turns import RATE

SENT_RATE = 16_000
LOUD = 1000
"""How much louder each next word of a test is: a word's level is its name."""


class Stream:
    """What a connection leads to: it hears levels, and answers when it is told to."""

    def __init__(self, connection: _Connection, listener: DeepgramListener) -> None:
        self.connection, self._listener = connection, listener
        self._sound = b""
        self._final = 0
        """Samples that are answered for."""
        self._asked: deque[int] = deque()
        self.transport = self

    def send_binary(self, sound: bytes) -> None:
        self._sound += sound

    def send_text(self, message: bytes) -> None:
        if b"Finalize" in message:
            self._asked.append(len(self._sound) // 2)

    def close(self) -> None:
        """The client has gone."""

    def answer(self) -> bool:
        """The oldest Finalize; False: there is none."""
        if not self._asked:
            return False
        until = self._asked.popleft()
        samples = np.frombuffer(self._sound, "<i2")[self._final : until].astype(np.int64)
        levels = np.round(samples / LOUD).astype(int)
        begins = [
            at
            for at in range(len(levels) - 40)
            if levels[at] and (at == 0 or levels[at - 1] != levels[at]) and len({*levels[at : at + 40]}) == 1
        ]
        words = [
            {
                "word": f"w{levels[at]}",
                "start": (self._final + at) / SENT_RATE,
                "end": (self._final + at + 40) / SENT_RATE,
                "confidence": 0.9,
            }
            for at in begins
        ]
        alternative = {
            "transcript": " ".join(str(w["word"]) for w in words),
            "confidence": 0.9,
            "words": words,
        }
        message = {
            "type": "Results",
            "start": self._final / SENT_RATE,
            "duration": (until - self._final) / SENT_RATE,
            "is_final": True,
            "channel": {"alternatives": [alternative]},
        }
        self._final = until
        self._listener.received(self.connection, orjson.dumps(message))
        return True


class Account(Deepgram):
    """Whose connections are streams of this test's."""

    def __init__(self) -> None:
        super().__init__(DeepgramSettings("http://127.0.0.1:1", "k", words_s=60.0))
        self.streams: list[Stream] = []

    async def connect(self, listener: Any, expected: Expected) -> None:
        await asyncio.sleep(0)
        self.streams.append(Stream(listener, listener._owner))
        listener.opened(self.streams[-1])


def tone(level: int, ms: int) -> bytes:
    return np.full(ms * RATE // 1000, level * LOUD, "<i2").tobytes()


steps = st.sampled_from(
    ["speak", "speak", "pause", "end", "end", "clear", "answer", "answer", "wait", "break"]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, max_size=30))
def test_each_turn_gets_its_own_words(walk: Sequence[str]) -> None:
    asyncio.run(_go(walk))


async def _go(walk: Sequence[str]) -> None:
    account, failures, bills = Account(), list[StageError](), list[Usage]()
    async with asyncio.TaskGroup() as tasks:
        listener = account.listener(tasks, failures.append, bills.append)
        assert isinstance(listener, DeepgramListener)
        listener.configure(Expected())
        turn, said = b"", list[int]()
        paused, level, breaks = False, 0, 0
        expected: list[tuple[list[int], Words]] = []

        def more(sound: bytes) -> None:
            nonlocal turn
            turn += sound
            listener.more(sound)

        for step in walk:
            match step:
                case "speak" if level < 28:
                    if not turn:
                        listener.began()
                    elif paused:
                        listener.resumed()
                    level, paused = level + 1, False
                    said.append(level)
                    more(tone(level, 200) + tone(0, 50))
                case "pause" if turn and not paused:
                    more(tone(0, 250))
                    listener.paused(turn)
                    paused = True
                case "end" if turn:
                    turn += tone(0, 300)
                    expected.append((said, listener.ended(turn)))
                    turn, said, paused = b"", [], False
                case "clear" if turn:
                    turn, said, paused = b"", [], False  # the next turn begins in its place
                case "answer" if account.streams:
                    account.streams[-1].answer()
                case "wait":
                    for _ in range(4):
                        await asyncio.sleep(0)
                case "break" if account.streams and breaks < 2:
                    breaks += 1
                    listener.lost(account.streams[-1].connection, ConnectionClosedError(None, None))
        for _ in range(6):
            await asyncio.sleep(0)
        while account.streams[-1].answer():
            pass
        for words, future in expected:
            assert future.done(), "all that was asked is answered"
            found = future.result()
            assert isinstance(found, Recognised), found
            assert found.text == " ".join(f"w{word}" for word in words)
        assert failures == []
        listener.close()
