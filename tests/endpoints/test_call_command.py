"""`porteiro call` from its command line to its exit code, against a real server."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
import wave
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from bridge.commands import call
from bridge.commands.call import Press, Say
from bridge.commands.sound import NoSound, SoundCard
from bridge.endpoints.audiosocket import AudioSocketEndpoint
from bridge.softphone import SILENCE, dbov
from tests.endpoints.audiosocket_parties import TONE, Leg, Service, serving

CALL = UUID("00112233-4455-6677-8899-aabbccddeeff")


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    call.add_parser(parser.add_subparsers(required=True))
    return parser.parse_args(["call", *arguments])


def say_file(path: Path, seconds: float, level: int = 6000) -> str:
    """A WAV file that is told from others by its level."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(np.full(int(seconds * 8000), level, "<i2").tobytes())
    return str(path)


class Agent(Leg):
    """Greets, answers each thing it hears with a sentence, and hangs up after ``answers`` of them."""

    sentence = [TONE] * 20
    answers = 2

    def __init__(self, endpoint: AudioSocketEndpoint) -> None:
        super().__init__(endpoint)
        self.notes: list[tuple[float, str]] = []
        self._loud = self._quiet = 0
        self._left = self.answers
        self.to_play += [SILENCE] * 5 + self.sentence

    def note(self, what: str) -> None:
        self.notes.append((asyncio.get_running_loop().time(), what))

    def audio_in(self, pcm: bytes, rate: int) -> None:
        super().audio_in(pcm, rate)
        if dbov(pcm) > -40:
            if not self._loud:
                self.note("over" if self.to_play else "heard")
                self.to_play.clear()
            self._loud, self._quiet = self._loud + 1, 0
        elif self._loud:
            self._quiet += 1
            if self._quiet == 15:
                self._loud = 0
                self._answer()

    def key_pressed(self, digit: str) -> None:
        super().key_pressed(digit)
        self.note("over" if self.to_play else f"key {digit}")
        self._answer()

    def _answer(self) -> None:
        self._left -= 1
        self.to_play += self.sentence
        if not self._left:
            asyncio.get_running_loop().call_later(0.2, self.endpoint.hang_up)


async def make_call(service: Service, *arguments: str) -> int:
    """Run the command in a thread, as a program of its own would run it."""
    args = parse("--port", str(service.port), "--uuid", str(CALL), *arguments)
    run: Callable[[argparse.Namespace], int] = args.run
    return await asyncio.to_thread(run, args)


async def test_files_are_said_in_turn_and_the_call_is_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agents: list[Agent] = []

    def accept(endpoint: AudioSocketEndpoint) -> Agent:
        agents.append(Agent(endpoint))
        return agents[0]

    first, second = say_file(tmp_path / "a.wav", 0.3), say_file(tmp_path / "b.wav", 0.2)
    out = tmp_path / "call.wav"
    async with serving(accept=accept) as service:
        code = await make_call(service, "--say", first, second, "--out", str(out))
    printed = capsys.readouterr()
    assert code == 0
    summary = printed.out.splitlines()[-1]  # above it stands the server's own log
    assert "hangup: the other side hung up" in summary and str(out) in summary
    assert "saying a.wav" in printed.err and "saying b.wav" in printed.err
    assert "the other side speaks" in printed.err
    assert [what for _, what in agents[0].notes] == ["heard", "heard"], "never over the agent"
    with wave.open(str(out)) as file:
        both = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    assert np.count_nonzero(both[:, 0]) == 2400 + 1600
    assert np.count_nonzero(both[:, 1]) >= 2 * 20 * 160


async def test_barging_in_and_keys_in_the_order_of_the_command_line(tmp_path: Path) -> None:
    agents: list[Agent] = []

    class Talkative(Agent):
        sentence = [TONE] * 100
        answers = 3

    def accept(endpoint: AudioSocketEndpoint) -> Agent:
        agents.append(Talkative(endpoint))
        Talkative.sentence = [TONE] * 20
        return agents[0]

    over, later = say_file(tmp_path / "over.wav", 0.3), say_file(tmp_path / "later.wav", 0.2)
    async with serving(accept=accept) as service:
        code = await make_call(service, "--barge", f"{over}@400", "--key", "1", "--say", later)
    assert code == 0
    agent = agents[0]
    assert [what for _, what in agent.notes] == ["over", "key 1", "heard"]
    first_loud = next(i for i, (pcm, _) in enumerate(agent.heard) if any(pcm))
    assert 20 <= first_loud <= 40, "400 ms after the agent began, which was 100 ms into the call"


