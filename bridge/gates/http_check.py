"""Whether a door controller takes connections, for `porteiro check`: nothing is asked of it."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import urllib.parse

from bridge.gates.http import tls_context
from bridge.settings import HttpGate


class GateUnfit(Exception):
    """It would not open now; the text says why and what to do."""


async def reach(gate: HttpGate) -> str:
    """Connect to the device, over TLS where its URL says so, and leave again; where it is.

    Raises:
        GateUnfit: it takes no connection.
    """
    parts = urllib.parse.urlsplit(gate.url)
    host, tls = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if tls else 80)
    name = f"the gate at {parts.scheme}://{parts.netloc}"
    try:
        trusted = tls_context(gate) if tls else None
    except OSError as error:
        raise GateUnfit(f"gate.ca_file: {gate.ca_file}: can't be used: {error}; name a PEM file") from None
    try:
        async with asyncio.timeout(gate.timeout_s):
            _, writer = await asyncio.open_connection(host, port, ssl=trusted)
    except TimeoutError:
        raise GateUnfit(
            f"{name} gave no answer in {gate.timeout_s:g} s; is it switched on, and on this network?"
        ) from None
    except ssl.SSLCertVerificationError as error:
        raise GateUnfit(
            f"{name} has a certificate that is not trusted: {error.verify_message}; name the device's own in "
            "gate.ca_file"
        ) from None
    except ssl.SSLError as error:
        raise GateUnfit(f"{name} speaks no TLS that we know: {error.reason}; is it http://?") from None
    except socket.gaierror:
        raise GateUnfit(f"{name}: no such host is known; correct gate.url, or the network's names") from None
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise GateUnfit(f"{name} does not answer: {why}; is it switched on, and is gate.url right?") from None
    writer.transport.abort()
    return name
