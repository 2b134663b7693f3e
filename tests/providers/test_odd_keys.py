"""A key that can't be sent is told apart, and is in no word of what is said about it."""

from __future__ import annotations

import asyncio

import pytest

from providers.access import Access
from providers.base import Event, Failed, SessionConfig
from providers.registry import create


@pytest.mark.parametrize("key", ["sk-secret\n", "sk-secret\r\nX-More: 1", "sk—secret", "sk-\0secret"])
@pytest.mark.parametrize(
    "provider", ["openai", "azure-openai", "azure-voicelive", "openai-live", "gemini", "elevenlabs"]
)
async def test_a_key_that_no_header_can_hold_is_refused_and_not_repeated(provider: str, key: str) -> None:
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    try:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        session = create(provider, Access(api_key=key, base_url=url, model="model")).open(
            SessionConfig("Seja breve.", [])
        )
        events: list[Event] = []
        async with asyncio.timeout(5):
            await session.run(events.append)
        await session.close()
    finally:
        server.close()
        await server.wait_closed()
    (failed,) = events
    assert failed == Failed("session", "key_refused", "the key holds characters that no key has")
