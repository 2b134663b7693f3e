"""The softphone: it must behave as Asterisk does, or every test that uses it proves nothing."""

from __future__ import annotations

import asyncio
import math
import time
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import numpy as np
import pytest

from bridge.endpoints.audiosocket_frames import HANGUP, FrameParser, encode_audio, encode_key, encode_uuid
from bridge.endpoints.base import Refusal
from bridge.softphone import SILENCE, CallEnded, PhoneClosed, Softphone, dbov, load_wav
from tests.endpoints.audiosocket_parties import TONE, serving, until

CALL = UUID("00112233-4455-6677-8899-aabbccddeeff")


@asynccontextmanager
async def scripted(
    *, reads: bool = True
) -> AsyncIterator[tuple[int, asyncio.Future[asyncio.StreamWriter], bytearray]]:
    """A bare server: its port, the writer towards the phone, and what the phone sent."""
    writer_came: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()
    received = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer_came.set_result(writer)
        while reads and (data := await reader.read(4096)):
            received.extend(data)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=2**14)
    try:
        yield server.sockets[0].getsockname()[1], writer_came, received
    finally:
        server.close()
        if writer_came.done():
            writer_came.result().transport.abort()
        await asyncio.sleep(0.02)


def write_wav(
    path: Path, samples: np.ndarray[tuple[int, ...], np.dtype[np.float64]], rate: int, width: int
) -> Path:
    """Samples of -1 to 1, mono or (n, channels), as a PCM WAV file."""
    whole = np.rint(samples * ((1 << (8 * width - 1)) - 1)).astype("<i8")
    if width == 1:
        whole += 128
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(whole.reshape(-1, 1).view(np.uint8)[:, :width].tobytes())
    return path


def tone(
    seconds: float, rate: int, amplitude: float = 0.5
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.asarray(amplitude * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate))


# ---- WAV files and levels ------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
def test_a_wav_file_of_any_rate_and_width_sounds_the_same(tmp_path: Path, rate: int, width: int) -> None:
    pcm = load_wav(write_wav(tmp_path / "a.wav", tone(0.5, rate), rate, width))
    assert len(pcm) == 8000
    got = np.frombuffer(pcm, "<i2").astype(float) / 32768
    wanted = tone(0.5, 8000)
    middle = slice(400, 3600)
    assert np.abs(got[middle] - wanted[middle]).max() < (0.02 if width == 1 else 0.005)


def test_stereo_is_mixed_down(tmp_path: Path) -> None:
    both = np.stack([tone(0.1, 8000), np.zeros(800)], axis=1)
    got = np.frombuffer(load_wav(write_wav(tmp_path / "a.wav", both, 8000, 2)), "<i2").astype(float) / 32768
    assert np.abs(got - tone(0.1, 8000) / 2).max() < 0.001


def test_full_scale_at_another_rate_does_not_wrap_around(tmp_path: Path) -> None:
    square = np.sign(tone(0.2, 48000))
    got = np.frombuffer(load_wav(write_wav(tmp_path / "a.wav", square, 48000, 2)), "<i2").astype(float)
    assert np.abs(np.diff(got)).max() < 65535 * 0.98 and got.max() == 32767
    assert np.corrcoef(np.sign(got), np.sign(tone(0.2, 8000)))[0, 1] > 0.9


@pytest.mark.parametrize(
    "junk",
    [b"", b"RIFF", b"not a wav file at all", b"RIFF\x24\0\0\0WAVEfmt \x12\0\0\0\x07\0\x01\0" + bytes(40)],
)
def test_what_is_no_pcm_wav_is_named(tmp_path: Path, junk: bytes) -> None:
    path = tmp_path / "junk.wav"
    path.write_bytes(junk)
    with pytest.raises(ValueError, match=r"junk\.wav: not a PCM WAV file"):
        load_wav(path)


def test_levels_are_against_the_overload_point() -> None:
    def level(amplitude: int) -> float:
        return dbov(np.full(160, amplitude, "<i2").tobytes())

    assert level(-32768) == pytest.approx(0.0)
    assert level(16384) == pytest.approx(-6.02, abs=0.01)
    assert dbov(SILENCE) == dbov(b"") == -127.0
    sine = (32767 * np.sin(np.arange(160) * 2 * np.pi / 16)).astype("<i2").tobytes()
    assert dbov(sine) == pytest.approx(-3.01, abs=0.02)


# ---- What it sends -------------------------------------------------------------------------------------


async def test_it_sends_its_uuid_and_then_a_frame_every_20_ms() -> None:
    async with scripted() as (port, _, received), Softphone("127.0.0.1", port, CALL) as phone:
        await asyncio.sleep(1.0)
        assert received.startswith(encode_uuid(CALL) + encode_audio(SILENCE))
        seconds = time.monotonic() - phone.started
        assert abs(phone.frames_sent - seconds * 50) <= 3, "deadlines are absolute: lateness must not add up"
        frames = FrameParser().feed(bytes(received))
        assert abs(len(frames) - 1 - phone.frames_sent) <= 2


