"""A language model as a dialogue: any endpoint of the chat completions protocol, with tools, streamed.

The openai SDK asks; what is said is :mod:`providers.local.chat_messages`'s. One :class:`Chat` an account, one
:class:`ChatDialogue` a session.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

import httpx2
import structlog
from openai import APIConnectionError, APIError, APIStatusError, AsyncOpenAI, AsyncStream, OpenAIError
from openai.types.chat import ChatCompletionChunk

from providers.local.chat_messages import Malformed, Reading, chat_messages, chat_request
from providers.local.dialogue.base import Dialogue, History, Part, Say, exact_words
from providers.local.spoken import sentences
from providers.local.stage import Bill, StageError, payee, refusal, stage_at
from providers.usage import text_reply

RETRIES: Final = 1
"""How often it is asked again where nothing was said yet, and the fault may pass."""
RETRY_AFTER_S: Final = 0.5

log = structlog.get_logger(room="model_server")


@dataclass(frozen=True, slots=True)
class ChatSettings:
    """How to reach the model.

    Attributes:
        base_url: ``…/chat/completions`` is below it.
        api_key: empty for servers that want none.
        first_s: how long the first piece of a reply may take, another try included.
        next_s: the same for each further piece.
    """

    base_url: str
    model: str
    api_key: str = field(default="", repr=False)
    connect_s: float = 3.0
    first_s: float = 8.0
    next_s: float = 5.0


class Chat:
    """An account and a model, for all sessions that use them."""

    def __init__(self, settings: ChatSettings) -> None:
        self._settings = settings
        self.stage = stage_at("language model", settings.base_url)
        self._client = AsyncOpenAI(
            api_key=settings.api_key or "none",  # the SDK insists on one
            base_url=settings.base_url,
            max_retries=0,
            # A redirect is a refusal: whoever we were sent to would get the key.
            http_client=httpx2.AsyncClient(
                follow_redirects=False, timeout=httpx2.Timeout(settings.first_s, connect=settings.connect_s)
            ),
        )

    def dialogue(self, bill: Bill) -> Dialogue:
        """A session's own; ``bill`` is told what each reply is to be paid with."""
        return ChatDialogue(self, bill)

    async def check(self) -> None:
        """Have it begin a reply: the way of a call, for a few tokens.

        Raises:
            StageError: it does not.
        """
        messages = [{"role": "user", "content": "Diga: ok."}]
        request = chat_request(self._settings.model, messages, [], "none")
        async with aclosing(self.ask(request, lambda _: None)) as parts:
            async for _ in parts:
                return
        raise StageError(self.stage, "protocol_error", "the reply was empty")

    async def close(self) -> None:
        """Let the connections go."""
        await self._client.close()

    def request(self, messages: Sequence[dict[str, Any]], tools: Any, choice: str) -> dict[str, Any]:
        """See :func:`providers.local.chat_messages.chat_request`."""
        return chat_request(self._settings.model, messages, tools, choice)

    async def ask(self, request: dict[str, Any], bill: Bill) -> AsyncGenerator[Part, None]:
        """The parts of a reply as they are written; closing the iterator closes the connection.

        Raises:
            CutShort: the model had more to say.
            StageError: it can't be asked, stalls, or broke off.
        """
        settings, reading = self._settings, Reading()
        due = asyncio.get_running_loop().time() + settings.first_s
        stream, chunk = await self._first(request, due)
        try:
            while chunk is not None:
                try:
                    parts = reading.take(chunk)
                except Malformed as malformed:
                    raise self._nonsense(malformed) from malformed
                for part in parts:
                    yield part
                due = asyncio.get_running_loop().time() + settings.next_s
                chunk = await self._next(stream, due, settings.next_s)
            try:
                parts = reading.end()
            except Malformed as malformed:
                raise self._nonsense(malformed) from malformed
            for part in parts:
                yield part
            if (cut_short := reading.cut_short) is not None:
                raise cut_short
        finally:
            # The count comes last: of a reply that was broken off it is not told, and paid all the same.
            bill(text_reply(payee(settings.base_url), settings.model, reading.usage))
            await stream.close()

    async def _first(
        self, request: dict[str, Any], due: float
    ) -> tuple[AsyncStream[ChatCompletionChunk], ChatCompletionChunk | None]:
        """The stream and its first piece; asked for anew where a fault may pass and there is time."""
        settings = self._settings
        for tries_left in reversed(range(RETRIES + 1)):
            stream: AsyncStream[ChatCompletionChunk] | None = None
            try:
                async with asyncio.timeout_at(due):
                    stream = await self._client.chat.completions.create(
                        **request, stream=True, stream_options={"include_usage": True}
                    )
                return stream, await self._next(stream, due, settings.first_s)
            except TimeoutError:
                raise self._too_late(settings.first_s) from None
            except (OpenAIError, httpx2.HTTPError) as error:
                if not (tries_left and _may_pass(error)):
                    raise self._refused(error) from error
                log.info("chat.asked_again", stage=self.stage, error=type(error).__name__)
                await asyncio.sleep(RETRY_AFTER_S)
            except BaseException:
                if stream is not None:
                    await stream.close()
                raise
        raise AssertionError("unreachable")

    async def _next(
        self, stream: AsyncStream[ChatCompletionChunk], due: float, allowed_s: float
    ) -> ChatCompletionChunk | None:
        try:
            async with asyncio.timeout_at(due):
                return await anext(stream, None)
        except TimeoutError:
            raise self._too_late(allowed_s) from None
        except (OpenAIError, httpx2.HTTPError) as error:
            raise self._broken_off(error) from error
        except (ValueError, UnicodeDecodeError) as error:  # half an event, or something else than JSON
            raise self._nonsense(error) from error

    def _too_late(self, seconds: float) -> StageError:
        return StageError(self.stage, "timeout", f"no word for {seconds:g} s")

    def _nonsense(self, error: Exception) -> StageError:
        return StageError(self.stage, "protocol_error", f"sent something that makes no sense: {error}")

    def _refused(self, error: Exception) -> StageError:
        if isinstance(error, APIStatusError):
            return StageError(self.stage, *refusal(error.status_code, error.response.content))
        cause = error.__cause__ or error
        words = f"could not be reached: {cause or type(cause).__name__}"
        return StageError(self.stage, "unreachable", words)

    def _broken_off(self, error: Exception) -> StageError:
        if isinstance(error, APIConnectionError | httpx2.HTTPError):
            return StageError(self.stage, "went_away", "the connection broke within a reply")
        # An error within the stream, in the vendor's words.
        vendor = str(error.code) if isinstance(error, APIError) else ""
        return StageError(self.stage, _CODES.get(vendor, "unavailable"), f"broke the reply off: {error}")


