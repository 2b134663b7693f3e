"""A language model behind the dialogue's seam: what is asked, what is made of its reply, and how it fails."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionChunk

from providers.base import Tokens, Usage
from providers.local.chat import Chat, ChatSettings
from providers.local.chat_messages import UNANSWERED, UNHEARD, Malformed, Reading, chat_messages, chat_request
from providers.local.dialogue.base import (
    AgentSaid,
    Began,
    CallAnswered,
    CallMade,
    CutShort,
    Entry,
    History,
    Part,
    Say,
    SystemSaid,
    Used,
    UserSaid,
    WrittenCall,
)
from providers.local.stage import StageError, payee
from tests.simulators.chat_speech import KEY, Call, Faults, Reply, Simulator

MODEL = "llama-3.3-70b-versatile"
TOOLS = [
    {
        "type": "function",
        "name": "lookup_apartment",
        "description": "Procura.",
        "parameters": {"type": "object"},
    },
    {"type": "function", "name": "end_call", "description": "", "parameters": {}},
]


def chat(server: Simulator, **changes: Any) -> Chat:
    return Chat(ChatSettings(**{"base_url": server.url, "model": MODEL, "api_key": KEY, **changes}))


async def reply(
    chat: Chat, history: History, instructions: str | None = None, choice: str = "auto"
) -> list[Part]:
    dialogue = chat.dialogue(lambda _: None)
    dialogue.configure("Você é o porteiro.", TOOLS)
    async with aclosing(dialogue.reply(history, instructions, choice)) as parts:
        found = [part async for part in parts]
    await chat.close()
    return found


async def asked(model: Chat, bills: list[Usage] | None = None) -> tuple[list[Part], Exception | None]:
    """What comes of a question, and how it ends."""
    found: list[Part] = []
    bills = [] if bills is None else bills
    request = model.request([{"role": "user", "content": "x"}], TOOLS, "auto")
    try:
        async with aclosing(model.ask(request, bills.append)) as parts:
            async for part in parts:
                found.append(part)
    except (StageError, CutShort) as error:
        return found, error
    finally:
        await model.close()
    return found, None


# ------------------------------------------------------------------------------------------- what is asked

entries = st.lists(
    st.one_of(
        st.builds(UserSaid, st.sampled_from(["", "501"])),
        st.builds(AgentSaid, st.just("Um momento.")),
        st.builds(SystemSaid, st.just("Há novidades.")),
        st.builds(CallMade, st.sampled_from("abc"), st.just("end_call"), st.just("{}")),
        st.builds(CallAnswered, st.sampled_from("abc"), st.just('{"ok":true}')),
    ),
    max_size=12,
)


@given(entries)
def test_whatever_happened_makes_a_conversation_that_the_vendor_takes(history: list[Entry]) -> None:
    """Calls are made once each, as in a conversation of ours."""
    once: list[Entry] = []
    for entry in history:
        made = [one.call_id for one in once if isinstance(one, CallMade)]
        if not (isinstance(entry, CallMade) and entry.call_id in made):
            once.append(entry)
    messages = chat_messages("Você é o porteiro.", once)
    Simulator()._check_chat(
        {**chat_request(MODEL, messages, TOOLS, "auto"), "stream": True, "stream_options": {}}
    )
    said = [m["content"] for m in messages if m["role"] == "assistant" and m["content"]]
    assert said == [entry.text for entry in once if isinstance(entry, AgentSaid)], "nothing said is lost"
    users = [m["content"] for m in messages if m["role"] == "user"]
    assert users == [entry.text or UNHEARD for entry in once if isinstance(entry, UserSaid)]
    answers = {entry.call_id: entry.output for entry in once if isinstance(entry, CallAnswered)}
    for message in messages:
        if message["role"] == "tool":
            assert message["content"] == answers.get(message["tool_call_id"], UNANSWERED)


def test_what_was_said_with_calls_is_one_message_and_their_answers_follow_it() -> None:
    history: list[Entry] = [
        UserSaid("501 e 502"),
        AgentSaid("Um momento."),
        CallMade("a", "lookup_apartment", '{"apartment":"501"}'),
        CallMade("b", "lookup_apartment", '{"apartment":"502"}'),
        CallAnswered("b", '{"found":false}'),
        UserSaid("Alô?"),
        CallAnswered("a", '{"found":true}'),
    ]
    roles = [(m["role"], m.get("tool_call_id"), m["content"]) for m in chat_messages("", history)]
    assert roles == [
        ("user", None, "501 e 502"),
        ("assistant", None, "Um momento."),
        ("tool", "a", '{"found":true}'),
        ("tool", "b", '{"found":false}'),
        ("user", None, "Alô?"),
    ]


async def test_a_named_tool_is_asked_for_by_its_name() -> None:
    async with Simulator() as server:
        await reply(chat(server), [UserSaid("oi")], choice="end_call")
        (request,) = server.requests
        assert request["tool_choice"] == {"type": "function", "function": {"name": "end_call"}}
        assert request["messages"][0] == {"role": "system", "content": "Você é o porteiro."}
        assert server.violations == []


async def test_exact_words_are_said_without_asking_the_model() -> None:
    async with Simulator() as server:
        found = await reply(chat(server), [], "Diga exatamente, palavra por palavra: «Bom dia! Sr. João?»")
        assert found == [Say("Bom dia!"), Say("Sr. João?")]
        assert server.requests == []


# ----------------------------------------------------------------------------------- what comes of a reply


async def test_sentences_come_as_they_are_written_and_calls_when_they_are_whole() -> None:
    text = "Um momento, por favor. O Sr. João mora no 501! Vou"
    async with Simulator() as server:
        calls = (Call(), Call("end_call", "", pieces=1))
        server.replies.append(Reply(text, calls, piece=3))
        assert await reply(chat(server), [UserSaid("oi")]) == [
            Began(),
            Say("Um momento, por favor."),
            Say("O Sr. João mora no 501!"),
            Say("Vou"),
            WrittenCall("lookup_apartment", '{"apartment": "501"}'),
            WrittenCall("end_call", "{}"),
            Used(900, 20, 512),
        ]


async def test_calls_without_an_index_are_told_apart_by_their_ids() -> None:
    async with Simulator(faults=Faults(no_index=True, keep_usage=True)) as server:
        server.replies.append(Reply("", (Call(), Call("end_call", "{}"))))
        found = await reply(chat(server), [UserSaid("oi")])
        assert found[1:] == [
            WrittenCall("lookup_apartment", '{"apartment": "501"}'),
            WrittenCall("end_call", "{}"),
        ]


@pytest.mark.parametrize(
    ("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
async def test_calls_of_a_reply_that_was_cut_short_are_not_made(finish: str, reason: str) -> None:
    async with Simulator() as server:
        server.replies.append(Reply("Vou ver.", (Call(),), finish))
        found, cut = await asked(chat(server))
        assert isinstance(cut, CutShort) and cut.reason == reason
        assert found == [Began(), Say("Vou ver."), Used(900, 20, 512)]


async def test_the_first_sentence_is_there_while_the_second_is_written() -> None:
    async with Simulator(faults=Faults(pace_s=0.02)) as server:
        bills: list[Usage] = []
        server.replies.append(Reply("Um momento. " + "A segunda frase é longa, e não acaba logo. " * 3))
        model = chat(server)
        async with aclosing(
            model.ask(model.request([{"role": "user", "content": "x"}], [], "auto"), bills.append)
        ) as parts:
            async for part in parts:
                if isinstance(part, Say):
                    break
            assert part == Say("Um momento.")
            assert server.running, "it is still writing"
        # Closed: the connection is gone, and the server with it.
        async with asyncio.timeout(2):
            while server.hung_up == 0:
                await asyncio.sleep(0.01)
        await model.close()
        (bill,) = bills
        assert not bill.complete, "what was broken off is paid, and nobody says how much"


# ---------------------------------------------------------------------------------------------- how it fails


@pytest.mark.parametrize(
    ("faults", "changes", "code", "words"),
    [
        (Faults(), {"api_key": "x"}, "key_refused", "the key was refused (HTTP 401)"),
        (Faults(), {"model": "gpt-9"}, "unknown_model", "the model is not known there (HTTP 404)"),
        (Faults(refuse=(429, b"{}")), {}, "rate_limit", "too many requests (HTTP 429)"),
        (
            Faults(refuse=(429, b'{"error":{"code":"insufficient_quota"}}')),
            {},
            "quota",
            "the account's quota is used up (HTTP 429)",
        ),
        (Faults(refuse=(503, b"")), {}, "unavailable", "out of order (HTTP 503)"),
        (Faults(refuse=(302, b"")), {}, "refused", "(HTTP 302)"),
        (Faults(), {"base_url": "http://127.0.0.1:1/v1"}, "unreachable", "could not be reached"),
        (Faults(delay_s=5), {"first_s": 0.3}, "timeout", "no word for 0.3 s"),
        (Faults(after=3, then="stall"), {"next_s": 0.2}, "timeout", "no word for 0.2 s"),
        (Faults(after=0, then="stall"), {"first_s": 0.3}, "timeout", "no word for 0.3 s"),
        (Faults(after=3, then="cut"), {}, "went_away", "the connection broke"),
        (Faults(after=3, then="half"), {}, "protocol_error", "the reply broke off"),
        (Faults(after=3, then="end"), {}, "protocol_error", "the reply broke off"),
        (Faults(after=3, then="garbage"), {}, "protocol_error", "makes no sense"),
        (Faults(after=3, then="error"), {}, "rate_limit", "Rate limit reached"),
    ],
)
async def test_a_fault_is_told_in_plain_words(
    faults: Faults, changes: dict[str, Any], code: str, words: str
) -> None:
    async with Simulator(
        replies=deque([Reply("Um momento, por favor.", (Call(),))]), faults=faults
    ) as server:
        found, failed = await asked(chat(server, **changes))
    assert isinstance(failed, StageError) and failed.code == code
    assert str(failed).startswith("language model (127.0.0.1:") and words in str(failed)
    assert KEY not in str(failed)
    assert not any(isinstance(part, WrittenCall) for part in found), "what is not whole is not run"


async def test_a_reply_is_paid_by_its_tokens_and_what_was_refused_is_not() -> None:
    bills: list[Usage] = []
    async with Simulator() as server:
        await asked(chat(server), bills)
        await asked(chat(server, api_key="x"), bills)
    tokens = Tokens(text_in=388, text_cached=512, text_out=20)
    assert bills == [Usage("127.0.0.1", MODEL, "reply", tokens)]
    assert [payee(f"https://api.{name}.com/v1") for name in ("openai", "groq")] == ["openai", "groq"]


async def test_a_fault_that_passes_is_asked_over_once() -> None:
    async with Simulator(faults=Faults(refuse=(500, b""), times=1)) as server:
        assert Say("Pois não?") in await reply(chat(server), [UserSaid("oi")])


async def test_check_is_a_few_tokens_of_a_real_reply() -> None:
    async with Simulator() as server:
        model = chat(server)
        await model.check()
        await model.close()
        assert len(server.requests) == 1 and server.violations == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "delta", "tool_calls", "index", "usage"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@settings(max_examples=300)
@given(
    st.lists(
        st.fixed_dictionaries(
            {"choices": st.lists(st.fixed_dictionaries({"delta": json_values}), max_size=2) | json_values},
            optional={"usage": json_values, "id": json_values},
        ),
        max_size=4,
    )
)
def test_no_stream_makes_anything_but_parts_or_a_fault_of_theirs(chunks: list[dict[str, Any]]) -> None:
    reading = Reading()
    try:
        for chunk in chunks:
            # As the SDK makes them: without looking.
            for part in reading.take(ChatCompletionChunk.construct(**json.loads(json.dumps(chunk)))):
                assert isinstance(part, Began | Say)
        reading.end()
    except Malformed:
        pass
