"""The replaying model server, asked by a real WebSocket client: what the figures rest on."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.sync.client import ClientConnection, connect

from bench import media
from bench.children import Child
from bench.model_process import FORMATS


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    with Child("bench.model_process", {"pace": 100}, tmp_path_factory.mktemp("model") / "log") as child:
        yield child


@pytest.fixture(scope="module")
def url(server: Child) -> str:
    return str(server.ready()["url"]).replace("http://", "ws://") + "/realtime?model=bench"


class Client:
    """One session."""

    def __init__(self, connection: ClientConnection, form: str = "audio/pcm") -> None:
        self._connection = connection
        assert self.next()["type"] == "session.created"
        audio = {"input": {"format": {"type": form}}, "output": {"format": {"type": form}}}
        self.send(type="session.update", session={"type": "realtime", "audio": audio})

    def send(self, **message: Any) -> None:
        self._connection.send(json.dumps(message, separators=(",", ":")))

    def speak(self, data: bytes, *, spaced: bool = False) -> None:
        message = {"type": "input_audio_buffer.append", "audio": b64encode(data).decode()}
        self._connection.send(json.dumps(message) if spaced else json.dumps(message, separators=(",", ":")))

    def next(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._connection.recv(5.0))
        return message

    def until(self, kind: str) -> list[dict[str, Any]]:
        """All that comes, to a message of this kind."""
        found = [self.next()]
        while found[-1]["type"] != kind:
            found.append(self.next())
        return found

    def reply(self) -> tuple[str, bytes]:
        """A reply's item, and its audio."""
        self.send(type="response.create")
        messages = self.until("response.done")
        deltas = [message for message in messages if message["type"] == "response.output_audio.delta"]
        assert {message["item_id"] for message in deltas} == {deltas[0]["item_id"]}
        return deltas[0]["item_id"], b"".join(b64decode(message["delta"]) for message in deltas)


def last_session(server: Child) -> dict[str, Any]:
    server.tell({})
    found: dict[str, Any] = server.heard()["sessions"][-1]
    return found


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_a_caller_is_heard_and_answered_in_each_format(server: Child, url: str, form: str) -> None:
    spoken = FORMATS[form]
    frame = spoken.rate // 25
    at = np.arange(8 * frame) / spoken.rate
    loud = np.rint(8000 * np.sin(2 * np.pi * 300 * at)).astype("<i2").tobytes()
    mark = np.rint(media.MARK_PEAK * np.sin(2 * np.pi * media.MARK_HZ * at[: frame // 2])).astype("<i2")
    with connect(url) as connection:
        client = Client(connection, form)
        assert client.next()["type"] == "session.updated"
        _, greeting = client.reply()
        assert spoken.decoded(greeting) == spoken.decoded(spoken.encoded(media.greeting(spoken.rate)))
        stream = (
            bytes(2 * (frame + 11)) + mark.tobytes() + bytes(2 * 5 * frame) + loud + bytes(2 * 25 * frame)
        )
        for start in range(0, len(stream), 2 * frame):
            piece = stream[start : start + 2 * frame]
            client.speak(spoken.encoded(piece), spaced=start % 3 == 0)
        kinds = [
            message["type"]
            for message in client.until("conversation.item.input_audio_transcription.completed")
        ]
        assert kinds[:2] == ["input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped"]
        found = last_session(server)
    assert found["rate"] == spoken.rate
    assert found["marks"] == [frame + 11 + media.mark_lead(spoken.rate)]
    assert found["append_samples"][-1] == len(stream) // 2
    assert len(found["append_times"]) == len(found["append_samples"])
    assert [place for _, _, place in found["deltas"]] == list(
        range(0, len(media.greeting(spoken.rate)) // 2, spoken.rate // 5)
    )
    assert not found["errors"]


def test_what_was_not_sent_cant_have_been_heard(server: Child, url: str) -> None:
    with connect(url) as connection:
        client = Client(connection)
        item, audio = client.reply()
        ms = len(audio) // 48
        for heard, answer in ((0, "truncated"), (ms, "truncated"), (ms + 1, "error"), (-1, "error")):
            client.send(type="conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=heard)
            assert client.until(answer if answer == "error" else f"conversation.item.{answer}")
        client.send(type="conversation.item.truncate", item_id="other", content_index=0, audio_end_ms=1)
        client.until("error")
        client.send(type="conversation.item.delete", item_id="other")
        client.until("error")
        found = last_session(server)
    assert [(name, heard) for _, name, heard in found["truncations"]] == [(item, 0), (item, ms)]
    assert found["errors"] == [
        "invalid_value",
        "invalid_value",
        "item_truncate_invalid_item_id",
        "item_delete_invalid_item_id",
    ]


def test_a_reply_stops_where_it_is_cancelled_and_is_given_once(url: str) -> None:
    with connect(url) as connection:
        client = Client(connection)
        client.reply()
        client.send(type="response.cancel")
        assert client.until("error")[-1]["error"]["code"] == "response_cancel_not_active"
        client.send(type="response.create")
        client.send(type="response.create")
        client.send(type="response.cancel")
        messages = client.until("response.done")
    codes = [message["error"]["code"] for message in messages if message["type"] == "error"]
    assert codes == ["conversation_already_has_active_response"]
    assert messages[-1]["response"]["status"] == "cancelled"


def test_a_format_that_there_is_not_is_refused(url: str) -> None:
    with connect(url) as connection:
        client = Client(connection, "audio/opus")
        assert client.next()["error"]["code"] == "invalid_value"


def test_a_fault_of_its_own_ends_it_with_a_word(tmp_path: Path) -> None:
    with (
        Child("bench.model_process", {"tempo": 1}, tmp_path / "log") as child,
        pytest.raises(Exception, match="tempo"),
    ):
        child.ready()