async def test_what_is_said_arrives_whole_and_in_order_and_say_waits_for_its_end(tmp_path: Path) -> None:
    first, second = TONE * 5 + b"\x01\x02", bytes(range(200)) * 8
    path = write_wav(tmp_path / "a.wav", tone(0.1, 16000), 16000, 2)
    async with serving() as service, Softphone("127.0.0.1", service.port, CALL) as phone:
        leg = await service.leg(CALL)
        began = time.monotonic()
        waiting = phone.say_nowait(first)
        assert (waiting.done(), phone.is_speaking) == (False, True)
        await phone.say(second)
        await phone.say(path)
        await phone.say(b"")
        assert (waiting.done(), phone.is_speaking) == (True, False)
        # 6, 5 and 5 frames; a say returns with its last frame sent, so the wait is one frame short each
        assert 0.24 < time.monotonic() - began < 0.6
        phone.send_key("#")
        await until(lambda: leg.keys)
        heard = b"".join(pcm for pcm, _ in leg.heard)
        assert first.ljust(1920, b"\0") + second in heard
        assert load_wav(path) in heard
        assert heard in bytes(phone.said) or bytes(phone.said).startswith(heard)
        assert leg.keys == ["#"]


async def test_it_can_be_silenced() -> None:
    async with serving() as service, Softphone("127.0.0.1", service.port, CALL) as phone:
        done = phone.say_nowait(TONE * 500)
        await asyncio.sleep(0.1)
        phone.be_silent()
        await asyncio.wait_for(done, 0.5)
        sent = phone.frames_sent
        await asyncio.sleep(0.1)
        assert phone.frames_sent > sent and phone.said.endswith(SILENCE)


async def test_the_microphone_speaks_when_nothing_else_is_said() -> None:
    live = [TONE, None, TONE]
    async with serving() as service:
        async with Softphone(
            "127.0.0.1", service.port, CALL, microphone=lambda: live.pop(0) if live else None
        ) as phone:
            phone.say_nowait(bytes(range(160)) * 2)
            await asyncio.sleep(0.15)
        assert phone.said.startswith(TONE + bytes(range(160)) * 2 + SILENCE + TONE + SILENCE)


async def test_a_server_that_does_not_read_loses_the_call_as_with_asterisk() -> None:
    """Asterisk's socket does not block, and a short write ends its call."""
    async with scripted(reads=False) as (port, _, _received), Softphone("127.0.0.1", port, CALL) as phone:
        assert phone._transport is not None
        for _ in range(200_000):
            if phone._transport.get_write_buffer_size():
                break
            phone._transport.write(encode_audio(SILENCE))
        how = await asyncio.wait_for(phone.closed, 2)
        assert how.kind == "network_error" and "does not read" in how.detail


# ---- What it hears -------------------------------------------------------------------------------------


async def test_it_knows_when_the_other_side_speaks_and_when_it_has_finished() -> None:
    async with serving() as service, Softphone("127.0.0.1", service.port, CALL) as phone:
        leg = await service.leg(CALL)
        with pytest.raises(TimeoutError, match=r"no speech within 0\.1 s"):
            await phone.wait_for_speech(timeout_s=0.1)
        # A click, then two words with a short pause between them, then the end.
        leg.to_play += [SILENCE, TONE, SILENCE, SILENCE] * 2 + [TONE] * 10 + [SILENCE] * 5 + [TONE] * 10
        asked = time.monotonic()
        began = await phone.wait_for_speech()
        assert 0.1 < began - asked < 0.4, "the clicks are no speech"
        assert phone.is_hearing_speech
        with pytest.raises(TimeoutError, match="no 300 ms of quiet within"):
            await phone.wait_for_quiet(300, timeout_s=0.3)
        ended = await phone.wait_for_quiet(300)
        assert 0.4 < ended - began < 0.7
        assert time.monotonic() - ended >= 0.3
        assert [phone.is_hearing_speech, len(phone.speech)] == [False, 1], (
            "a short pause is within the same stretch"
        )
        assert await phone.wait_for_speech(since=asked) == began
        with pytest.raises(TimeoutError):
            await phone.wait_for_speech(timeout_s=0.05)


async def test_what_it_hears_is_kept_with_its_times(tmp_path: Path) -> None:
    listened: list[bytes] = []
    async with serving() as service:
        async with Softphone("127.0.0.1", service.port, CALL, loudspeaker=listened.append) as phone:
            leg = await service.leg(CALL)
            await asyncio.sleep(0.2)
            leg.to_play += [TONE] * 5
            phone.say_nowait(TONE * 2)
            await asyncio.sleep(0.3)
        assert b"".join(listened) == phone.heard and len(phone.arrivals) == len(listened)
        assert phone.arrivals == sorted(phone.arrivals)
        assert phone.heard.count(TONE * 5) == 1
        phone.save(tmp_path / "both.wav")
        phone.save(tmp_path / "heard.wav", stereo=False)
    with wave.open(str(tmp_path / "both.wav")) as file:
        assert (file.getnchannels(), file.getframerate(), file.getsampwidth()) == (2, 8000, 2)
        both = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    said, heard = (np.flatnonzero(both[:, channel]) for channel in (0, 1))
    assert len(said) == 320 and len(heard) == 800
    assert 0.15 < said[0] / 8000 < 0.3 and 0.15 < heard[0] / 8000 < 0.35, "both stand where they fell in time"
    with wave.open(str(tmp_path / "heard.wav")) as file:
        assert file.getnchannels() == 1


