"""The simulators of a pipeline's services are what the vendors' own SDKs take them for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from deepgram import AsyncDeepgramClient, DeepgramClientEnvironment
from deepgram.core.api_error import ApiError
from deepgram.listen.v1.types.listen_v1results import ListenV1Results
from openai import AsyncOpenAI, AuthenticationError, BadRequestError, NotFoundError
from openai.types.chat import ChatCompletionFunctionToolParam

from tests.simulators import chat_speech, deepgram
from tests.simulators.chat_speech import Call, Reply

# The SDK asks websockets for names that are deprecated there.
pytestmark = pytest.mark.filterwarnings("ignore:websockets:DeprecationWarning")

MODEL = "gpt-5-mini"
TOOL: ChatCompletionFunctionToolParam = {
    "type": "function",
    "function": {"name": "lookup_apartment", "parameters": {"type": "object", "properties": {}}},
}


async def test_the_openai_sdk_gets_a_streamed_reply_with_calls_from_it() -> None:
    async with chat_speech.Simulator() as server:
        server.replies.append(Reply("Um momento, por favor.", (Call(), Call("end_call", "{}"))))
        async with AsyncOpenAI(api_key=chat_speech.KEY, base_url=server.url, max_retries=0) as sdk:
            async with sdk.chat.completions.stream(
                model=MODEL, messages=[{"role": "user", "content": "501"}], tools=[TOOL]
            ) as stream:
                final = await stream.get_final_completion()
            message = final.choices[0].message
            assert message.content == "Um momento, por favor."
            assert [call.function.arguments for call in message.tool_calls or ()] == [
                '{"apartment": "501"}',
                "{}",
            ]
            assert final.choices[0].finish_reason == "tool_calls"
            with pytest.raises(NotFoundError):
                await sdk.chat.completions.create(model="x", messages=[], stream=True)
            with pytest.raises(BadRequestError, match="must answer a call"):
                await sdk.chat.completions.create(
                    model=MODEL,
                    messages=[{"role": "tool", "tool_call_id": "c", "content": "{}"}],
                    stream=True,
                )
            with pytest.raises(BadRequestError, match="only allowed when"):
                await sdk.chat.completions.create(
                    model=MODEL,
                    messages=[{"role": "user", "content": "x"}],
                    tool_choice="auto",
                    stream=True,
                )
        async with AsyncOpenAI(api_key="x", base_url=server.url, max_retries=0) as stranger:
            with pytest.raises(AuthenticationError):
                await stranger.chat.completions.create(model=MODEL, messages=[], stream=True)


async def test_the_openai_sdk_gets_speech_from_it() -> None:
    async with (
        chat_speech.Simulator() as server,
        AsyncOpenAI(api_key=chat_speech.KEY, base_url=server.url, max_retries=0) as sdk,
    ):
        sound = b""
        async with sdk.audio.speech.with_streaming_response.create(
            model="gpt-4o-mini-tts", voice="coral", input="Olá, tudo bem?", response_format="pcm"
        ) as response:
            async for piece in response.iter_bytes():
                sound += piece
        assert sound == chat_speech.tone("Olá, tudo bem?")
        with pytest.raises(BadRequestError):
            await sdk.audio.speech.create(
                model="gpt-4o-mini-tts", voice="ze", input="Olá", response_format="pcm"
            )


@asynccontextmanager
async def _client(server: deepgram.Simulator, key: str = deepgram.KEY) -> AsyncIterator[AsyncDeepgramClient]:
    url = server.url
    environment = DeepgramClientEnvironment(
        base=url, production=url.replace("http", "ws"), agent=url, agent_rest=url
    )
    async with httpx.AsyncClient() as http:
        yield AsyncDeepgramClient(api_key=key, environment=environment, httpx_client=http)


async def test_deepgrams_sdk_hears_with_it() -> None:
    async with deepgram.Simulator() as server, asyncio.timeout(10):
        server.transcripts.append("Pode liberar.")
        async with (
            _client(server) as sdk,
            sdk.listen.v1.connect(
                model="nova-3",
                language="pt-BR",
                encoding="linear16",
                sample_rate="16000",
                interim_results="true",
                keyterm=["Daner"],
            ) as socket,
        ):
            await socket.send_media(bytes(32000))
            interim = await socket.recv()
            assert isinstance(interim, ListenV1Results) and not interim.is_final
            await socket.send_finalize()
            final = await socket.recv()
            assert isinstance(final, ListenV1Results) and final.is_final and final.from_finalize
            assert final.channel.alternatives[0].transcript == "Pode liberar."
            await socket.send_keep_alive()
            await socket.send_close_stream()
            assert (await socket.recv()).type == "Metadata"
        assert server.texts == ["Finalize", "KeepAlive", "CloseStream"]
        assert server.violations == [] and server.seconds == pytest.approx(1.0)
        for key, model in ((deepgram.KEY, "nova-9"), ("x", "nova-3")):
            async with _client(server, key) as sdk:
                with pytest.raises(ApiError):
                    await sdk.listen.v1.connect(
                        model=model, encoding="linear16", sample_rate="16000"
                    ).__aenter__()


async def test_deepgrams_sdk_speaks_with_it() -> None:
    async with deepgram.Simulator() as server, _client(server) as sdk:
        sound = b""
        async for piece in sdk.speak.v1.audio.generate(
            text="Hola.", model="aura-2-celeste-es", encoding="linear16", container="none", sample_rate=24000
        ):
            sound += piece
        assert sound == chat_speech.tone("Hola.")
        assert server.violations == []
