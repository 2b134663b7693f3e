"""AudioSocket's framing: every kind, any chunking, and nothing that a peer sends does harm."""

from __future__ import annotations

import random
import struct
import tracemalloc
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.endpoints import audiosocket_frames as af
from bridge.endpoints.audiosocket_frames import (
    Audio,
    CallId,
    Frame,
    FrameError,
    FrameParser,
    Hangup,
    Key,
    PeerError,
    Side,
)

CALL = UUID("00112233-4455-6677-8899-aabbccddeeff")
RATES = [8000, 12000, 16000, 24000, 32000, 44100, 48000, 96000, 192000]


def raw(kind: int, payload: bytes = b"", length: int | None = None) -> bytes:
    """A frame by the book, built independently of the encoders."""
    return bytes([kind]) + (len(payload) if length is None else length).to_bytes(2, "big") + payload


ID = raw(0x01, CALL.bytes)


def test_a_uuid_frame_is_sixteen_bytes_big_endian() -> None:
    wire = bytes.fromhex("01 0010 00112233445566778899aabbccddeeff")
    assert af.encode_uuid(CALL) == wire
    assert FrameParser().feed(wire) == [CallId(CALL)]


def test_the_hang_up_frame_is_three_zeros() -> None:
    assert af.encode_hangup() == b"\0\0\0"
    assert FrameParser().feed(ID + b"\0\0\0") == [CallId(CALL), Hangup()]


@pytest.mark.parametrize(("kind", "rate"), list(zip(range(0x10, 0x19), RATES, strict=True)))
def test_every_rate_of_audio(kind: int, rate: int) -> None:
    pcm = bytes(range(256)) * 2
    assert af.encode_audio(pcm, rate) == raw(kind, pcm)
    assert FrameParser().feed(ID + raw(kind, pcm)) == [CallId(CALL), Audio(rate, pcm)]
    assert FrameParser(Side.PBX).feed(raw(kind, pcm)) == [Audio(rate, pcm)]


def test_the_length_is_big_endian_and_the_samples_are_left_alone() -> None:
    pcm = struct.pack("<160h", *range(160))
    assert af.encode_audio(pcm) == b"\x10\x01\x40" + pcm
    assert af.SLIN8_HEADER == b"\x10\x01\x40"


@pytest.mark.parametrize("digit", "0123456789ABCD*#")
def test_every_key(digit: str) -> None:
    wire = b"\x03\x00\x01" + digit.encode()
    assert af.encode_key(digit) == wire
    assert FrameParser().feed(ID + wire)[1] == Key(digit)


@pytest.mark.parametrize(
    ("code", "meaning"),
    [(0, "not named"), (1, "hang-up"), (2, "frame forwarding"), (4, "memory"), (5, "hang-up and memory")],
)
def test_an_error_frame_says_what_it_means(code: int, meaning: str) -> None:
    assert af.encode_error(code) == bytes([0xFF, 0, 1, code])
    frame = FrameParser().feed(ID + af.encode_error(code))[1]
    assert frame == PeerError(code)
    assert isinstance(frame, PeerError) and frame.meaning == meaning


def test_an_error_frame_may_come_without_a_code() -> None:
    assert FrameParser().feed(ID + raw(0xFF))[1] == PeerError(0)


def test_empty_audio_is_borne_from_a_pbx_and_refused_from_a_server() -> None:
    assert FrameParser().feed(ID + raw(0x10)) == [CallId(CALL), Audio(8000, b"")]
    with pytest.raises(FrameError, match="found empty audio; allowed is at least one sample"):
        FrameParser(Side.PBX).feed(raw(0x10))


