"""One attempt over real connections: what counts as taken, and what a receiver can't do to us."""

from __future__ import annotations

import asyncio
import ssl
import time
from pathlib import Path

import pytest

from bridge.settings import Webhooks
from bridge.signing import key_of, signature_headers
from bridge.webhooks.delivery import Answer
from bridge.webhooks.posting import judged, post, tls_of
from tests.webhooks.receiver import SECRET, Receiver

CERTIFICATE = Path(__file__).parents[1] / "gates" / "door.pem"
BODY = b'{"data":{"visit":"1"}}'


async def attempt(url: str, **more: object) -> Answer:
    webhooks = Webhooks.model_validate({"url": url, "secret_env": "S", "timeout_s": 1, **more})
    signed = signature_headers(key_of(SECRET), "an-event", int(time.time()), BODY)
    return await post(webhooks, tls_of(webhooks), signed, BODY)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"204 No Content", Answer(True, "status 204")),
        (b"503 Busy\r\nRetry-After: 120", Answer(False, "status 503", after_s=120)),
        (b"429 Slowly\r\nRetry-After: Fri, 31 Dec 1999 23:59:59 GMT", Answer(False, "status 429")),
        (b"410 Gone", Answer(False, "status 410", gone=True)),
        (b"302 Found\r\nLocation: http://127.0.0.1:1/", Answer(False, "status 302")),
        (b"not http", Answer(False, "its answer can't be read")),
    ],
)
async def test_a_2xx_is_taken_and_nothing_else(answer: bytes, expected: Answer) -> None:
    async with Receiver(lambda _id, _n: answer) as receiver:
        assert await attempt(receiver.url) == expected
        assert [one.id for one in receiver.got] == ["an-event"]  # no redirect was followed, nothing repeated


async def test_an_answer_without_end_is_not_read() -> None:
    endless = b"200 OK\r\nContent-Length: 99999999999"
    async with Receiver(lambda _id, _n: endless, more=b"x" * 10_000_000) as receiver:
        began = time.perf_counter()
        assert await attempt(receiver.url) == Answer(True, "status 200")
        assert time.perf_counter() - began < 0.9


async def test_who_does_not_answer_or_is_not_there_costs_the_time_that_was_allowed() -> None:
    async with Receiver(lambda _id, _n: None) as receiver:
        assert await attempt(receiver.url) == Answer(False, "no answer in 1 s")
        url = receiver.url
    assert await attempt(url) == Answer(False, "it can't be reached")
    async with asyncio.timeout(5):
        assert (await attempt(url.replace("http:", "https:"))).words == "it can't be reached"


async def test_only_a_certificate_that_is_trusted_is_spoken_to() -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(CERTIFICATE)
    async with Receiver(tls=tls) as receiver:
        assert await attempt(receiver.url) == Answer(False, "its certificate is not trusted")
        assert await attempt(receiver.url, ca_file=str(CERTIFICATE)) == Answer(True, "status 200")
        assert [one.accepted for one in receiver.got] == [True]


def test_a_time_to_wait_is_seconds_or_nothing() -> None:
    for text, seconds in (
        ("5", 5.0),
        (" 60 ", 60.0),
        ("-1", 0.0),
        ("²", 0.0),
        ("9" * 400, 0.0),
        ("1.5", 0.0),
    ):
        assert judged(500, text).after_s == seconds
