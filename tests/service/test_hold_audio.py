"""What a visitor hears on hold is the house's: ringing, something soft, or a file; it gives way at once."""

from __future__ import annotations

import asyncio
import re
import wave
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from audio import tones
from audio.frames import level_dbov, samples_of
from bridge.hold_audio import hold_sound
from bridge.settings import SettingsError, Tenant, build
from bridge.softphone import Softphone
from tests.service.doorman import AGREES, ASKS, Cast, Part, Turn
from tests.service.household import HELLO, household, presses, until, with_cast
from tests.simulators.openai_realtime import Reply

HZ = 1000
"""Of the house's sound: nothing else here has this pitch."""


def written(path: Path, seconds: float = 2.0, level: int = 4000) -> Path:
    """A WAV of one pitch."""
    at = np.arange(round(seconds * 16000)) / 16000
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(np.rint(level * np.sin(2 * np.pi * HZ * at)).astype("<i2").tobytes())
    return path


def on_hold(pcm: bytes) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """For each 20 ms whether the house's sound is heard."""
    frames = samples_of(pcm[: len(pcm) // 320 * 320]).reshape(-1, 160).astype(np.float64)
    return np.abs(np.fft.rfft(frames, axis=1))[:, HZ // 50] > 100_000


def tenant(**own: Any) -> Tenant:
    return build({"tenants": {"lago": {"provider": "local", **own}}}).tenants["lago"]


def test_the_sounds_that_a_house_may_choose(tmp_path: Path) -> None:
    assert hold_sound(tenant()).pcm == tones.ring_back()
    assert hold_sound(tenant(hold_audio={"sound": "chime"})).pcm == tones.hold()
    noise = hold_sound(tenant(hold_audio={"sound": "noise"}))
    assert -62 < level_dbov(noise.pcm) < -58 and not noise.foreign
    assert hold_sound(tenant(hold_audio={"sound": "silence"})).pcm == b""
    file = written(tmp_path / "espera.wav")
    held = {"sound": "file", "file": str(file)}
    first = hold_sound(tenant(hold_audio=held))
    assert first.foreign and on_hold(first.pcm).all()
    assert hold_sound(tenant(name="Outro", hold_audio=held)) is first, "houses share what they have in common"
    written(file, seconds=1.0)
    assert len(hold_sound(tenant(hold_audio=held)).pcm) == 16000
    for wrong, said in (
        ({"sound": "file"}, "sound = 'file' together with the file that it plays"),
        ({"sound": "music"}, "found 'music'; allowed: 'ring', 'chime', 'noise', 'silence' or 'file'"),
    ):
        with pytest.raises(SettingsError, match=re.escape(said)):
            tenant(hold_audio=wrong)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("nothing.wav", None, "can't be read: No such file or directory"),
        ("folder", "folder", "found something else; allowed: a file"),
        ("song.mp3", b"ID3", "found no WAV; allowed: a WAV file"),
        ("short.ulaw", bytes(100), "found 0.0 s of sound; allowed are 0.5 to 60 s"),
    ],
)
def test_a_file_that_cannot_be_played_is_refused_with_the_settings(
    tmp_path: Path, name: str, content: bytes | str | None, said: str
) -> None:
    file = tmp_path / name
    if content == "folder":
        file.mkdir()
    elif isinstance(content, bytes):
        file.write_bytes(content)
    tree = {"tenants": {"lago": {"provider": "openai", "hold_audio": {"sound": "file", "file": str(file)}}}}
    problems = build(tree, environ={"OPENAI_API_KEY": "a key"}).problems_at_start()
    assert any(line.startswith(f"tenants.lago.hold_audio.file: {file}: {said}") for line in problems)


async def test_a_visitor_hears_the_file_and_it_gives_way_to_both(tmp_path: Path) -> None:
    """To the doorman's sentences, and to the visitor who speaks meanwhile; and it is in the recording."""
    spoke: list[int] = []
    visit = uuid4()
    held = {"sound": "file", "file": str(written(tmp_path / "espera.wav"))}

    async def visitor(phone: Softphone) -> None:
        await house.greeted(visit)
        await phone.say(HELLO)
        await until(lambda: on_hold(bytes(phone.heard)).sum() > 60, what="the house's sound")
        spoke.append(len(phone.heard) // 320)
        await phone.say(HELLO)
        await asyncio.wait({phone.closed})

    async def resident(phone: Softphone) -> None:
        await until(lambda: spoke, what="the visitor")
        await asyncio.sleep(4.0)
        await presses(phone)

    part = Part((*ASKS, Turn("Ainda?", Reply())), AGREES)
    own = {"hold_audio": held, "recording": {"enabled": True}}
    async with Cast(part) as cast, household(tmp_path, {"jardim": with_cast(cast, **own)}) as house:
        house.residents[visit] = resident
        phone = await house.visit("jardim", visitor, visit=visit)
        assert await house.outcome(visit) == ("authorized", "opened", True)
        heard = on_hold(bytes(phone.heard))
        (began,) = spoke
        assert heard[began - 20 : began].all()
        assert not heard[began + 25 : began + 60].any(), (
            "who speaks is listened to: half a second on it is gone"
        )
        assert heard[began + 60 :].sum() > 40, "and it comes back"
        turns = [one.data for one in await house.records(visit) if one.kind == "turn"]
        assert all(turn["text"] for turn in turns), "it is nobody's turn"
        ended = [one.data for one in await house.records(visit) if one.kind == "leg.ended"]
        recording = next(one["recording"] for one in ended if one["leg"] == "visitor")
    with wave.open(str(tmp_path / "recordings" / recording)) as file:
        stereo = samples_of(file.readframes(file.getnframes())).reshape(-1, 2)
    assert abs(int(on_hold(stereo[:, 1].tobytes()).sum()) - int(heard.sum())) <= 5
