"""FreeSWITCH's script, under the Lua that FreeSWITCH embeds: where each call goes, whatever happens to it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.freeswitch.lua_host import MOST_WORDS, RUNTIMES, STREAM_WORDS, Call, Switch, separated

DOMAIN = "9d2f1c1e-4a1b-4f0e-8f5e-2f6f3a1b7c55"
PLACES = {"porteiro_attendant": "1000", "porteiro_legacy": "7000", "domain_uuid": DOMAIN}
STREAM = f"ws://10.0.0.5:8082/stream/{DOMAIN}/c?token=1763773271.kq4-_x"


def answer(mode: str = "realtime", **more: Any) -> str:
    """What the service says, as it writes it."""
    way = {
        "tenant": "jardim",
        "mode": mode,
        "stream": STREAM if mode == "realtime" else "",
        "expires_in_s": 60.0,
    }
    form = {"playback": "auto", "sample_rate": "8k", "mix": "mono"}
    return json.dumps({**way, **form, **more}, separators=(",", ":"))


def problem(status: int, detail: str) -> str:
    return json.dumps({"title": "…", "status": status, "detail": detail}, ensure_ascii=False)


def told(event: str, body: str = "", module: str = "mod_audio_stream") -> Callable[[Call], None]:
    return lambda call: call.switch.fire(f"{module}::{event}", call.uuid, body)


def closed(code: int, reason: str = "") -> Callable[[Call], None]:
    said = {"status": "disconnected", "message": {"code": code, "reason": reason}}
    return told("disconnect", json.dumps(said))


def a_call(switch: Switch, said: str = "", **variables: str) -> Call:
    """A call, once the script is through with it."""
    switch.answers.setdefault("/v1/route", said)
    call = Call(switch, destination_number="8001", caller_id_number="201", **{**PLACES, **variables})
    switch.run(call)
    return call


@pytest.mark.parametrize("version", RUNTIMES)
def test_a_call_is_streamed_and_ends_with_its_stream(version: str) -> None:
    switch = Switch(
        version=version, variables={"porteiro_key": "porteiro_a_b", "porteiro_api": "https://p.example"}
    )
    switch.at = [
        (0.4, told("connect")),
        (1.0, lambda call: call.keys.extend("1#")),
        (2.0, lambda call: switch.fire("mod_audio_stream::disconnect", "another call", "")),
        (60.0, closed(1000, "hung up by us")),
    ]
    call = a_call(switch, answer(), domain_name="jardim.example")
    assert (call.cause, call.gone_to) == ("NORMAL_CLEARING", None)
    assert call.ringing and call.answered and 62 <= call.heard_s < 63
    ((url, headers),) = switch.requests
    assert url == f"https://p.example/v1/route?call={call.uuid}&domain_uuid={DOMAIN}&number=8001"
    assert headers == {"Authorization": "Bearer porteiro_a_b"}
    assert " secure " in switch.commands[0][1], "mod_curl looks at no certificate unless it is told to"
    uuid, verb, where, mix, rate, metadata = call.started
    assert (uuid, verb, where, mix, rate) == (call.uuid, "start", STREAM, "mono", "8k")
    assert json.loads(metadata) == {
        "caller_id": "201",
        "extension": "8001",
        "domain": "jardim.example",
        "direction": "inbound",
        "sample_rate": 8000,
        "channels": 1,
    }
    assert [json.loads(text) for text in call.texts] == [{"type": "dtmf", "digit": key} for key in "1#"]
    variables = {name: value for name, value in call.variables.items() if name.startswith("STREAM_")}
    assert variables["STREAM_PLAYBACK"] == "true" and variables["STREAM_SAMPLE_RATE"] == "8000"
    assert not [line for level, line in switch.log if level in ("err", "warning")]
    assert "porteiro_a_b" not in str(switch.log) + str(call.variables), "the key is in no record of the call"


def test_wide_sound_stereo_and_the_sites_own_variables() -> None:
    switch = Switch(variables={"porteiro_stream": "wss://edge.example:8443"})
    switch.at = [(0.2, told("connect")), (1, closed(1000))]
    call = a_call(switch, answer(sample_rate="16k", mix="stereo"), STREAM_BUFFER_SIZE="60")
    assert call.started[2:5] == (
        STREAM.replace("ws://10.0.0.5:8082", "wss://edge.example:8443"),
        "stereo",
        "16k",
    )
    metadata = json.loads(call.started[5])
    assert (metadata["sample_rate"], metadata["channels"]) == (16000, 2)
    assert call.variables["STREAM_BUFFER_SIZE"] == "60"


def test_mod_audio_fork_is_started_in_its_own_words_and_tells_no_code() -> None:
    def at_end(alive: bool, playback: str = "fork") -> Call:
        switch = Switch(modules=("mod_curl", "mod_audio_fork"), kind="fork")
        switch.at = [
            (0.2, told("connect", module="mod_audio_fork")),
            (3, told("disconnect", module="mod_audio_fork")),
        ]
        switch.answers["/health"] = '{"status":"ok","version":"0.1.0"}' if alive else ""
        return a_call(switch, answer(playback=playback))

    well, broken = at_end(True), at_end(False)
    assert at_end(True, "auto").started[5:] == well.started[5:], "it is the one that is there"
    assert well.started[5] == "audio_fork" and well.started[7:] == ("true", "true", "8000")
    assert json.loads(well.started[6])["extension"] == "8001"
    assert well.variables["send_silence_when_idle"] == "-1", "it plays into what the channel sends"
    assert well.cause == "NORMAL_CLEARING"
    assert broken.gone_to == ("1000", "XML", "default"), "a service that died gives its caller to a person"


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("", "does not answer"),
        ("<html>nginx</html>", "does not answer"),
        (problem(503, "draining"), "503 draining"),
        (problem(404, "found no such domain; allowed: one of your own"), "404 found no such domain"),
        (problem(401, "authorization: não"), "401"),
        (answer("dictator"), "knows no mode"),
        (answer()[:-1], "does not answer"),
        (answer(stream="http://10.0.0.5/x"), "stream's URL"),
        (answer(stream="ws://10.0.0.5/x y"), "stream's URL"),
        (answer(stream="ws://[::1]:8082/stream/a/b"), "stream's URL"),
        (answer(stream=""), "stream's URL"),
    ],
)
def test_a_service_that_does_not_take_the_call_gives_it_to_the_attendant(said: str, line: str) -> None:
    switch = Switch()
    call = a_call(switch, said)
    assert call.gone_to == ("1000", "XML", "default") and not call.running
    assert call.ringing and any(line in text for _, text in switch.log)
    assert call.variables["ringback"] and call.variables["instant_ringback"] == "true", (
        "nobody waits in silence"
    )


@pytest.mark.parametrize(
    ("happens", "line"),
    [
        ([(0.3, told("error", '{"status":"error","message":{"code":6}}'))], "the stream failed"),
        ([(0.3, told("connect")), (0.5, closed(1008, "8 calls are running; 100%"))], "the stream broke"),
        ([(0.3, told("connect")), (40, closed(1006))], "the stream broke"),
        ([(0.3, told("connect")), (40, closed(1011))], "the stream broke"),
        ([], "does not connect"),
    ],
)
def test_a_stream_that_fails_or_breaks_gives_its_caller_to_somebody(happens: list[Any], line: str) -> None:
    for first, place in (("attendant", "1000"), ("legacy", "7000")):
        switch = Switch()
        switch.at = list(happens)
        call = a_call(switch, answer(), porteiro_fallback=first)
        assert call.gone_to == (place, "XML", "default") and not call.cause
        assert call.heard_s < 47 and any(line in text for _, text in switch.log)


def test_the_tenants_mode_says_who_answers() -> None:
    assert a_call(Switch(), answer("attendant")).gone_to == ("1000", "XML", "default")
    legacy = a_call(Switch(), answer("legacy"), porteiro_context="jardim.example")
    assert legacy.gone_to == ("7000", "XML", "jardim.example") and not legacy.answered
    other = a_call(Switch(), answer("legacy"), porteiro_legacy="")
    assert other.gone_to == ("1000", "XML", "default"), "who is not there is not called"


def test_where_files_are_played_keys_come_over_the_event_socket_alone() -> None:
    switch = Switch()
    switch.at = [(0.2, told("connect")), (1, lambda call: call.keys.extend("1*")), (2, closed(1000))]
    call = a_call(switch, answer(playback="file"))
    assert not call.keys and not call.texts, "they are taken, since FreeSWITCH tells of a key as it is taken"
    assert call.variables["playback_terminators"] == "none"


def test_modules_that_are_missing_are_named() -> None:
    for there, line in (("mod_audio_stream", "mod_curl is not loaded"), ("mod_curl", "does not start")):
        switch = Switch(modules=(there,))
        assert a_call(switch, answer()).gone_to == ("1000", "XML", "default")
        assert any(line in text for level, text in switch.log if level == "err")


def test_nobody_to_give_it_to_ends_the_call_and_so_does_a_circle() -> None:
    alone = a_call(Switch(), "", porteiro_attendant="", porteiro_legacy="")
    assert (alone.cause, alone.gone_to) == ("NORMAL_TEMPORARY_FAILURE", None)
    tries = 0
    while (call := a_call(Switch(), "", porteiro_tries=str(tries))).gone_to is not None:
        tries = int(call.variables["porteiro_tries"])
    assert call.cause == "NORMAL_TEMPORARY_FAILURE" and tries == 3


def test_a_caller_who_hangs_up_and_a_call_that_is_taken_are_let_be() -> None:
    def hung_up(call: Call) -> None:
        call.hang_up("ORIGINATOR_CANCEL")

    def taken(call: Call) -> None:
        call.gone_to = ("1001", "XML", "default")  # by uuid_transfer

    for happens, cause, place in ((hung_up, "ORIGINATOR_CANCEL", None), (taken, "", "1001")):
        for before in ([], [(4.0, closed(1000))]):  # in the middle of the stream, or behind its end
            switch = Switch()
            switch.at = [(0.2, told("connect")), *before, (5.0, happens)]
            call = a_call(switch, answer())
            assert (call.cause, call.gone_to[0] if call.gone_to else None) == (cause, place)


def test_the_service_may_ask_for_the_attendant_before_it_ends_the_stream() -> None:
    switch = Switch()
    switch.at = [(0.2, told("connect")), (5, lambda call: call.variables.update(porteiro_then="attendant"))]
    switch.at.append((6, closed(1000)))
    assert a_call(switch, answer()).gone_to == ("1000", "XML", "default")


def test_a_fault_of_the_script_itself_gives_the_call_to_the_attendant() -> None:
    def fault(_: str) -> str:
        raise RuntimeError("a fault")

    switch = Switch()
    switch.answers["/v1/route"] = fault
    assert a_call(switch).gone_to == ("1000", "XML", "default")
    assert any("a fault" in text for level, text in switch.log if level == "err")


def test_each_domain_may_have_a_key_of_its_own_and_a_key_that_is_none_is_not_sent() -> None:
    both = {"porteiro_key": "the-house", f"porteiro_key_{DOMAIN}": "the-domain"}
    for variables, sent in ((both, "Bearer the-domain"), ({"porteiro_key": "a' b"}, None), ({}, None)):
        switch = Switch(variables=variables)
        a_call(switch, answer("attendant"))
        assert switch.requests[0][1].get("Authorization") == sent


HOSTILE = st.text(
    alphabet=st.one_of(st.characters(max_codepoint=255), st.sampled_from(list(" '\\\"${}^,\n%&?#")))
)


@settings(max_examples=60, deadline=None)
@given(HOSTILE, HOSTILE, HOSTILE, st.sampled_from(["auto", "fork"]))
@example("' start ws://evil mono 8k '", "8001 post x", "${system(reboot)}", "auto")
@example("\\", "'", "^^:a", "fork")
def test_nothing_of_a_callers_reaches_a_command(number: str, dialled: str, name: str, playback: str) -> None:
    module = "mod_audio_fork" if playback == "fork" else "mod_audio_stream"
    switch = Switch(modules=("mod_curl", module))
    switch.answers["/v1/route"] = answer(playback=playback)
    switch.answers["/health"] = '{"status":"ok"}'
    switch.at = [(0.2, told("connect", module=module)), (1, told("disconnect", '{"code":1000}', module))]
    call = Call(switch, **PLACES)
    call.variables |= {"caller_id_number": number, "destination_number": dialled, "domain_name": name}
    switch.run(call)
    assert call.cause == "NORMAL_CLEARING"
    ((_, asked), *_) = switch.commands
    url, *rest = separated(asked, MOST_WORDS)
    assert rest == ["connect-timeout", "1", "timeout", "2"]
    assert re.fullmatch(r"http://127\.0\.0\.1:8082/v1/route\?[A-Za-z0-9=&%._~-]+", url)
    (line,) = [line for _, line in switch.commands if " start " in line]
    words = separated(line, STREAM_WORDS if playback == "auto" else MOST_WORDS)
    metadata = json.loads(words[5 if playback == "auto" else 6])
    for said, field in ((number, "caller_id"), (dialled, "extension"), (name, "domain")):
        assert metadata[field] == re.sub(r"[^\x00-\x7f]", "\ufffd", said[:64])
    assert "${" not in str(switch.commands)


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(
        st.text(),
        st.builds(lambda at, text: answer()[:at] + text + answer()[at:], st.integers(0, 200), st.text()),
    )
)
@example('{"mode":"realtime"}')
@example('{"mode":"realtime","stream":["ws://x/y"]}')
@example('{"mode":"realtime\\u0000","stream":""}')
def test_whatever_the_service_answers_the_call_goes_somewhere(said: str) -> None:
    switch = Switch()
    switch.at = [(0.2, told("connect")), (1, closed(1000))]
    call = a_call(switch, said)
    assert (call.gone_to == ("1000", "XML", "default")) != (call.cause == "NORMAL_CLEARING")
    assert not call.started or re.fullmatch(r"wss?://[A-Za-z0-9.:-]+/\S*", call.started[2])
