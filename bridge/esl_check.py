"""Asks a FreeSWITCH over its event socket whether it could do what settings want, for `porteiro check`.

Nothing rings and nothing changes.
"""

from __future__ import annotations

from bridge import esl_commands as commands
from bridge.esl import EslAddress, EslConnection, EslError
from bridge.settings import Freeswitch

CHECK_S = 6.0
"""For the connection and the log-in, each of which has a shorter deadline."""


class EslUnfit(Exception):
    """It could not do that; the text says why and what to do."""


async def freeswitch_behind(address: EslAddress, stream: Freeswitch) -> str:
    """Its name.

    Raises:
        EslUnfit: it does not answer, or lacks the module that streams.
    """
    connection = EslConnection(address)
    await connection.start()
    try:
        if not await connection.tried(CHECK_S):
            raise EslUnfit(f"{connection.trouble}; {_advice(connection.trouble)}")
        module = "mod_audio_fork" if stream.playback == "fork" else "mod_audio_stream"
        if await connection.api(commands.module_exists(module)) != "true":
            raise EslUnfit(
                f"{connection.name} answers, but its FreeSWITCH has not loaded {module}, which "
                f"freeswitch.playback = {stream.playback!r} needs; install it and add it to modules.conf.xml"
            )
    except EslError as error:
        raise EslUnfit(str(error)) from None
    finally:
        await connection.stop()
    return connection.name


def _advice(trouble: str) -> str:
    if "refused the password" in trouble:
        return "compare esl.password_env with password of event_socket.conf.xml"
    if "apply-inbound-acl" in trouble:
        return "add this machine to that list (acl.conf.xml), and reloadacl"
    if "is none" in trouble:
        return "is esl.port the one of event_socket.conf.xml?"
    return "is FreeSWITCH running, mod_event_socket loaded, and does it listen at this address (listen-ip)?"


__all__ = ["EslUnfit", "freeswitch_behind"]
