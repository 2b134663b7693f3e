"""No text of a directory, of settings or of a call is more than what it stands for in a command."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge import esl_commands as commands
from tests.simulators.freeswitch import originated, separated

CHANNEL = UUID("7f4de4bc-17d7-11dd-b7a0-db4edd065621")
NASTY = st.text(alphabet="ab1 ,{}[]<>()'\"\\|^:_=&$\n\r\0\x85;%@/.-é~", max_size=30)


@given(NASTY, NASTY)
def test_what_is_dialled_is_one_phone_with_these_variables(endpoint: str, value: str) -> None:
    with suppress(ValueError):
        command = commands.originate(CHANNEL, f"user/{endpoint}", {"caller": value, "ignore": "true"})
        assert "\n" not in command and "\r" not in command
        verb, _, rest = command.partition(" ")
        url, application = separated(rest, " ")
        variables, dialled = originated(url)
        assert (verb, application, dialled) == ("originate", "&park()", f"user/{endpoint}")
        assert variables == {"origination_uuid": str(CHANNEL), "caller": value, "ignore": "true"}
        assert not any(sign in dialled for sign in ",|&{}[]<> ") and ":_:" not in dialled


@given(NASTY)
def test_a_command_stays_one_line_and_its_words_stay_where_they_are(text: str) -> None:
    makers: list[tuple[Callable[[], str], int]] = [
        (lambda: commands.transfer(CHANNEL, text), 3),
        (lambda: commands.send_digit(CHANNEL, text, 250), 3),
        (lambda: commands.kill(CHANNEL, text), 3),
        (lambda: commands.start_stream("uuid_audio_stream", CHANNEL, text, "mono", "8k", "{}"), 7),
        (lambda: commands.start_stream("uuid_audio_stream", CHANNEL, "ws://h", "mono", "8k", text), 7),
    ]
    for make, words in makers:
        with suppress(ValueError):
            command = make()
            assert command.isprintable() and len(command.split(" ")) == words


@pytest.mark.parametrize(
    "endpoint",
    [
        "user/101,user/666",
        "user/101:_:user/666",
        "user/101|user/666",
        "{evil=1}user/101",
        "[evil=1]user/101",
        "user/101 &system(x)",
        "user/${evil}",
        "user/101\nuuid_kill",
        "101",
        "",
    ],
)
def test_one_phone_only_is_dialled(endpoint: str) -> None:
    with pytest.raises(ValueError, match="one phone"):
        commands.originate(CHANNEL, endpoint, {})


def test_a_path_stays_in_its_directory() -> None:
    for path in ("/sounds/../etc/x.wav", "relative.wav", "/a b.wav", "/a.wav\n", "tone_stream://%(1,1,1)"):
        with pytest.raises(ValueError, match="path"):
            commands.playback(CHANNEL, path)
        with pytest.raises(ValueError, match="a path"):
            commands.announce(CHANNEL, path)
    assert "execute-app-arg: /run/porteiro/a-1.wav" in commands.playback(CHANNEL, "/run/porteiro/a-1.wav")
    assert commands.announce(CHANNEL, "/run/a-1.wav").endswith(";bridge_pre_execute_bleg_data=/run/a-1.wav")


@given(NASTY)
def test_a_path_makes_no_further_header(path: str) -> None:
    with suppress(ValueError):
        assert len(commands.playback(CHANNEL, f"/{path}").splitlines()) == 5


def test_the_commands_are_those_of_mod_commands() -> None:
    assert commands.originate(
        CHANNEL,
        "user/101@jardim.example",
        {"ignore_early_media": "true", "origination_caller_id_name": "A B"},
    ) == (
        f"originate {{origination_uuid={CHANNEL},ignore_early_media=true,origination_caller_id_name='A B'}}"
        "user/101@jardim.example &park()"
    )
    assert commands.send_digit(CHANNEL, "#", 250) == f"uuid_send_dtmf {CHANNEL} #@250"
    assert commands.silence(CHANNEL) == f"uuid_break {CHANNEL} all"
