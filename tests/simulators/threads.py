"""A simulator beside a test that has no event loop of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def in_thread(simulator: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """The simulator, served by a thread of its own until the block is left."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, name="simulator")
    thread.start()
    try:
        started = asyncio.run_coroutine_threadsafe(simulator.__aenter__(), loop).result(5)
        try:
            yield started
        finally:
            asyncio.run_coroutine_threadsafe(simulator.__aexit__(None, None, None), loop).result(5)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()