async def test_a_side_that_says_nothing_is_not_waited_for_for_ever(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving() as service:
        code = await make_call(
            service, "--say", say_file(tmp_path / "a.wav", 0.1), "--patience", "0.2", "--hang-up-after", "0.2"
        )
    printed = capsys.readouterr()
    assert code == 0 and "local: hung up here" in printed.out
    assert "nothing heard for 0.2 s, going on" in printed.err


async def test_a_call_without_end_ends_at_the_limit_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving() as service:
        assert await make_call(service, "--limit", "0.3") == 1
    assert "still going on after 0.3 s" in capsys.readouterr().out


async def test_a_server_that_breaks_off_gives_1_and_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(19)
        writer.close()

    server = await asyncio.start_server(break_off, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    code = await asyncio.to_thread(call.run, parse("--port", str(port)))
    server.close()
    assert code == 1
    printed = capsys.readouterr().out
    assert "closed: " in printed or "network_error: " in printed


def test_nobody_there_gives_1_and_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    assert call.run(parse("--port", "1")) == 1
    assert "porteiro call: cannot call 127.0.0.1:1" in capsys.readouterr().err


def test_a_missing_or_wrong_file_is_said_before_anyone_is_called(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call.run(parse("--say", str(tmp_path / "none.wav"))) == 1
    assert "none.wav" in capsys.readouterr().err
    (tmp_path / "text.wav").write_text("hello")
    assert call.run(parse("--say", str(tmp_path / "text.wav"))) == 1
    assert "text.wav: not a PCM WAV file" in capsys.readouterr().err


def test_a_resident_needs_the_uuid_of_the_dial(capsys: pytest.CaptureFixture[str]) -> None:
    assert call.run(parse("--role", "resident")) == 1
    assert "--uuid" in capsys.readouterr().err


def test_the_script_is_the_order_of_the_command_line() -> None:
    args = parse("--say", "a.wav", "barge:b.wav@800", "--key", "1", "--barge", "c@d.wav@5", "--say", "e.wav")
    assert args.script == [
        Say(Path("a.wav")),
        Say(Path("b.wav"), 800),
        Press("1"),
        Say(Path("c@d.wav"), 5),
        Say(Path("e.wav")),
    ]
    assert parse().script == []


@pytest.mark.parametrize(
    "wrong",
    [
        ["--barge", "a.wav"],
        ["--barge", "@5"],
        ["--barge", "a.wav@-5"],
        ["--key", "x"],
        ["--key", "12"],
        ["--uuid", "x"],
        ["--role", "attendant"],
        ["--limit", "0"],
        ["--limit", "nan"],
        ["--limit", "soon"],
    ],
)
def test_wrong_arguments_are_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(*wrong)
    assert caught.value.code == 2
    assert wrong[0] in capsys.readouterr().err


# ---- Microphone and loudspeaker ------------------------------------------------------------------------


def test_without_sounddevice_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert call.run(parse("--microphone")) == 1
    said = capsys.readouterr().err
    assert "pip install 'porteiro[sound]'" in said and "libportaudio2" in said


class FakeStream:
    """PortAudio as this command sees it: a stream that calls back with what was recorded."""

    def __init__(self, *, callback: Callable[..., None], **settings: Any) -> None:
        self.callback, self.settings = callback, settings
        self.running = False

    def start(self) -> None:
        self.running = True

    def close(self) -> None:
        self.running = False

    def exchange(self, recorded: bytes) -> bytes:
        played = bytearray(len(recorded))
        self.callback(memoryview(recorded), memoryview(played), len(recorded) // 2, None, None)
        return bytes(played)


def fake_sounddevice(open_stream: Callable[..., object]) -> ModuleType:
    module = ModuleType("sounddevice")
    module.__dict__.update(RawStream=open_stream, PortAudioError=RuntimeError)
    return module


def test_the_sound_card_exchanges_20_ms_at_8_khz(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[FakeStream] = []

    def open_stream(**settings: Any) -> FakeStream:
        opened.append(FakeStream(**settings))
        return opened[0]

    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice(open_stream))
    with SoundCard() as card:
        (stream,) = opened
        assert stream.running
        wanted = {"samplerate": 8000, "blocksize": 160, "channels": 1, "dtype": "int16"}
        assert stream.settings == wanted
        assert card.read() is None
        frames = [bytes([n]) * 320 for n in range(1, 6)]
        assert stream.exchange(frames[0]) == SILENCE
        assert card.read() == frames[0]
        # It plays once three frames are there, then in order, then waits for three again.
        played = []
        for frame in frames[:4]:
            card.play(frame)
            played.append(stream.exchange(SILENCE))
        assert played == [SILENCE, SILENCE, frames[0], frames[1]]
        assert [stream.exchange(SILENCE) for _ in range(3)] == [frames[2], frames[3], SILENCE]
        card.play(frames[4])
        assert stream.exchange(SILENCE) == SILENCE
        for _ in range(500):
            stream.exchange(TONE)
        held = 0
        while card.read():
            held += 1
        assert held <= 15, "a clock that runs faster than ours must not add up"
    assert not stream.running


def test_a_machine_without_a_sound_device_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def open_stream(**settings: Any) -> object:
        raise RuntimeError("Error querying device -1")

    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice(open_stream))
    with pytest.raises(
        NoSound, match="no microphone and loudspeaker at 8 kHz mono: Error querying device -1"
    ):
        SoundCard().__enter__()
    assert call.run(parse("--microphone")) == 1
    assert "Error querying device" in capsys.readouterr().err


async def test_the_microphone_is_heard_by_the_other_side(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_stream(**settings: Any) -> object:
        callback = settings["callback"]

        def speak() -> None:
            for _ in range(10):
                callback(TONE, memoryview(bytearray(320)), 160, None, None)

        return SimpleNamespace(start=speak, close=lambda: None)

    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice(open_stream))
    async with serving() as service:
        began = time.monotonic()
        assert await make_call(service, "--microphone", "--hang-up-after", "0.5") == 0
        assert time.monotonic() - began < 5
        leg = await service.leg(CALL)
        assert b"".join(pcm for pcm, _ in leg.heard).count(TONE) == 10
