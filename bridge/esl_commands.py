"""The commands that FreeSWITCH is given over its event socket, without I/O: each is checked as it is made.

A line end would begin another header or command. In ``originate`` a comma begins another variable or phone,
``}`` ends the variables, ``|`` and ``:_:`` add phones, ``^^`` changes the separator, ``'`` and ``\\`` quote,
and ``$`` has a variable of FreeSWITCH's put in. So of what comes from a directory, from settings or from a
call only what can't be any of these is written, and the rest is refused: nothing is escaped, because
mod_commands, switch_ivr_originate and switch_utils each undo escapes in a way of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from uuid import UUID

MAX_COMMAND = 8_000
"""Characters. FreeSWITCH itself takes 10 MB."""

DIGITS = frozenset("0123456789*#ABCD")
"""What ``uuid_send_dtmf`` plays (``is_dtmf`` of switch_types.h)."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_VALUE = re.compile(r"[\w .:/@+#*()=%-]{0,300}")
_ENDPOINT = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,31}/[A-Za-z0-9*#+._:;=@/%~-]{1,300}")
_EXTENSION = re.compile(r"[A-Za-z0-9*#+._-]{1,64}")
_WORD = re.compile(r"[!-~]{1,7000}")
_PATH = re.compile(r"/[A-Za-z0-9/._-]{1,400}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x80-\x9f\u2028\u2029]")


def checked(command: str) -> str:
    """A whole command, as it may be written.

    Raises:
        ValueError: it is too long, or would be more than one.
    """
    if not 0 < len(command) <= MAX_COMMAND or _CONTROL.search(command):
        raise ValueError(f"a command is one line of up to {MAX_COMMAND} characters")
    return command


def originate(channel: UUID, endpoint: str, variables: Mapping[str, str]) -> str:
    """Call somebody, and hold who answers in ``park()``.

    Args:
        channel: the UUID that the new channel gets; one that is in use is refused.
        endpoint: one phone: ``user/101@jardim.example``.
        variables: of the new channel; letters, digits and blanks, and of signs ``. : / @ + # * ( ) = % - _``.

    Raises:
        ValueError: something is not what it may be.
    """
    check_endpoint(endpoint)
    pairs = {"origination_uuid": str(channel), **variables}
    written = ",".join(f"{_name(name)}={_value(value)}" for name, value in pairs.items())
    return checked(f"originate {{{written}}}{endpoint} &park()")


def check_endpoint(endpoint: str) -> None:
    """Refuse what names more than one phone, or anything else than a phone.

    Raises:
        ValueError: it does.
    """
    if not _ENDPOINT.fullmatch(endpoint) or ":_:" in endpoint:
        raise ValueError(
            f"the dial string {endpoint!r}; allowed: one phone, such as user/101@jardim.example, of letters, "
            "digits and * # + . _ : ; = @ / % ~ -"
        )


def start_stream(module: str, channel: UUID, url: str, mix: str, rate: str, metadata: str) -> str:
    """Have a channel's audio streamed.

    Args:
        module: ``uuid_audio_stream`` or ``uuid_audio_fork``.
        metadata: JSON without blanks; a blank would end it (``switch_separate_string``).

    Raises:
        ValueError: something is not what it may be.
    """
    for word in (url, metadata):
        if not _WORD.fullmatch(word) or "'" in word or "\\" in word or "$" in word:
            raise ValueError("a stream's URL and metadata are printable ASCII without blanks, ' \\ and $")
    if module == "uuid_audio_fork":  # it plays what comes back only where it is told to, and at which rate
        metadata = f"audio_fork {metadata} true true {rate.replace('k', '000')}"
    return checked(f"{module} {channel} start {url} {mix} {rate} {metadata}")


def kill(channel: UUID, cause: str = "NORMAL_CLEARING") -> str:
    """Hang a channel up; ``cause`` as switch_types.h has them."""
    return checked(f"uuid_kill {channel} {_name(cause)}")


def exists(channel: UUID) -> str:
    """Ask whether there is such a channel: ``true`` or ``false``."""
    return f"uuid_exists {channel}"


def module_exists(module: str) -> str:
    """Ask whether a module is loaded: ``true`` or ``false``."""
    return f"module_exists {_name(module)}"


def send_digit(channel: UUID, digit: str, duration_ms: int) -> str:
    """Play one DTMF digit to whoever is on a channel.

    Raises:
        ValueError: there is no such digit.
    """
    if len(digit) != 1 or digit not in DIGITS:
        raise ValueError(f"the digit {digit!r}; allowed: one of {''.join(sorted(DIGITS))}")
    return f"uuid_send_dtmf {channel} {digit}@{int(duration_ms)}"


def transfer(channel: UUID, extension: str) -> str:
    """Send a channel to an extension of its own dialplan and context.

    Raises:
        ValueError: there can be no such extension.
    """
    if not _EXTENSION.fullmatch(extension) or extension.startswith("-"):
        raise ValueError(f"the extension {extension!r}; allowed: letters, digits, * # + . _ -")
    return f"uuid_transfer {channel} {extension}"


def set_variable(channel: UUID, name: str, value: str) -> str:
    """Set a variable of a channel.

    Raises:
        ValueError: name or value is not what it may be.
    """
    if not value or not _VALUE.fullmatch(value):
        raise ValueError(f"the value {value!r}; {_VALUES}")
    return f"uuid_setvar {channel} {_name(name)} {value}"


def announce(channel: UUID, path: str) -> str:
    """Have whoever this channel is next bridged to hear a file first.

    ``switch_ivr_multi_threaded_bridge`` has the other side execute it, ten frames after the bridge began;
    meanwhile the two don't hear each other (``CF_SUSPEND``). A bridge begins with early media already, in
    which a telephone that still rings would play it to nobody: therefore ``ignore_early_media``.

    Raises:
        ValueError: this is no file's path.
    """
    _check_path(path)
    # ; parts the variables (switch_separate_string), and no path has one
    return checked(
        f"uuid_setvar_multi {channel} ignore_early_media=true;bridge_pre_execute_bleg_app=playback;"
        f"bridge_pre_execute_bleg_data={path}"
    )


def get_variable(channel: UUID, name: str) -> str:
    """Ask for a variable of a channel: its value, or ``_undef_``."""
    return f"uuid_getvar {channel} {_name(name)}"


def playback(channel: UUID, path: str) -> str:
    """The message that queues a file on a channel, behind those that wait there already; its lines.

    ``event-lock`` has them wait for each other.

    Raises:
        ValueError: this is no file's path.
    """
    _check_path(path)
    return "\n".join(
        (
            f"sendmsg {channel}",
            "call-command: execute",
            "execute-app-name: playback",
            f"execute-app-arg: {path}",
            "event-lock: true",
        )
    )


def silence(channel: UUID) -> str:
    """Stop the file that plays on a channel, and drop those that wait."""
    return f"uuid_break {channel} all"


def _check_path(path: str) -> None:
    if not _PATH.fullmatch(path) or "/../" in path:
        raise ValueError("a path that begins with / and has letters, digits and . _ - in it alone")


_VALUES = "allowed: letters, digits, blanks and . : / @ + # * ( ) = % - _"


def _name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"the name {name!r}; allowed: letters, digits and _")
    return name


def _value(value: str) -> str:
    if not _VALUE.fullmatch(value):
        raise ValueError(f"the value {value!r}; {_VALUES}")
    return f"'{value}'" if " " in value else value


__all__ = [
    "DIGITS",
    "announce",
    "check_endpoint",
    "checked",
    "exists",
    "get_variable",
    "kill",
    "module_exists",
    "originate",
    "playback",
    "send_digit",
    "set_variable",
    "silence",
    "start_stream",
    "transfer",
]