_CODES: Final[Mapping[str, str]] = {"rate_limit_exceeded": "rate_limit", "insufficient_quota": "quota"}


def _may_pass(error: Exception) -> bool:
    """A connection that was kept too long, or a server that has just too much to do."""
    if isinstance(error, APIStatusError):
        return error.status_code >= 500 or (
            error.status_code == 429 and b"insufficient_quota" not in error.response.content
        )
    return isinstance(error, APIConnectionError)


class ChatDialogue:
    """See :class:`providers.local.dialogue.base.Dialogue`."""

    def __init__(self, chat: Chat, bill: Bill) -> None:
        self._chat = chat
        self._bill = bill
        self._instructions = ""
        self._tools: Sequence[Mapping[str, Any]] = ()

    def configure(self, instructions: str, tools: Sequence[Mapping[str, Any]]) -> None:
        """See :class:`providers.local.dialogue.base.Dialogue`. It takes any."""
        self._instructions, self._tools = instructions, tools

    async def reply(
        self, history: History, response_instructions: str | None, tool_choice: str
    ) -> AsyncGenerator[Part, None]:
        """See :class:`providers.local.dialogue.base.Dialogue`. Exact words are said without the model."""
        exact = exact_words(response_instructions)
        if exact is not None:
            for sentence in sentences(exact):
                yield Say(sentence)
            return
        instructions = self._instructions if response_instructions is None else response_instructions
        messages = chat_messages(instructions, history)
        request = self._chat.request(messages, self._tools, tool_choice)
        async with aclosing(self._chat.ask(request, self._bill)) as parts:
            async for part in parts:
                yield part
