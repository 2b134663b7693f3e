"""Whole visits with the telephone's own G.711 all the way to the model."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import numpy as np

from bridge.softphone import Softphone
from providers.formats import FORMATS, FormatName
from tests.service.doorman import LOWEST, Cast
from tests.service.household import household, with_cast

NAMES: tuple[FormatName, ...] = ("pcmu", "pcma")


async def test_a_visit_is_carried_through_in_g711(tmp_path: Path) -> None:
    async with Cast() as ulaw, Cast() as alaw:
        casts = dict(zip(NAMES, (ulaw, alaw), strict=True))
        tenants: dict[str, dict[str, Any]] = {
            name: with_cast(cast, provider_format=name) for name, cast in casts.items()
        }
        async with household(tmp_path, tenants) as house:
            visits: dict[str, UUID] = {name: uuid4() for name in NAMES}

            async def visit(name: str) -> Softphone:
                return await house.visit(name, visit=visits[name])

            phones = await asyncio.gather(*map(visit, NAMES))
            outcomes = [await house.outcome(visits[name]) for name in NAMES]
    assert outcomes == [("authorized", "opened", True)] * 2
    for name, phone in zip(NAMES, phones, strict=True):
        assert len(casts[name].doormen) == 2
        for doorman in casts[name].doormen:
            assert doorman.violations == []
            for side in ("input", "output"):
                assert doorman.session["audio"][side]["format"] == {"type": f"audio/{name}"}
            assert len(doorman.caller) == 2 * doorman.audio > 0, "a byte a sample"
        form = FORMATS[name]
        coded = form.decode(form.encode(np.array([LOWEST], "<i2").tobytes()))
        level = int(np.frombuffer(coded, "<i2")[0])
        heard = np.frombuffer(bytes(phone.heard), "<i2")
        assert int((heard == level).sum()) >= 300 * 8, "the greeting to the bit: nothing was resampled"
