"""What the conformance suite knows of a vendor: a stage for each, on which any adapter's session plays.

A :class:`Stage` starts the vendor's strict simulator behind a :class:`Line`, has the model do what a script
says in no vendor's words, and tells what the vendor saw. :func:`playing` opens a session on it as the service
would, and holds it afterwards to what holds for every session: the vendor never had a reason to refuse
anything, and no task, timer or socket is left.
"""

from __future__ import annotations

import asyncio
import gc
import json
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Literal, Protocol, Self
from urllib.parse import urlsplit, urlunsplit

import numpy as np

from audio.frames import TELEPHONE_RATE
from audio.resample import Resampler
from bridge.model_server import ModelServerAddress
from bridge.settings import Settings, build
from bridge.softphone import load_wav
from bridge.tenant_provider import provider_of
from providers.base import (
    AudioDelta,
    Provider,
    Ready,
    ResponseDone,
    Session,
    SessionConfig,
    TakesTurns,
    ToolSpec,
)
from providers.openai_realtime import OpenAIProvider
from tests.conformance.line import Line
from tests.simulators.talk import Talk

APARTMENT: Mapping[str, Any] = {
    "type": "object",
    "properties": {"apartment": {"type": "string"}},
    "required": ["apartment"],
}
TOOLS = [
    ToolSpec("lookup_apartment", "Procura um apartamento.", APARTMENT),
    ToolSpec("call_resident", "Liga para o apartamento.", APARTMENT),
]
CONFIG = SessionConfig(instructions="Você é o porteiro.", tools=TOOLS)
CLOSE_S = 0.4
STALL_S = 0.4
OPEN_S = 1.0
QUIET_MS = 700
"""After what the caller says, so that each VAD takes their turn for over."""
FAINT = 8
"""No sample of what a simulator speaks is fainter, of its silence none is louder."""

Refusal = Literal["key", "model", "voice", "rate", "quota"]


@cache
def speech(rate: int) -> bytes:
    """Two seconds of a recorded visitor, PCM at so many samples a second."""
    recorded = load_wav(Path(__file__).parents[2] / "data" / "audio" / "v05-leticia.wav")
    return Resampler(TELEPHONE_RATE, rate).process(recorded[: 2 * TELEPHONE_RATE * 2])


# -- the script, in no vendor's words ------------------------------------------------------------------------


@dataclass(frozen=True)
class Say:
    """The model says something that lasts so long."""

    ms: int = 200
    text: str = "Pois não?"


@dataclass(frozen=True)
class Call:
    """The model calls a tool. ``arguments`` None: text that is no JSON. ``times``: how often it is told."""

    id: str = "a"
    name: str = "lookup_apartment"
    arguments: Mapping[str, Any] | None = field(default_factory=lambda: {"apartment": "501"})
    times: int = 1


Reply = tuple[Say | Call, ...]
"""What the model does at one go; calls side by side are made together."""

BROKEN = '{"apartment": '
"""Arguments that are no JSON."""

# -- a vendor ------------------------------------------------------------------------------------------------


class Simulating(Protocol):
    """What the simulators of all vendors have in common."""

    url: str
    open_connections: int

    async def __aenter__(self) -> Any: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    async def until(self, condition: Callable[[], object]) -> None: ...