async def test_a_gap_in_what_it_hears_is_a_gap_in_the_recording(tmp_path: Path) -> None:
    async with scripted() as (port, writer_came, _):
        async with Softphone("127.0.0.1", port, CALL) as phone:
            writer = await writer_came
            writer.write(encode_audio(TONE))
            await asyncio.sleep(0.5)
            writer.write(encode_audio(TONE) + encode_audio(TONE))
            await asyncio.sleep(0.1)
        phone.save(tmp_path / "gap.wav", stereo=False)
    with wave.open(str(tmp_path / "gap.wav")) as file:
        loud = np.flatnonzero(np.frombuffer(file.readframes(file.getnframes()), "<i2"))
    gaps = np.diff(loud)
    assert len(loud) == 480 and 3200 < gaps.max() < 4800 and np.count_nonzero(gaps > 1) == 1


async def test_without_audio_it_keeps_times_and_speech_only() -> None:
    async with serving() as service, Softphone("127.0.0.1", service.port, CALL, keep_audio=False) as phone:
        (await service.leg(CALL)).to_play += [TONE] * 10
        await phone.wait_for_speech()
        assert phone.arrivals and phone.speech
        assert not phone.heard and not phone.said


# ---- How it ends ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "kind", "orderly"),
    [
        (HANGUP, "hangup", True),
        (b"", "closed", False),
        (encode_key("1"), "protocol_error", False),
        (b"\x10\x00\x00", "protocol_error", False),
        (encode_audio(bytes(640), 16000), "protocol_error", False),
        (b"HTTP/1.1 400 Bad Request", "protocol_error", False),
    ],
)
async def test_it_ends_as_asterisk_would(wire: bytes, kind: str, orderly: bool) -> None:
    """A key, empty audio or any other kind from the server ends the call in Asterisk: so here."""
    async with scripted() as (port, writer_came, _), Softphone("127.0.0.1", port, CALL) as phone:
        saying = asyncio.create_task(phone.say(TONE * 500))
        nowait = phone.say_nowait(TONE * 500)
        listening = asyncio.create_task(phone.wait_for_speech())
        writer = await writer_came
        await asyncio.sleep(0.05)
        writer.write(wire)
        if not wire:
            writer.write_eof()
        how = await asyncio.wait_for(phone.closed, 2)
        assert (how.kind, how.orderly) == (kind, orderly)
        for task in (saying, listening):
            with pytest.raises(CallEnded) as caught:
                await task
            assert caught.value.how == how
        assert isinstance(nowait.exception(), CallEnded)
        with pytest.raises(CallEnded):
            phone.say_nowait(TONE)
        with pytest.raises(CallEnded):
            phone.send_key("1")


async def test_a_reset_is_a_network_error() -> None:
    async with scripted() as (port, writer_came, _), Softphone("127.0.0.1", port, CALL) as phone:
        (await writer_came).transport.abort()
        how = await asyncio.wait_for(phone.closed, 2)
        assert how.kind in ("network_error", "closed") and not how.orderly


async def test_hanging_up_closes_without_a_frame_as_asterisk_does() -> None:
    async with scripted() as (port, _, received):
        async with Softphone("127.0.0.1", port, CALL) as phone:
            await asyncio.sleep(0.1)
            phone.hang_up()
            phone.hang_up()
        assert phone.closed.result() == PhoneClosed("local", "hung up here")
        await asyncio.sleep(0.05)
        assert HANGUP not in received.replace(SILENCE, b"")


async def test_leaving_the_context_hangs_up() -> None:
    async with serving() as service:
        async with Softphone("127.0.0.1", service.port, CALL):
            leg = await service.leg(CALL)
        assert (await service.ending(CALL)).kind == "hangup"
        assert leg.endpoint.ended


async def test_nobody_there_is_an_error_at_once() -> None:
    async with scripted() as (port, _, _received):
        pass
    with pytest.raises(ConnectionError, match=f"cannot call 127.0.0.1:{port}"):
        async with Softphone("127.0.0.1", port, CALL):
            raise AssertionError("connected to nobody")


async def test_a_refused_call_is_heard_as_a_hang_up() -> None:
    async with (
        serving(accept=lambda endpoint: Refusal("full")) as service,
        Softphone("127.0.0.1", service.port, uuid4()) as phone,
    ):
        how = await asyncio.wait_for(phone.closed, 2)
        assert how == PhoneClosed("hangup", "the other side hung up")


def test_no_level_is_a_nan() -> None:
    assert not math.isnan(dbov(np.array([1], "<i2").tobytes()))
