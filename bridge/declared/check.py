"""Whether what a declared tool asks takes connections, for `porteiro check`: nothing is asked of it."""

from __future__ import annotations

import asyncio
import os
import ssl
from typing import Any

from bridge.declared.addresses import NotAllowed
from bridge.declared.client import OutsideTool


class ToolUnfit(Exception):
    """It could not be asked now; the text says why and what to do."""


async def reach_tool(tool: OutsideTool) -> str:
    """Connect as a call would, over TLS where the URL says so, and leave again; what was connected to.

    Raises:
        ToolUnfit: it takes no connection, or may not be connected to.
    """
    host, port = tool.declared.host_and_port
    name = f"{host}:{port}"
    try:
        async with asyncio.timeout(tool.declared.timeout_s):
            (address, *_) = await tool.addresses()
            tls: dict[str, Any] = {"ssl": tool.tls, "server_hostname": host} if tool.tls else {}
            _, writer = await asyncio.open_connection(str(address), port, **tls)
    except NotAllowed as error:
        allowed = "allowed: a public address, or private_network = true for one of the site's own network"
        raise ToolUnfit(f"{error}; {allowed}") from None
    except TimeoutError:
        raise ToolUnfit(f"{name} gave no answer in {tool.declared.timeout_s:g} s") from None
    except ssl.SSLCertVerificationError as error:
        why = f"has a certificate that is not trusted: {error.verify_message}"
        raise ToolUnfit(f"{name} {why}; name the service's own in ca_file") from None
    except OSError as error:
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise ToolUnfit(f"{name} does not answer: {why}; is its url right?") from None
    writer.transport.abort()
    return name
