"""Listens for Asterisk's WebSocket channels: who may connect, and to which path.

Asterisk connects as websocket_client.conf says (``connection_type = per_call_config``): the path of its
``uri`` chooses a route, its ``username`` and ``password`` come as HTTP basic authentication. Which call it is
the channel itself says, in its MEDIA_START.
"""

from __future__ import annotations

import asyncio
import hmac
import http
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from websockets.exceptions import InvalidHeader
from websockets.headers import parse_authorization_basic
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol

from bridge.endpoints.allow_list import AllowList, Network
from bridge.endpoints.asterisk_websocket import (
    MAX_MESSAGE_BYTES,
    Accept,
    AsteriskWebsocketEndpoint,
    AsteriskWebsocketLimits,
)
from bridge.endpoints.intake import Intake
from bridge.endpoints.listening import BACKLOG, open_listeners
from bridge.endpoints.roster import Roster
from bridge.log import get_logger

_log = get_logger("asterisk_websocket")


@dataclass(frozen=True, slots=True)
class Route:
    """What a path leads to. With credentials (user, password) it asks for HTTP's basic authentication."""

    accept: Accept
    credentials: tuple[str, str] | None = field(default=None, repr=False)


def tls_of(certificate: Path, key: Path) -> ssl.SSLContext:
    """What a server needs for ``wss``, from PEM files.

    Raises:
        OSError: they can't be read, or are not a certificate and its key.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


class _Refused(Exception):
    """The HTTP request is answered with a status, and no WebSocket."""

    def __init__(self, status: http.HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class IncomingEndpoint(AsteriskWebsocketEndpoint):
    """A connection that Asterisk made; `state`: open where the HTTP request has been answered already."""

    def __init__(self, server: AsteriskWebsocketServer, state: State = State.CONNECTING) -> None:
        wire = ServerProtocol(max_size=MAX_MESSAGE_BYTES, state=state)
        super().__init__(wire, None, server.limits, server.intake)
        self._server = server
        self._serving = wire

    def _connected(self) -> bool:
        if self._server.allowed.admits(self.host):
            self._server.roster.arrived(self)
            return True
        self._mark("refused", f"found the address {self.host}; allowed are {self._server.allowed}")
        self._abort()
        return False

    def _opening(self, event: Request | Response) -> None:
        assert isinstance(event, Request)
        if self.ended:
            return
        try:
            route = self._server.route(event)
        except _Refused as refused:
            self._mark("refused", f"{refused.detail}; answered {refused.status.value}")
            response = self._serving.reject(refused.status, f"{refused.status.phrase}\n")
            if refused.status is http.HTTPStatus.UNAUTHORIZED:
                response.headers["WWW-Authenticate"] = 'Basic realm="porteiro"'
            self._serving.send_response(response)
            return
        self._accept = route.accept
        response = self._serving.accept(event)
        if response.status_code != http.HTTPStatus.SWITCHING_PROTOCOLS:
            self._mark("protocol_error", f"no WebSocket handshake: {self._serving.handshake_exc}")
        if self._serving.eof_sent:  # a close frame came with the request, before our answer
            self._mark("protocol_error", "found frames before our answer; allowed is to wait for it")
            self._abort()
            return
        self._serving.send_response(response)

    def _seated(self) -> None:
        self._server.roster.seated(self)

    def _left(self) -> None:
        self._server.roster.left(self)

    def give_way(self) -> None:
        """Leave, for a newer connection: this one has no call, and is the oldest where most come from."""
        most = self._limits.waiting
        self._mark("refused", f"found more than {most} connections without a call; allowed are {most}")
        self._abort()


class AsteriskWebsocketServer:
    """Listens on one port of some addresses, and hands each call to its route.

    Args:
        hosts: addresses or names. IPv4 and IPv6 may be mixed; ``::`` on its own takes IPv4 as well.
        port: 0 takes a port that is free on all of them; :attr:`port` then says which.
        allowed: the networks that may connect, as an :class:`~bridge.endpoints.allow_list.AllowList` reads
            them.
        routes: by path (``/asterisk/jardim/visitor``). The endpoint that a route's ``accept`` is given has
            its ``call_id``. Once it has returned a leg, the leg must play a frame every 20 ms.
        limits: what a peer may do.
        tls: for ``wss``; None: ``ws``.
        intake: reads the sockets of calls; whoever gives one runs it at each tick. None: the event loop.
        endpoint: makes what carries a connection.
    """

    def __init__(
        self,
        hosts: Sequence[str],
        port: int,
        *,
        allowed: Sequence[Network],
        routes: Mapping[str, Route],
        limits: AsteriskWebsocketLimits | None = None,
        tls: ssl.SSLContext | None = None,
        intake: Intake | None = None,
        endpoint: Callable[[AsteriskWebsocketServer], IncomingEndpoint] = IncomingEndpoint,
    ) -> None:
        self.intake = intake
        self.hosts = tuple(hosts)
        self.port = port
        self.allowed = AllowList(allowed)
        self.limits = limits or AsteriskWebsocketLimits()
        self._routes = dict(routes)
        self._closed_routes: set[str] = set()
        self._tls = tls
        self._endpoint = endpoint
        self._servers: list[asyncio.Server] = []
        self.roster: Roster[IncomingEndpoint] = Roster(
            self.limits.waiting, crowd=self.limits.crowd, spared_s=self.limits.spared_s
        )
        """Kept by the endpoints: each says when it arrives, has a call, and leaves."""

    @property
    def calls(self) -> int:
        """Connections that carry a call."""
        return self.roster.calls

    @property
    def waiting(self) -> int:
        """Connections that carry none: no MEDIA_START yet, or refused and not yet gone."""
        return self.roster.waiting

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: an address can't be listened on; its text names the address and the port.
        """
        loop = asyncio.get_running_loop()
        sockets = await open_listeners(self.hosts, self.port)
        self.port = sockets[0].getsockname()[1]
        for listener in sockets:
            self._servers.append(
                await loop.create_server(
                    lambda: self._endpoint(self),
                    sock=listener,
                    backlog=BACKLOG,
                    ssl=self._tls,
                    ssl_handshake_timeout=self.limits.handshake_s if self._tls else None,
                )
            )

    def set_route(self, path: str, route: Route) -> None:
        """Where a path leads from now on; calls that run go on."""
        self._routes[path] = route

    def remove_route(self, path: str) -> None:
        """The path leads nowhere any more (404); calls that run go on."""
        self._routes.pop(path, None)
        self._closed_routes.discard(path)

    def close_route(self, path: str) -> None:
        """Take no new call there (503); those that run go on."""
        self._closed_routes.add(path)

    def stop_accepting(self) -> None:
        """Take no new call; those that run go on."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        self._closed_routes.update(self._routes)

    async def stop(self) -> None:
        """Hang up every call in order, and return once all are gone; bounded by the linger and a second."""
        self.stop_accepting()
        for endpoint in self.roster.everyone():
            endpoint.hang_up()
        try:
            async with asyncio.timeout(self.limits.goodbye_s + self.limits.linger_s + 1):
                await self.roster.emptied()
        except TimeoutError:
            _log.error("asterisk_websocket.stop_late", port=self.port, calls=self.calls, waiting=self.waiting)

    # ---- What the endpoints say ------------------------------------------------------------------------

    def route(self, request: Request) -> Route:
        """Where a request leads.

        Raises:
            _Refused: nowhere.
        """
        try:
            path = urlsplit(request.path).path
        except ValueError:
            raise _Refused(http.HTTPStatus.BAD_REQUEST, "found a URL that can't be read") from None
        route = self._routes.get(path)
        if route is None:
            raise _Refused(http.HTTPStatus.NOT_FOUND, "found a path that leads nowhere")
        if route.credentials is not None:
            _authorize(*route.credentials, request)
        if path in self._closed_routes:
            raise _Refused(http.HTTPStatus.SERVICE_UNAVAILABLE, "the service is stopping")
        return route


def _authorize(username: str, password: str, request: Request) -> None:
    """Check HTTP's basic authentication.

    Raises:
        _Refused: none, more than one, or another user or password.
    """
    refused = _Refused(http.HTTPStatus.UNAUTHORIZED, "found no valid user and password")
    given = request.headers.get_all("Authorization")
    if len(given) != 1:
        raise refused
    try:
        given_user, given_password = parse_authorization_basic(given[0])
    except InvalidHeader:
        raise refused from None
    # Both are compared, and each in a time that does not tell how much of it was right.
    right_user = hmac.compare_digest(given_user.encode(), username.encode())
    right_password = hmac.compare_digest(given_password.encode(), password.encode())
    if not (right_user and right_password):
        raise refused
