"""`porteiro check` says whether who is told of visits is there; nothing is sent to it."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from bridge.settings import Webhooks
from bridge.webhooks.check import ReceiverUnfit, reach_receiver
from tests.webhooks.receiver import Receiver

CERTIFICATE = Path(__file__).parents[1] / "gates" / "door.pem"


async def reached(url: str, **more: object) -> str:
    """What it says of a receiver, well or not; never more of its URL than the host and the port."""
    webhooks = Webhooks.model_validate({"url": url, "secret_env": "S", "timeout_s": 1, **more})
    try:
        said = await reach_receiver(webhooks)
    except ReceiverUnfit as error:
        said = str(error)
    assert "of-the-url" not in said
    return said


def place(url: str) -> str:
    return url.split("/")[2]


async def test_a_receiver_that_is_there_is_connected_to_and_sent_nothing() -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(CERTIFICATE)
    async with Receiver() as receiver, Receiver(tls=tls) as encrypted:
        assert await reached(receiver.url) == place(receiver.url)
        assert await reached(encrypted.url, ca_file=str(CERTIFICATE)) == place(encrypted.url)
        said = await reached(encrypted.url)
        assert said.startswith(f"{place(encrypted.url)} has a certificate that is not trusted: ")
        assert said.endswith("; name the system's own in ca_file")
        assert receiver.got == encrypted.got == []
        url = receiver.url
    assert await reached(url) == f"{place(url)} does not answer: Connection refused; is its url right?"


async def test_a_name_that_nobody_has_and_a_certificate_that_is_none_are_said(tmp_path: Path) -> None:
    said = await reached("https://nobody.invalid/events?key=of-the-url")
    assert said == "nobody.invalid:443: no such host is known; is its url right?"
    none = tmp_path / "none.pem"
    none.write_text("none")
    with pytest.raises(ReceiverUnfit, match=r"none\.pem: can't be used: .*; name a PEM file"):
        await reach_receiver(
            Webhooks.model_validate(
                {"url": "https://nobody.invalid/", "secret_env": "S", "ca_file": str(none)}
            )
        )
