"""What the servers of all endpoints have: a port of some addresses, who may connect, who is connected.

The protocols differ in what carries a connection; that is the subclass's.
"""

from __future__ import annotations

import asyncio
import ssl
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bridge.endpoints.allow_list import AllowList, Network
from bridge.endpoints.base import FRAME_BYTES
from bridge.endpoints.connection import Connection
from bridge.endpoints.intake import Intake
from bridge.endpoints.listening import BACKLOG, open_listeners
from bridge.endpoints.roster import Roster
from bridge.log import get_logger


@dataclass(frozen=True, slots=True)
class PeerLimits:
    """What a peer may do, before and during its call. All are security limits."""

    handshake_s: float = 5.0
    """From the connection until the peer has said which call it is."""

    idle_s: float = 30.0
    """Without a byte. A PBX may send nothing while a call is on hold."""

    waiting: int = 64
    """Connections without a call (not said which yet, or refused and not yet gone) that are left to their
    deadline. With more, the oldest of the address that has most of them give way: silence cannot keep a
    caller out."""

    spared_s: float = 0.5
    """For so long a new connection need not give way: a PBX says within milliseconds which call it is …"""

    crowd: int = 2 * BACKLOG
    """… up to so many without a call in all. What one turn of the event loop accepts is read in the next."""

    flood_factor: float = 3.0
    """Audio may come this many times faster than real time …"""

    flood_window_s: float = 4.0
    """… over this long. A network that stalled delivers what it held at once: 12 s of it, by default."""

    write_buffer_bytes: int = 10 * (FRAME_BYTES + 3)
    """Above this much unsent, frames are dropped and counted (beside the kernel's buffer)."""

    slow_reader_s: float = 4.0
    """Of frames dropped, net of those that went out: then the call ends."""

    linger_s: float = 1.0
    """How long a peer has to close after we hung up; then we do."""

    @property
    def farewell_s(self) -> float:
        """How long the end of a call that we hang up may take."""
        return self.linger_s


class Incoming(Connection):
    """A connection that a PBX made; it is in its server's roster from the first moment to the last."""

    def _at(self, server: CallServer) -> None:
        """Say whose it is. Before it is connected."""
        self._home = server

    def _connected(self) -> bool:
        if self._home.allowed.admits(self.host):
            self._home.roster.arrived(self)
            return True
        self._mark("refused", f"found the address {self.host}; allowed are {self._home.allowed}")
        self._abort()
        return False

    def _seated(self) -> None:
        self._home.roster.seated(self)

    def _left(self) -> None:
        self._home.roster.left(self)

    def give_way(self) -> None:
        """Leave, for a newer connection: this one has no call, and is the oldest where most come from."""
        most = self._home.limits.waiting
        self._mark("refused", f"found more than {most} connections without a call; allowed are {most}")
        self._abort()


class CallServer(ABC):
    """Listens on one port of some addresses.

    Args:
        hosts: addresses or names. IPv4 and IPv6 may be mixed; ``::`` on its own takes IPv4 as well.
        port: 0 takes a port that is free on all of them; :attr:`port` then says which.
        allowed: the networks that may connect, as an :class:`~bridge.endpoints.allow_list.AllowList` reads
            them.
        limits: what a peer may do.
        tls: speak TLS; None: the bare protocol.
        intake: reads the sockets of calls; whoever gives one runs it at each tick. None: the event loop.
    """

    kind: str
    """Names the log's room."""

    stop_late: str
    """What the log calls it where some connection would not go: a fixed word, ``….stop_late``."""

    limits: PeerLimits

    def __init__(
        self,
        hosts: Sequence[str],
        port: int,
        *,
        allowed: Sequence[Network],
        limits: PeerLimits,
        tls: ssl.SSLContext | None = None,
        intake: Intake | None = None,
    ) -> None:
        self.intake = intake
        self.hosts = tuple(hosts)
        self.port = port
        self.allowed = AllowList(allowed)
        self.limits = limits
        self._tls = tls
        self._servers: list[asyncio.Server] = []
        self._ports: dict[str, int] = {}
        self.roster: Roster[Incoming] = Roster(limits.waiting, crowd=limits.crowd, spared_s=limits.spared_s)
        """Kept by the endpoints: each says when it arrives, has a call, and leaves."""

    @abstractmethod
    def make(self) -> Incoming:
        """What carries a new connection."""

    @property
    def ports(self) -> Mapping[str, int]:
        """The port of each address that is listened on; all the same."""
        return self._ports

    @property
    def calls(self) -> int:
        """Connections that carry a call."""
        return self.roster.calls

    @property
    def waiting(self) -> int:
        """Connections that carry none: it is not known which call they are, or refused and not yet gone."""
        return self.roster.waiting

    async def start(self) -> None:
        """Listen.

        A machine without IPv6 is no error where ``::`` or ``::1`` stands beside an IPv4 address: one warning.

        Raises:
            OSError: an address can't be listened on; its text names the address and the port.
        """
        loop = asyncio.get_running_loop()
        sockets = await open_listeners(self.hosts, self.port)
        self.port = sockets[0].getsockname()[1]
        for listener in sockets:
            self._servers.append(
                await loop.create_server(
                    self.make,
                    sock=listener,
                    backlog=BACKLOG,
                    ssl=self._tls,
                    ssl_handshake_timeout=self.limits.handshake_s if self._tls else None,
                )
            )
            address = listener.getsockname()
            self._ports[address[0]] = address[1]

    def stop_accepting(self) -> None:
        """Take no new call; those that run go on."""
        for server in self._servers:
            server.close()
        self._servers.clear()

    async def stop(self) -> None:
        """Hang up every call in order, and return once all are gone, or a second after their time."""
        self.stop_accepting()
        for endpoint in self.roster.everyone():
            endpoint.hang_up()
        try:
            async with asyncio.timeout(self.limits.farewell_s + 1):
                await self.roster.emptied()
        except TimeoutError:
            get_logger(self.kind).error(
                self.stop_late, port=self.port, calls=self.calls, waiting=self.waiting
            )
