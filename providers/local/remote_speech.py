"""Speech by a service over HTTP, streamed: OpenAI's ``/audio/speech`` and Deepgram's ``/v1/speak``.

Both answer a request with PCM at 24 kHz as it is made, so that a sentence is heard before its end is there;
hanging up stops the work. Fields are those of the openai SDK's ``types.audio`` (3.52) and of deepgram-sdk's
``speak.v1.audio`` (7.17).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import httpx2
import structlog

from providers.base import Usage
from providers.local.speech import RATE, SentenceCache, Sound
from providers.local.spoken import without_marks
from providers.local.stage import Bill, StageError, payee, refusal, stage_at

MAX_SENTENCE_S: Final = 60
"""Seconds of speech for one sentence; more is no speech of it."""
RETRIES: Final = 1
_RETRY_AFTER_S: Final = 0.3
_TYPES: Final = ("audio/pcm", "audio/l16", "audio/raw", "audio/x-raw", "application/octet-stream")
"""What PCM without a header is called."""
_HEADERS: Final = (b"RIFF", b"OggS", b"fLaC", b"ID3")
"""How audio begins that is in another format than the one that was asked for."""

log = structlog.get_logger(room="model_server")


class SpeechService(Protocol):
    """How a service is asked."""

    @property
    def base_url(self) -> str: ...

    @property
    def model(self) -> str:
        """What is paid for."""

    @property
    def name(self) -> str:
        """The service, its model and its voice: what a sentence was said by."""

    def request(self, text: str, speed: float) -> tuple[str, Mapping[str, str], dict[str, Any]]:
        """The URL, the headers and the body of the request."""


@dataclass(frozen=True, slots=True)
class OpenAISpeech:
    """``/audio/speech`` of OpenAI or of a server that has the same."""

    base_url: str
    model: str
    voice: str
    api_key: str = field(default="", repr=False)

    @property
    def name(self) -> str:
        """See :class:`SpeechService`."""
        return f"{self.base_url} {self.model} {self.voice}"

    def request(self, text: str, speed: float) -> tuple[str, Mapping[str, str], dict[str, Any]]:
        """See :class:`SpeechService`."""
        body: dict[str, Any] = {
            "model": self.model,
            "voice": self.voice,
            "input": text,
            "response_format": "pcm",
        }
        if speed != 1.0:
            body["speed"] = speed
        headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        return f"{self.base_url.rstrip('/')}/audio/speech", headers, body


@dataclass(frozen=True, slots=True)
class DeepgramSpeech:
    """Deepgram's ``/v1/speak``. ``voice`` is the name of its model: ``aura-2-…``."""

    base_url: str
    voice: str
    api_key: str = field(repr=False)

    @property
    def model(self) -> str:
        """See :class:`SpeechService`: each voice is one."""
        return self.voice

    @property
    def name(self) -> str:
        """See :class:`SpeechService`."""
        return f"{self.base_url} {self.voice}"

    def request(self, text: str, speed: float) -> tuple[str, Mapping[str, str], dict[str, Any]]:
        """See :class:`SpeechService`."""
        query = {
            "model": self.voice,
            "encoding": "linear16",
            "sample_rate": str(RATE),
            "container": "none",
        }
        if speed != 1.0:
            query["speed"] = f"{speed:g}"
        url = httpx2.URL(f"{self.base_url.rstrip('/')}/v1/speak", params=query)
        return str(url), {"Authorization": f"Token {self.api_key}"}, {"text": text}


