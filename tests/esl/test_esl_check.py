"""`porteiro check` on a FreeSWITCH: what is wrong with it, and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.commands.check import neighbours
from tests.endpoints.test_audio_stream_service import DOMAIN
from tests.esl.test_esl_visits import free_port
from tests.service.household import settings
from tests.simulators.freeswitch import PASSWORD, FreeSwitch


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("well", "FreeSWITCH can stream"),
        ("password", "compare esl.password_env"),
        ("address", "acl.conf.xml"),
        ("down", "is FreeSWITCH running"),
        ("module", "has not loaded mod_audio_fork"),
    ],
)
async def test_the_check_says_what_is_wrong_and_what_to_do(tmp_path: Path, what: str, said: str) -> None:
    switch = FreeSwitch("fork")
    if what == "module":
        switch.modules = {"mod_audio_stream"}
    switch.rude = what == "address"
    await switch.open()
    tenant = {
        "freeswitch": {"domain_uuid": str(DOMAIN), "playback": "fork"},
        "esl": {"port": free_port() if what == "down" else switch.port, "password_env": "ESL_PASSWORD"},
    }
    environ = {"ESL_PASSWORD": "another" if what == "password" else PASSWORD}
    answers, troubles = await neighbours(settings(tmp_path, {"jardim": tenant}, environ))
    await switch.close()
    found = [line for line in (answers if what == "well" else troubles) if said in line]
    assert len(found) == 1 and "jardim" in found[0]
    assert PASSWORD not in str(answers + troubles)
