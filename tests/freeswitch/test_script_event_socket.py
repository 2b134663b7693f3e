"""FreeSWITCH's script beside its event socket: what the service does to a channel, the script lets be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

from bridge.softphone import load_wav
from tests.endpoints.test_audio_stream_service import DOMAIN, freeswitch
from tests.freeswitch.lua_host import Call, Switch
from tests.service.doorman import Cast, Part, Turn
from tests.service.household import HELLO, Household, household, until
from tests.simulators.freeswitch import PASSWORD, Channel, FreeSwitch
from tests.simulators.openai_realtime import Call as ToolCall
from tests.simulators.openai_realtime import Reply

WANTS_SOMEBODY = Part((Turn("Quero falar com alguém.", Reply((ToolCall("transfer_to_attendant", "{}"),))),))


class Board(FreeSwitch):
    """The event socket's side; its modules' events come to scripts as well."""

    script: Switch | None = None

    async def _api(self, command: str) -> str:
        if command.startswith(("uuid_transfer", "uuid_kill")):
            await asyncio.sleep(0.7)  # longer than the script needs to see the stream's end
        return await super()._api(command)

    def fire(
        self, name: str, channel: Channel | None, headers: Mapping[str, str] | None = None, body: str = ""
    ) -> None:
        super().fire(name, channel, headers, body)
        if self.script is not None and channel is not None:
            self.script.fire(name, channel.uuid, body)


@asynccontextmanager
async def open_board() -> AsyncIterator[Board]:
    board = Board()
    await board.open()
    try:
        yield board
    finally:
        await board.close()


class Scripted(Switch):
    """The script's side: its streams are the board's."""

    def __init__(self, board: Board, port: int | None) -> None:
        super().__init__(
            variables={"porteiro_api": f"http://127.0.0.1:{port}/"}, loop=asyncio.get_running_loop()
        )
        self.board = board
        board.script = self

    def execute(self, command: str, line: str = "") -> str:
        if command != "uuid_audio_stream":
            return super().execute(command, line)
        assert self.loop is not None
        return asyncio.run_coroutine_threadsafe(self.board._api(f"{command} {line}"), self.loop).result(5)


class BothSides(Call):
    """A call that the script has, and whose channel the board knows."""

    def __init__(self, switch: Scripted) -> None:
        place = {"porteiro_attendant": "1000", "domain_uuid": str(DOMAIN)}
        super().__init__(switch, destination_number="8001", caller_id_number="201", **place)
        self.channel = Channel(switch.board, self.uuid, {})
        switch.board.channels[self.uuid] = self.channel

    def answer(self) -> int:
        self.channel.up = True
        return super().answer()

    def is_ready(self) -> bool:
        return super().is_ready() and not self.channel.over.is_set() and not self.channel.transferred


async def greeted(house: Household, switch: Scripted) -> tuple[BothSides, asyncio.Task[None]]:
    """A visitor who was greeted, and the script that runs meanwhile."""
    call = BothSides(switch)
    script = asyncio.create_task(asyncio.to_thread(switch.run, call))
    await house.greeted(UUID(call.uuid))
    return call, script


async def test_the_script_leaves_a_channel_to_whoever_has_it(tmp_path: Path) -> None:
    async with Cast(WANTS_SOMEBODY) as cast, open_board() as board:
        tenant = freeswitch(cast) | {
            "attendant": {"extension": "9000"},
            "esl": {"port": board.port, "password_env": "ESL_PASSWORD"},
        }
        environ = {"ESL_PASSWORD": PASSWORD}
        async with household(tmp_path, {"jardim": tenant}, environ=environ, http_port=0) as house:
            await until(lambda: board.listeners == 1, what="the connection")
            switch = Scripted(board, house.service.http_port)

            call, script = await greeted(house, switch)
            assert call.channel.stream is not None
            call.channel.stream.to_say = load_wav(HELLO)
            await until(lambda: call.channel.transferred, 20, "the transfer")
            await asyncio.wait_for(script, 5)
            assert call.channel.transferred == "9000" and not call.channel.over.is_set()
            assert (call.cause, call.gone_to) == ("", None), "it is the attendant's now"

            call, script = await greeted(house, switch)
            await house.service.hub.hang_up(UUID(call.uuid), None, "operator:test")
            await asyncio.wait_for(script, 5)
            assert call.channel.cause == "NORMAL_CLEARING" and call.cause == "", (
                "hung up once, by the service"
            )
            await until(lambda: house.service.open_legs() == 0, what="the end")
            assert not [text for level, text in switch.log if level in ("err", "warning")]
