"""What a session remembers of our own words: never more than was heard."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.local.conversation import Conversation, Item, Spoken
from providers.local.dialogue.base import AgentSaid
from providers.local.protocol import RequestError


def _item(*sentences: tuple[str, int]) -> Item:
    item = Item("i", "message", role="assistant", content="output_audio", text=None)
    item.spoken = [Spoken(text, ms, ms) for text, ms in sentences]
    item.text = " ".join(text for text, _ in sentences)
    return item


@pytest.mark.parametrize(
    ("heard_ms", "words"),
    [
        (0, ""),
        (100, ""),
        (500, "Bom"),
        (1000, "Bom dia."),
        (2100, "Bom dia. Aqui é a"),
        (3000, "Bom dia. Aqui é a portaria."),
    ],
)
def test_a_reply_is_remembered_up_to_the_word_that_was_heard(heard_ms: int, words: str) -> None:
    item = _item(("Bom dia.", 1000), ("Aqui é a portaria.", 2000))
    item.truncate(heard_ms)
    assert item.heard() == words
    assert item.entry() == (AgentSaid(words) if words else None)


_SENTENCES = st.lists(
    st.tuples(st.text("abcé ", min_size=1, max_size=30).filter(str.strip), st.integers(1, 5000)),
    min_size=1,
    max_size=5,
)


@given(_SENTENCES, st.data())
def test_hearing_more_never_remembers_less_and_never_more_than_was_said(
    sentences: list[tuple[str, int]], data: st.DataObject
) -> None:
    total = sum(ms for _, ms in sentences)
    less, more = sorted(data.draw(st.tuples(st.integers(0, total), st.integers(0, total))))
    heard = []
    for ms in (less, more):
        item = _item(*sentences)
        item.truncate(ms)
        heard.append(item.heard())
    whole = _item(*sentences).heard()
    assert len(heard[0]) <= len(heard[1]) <= len(whole)
    assert "".join(whole.split()).startswith("".join(heard[1].split()))
    assert "".join(heard[1].split()).startswith("".join(heard[0].split()))


def test_what_was_not_sent_was_not_heard() -> None:
    """A cancelled reply: the second sentence had begun, the third had not."""
    item = _item(("Um dois.", 1000), ("Três quatro cinco.", 2000), ("Seis.", 500))
    item.status = "incomplete"
    item.spoken[1].sent_ms, item.spoken[2].sent_ms = 800, 0
    assert item.heard() == "Um dois. Três"
    with pytest.raises(RequestError, match="already shorter"):
        item.truncate(1801)


def test_an_id_is_taken_once() -> None:
    conversation = Conversation("c")
    assert conversation.add(Item("a", "message")) is None
    assert conversation.add(Item("b", "message")) == "a"
    assert conversation.add(Item("0", "message"), "root") is None
    assert conversation.add(Item("x", "message"), "a") == "a"
    assert [item.id for item in conversation] == ["0", "a", "x", "b"]
    with pytest.raises(RequestError, match="exists already"):
        conversation.add(Item("a", "message"))
    with pytest.raises(RequestError, match="not found"):
        conversation.add(Item("y", "message"), "nowhere")
    conversation.delete("a")
    assert "a" not in conversation and len(conversation) == 3