@pytest.mark.parametrize(
    ("wire", "found", "allowed"),
    [
        (raw(0x10, bytes(320)), "kind 0x10 as the first frame", "UUID"),
        (raw(0x00), "kind 0x00 as the first frame", "UUID"),
        (b"GET / HTTP/1.1\r\n", "kind 0x47 as the first frame", "UUID"),
        (raw(0x01, bytes(15)), "kind 0x01 with 15 bytes", "16 bytes"),
        (raw(0x01, bytes(17)), "kind 0x01 with 17 bytes", "16 bytes"),
        (raw(0x01, b""), "kind 0x01 with 0 bytes", "16 bytes"),
        (ID + ID, "a second UUID frame", "one UUID frame"),
        (ID + raw(0x02), "kind 0x02", "0x00, 0x03, 0x10 to 0x18 and 0xff"),
        (ID + raw(0x19, bytes(2)), "kind 0x19", "0x10 to 0x18"),
        (ID + raw(0x03, b""), "kind 0x03 with 0 bytes", "1 bytes"),
        (ID + raw(0x03, b"12"), "kind 0x03 with 2 bytes", "1 bytes"),
        (ID + raw(0x03, b"a"), "the key 0x61", "0123456789ABCD"),
        (ID + raw(0x03, b"\xff"), "the key 0xff", "0123456789ABCD"),
        (ID + raw(0x10, bytes(321)), "audio of 321 bytes", "even"),
        (ID + raw(0x10, bytes(4802)), "kind 0x10 with 4802 bytes", "0 to 4800 bytes"),
        (ID + raw(0x18, b"", 0xFFFF), "kind 0x18 with 65535 bytes", "0 to 65534"),
        (ID + raw(0x00, b"x"), "kind 0x00 with 1 bytes", "0 bytes"),
        (ID + raw(0xFF, b"xy"), "kind 0xff with 2 bytes", "0 to 1 bytes"),
    ],
)
def test_what_breaks_the_protocol_is_named(wire: bytes, found: str, allowed: str) -> None:
    parser = FrameParser()
    with pytest.raises(FrameError) as caught:
        parser.feed(wire)
    assert found in caught.value.found
    assert allowed in caught.value.allowed
    assert parser.pending == 0
    with pytest.raises(FrameError, match="allowed is"):  # dead from here on, and says the same
        parser.feed(ID)


@pytest.mark.parametrize("kind", [0x01, 0x03, 0x02, 0xFF])
def test_a_server_may_send_audio_and_the_hang_up_only(kind: int) -> None:
    # Asterisk ends the call on each of these, keys included.
    payload = CALL.bytes if kind == 0x01 else b"1"
    with pytest.raises(FrameError, match="from a server"):
        FrameParser(Side.PBX).feed(raw(kind, payload))


def test_too_long_a_frame_is_refused_by_its_header() -> None:
    """Not a byte of its payload is waited for, or kept."""
    parser = FrameParser()
    parser.feed(ID)
    with pytest.raises(FrameError):
        parser.feed(raw(0x10, b"", 60_000))


def test_what_came_in_order_before_the_error_is_not_lost() -> None:
    parser = FrameParser()
    with pytest.raises(FrameError) as caught:
        parser.feed(ID + raw(0x03, b"1") + raw(0x10, bytes(3)))
    assert caught.value.frames == (CallId(CALL), Key("1"))
    with pytest.raises(FrameError) as again:
        parser.feed(b"")
    assert again.value.frames == ()


def test_what_follows_a_hang_up_is_not_read() -> None:
    parser = FrameParser()
    assert parser.feed(ID + b"\0\0\0" + b"garbage") == [CallId(CALL), Hangup()]
    assert parser.feed(b"more garbage") == []
    assert parser.pending == 0


@pytest.mark.parametrize("digit", ["", "12", "a", "E", "é", "\n"])
def test_no_other_key_can_be_encoded(digit: str) -> None:
    with pytest.raises(ValueError, match="a key is one of"):
        af.encode_key(digit)


@pytest.mark.parametrize(
    ("pcm", "rate"), [(b"", 8000), (b"123", 8000), (bytes(4802), 8000), (bytes(320), 11025)]
)
def test_no_audio_that_ends_a_call_can_be_encoded(pcm: bytes, rate: int) -> None:
    with pytest.raises(ValueError, match=r"takes|carries"):
        af.encode_audio(pcm, rate)


# ---- Any chunking --------------------------------------------------------------------------------------


def _audio(kind: int, samples: int, seed: int) -> tuple[bytes, Frame]:
    pcm = random.Random(seed).randbytes(2 * samples)
    return raw(kind, pcm), Audio(RATES[kind - 0x10], pcm)


frames_on_the_wire = st.lists(
    st.one_of(
        st.builds(_audio, st.integers(0x10, 0x18), st.integers(0, 700), st.integers(0, 99)),
        st.sampled_from("0123456789ABCD*#").map(lambda d: (raw(0x03, d.encode()), Key(d))),
        st.integers(0, 255).map(lambda c: (raw(0xFF, bytes([c])), PeerError(c))),
    ),
    max_size=8,
)