class Stage(ABC):
    """One vendor. A subclass says how its simulator is told what to do, and what it saw."""

    name: ClassVar[str]
    """The provider's, in settings."""
    settings: ClassVar[Mapping[str, Any]] = {}
    """Of a tenant, beside the provider and its address."""
    key: ClassVar[str]
    hears_all: ClassVar[bool] = True
    """The vendor gets all that the caller says, and at the session's own rate."""
    late_refusals: ClassVar[bool] = False
    """Key, model and voice are not looked at before they are needed."""
    emulated: ClassVar[Mapping[str, str]] = {}
    """Abilities that the vendor hasn't, and what we do instead."""
    stops: ClassVar[bool] = True
    """The vendor stops a reply when it is asked to, or hears the caller."""
    waits: ClassVar[Mapping[str, float]] = {}
    """Where an adapter's own patience is, and how many seconds of it a test has."""
    beyond: ClassVar[Mapping[str, str]] = {}
    """Abilities and faults that this protocol can't express, and why."""

    def __init__(self, *replies: Reply, pace_s: float = 0.0) -> None:
        """`pace_s`: between two messages of a reply."""
        self.line = Line()
        self.changes: dict[str, Any] = {}
        """Of the tenant's settings."""
        self.limits: dict[str, float] = {}
        """Of what the adapter knows of the vendor."""
        self.server = self.simulator(replies, pace_s)

    # -- the subclass's --------------------------------------------------------------------------------------

    @abstractmethod
    def simulator(self, replies: Sequence[Reply], pace_s: float) -> Simulating:
        """The vendor's simulator, which has been told what the model will do."""

    @property
    @abstractmethod
    def violations(self) -> list[str]:
        """What the vendor had a reason to refuse."""

    @property
    @abstractmethod
    def caller(self) -> bytes:
        """What the newest connection heard of the caller, as PCM."""

    @property
    @abstractmethod
    def texts(self) -> list[str]:
        """What the newest connection was told or asked in words, instructions apart."""

    @property
    def told(self) -> str:
        """All that the newest connection knows of the conversation, what it was opened with included."""
        model: Any = self.server
        return json.dumps(model.model.received[0], ensure_ascii=False) + " ".join(self.texts)

    @property
    @abstractmethod
    def answers(self) -> Mapping[str, Any]:
        """The newest connection's calls that were answered, and how (decoded JSON)."""

    @property
    def verbatim(self) -> list[str]:
        """Sentences that the vendor was given to be read out as they stand."""
        return []

    def reading_ms(self, text: str) -> int:
        """How long the vendor takes to read a text out."""
        raise NotImplementedError("this vendor reads nothing out")

    @property
    def truncated(self) -> Mapping[str, int]:
        """Items that the vendor was asked to shorten, to so many milliseconds."""
        return {}

    def caller_starts(self) -> None:  # noqa: B027 - most have nothing to do
        """The vendor's VAD hears a turn begin, where it doesn't hear that in the sound."""

    @abstractmethod
    def caller_ends(self, words: str) -> None:
        """The same for a turn's end."""

    def caller_will_say(self, words: str) -> None:  # noqa: B027 - the same
        """What the next turn's words will be, where they must be known before it ends."""

    async def tenth_passes(self) -> None:  # noqa: B027 - the same
        """A tenth of a second of the caller's goes by, where the vendor has a clock of its own."""

    @abstractmethod
    def refuse(self, why: Refusal) -> None:
        """Have sessions refused, in the vendor's way."""

    def cancel(self, call: str) -> None:
        """The model no longer wants this answer."""
        raise NotImplementedError(self.beyond["tool cancelled"])

    def phantom(self) -> None:
        """The vendor interrupts what its model says, and nobody spoke."""
        raise NotImplementedError(self.beyond["phantom interruption"])

    def confirm_another_format(self) -> None:
        """The vendor's session has another format than the one that is asked for."""
        raise NotImplementedError(self.beyond["another format"])

    def limit_rate(self) -> None:
        """The next reply is one too many."""
        raise NotImplementedError(self.beyond["rate limit"])

    def will_close_in(self, seconds: float) -> None:
        """The first connection will be closed so long after it was opened, and who listens knows it."""
        raise NotImplementedError(self.beyond["goAway"])

    @abstractmethod
    def is_call(self, message: bytes) -> bool:
        """Whether a message of the server's tells of a completed tool call."""

    def base_url(self, server: str) -> str:
        """What a tenant's settings say of this simulator's address."""
        return server

    # -- for the suite ---------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.server.__aenter__()
        await self.line.__aenter__()
        address = urlsplit(self.server.url)
        assert address.hostname is not None and address.port is not None
        self.line.server = (address.hostname, address.port)
        # From here on the simulator names the line where it names itself.
        self.server.url = urlunsplit(address._replace(netloc=f"127.0.0.1:{self.line.port}"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.line.__aexit__(kind, error, trace)
        await self.server.__aexit__(kind, error, trace)

    def tenant(self) -> dict[str, Any]:
        """A tenant's table in the settings."""
        table = {"directory": "x", "provider": self.name, "base_url": self.base_url(self.server.url)}
        return {**table, **self.settings, "api_key_env": "KEY", **self.changes}

    def made(self) -> Settings:
        """The service's settings with a tenant of this provider."""
        return build({"tenants": {"jardim": self.tenant()}}, environ={"KEY": self.key, "WRONG": "wrong-key"})

    def provider(self) -> Provider:
        """As the service makes it out of a tenant's settings, but less patient."""
        settings = self.made()
        tenant = settings.tenants["jardim"]
        return impatient(provider_of(tenant, settings.secret, self.embedded, "jardim"), **self.limits)

    @property
    def embedded(self) -> ModelServerAddress | None:
        """Where our own model server is, for a provider that runs in it."""
        return None

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait (five seconds at most) for what clients make come true."""
        await self.server.until(condition)


def impatient(provider: Provider, **limits: float) -> Provider:
    """The same with deadlines of a second and less, so that a test need not wait for what never comes."""
    made: Any = provider
    waits = {"connect_timeout_s": OPEN_S, "close_timeout_s": CLOSE_S, "stall_timeout_s": STALL_S}
    settings = replace(made._settings, **waits, **limits)
    if isinstance(provider, OpenAIProvider):
        return OpenAIProvider(replace(settings, patience_s=None), provider.name)
    again: Provider = type(made)(settings)
    return again


# -- a session on it -----------------------------------------------------------------------------------------


class Play:
    """A session on a stage."""

    def __init__(self, stage: Stage, session: Session) -> None:
        self.stage = stage
        self.talk = Talk(session)
        self.session = session

    async def done(self, receipt: str, **having: Any) -> ResponseDone:
        """The reply to an intent is over."""
        event: ResponseDone = await self.talk.a(ResponseDone, receipt=receipt, **having)
        return event

    async def replies(self, count: int) -> list[ResponseDone]:
        """Wait until so many replies are over."""

        def over(events: Sequence[Any]) -> list[ResponseDone]:
            found = [e for e in events if isinstance(e, ResponseDone) and e.response]
            return found if len(found) >= count else []

        found: list[ResponseDone] = await self.talk.until(over)
        return found

    async def idle(self) -> None:
        """Wait until nothing is owed; no event need say so."""
        async with asyncio.timeout(5):
            while self.session.busy:
                await asyncio.sleep(0.005)

    def ms(self, item: str) -> float:
        """How much of an item's sound came, in milliseconds; the quiet at its end does not count."""
        pcm = b"".join(e.pcm for e in self.talk.events if isinstance(e, AudioDelta) and e.item == item)
        loud = np.flatnonzero(np.abs(np.frombuffer(pcm, "<i2").astype(np.int32)) > FAINT)
        return (int(loud[-1]) + 1) * 1000 / self.session.capabilities.output_rate if loud.size else 0.0

    async def received(self, item: str, ms: float) -> None:
        """Wait until so much of an item came."""
        await self.talk.until(lambda _: self.ms(item) >= ms)

    async def speak(self, words: str) -> bytes:
        """The caller says something, in a recorded voice; returns the PCM."""
        session, stage = self.session, self.stage
        pcm = speech(session.capabilities.input_rate)
        before = len(stage.caller)
        stage.caller_will_say(words)
        stage.caller_starts()
        if isinstance(session, TakesTurns):
            session.caller_began()
        whole = pcm + bytes(session.capabilities.input_rate * QUIET_MS // 1000 * 2)
        tenth = session.capabilities.input_rate // 10 * 2
        for at in range(0, len(whole), tenth):
            self.send(whole[at : at + tenth])
            await stage.tenth_passes()
        if isinstance(session, TakesTurns):
            session.caller_ended(QUIET_MS)
        if stage.hears_all:
            await stage.until(lambda: len(stage.caller) - before >= len(pcm))
        stage.caller_ends(words)
        return pcm

    def send(self, pcm: bytes) -> None:
        """The caller's audio, as a leg gives it: 20 ms at a time."""
        frame = self.session.capabilities.input_rate // 50 * 2
        for at in range(0, len(pcm), frame):
            self.session.send_audio(pcm[at : at + frame])


@asynccontextmanager
async def playing(
    vendor: type[Stage],
    *replies: Reply,
    pace_s: float = 0.0,
    ready: bool = True,
    prepare: Callable[[Stage], object] | None = None,
    through: Callable[[Provider], Provider] | None = None,
) -> AsyncIterator[Play]:
    """A session with a vendor whose model does what the replies say.

    Args:
        ready: wait until the session is up.
        prepare: called with the stage before the session is opened.
        through: what stands between the service and the vendor's provider.
    """
    stage = vendor(*replies, pace_s=pace_s)
    async with stage:
        if prepare is not None:
            prepare(stage)
        before = asyncio.all_tasks()
        provider = stage.provider() if through is None else through(stage.provider())
        play = Play(stage, provider.open(CONFIG))
        try:
            if ready:
                await play.talk.a(Ready)
            yield play
        except BaseException:
            await play.session.close()
            raise
        await leave(play, before)
        assert stage.violations == []


async def leave(play: Play, before: set[asyncio.Task[Any]]) -> None:
    """Close a session: in bounded time, and nothing of it is left."""
    began = time.monotonic()
    await play.session.close()
    took = time.monotonic() - began
    assert took < CLOSE_S + 1.5, f"closing took {took:.1f} s"
    await play.talk.end()
    await play.stage.line.until(lambda: not play.stage.line.open)
    async with asyncio.timeout(1):
        while left(before):  # the vendor's own are not ours to await
            await asyncio.sleep(0.005)
    assert timers() == []
    gc.collect()  # a socket that nobody closed would warn, and a warning is an error


def left(before: set[asyncio.Task[Any]]) -> list[str]:
    """Tasks of ours that have not ended: by their names, or by where they are written."""
    found = []
    for task in asyncio.all_tasks() - before:
        code = getattr(task.get_coro(), "cr_code", None)
        theirs = task.get_name().startswith(("line", "simulator", "Task"))
        if not task.done() and not (theirs and "/providers/" not in getattr(code, "co_filename", "")):
            found.append(task.get_name())
    return found


def timers() -> list[str]:
    """What the event loop will still call of ours."""
    loop: Any = asyncio.get_running_loop()
    found = []
    for handle in loop._scheduled:
        if handle.cancelled():
            continue
        callback = handle._callback
        callback = callback.func if isinstance(callback, partial) else callback
        owner = getattr(callback, "__self__", None)
        module = type(owner).__module__ if owner is not None else getattr(callback, "__module__", None)
        if (module or "").startswith("providers."):
            found.append(repr(handle))
    return found