class RemoteSpeaker:
    """See :class:`providers.local.speech.Speaks`. What was said whole once is kept, and not paid again."""

    def __init__(
        self,
        service: SpeechService,
        *,
        connect_s: float = 3.0,
        first_s: float = 6.0,
        next_s: float = 4.0,
        cache_bytes: int = 16 << 20,
    ) -> None:
        """
        Args:
            first_s: how long the first sound of a sentence may take, another try included.
            next_s: the same for each further piece.
        """
        self._service = service
        self._first_s, self._next_s = first_s, next_s
        self.stage = stage_at("speech", service.base_url)
        self.cache = SentenceCache(cache_bytes)
        self._client = httpx2.AsyncClient(
            # A redirect is a refusal: whoever we were sent to would get the key.
            follow_redirects=False,
            timeout=httpx2.Timeout(first_s, connect=connect_s),
        )

    async def check(self) -> None:
        """Have it say a word.

        Raises:
            StageError: it does not.
        """
        async with aclosing(self.stream("Olá.", 1.0, lambda _: None)) as pieces:
            async for _ in pieces:
                return

    async def close(self) -> None:
        """Let the connections go."""
        await self._client.aclose()

    async def stream(self, sentence: str, speed: float, bill: Bill) -> AsyncGenerator[Sound, None]:
        """See :class:`providers.local.speech.Speaks`. It is paid by the characters."""
        key = (self._service.name, sentence, speed)
        if (known := self.cache.get(key)) is not None:
            yield Sound(known, last=True)
            return
        text = without_marks(sentence)
        whole = bytearray()
        if any(sign.isalnum() for sign in text):  # nobody says a dash
            async with aclosing(self._ask(text, speed, bill)) as pieces:
                async for pcm in pieces:
                    whole += pcm
                    yield Sound(pcm)
        self.cache.put(key, bytes(whole))
        yield Sound(b"", last=True)

    async def _ask(self, text: str, speed: float, bill: Bill) -> AsyncGenerator[bytes, None]:
        """Whole samples, as they come."""
        due = asyncio.get_running_loop().time() + self._first_s
        response = await self._open(text, speed, due)
        service = self._service
        bill(Usage(payee(service.base_url), service.model, "speech", characters=len(text)))
        try:
            received, odd = 0, b""
            pieces = response.aiter_bytes()
            allowed_s = self._first_s
            while (piece := await self._next(pieces, due, allowed_s)) is not None:
                if not received and piece.startswith(_HEADERS):
                    raise StageError(self.stage, "unsupported_format", "sent another format than PCM")
                received += len(piece)
                if received > 2 * RATE * MAX_SENTENCE_S:
                    raise StageError(
                        self.stage, "protocol_error", f"sent more than {MAX_SENTENCE_S} s for one sentence"
                    )
                piece = odd + piece
                whole = len(piece) & ~1
                piece, odd = piece[:whole], piece[whole:]
                if piece:
                    yield piece
                due, allowed_s = asyncio.get_running_loop().time() + self._next_s, self._next_s
            if not received:
                raise StageError(self.stage, "protocol_error", "sent no sound")
        finally:
            await response.aclose()

    async def _open(self, text: str, speed: float, due: float) -> httpx2.Response:
        """The response, its status and kind looked at; asked for anew where a fault may pass."""
        url, headers, body = self._service.request(text, speed)
        for tries_left in reversed(range(RETRIES + 1)):
            try:
                async with asyncio.timeout_at(due):
                    request = self._client.build_request("POST", url, headers=headers, json=body)
                    response = await self._client.send(request, stream=True)
                    if response.status_code == 200:
                        break
                    try:
                        said = await response.aread()
                    finally:
                        await response.aclose()
            except TimeoutError:
                raise self._too_late(self._first_s) from None
            except (httpx2.HTTPError, OSError) as error:
                if not tries_left:
                    words = f"could not be reached: {error or type(error).__name__}"
                    raise StageError(self.stage, "unreachable", words) from error
            else:
                code, words = refusal(response.status_code, said)
                if not tries_left or code not in ("rate_limit", "unavailable"):
                    raise StageError(self.stage, code, words)
            log.info("speech.asked_again", stage=self.stage)
            await asyncio.sleep(_RETRY_AFTER_S)
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind and kind not in _TYPES:
            await response.aclose()
            raise StageError(self.stage, "unsupported_format", f"sent {kind} where PCM was asked for")
        return response

    async def _next(self, pieces: Any, due: float, allowed_s: float) -> bytes | None:
        try:
            async with asyncio.timeout_at(due):
                piece: bytes | None = await anext(pieces, None)
                return piece
        except TimeoutError:
            raise self._too_late(allowed_s) from None
        except (httpx2.HTTPError, OSError) as error:
            raise StageError(self.stage, "went_away", "the connection broke within a sentence") from error

    def _too_late(self, seconds: float) -> StageError:
        return StageError(self.stage, "timeout", f"no sound for {seconds:g} s")
