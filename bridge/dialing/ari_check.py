"""Asks an ARI whether it could call residents, for `porteiro check`: nothing rings and nothing changes."""

from __future__ import annotations

import asyncio
from uuid import UUID

from bridge.dialing.ari_rest import AriAddress, AriError, AriRest, certificates

CHECK_S = 6.0
"""For all its requests."""

_NOBODY = UUID(int=0)
"""No channel has this id: hanging it up shows whether we may."""


class AriUnfit(Exception):
    """It could not call anybody; the text says why and what to do."""


async def asterisk_behind(address: AriAddress, *, websocket: bool = False) -> str:
    """Its version.

    Args:
        websocket: whether it must have WebSocket channels too.

    Raises:
        AriUnfit: it does not answer, or lacks what a call needs.
    """
    rest = AriRest(address, certificates(address))
    try:
        async with asyncio.timeout(CHECK_S):
            found = await _version(rest, address)
            await _may_call(rest, address)
            await _has_module(
                rest, "app_audiosocket", "AudioSocket(), over which residents reach us; install"
            )
            if websocket:
                await _has_module(
                    rest,
                    "chan_websocket",
                    "the WebSocket channels that service.websocket_port is for; have Asterisk 22.8 or later",
                )
    except TimeoutError:
        raise AriUnfit(f"{rest.name} gave no answer in {CHECK_S:g} s") from None
    finally:
        await rest.close()
    return found


async def _version(rest: AriRest, address: AriAddress) -> str:
    try:
        info = await rest.ask("GET", "/asterisk/info", {"only": "system"})
        return str(info["system"]["version"])
    except AriError as error:
        advice = {
            0: "is Asterisk running, and does its http.conf have enabled = yes with this address and port?",
            401: f"compare [{address.username}] in ari.conf with dialer.username and its password",
            404: "is the path right (…/ari), has ari.conf enabled = yes, and is the module res_ari loaded?",
        }.get(error.status, "Asterisk's own log says more")
        raise AriUnfit(f"{error}; {advice}") from None
    except (KeyError, TypeError):
        raise AriUnfit(f"{rest.name} answers, but not as Asterisk does; is the URL right?") from None


async def _may_call(rest: AriRest, address: AriAddress) -> None:
    try:
        await rest.ask("DELETE", f"/channels/{_NOBODY}")
    except AriError as error:
        if error.status == 403:
            raise AriUnfit(f"{error}; set read_only = no in [{address.username}] of ari.conf") from None
        if error.status != 404:
            raise AriUnfit(str(error)) from None


async def _has_module(rest: AriRest, name: str, lack: str) -> None:
    """Whether it runs a module.

    Args:
        lack: what is missing without it, and the first half of what to do.
    """
    try:
        module = await rest.ask("GET", f"/asterisk/modules/{name}.so")
    except AriError as error:
        if error.status not in (404, 409):
            raise AriUnfit(str(error)) from None
        module = None
    if not isinstance(module, dict) or module.get("status") != "Running":
        raise AriUnfit(f"{rest.name} answers, but its Asterisk lacks {lack} and load {name} (modules.conf)")
