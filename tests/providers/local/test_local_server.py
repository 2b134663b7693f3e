"""The model server as its clients meet it: over a socket, in the words of the protocol."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai import AsyncOpenAI
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from audio.vad import VadModel
from providers.local.dialogue.base import at_once
from providers.local.listening import WholeTurns
from providers.local.protocol import RequestError, parse
from providers.local.recognition import Recogniser
from providers.local.server import ModelServer, ServerSettings
from providers.local.session import Parts
from providers.local.speech import Speaker
from tests.providers.local.local_wire import Client, Script, checked, client, wide

TOOL: Any = {
    "type": "function",
    "name": "lookup_apartment",
    "description": "Looks an apartment up.",
    "parameters": {"type": "object", "properties": {"number": {"type": "string"}}},
}
TRANSCRIBED: Any = {
    "transcription": {"model": "local", "language": "pt", "prompt": "Portaria. Pode liberar."}
}
PROMPTED = "Fale."
Recording = Callable[[str], npt.NDArray[np.int16]]


@pytest.fixture
def parts(recogniser: Recogniser, speaker: Speaker, vad: VadModel) -> Parts:
    return Parts(WholeTurns(recogniser), speaker, vad, at_once(Script))


@asynccontextmanager
async def serving(parts: Parts, **changes: Any) -> AsyncIterator[str]:
    async with ModelServer(parts, ServerSettings(**changes)).listening() as url:
        yield url


@pytest.fixture
async def one(parts: Parts) -> AsyncIterator[Client]:
    """A client in a fresh session."""
    async with serving(parts) as url, client(url) as made:
        yield made


async def _write(one: Client, text: str, role: str = "user", **more: Any) -> None:
    kind = "output_text" if role == "assistant" else "input_text"
    item = {"type": "message", "role": role, "content": [{"type": kind, "text": text}], **more}
    await one.send("conversation.item.create", item=item)


async def _said(one: Client, **response: Any) -> str:
    """Ask for a response and give its words."""
    await one.send("response.create", response=response)
    done = (await one.until("response.done"))["response"]
    assert done["status"] == "completed"
    words: str = done["output"][0]["content"][0]["transcript"]
    return words


# ------------------------------------------------------------------------------------ the whole, by the SDK


async def test_the_official_sdk_holds_a_spoken_conversation_with_a_tool_call(
    parts: Parts, recording: Recording
) -> None:
    async with serving(parts, token="segredo") as url:
        sdk = AsyncOpenAI(base_url=url.replace("ws://", "http://"), api_key="segredo", max_retries=0)
        async with asyncio.timeout(60), sdk.realtime.connect(model="local") as connection:
            await connection.session.update(
                session={"type": "realtime", "tools": [TOOL], "audio": {"input": TRANSCRIBED}}
            )
            await connection.input_audio_buffer.append(
                audio=base64.b64encode(wide(recording("v02-leticia"))).decode()
            )
            said: list[str] = []
            types: list[str] = []
            async for event in connection:
                checked(event.model_dump(exclude_unset=True))
                types.append(event.type)
                assert event.type != "error", event
                if event.type == "conversation.item.input_audio_transcription.completed":
                    assert "Renata Oliveira" in event.transcript
                elif event.type == "response.output_audio_transcript.done":
                    said.append(event.transcript)
                elif event.type == "response.done":
                    calls = [item for item in event.response.output or [] if item.type == "function_call"]
                    if not calls:
                        break
                    assert (calls[0].name, calls[0].arguments) == ("lookup_apartment", '{"number":"501"}')
                    await connection.conversation.item.create(
                        item={
                            "type": "function_call_output",
                            "call_id": calls[0].call_id or "",
                            "output": '{"found":true}',
                        }
                    )
                    await connection.response.create()
        await sdk.close()
    assert said == ["Um momento.", 'A resposta foi {"found":true}.']
    turn = [name for name in types if name.startswith("input_audio_buffer")]
    assert turn == [
        f"input_audio_buffer.{name}" for name in ("speech_started", "speech_stopped", "committed")
    ]
    # The reply to a turn waits for its words.
    known = types.index("conversation.item.input_audio_transcription.completed")
    assert types.index("response.created") < known < types.index("response.output_item.added")


async def test_the_events_of_a_reply_come_in_the_protocol_s_order(one: Client) -> None:
    await one.send("response.create")
    done = (await one.until("response.done"))["response"]
    order = [name for name in dict.fromkeys(one.types()) if name != "session.created"]
    assert order == [
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "response.output_audio_transcript.delta",
        "response.output_audio.delta",
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "response.output_item.done",
        "conversation.item.done",
        "response.done",
    ]
    item = done["output"][0]
    pcm = one.audio_of(item["id"])
    assert (
        all(
            960 * 2 <= len(base64.b64decode(event["delta"])) <= 4800
            for event in one.seen
            if event["type"] == "response.output_audio.delta"
        )
        or len(pcm) % 4800
    )
    deltas = [event["delta"] for event in one.seen if event["type"].endswith("transcript.delta")]
    assert "".join(deltas) == item["content"][0]["transcript"] == "Boa tarde, portaria. Em que posso ajudar?"
    usage = done["usage"]
    assert usage["output_token_details"]["audio_tokens"] == -(-len(pcm) // 2400)
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


# ---------------------------------------------------------------------------------- configuring a session


async def test_an_update_changes_only_what_it_names(one: Client) -> None:
    await one.send("session.update", session={"type": "realtime", "instructions": "Seja gentil."})
    await one.until("session.updated")
    detection = {"type": "server_vad", "silence_duration_ms": 700}
    await one.send(
        "session.update", session={"type": "realtime", "audio": {"input": {"turn_detection": detection}}}
    )
    session = (await one.until("session.updated"))["session"]
    assert session["instructions"] == "Seja gentil."
    assert session["audio"]["input"]["turn_detection"]["silence_duration_ms"] == 700
    assert session["audio"]["input"]["turn_detection"]["prefix_padding_ms"] == 300
    await one.send(
        "session.update", session={"type": "realtime", "audio": {"input": {"turn_detection": None}}}
    )
    assert (await one.until("session.updated"))["session"]["audio"]["input"]["turn_detection"] is None


@pytest.mark.parametrize(
    ("session", "code", "param"),
    [
        ({"type": "realtime", "colour": 1}, "unknown_parameter", "session.colour"),
        ({}, "missing_required_parameter", "session.type"),
        ({"type": "transcription"}, "invalid_value", "session.type"),
        ({"type": "realtime", "model": "another"}, "invalid_value", "session.model"),
        ({"type": "realtime", "tools": [{"type": "mcp"}]}, "unknown|missing|invalid", "session.tools.0"),
        ({"type": "realtime", "max_output_tokens": 0}, "invalid_value", "session.max_output_tokens"),
        (
            {"type": "realtime", "audio": {"output": {"format": {"type": "audio/opus"}}}},
            "invalid_value",
            "session.audio.output.format",
        ),
        (
            {"type": "realtime", "audio": {"input": {"format": {"type": "audio/pcm", "rate": 16000}}}},
            "invalid_value",
            "session.audio.input.format.rate",
        ),
        (
            {"type": "realtime", "audio": {"input": {"turn_detection": {"type": "semantic_vad"}}}},
            "invalid_value",
            "session.audio.input.turn_detection.type",
        ),
        (
            {"type": "realtime", "audio": {"output": {"voice": "marin"}}},
            "invalid_value",
            "session.audio.output.voice",
        ),
    ],
)
async def test_what_can_t_be_done_is_refused_by_name_and_changes_nothing(
    one: Client, session: dict[str, Any], code: str, param: str
) -> None:
    await one.send("session.update", session={**session, "instructions": "nunca"}, event_id="e1")
    error = await one.error()
    assert error["type"] == "invalid_request_error"
    assert error["code"].split("_")[0] in code
    assert error["param"].startswith(param)
    assert error["event_id"] == "e1"
    await one.send("session.update", session={"type": "realtime"})
    assert (await one.until("session.updated"))["session"]["instructions"] == ""


async def test_what_the_engine_refuses_is_said_and_the_session_lives(one: Client) -> None:
    await one.send("session.update", session={"type": "realtime", "instructions": "unusable"})
    error = await one.error()
    assert (error["param"], "no role" in error["message"]) == ("session.instructions", True)
    await one.send("response.create", response={"instructions": "unusable"})
    done = (await one.until("response.done"))["response"]
    assert done["status"] == "failed"
    assert done["status_details"]["error"]["code"] == "unusable_instructions"
    assert await _said(one, instructions=PROMPTED) == PROMPTED


# ------------------------------------------------------------------------------------- who may speak when


async def test_a_second_response_is_refused_and_the_first_goes_on(one: Client) -> None:
    await one.send("response.create", event_id="a")
    await one.send("response.create", event_id="b")
    error = await one.error()
    assert (error["code"], error["event_id"]) == ("conversation_already_has_active_response", "b")
    assert (await one.until("response.done"))["response"]["status"] == "completed"


async def test_a_cancelled_response_ends_at_once_and_only_once(one: Client) -> None:
    await one.send("response.create", response={"instructions": "Esta é uma frase longa. " * 20})
    first = await one.until("response.output_audio.delta")
    await one.send("response.cancel", response_id=first["response_id"])
    done = (await one.until("response.done"))["response"]
    assert done["status"] == "cancelled"
    assert done["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
    assert done["output"][0]["status"] == "incomplete"
    # Closed like any other item, and not a delta comes after it.
    assert one.types()[-6:] == [
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "response.output_item.done",
        "conversation.item.done",
        "response.done",
    ]
    await one.send("response.cancel")
    assert (await one.error())["code"] == "response_cancel_not_active"
    assert await _said(one, instructions="Pois não.") == "Pois não."
    ended = next(i for i, event in enumerate(one.seen) if event["type"] == "response.done")
    assert not [event for event in one.seen[ended + 1 :] if event.get("response_id") == done["id"]]


@pytest.mark.parametrize("interrupt", [True, False])
async def test_a_caller_who_speaks_cancels_the_reply_where_the_session_says_so(
    one: Client, recording: Recording, interrupt: bool
) -> None:
    detection = {"type": "server_vad", "create_response": False, "interrupt_response": interrupt}
    await one.send(
        "session.update", session={"type": "realtime", "audio": {"input": {"turn_detection": detection}}}
    )
    await one.send("response.create", response={"instructions": "Esta é uma frase longa. " * 10})
    await one.until("response.output_audio.delta")
    await one.hear(wide(recording("v21-leticia"), 0.1, 0.1))
    done = (await one.until("response.done"))["response"]
    assert done["status"] == ("cancelled" if interrupt else "completed")
    if interrupt:
        assert done["status_details"]["reason"] == "turn_detected"
    assert "input_audio_buffer.speech_started" in one.types()


async def test_an_out_of_band_response_leaves_no_trace(one: Client) -> None:
    await one.send("response.create", response={"instructions": "Esta é uma frase longa. " * 5})
    await one.until("response.output_audio.delta")
    outside = {"conversation": "none", "instructions": "Só entre nós.", "metadata": {"para": "teste"}}
    await one.send("response.create", response=outside)
    done = [(await one.until("response.done"))["response"] for _ in range(2)]
    apart = next(response for response in done if response["conversation_id"] is None)
    assert apart["metadata"] == {"para": "teste"} and apart["status"] == "completed"
    await one.send("conversation.item.retrieve", item_id=apart["output"][0]["id"])
    assert (await one.error())["code"] == "item_not_found"


async def test_a_response_may_bring_its_own_context_tools_and_modality(one: Client) -> None:
    await one.send("session.update", session={"type": "realtime", "instructions": "base", "tools": [TOOL]})
    own = {
        "input": [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "ferramentas?"}]}
        ],
        "tools": [{**TOOL, "name": "other"}],
        "tool_choice": "required",
        "output_modalities": ["text"],
    }
    await one.send("response.create", response=own)
    done = (await one.until("response.done"))["response"]
    assert done["output"][0]["content"] == [{"type": "output_text", "text": "other required base"}]
    assert "response.output_text.delta" in one.types() and "response.output_audio.delta" not in one.types()
    await _write(one, "ferramentas?")
    assert await _said(one) == "lookup_apartment auto base"


async def test_the_limit_of_tokens_ends_a_response_as_incomplete(one: Client) -> None:
    long = "Esta é uma frase bastante longa para este teste. " * 4
    await one.send("response.create", response={"instructions": long, "max_output_tokens": 40})
    done = (await one.until("response.done"))["response"]
    assert done["status"] == "incomplete"
    assert done["status_details"] == {"type": "incomplete", "reason": "max_output_tokens"}
    assert done["usage"]["output_tokens"] <= 60


# ------------------------------------------------------------------------------------------ what was heard


async def test_the_dialogue_remembers_only_what_was_heard(one: Client) -> None:
    said = await _said(one, instructions="O apartamento existe. Vou chamar o morador agora mesmo.")
    item = next(event["item_id"] for event in one.seen if event["type"] == "response.output_audio.done")
    ms = len(one.audio_of(item)) // 48
    await one.send("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=ms + 100)
    error = await one.error()
    assert error["code"] == "invalid_value" and "already shorter" in error["message"]
    await one.send("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=ms * 2 // 3)
    await one.until("conversation.item.truncated")
    await one.send("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=ms)
    assert (await one.error())["code"] == "item_already_truncated"
    await _write(one, "o que ouvi?")
    heard = await _said(one)
    assert heard.startswith("O apartamento existe. Vou") and len(heard) < len(said) - 5
    assert said.startswith(heard)


async def test_an_item_of_which_nothing_was_heard_is_forgotten(one: Client) -> None:
    await _said(one, instructions="Ninguém ouviu isto.")
    item = next(event["item_id"] for event in one.seen if event["type"] == "response.output_audio.done")
    await one.send("conversation.item.delete", item_id=item)
    await one.until("conversation.item.deleted")
    await _write(one, "o que ouvi?")
    assert await _said(one) == "nada"


async def test_items_are_put_where_they_are_asked_for(one: Client) -> None:
    await _write(one, "segunda", "assistant", id="b")
    await one.send(
        "conversation.item.create",
        previous_item_id="root",
        item={
            "id": "a",
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "primeira"}],
        },
    )
    await _write(one, "o que ouvi?")
    assert await _said(one) == "primeira|segunda"


@pytest.mark.parametrize(
    ("event", "code"),
    [
        ({"type": "conversation.item.retrieve", "item_id": "no"}, "item_not_found"),
        ({"type": "conversation.item.delete", "item_id": "no"}, "item_not_found"),
        (
            {"type": "conversation.item.truncate", "item_id": "no", "content_index": 0, "audio_end_ms": 1},
            "item_not_found",
        ),
        (
            {
                "type": "conversation.item.create",
                "item": {"type": "function_call_output", "call_id": "never", "output": "{}"},
            },
            "invalid_tool_call_id",
        ),
        ({"type": "input_audio_buffer.commit"}, "input_audio_buffer_commit_empty"),
        ({"type": "input_audio_buffer.append", "audio": "%%%"}, "invalid_value"),
        ({"type": "input_audio_buffer.append", "audio": "AAAA"}, "invalid_value"),
        ({"type": "input_audio_buffer.append"}, "missing_required_parameter"),
        ({"type": "response.create", "response": {"conversation": "other"}}, "invalid_value"),
        ({"type": "response.cancel", "response_id": "resp_no"}, "response_cancel_not_active"),
        ({"type": "session.begin"}, "invalid_value"),
        ({"kind": "session.update"}, "missing_required_parameter"),
    ],
)
async def test_a_bad_request_is_answered_by_name_and_the_session_lives(
    one: Client, event: dict[str, Any], code: str
) -> None:
    await one.connection.send(json.dumps({**event, "event_id": "mine"}))
    error = await one.error()
    assert (error["code"], error["event_id"]) == (code, "mine")
    assert await _said(one, instructions=PROMPTED) == PROMPTED


@pytest.mark.parametrize(
    "frame",
    [
        b"\x00\x01",
        "",
        "not json",
        "[]",
        "17",
        '{"type":',
    ],
)
async def test_garbage_is_answered_and_the_session_lives(one: Client, frame: str | bytes) -> None:
    await one.connection.send(frame)
    assert (await one.error())["type"] == "invalid_request_error"
    assert await _said(one, instructions=PROMPTED) == PROMPTED


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=8,
)
_KNOWN = st.sampled_from(
    [
        "session.update",
        "input_audio_buffer.append",
        "conversation.item.create",
        "conversation.item.truncate",
        "response.create",
        "response.cancel",
    ]
)
_FIELDS = st.dictionaries(
    st.sampled_from(
        ["session", "audio", "item", "item_id", "response", "content_index", "audio_end_ms", "x"]
    ),
    _JSON,
    max_size=4,
)


@given(st.text(max_size=80) | _JSON.map(lambda value: json.dumps(value)))
def test_no_text_breaks_the_parser(text: str) -> None:
    with pytest.raises(RequestError):
        parse(text)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=st.lists(st.tuples(_KNOWN, _FIELDS), min_size=1, max_size=12))
async def test_no_sequence_of_events_breaks_a_session(
    parts: Parts, batch: list[tuple[str, dict[str, Any]]]
) -> None:
    async with serving(parts) as url, client(url) as one:
        for kind, fields in batch:
            await one.send(kind, **fields)
        await one.send("conversation.item.retrieve", item_id="the end", event_id="end")
        while (event := await one.next())["type"] != "error" or event["error"]["event_id"] != "end":
            pass


# ------------------------------------------------------------------------------------------ without a VAD


async def test_a_client_with_its_own_turn_detection_commits_by_itself(
    one: Client, recording: Recording
) -> None:
    await one.send(
        "session.update",
        session={"type": "realtime", "audio": {"input": {"turn_detection": None, **TRANSCRIBED}}},
    )
    await one.hear(wide(recording("r05-leticia")))
    await one.send("input_audio_buffer.commit")
    completed = await one.until("conversation.item.input_audio_transcription.completed")
    assert completed["transcript"] == "Não, não autorizo a entrada."
    assert not {"input_audio_buffer.speech_started", "response.created"} & set(one.types())
    assert await _said(one) == "Ouvi: Não, não autorizo a entrada.."


async def test_cleared_audio_is_never_heard(one: Client, recording: Recording) -> None:
    await one.send(
        "session.update", session={"type": "realtime", "audio": {"input": {"turn_detection": None}}}
    )
    await one.hear(wide(recording("r03-leticia")))
    await one.send("input_audio_buffer.clear")
    await one.until("input_audio_buffer.cleared")
    await one.send("input_audio_buffer.commit")
    assert (await one.error())["code"] == "input_audio_buffer_commit_empty"


async def test_a_turn_without_words_has_an_empty_transcript(one: Client) -> None:
    await one.send(
        "session.update",
        session={"type": "realtime", "audio": {"input": {"turn_detection": None, **TRANSCRIBED}}},
    )
    hiss = np.random.default_rng(3).normal(0, 900, 16000).astype(np.int16)
    await one.hear(wide(hiss))
    await one.send("input_audio_buffer.commit")
    completed = await one.until("conversation.item.input_audio_transcription.completed")
    assert completed["transcript"] == ""
    assert completed["usage"] == {"type": "duration", "seconds": pytest.approx(3.5, abs=0.01)}


async def test_a_caller_who_says_nothing_is_spoken_to(one: Client) -> None:
    detection = {"type": "server_vad", "idle_timeout_ms": 5000}
    await one.send(
        "session.update", session={"type": "realtime", "audio": {"input": {"turn_detection": detection}}}
    )
    await one.send("response.create", response={"instructions": "Alô?"})
    await one.until("response.done")
    began = asyncio.get_running_loop().time()
    await one.until("input_audio_buffer.timeout_triggered")
    assert 5 < asyncio.get_running_loop().time() - began < 8
    assert (await one.until("response.done"))["response"]["output"][0]["content"][0][
        "transcript"
    ] == "Ouvi: ."


# ---------------------------------------------------------------------------------------------- the door


async def test_only_the_token_opens_a_session(parts: Parts) -> None:
    async with serving(parts, token="segredo") as url:
        for headers in ({}, {"Authorization": "Bearer errado"}, {"Authorization": "Basic segredo"}):
            with pytest.raises(InvalidStatus) as caught:
                await connect(f"{url}/realtime?model=x", additional_headers=headers)
            assert caught.value.response.status_code == 401
        async with client(url, Authorization="Bearer segredo"):
            pass


@pytest.mark.parametrize(("path", "status"), [("/other?model=x", 404), ("/realtime", 400), ("/", 404)])
async def test_other_paths_are_refused(parts: Parts, path: str, status: int) -> None:
    async with serving(parts) as url:
        with pytest.raises(InvalidStatus) as caught:
            await connect(f"{url}{path}")
        assert caught.value.response.status_code == status


async def test_there_is_a_limit_of_sessions_and_an_ended_one_makes_room(parts: Parts) -> None:
    async with serving(parts, max_sessions=2) as url:
        async with client(url), client(url):
            with pytest.raises(InvalidStatus) as caught:
                await connect(f"{url}/realtime?model=x")
            assert caught.value.response.status_code == 503
        async with asyncio.timeout(5):
            while True:
                try:
                    async with client(url):
                        break
                except InvalidStatus:
                    await asyncio.sleep(0.05)


async def test_one_session_s_bad_client_does_not_disturb_another(parts: Parts) -> None:
    async with serving(parts) as url, client(url) as good:
        async with connect(f"{url}/realtime?model=x", max_size=None) as bad:
            await bad.send("x" * (2 << 20))
            await bad.wait_closed()
            assert bad.close_code == 1009
        async with connect(f"{url}/realtime?model=x") as rude:
            rude.transport.abort()
        assert await _said(good, instructions=PROMPTED) == PROMPTED


async def test_a_server_that_stops_tells_its_clients(parts: Parts) -> None:
    async with serving(parts) as url:
        connection = await connect(f"{url}/realtime?model=x")
    await connection.wait_closed()
    assert connection.close_code == 1001