@given(st.uuids(), frames_on_the_wire, st.booleans(), st.data())
@settings(max_examples=200, deadline=None)
def test_any_chunking_of_any_call_parses_the_same(
    call: UUID, sent: list[tuple[bytes, Frame]], hangs_up: bool, data: st.DataObject
) -> None:
    wire = raw(0x01, call.bytes) + b"".join(w for w, _ in sent) + (b"\0\0\0" if hangs_up else b"")
    expected = [CallId(call), *(frame for _, frame in sent), *([Hangup()] if hangs_up else [])]
    cuts = data.draw(st.lists(st.integers(0, len(wire)), max_size=20).map(sorted))
    parser = FrameParser()
    got: list[Frame] = []
    for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        got += parser.feed(wire[start:end])
    assert got == expected
    assert parser.pending == 0


@given(st.binary(max_size=200), st.booleans(), st.data())
@settings(max_examples=300, deadline=None)
def test_any_chunking_of_garbage_fails_the_same(junk: bytes, identified: bool, data: st.DataObject) -> None:
    wire = (ID if identified else b"") + junk
    cuts = data.draw(st.lists(st.integers(0, len(wire)), max_size=10).map(sorted))

    def outcome(chunks: list[bytes]) -> tuple[list[Frame], str]:
        parser, got = FrameParser(), []
        for chunk in chunks:
            try:
                got += parser.feed(chunk)
            except FrameError as error:
                return got + list(error.frames), str(error)
        return got, f"{parser.pending} bytes pending"

    pieces = [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
    assert outcome(pieces) == outcome([wire])


# ---- Fuzz ----------------------------------------------------------------------------------------------


def _mutant(rng: random.Random) -> bytes:
    """Something between a call and noise: whole frames with bytes changed, cut out, doubled or put in."""
    parts = [ID] if rng.random() < 0.8 else []
    for _ in range(rng.randrange(4)):
        kind = rng.choice([0x00, 0x01, 0x03, 0x10, 0x11, 0x14, 0x18, 0xFF, rng.randrange(256)])
        payload = rng.randbytes(rng.choice([0, 1, 2, 16, 320, rng.randrange(64)]))
        parts.append(raw(kind, payload, None if rng.random() < 0.8 else rng.randrange(65536)))
    wire = bytearray(b"".join(parts) or rng.randbytes(8))
    for _ in range(rng.randrange(3)):
        at = rng.randrange(len(wire) + 1)
        wire[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
    return bytes(wire)


def test_25000_mutants_raise_nothing_but_the_named_error_and_hold_no_memory() -> None:
    rng = random.Random(20261121)
    tracemalloc.start()
    try:
        refused = survived = unexplained = 0
        for _ in range(25_000):
            wire = _mutant(rng)
            parser = FrameParser(rng.choice([Side.SERVER, Side.SERVER, Side.PBX]))
            cut = rng.randrange(len(wire) + 1)
            try:
                taken = len(parser.feed(wire[:cut])) + len(parser.feed(wire[cut:]))
            except FrameError as error:
                refused += 1
                unexplained += not (error.found and error.allowed) or parser.pending
            else:
                survived += 1
                # Each frame takes at least its header, so there can't be more of them: no loop, no invention.
                assert taken * af.HEADER_BYTES + parser.pending <= len(wire)
                assert parser.pending < af.MAX_PENDING_BYTES
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert unexplained == 0
    assert refused > 5_000 and survived > 2_000, "the mutants must reach both sides to prove anything"
    assert peak < 2_000_000


@pytest.mark.parametrize("kind", [*range(0x10, 0x19)])
def test_a_frame_that_never_ends_holds_no_more_than_its_limit(kind: int) -> None:
    parser = FrameParser()
    limit = af.MAX_PAYLOAD[kind]
    parser.feed(ID + raw(kind, b"", limit))
    held = 0
    for _ in range(limit - 1):
        assert parser.feed(b"x") == []
        held = max(held, parser.pending)
    assert held == limit + af.HEADER_BYTES - 1 < af.MAX_PENDING_BYTES
    assert len(parser.feed(b"x")) == 1
    assert parser.pending == 0
