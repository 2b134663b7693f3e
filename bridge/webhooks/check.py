"""Whether who is told of visits takes connections, for `porteiro check`: nothing is sent."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import urllib.parse

from bridge.settings import Webhooks
from bridge.webhooks.posting import tls_of


class ReceiverUnfit(Exception):
    """No event would be taken now; the text says why and what to do."""


async def reach_receiver(webhooks: Webhooks) -> str:
    """Connect as an attempt would, over TLS where the URL says so, and leave again; what was connected to.

    Only the host and its port are named: the rest of the URL may hold a token.

    Raises:
        ReceiverUnfit: it takes no connection.
    """
    parts = urllib.parse.urlsplit(webhooks.url)
    host, encrypted = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if encrypted else 80)
    name = f"{host}:{port}"
    try:
        trusted = await asyncio.to_thread(tls_of, webhooks) if encrypted else None
    except OSError as error:
        raise ReceiverUnfit(f"ca_file: {webhooks.ca_file}: can't be used: {error}; name a PEM file") from None
    try:
        async with asyncio.timeout(webhooks.timeout_s):
            _, writer = await asyncio.open_connection(host, port, ssl=trusted)
    except TimeoutError:
        raise ReceiverUnfit(f"{name} gave no answer in {webhooks.timeout_s:g} s") from None
    except ssl.SSLCertVerificationError as error:
        why = f"has a certificate that is not trusted: {error.verify_message}"
        raise ReceiverUnfit(f"{name} {why}; name the system's own in ca_file") from None
    except ssl.SSLError as error:
        raise ReceiverUnfit(f"{name} speaks no TLS that we know: {error.reason}; is it http://?") from None
    except socket.gaierror:
        raise ReceiverUnfit(f"{name}: no such host is known; is its url right?") from None
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise ReceiverUnfit(f"{name} does not answer: {why}; is its url right?") from None
    writer.transport.abort()
    return name
