"""Listens for Asterisk's WebSocket channels: who may connect, and to which path.

Asterisk connects as websocket_client.conf says (``connection_type = per_call_config``): the path of its
``uri`` chooses a route, its ``username`` and ``password`` come as HTTP basic authentication. Which call it is
the channel itself says, in its MEDIA_START.
"""

from __future__ import annotations

import hmac
import http
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from websockets.exceptions import InvalidHeader
from websockets.headers import parse_authorization_basic
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol

from bridge.endpoints.allow_list import Network
from bridge.endpoints.asterisk_websocket import (
    MAX_MESSAGE_BYTES,
    Accept,
    AsteriskWebsocketEndpoint,
    AsteriskWebsocketLimits,
)
from bridge.endpoints.intake import Intake
from bridge.endpoints.websocket_connection import IncomingConnection, WebsocketServer


@dataclass(frozen=True, slots=True)
class Route:
    """What a path leads to. With credentials (user, password) it asks for HTTP's basic authentication."""

    accept: Accept
    credentials: tuple[str, str] | None = field(default=None, repr=False)


class _Refused(Exception):
    """The HTTP request is answered with a status, and no WebSocket."""

    def __init__(self, status: http.HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class IncomingEndpoint(IncomingConnection, AsteriskWebsocketEndpoint):
    """A connection that Asterisk made; `state`: open where the HTTP request has been answered already."""

    def __init__(self, server: AsteriskWebsocketServer, state: State = State.CONNECTING) -> None:
        wire = ServerProtocol(max_size=MAX_MESSAGE_BYTES, state=state)
        AsteriskWebsocketEndpoint.__init__(self, wire, None, server.limits, server.intake)
        self._at(server)
        self._serving = wire
        self._server = server

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
        self._answer(event)


class AsteriskWebsocketServer(WebsocketServer):
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

    kind = "asterisk_websocket"

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
        limits = limits or AsteriskWebsocketLimits()
        super().__init__(hosts, port, allowed=allowed, limits=limits, tls=tls, intake=intake)
        self._routes = dict(routes)
        self._closed_routes: set[str] = set()
        self._endpoint = endpoint

    def make(self) -> IncomingEndpoint:
        """What carries a new connection."""
        return self._endpoint(self)

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
        super().stop_accepting()
        self._closed_routes.update(self._routes)

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
    except (InvalidHeader, ValueError):  # ValueError: what is in it is no UTF-8
        raise refused from None
    # Both are compared, and each in a time that does not tell how much of it was right.
    right_user = hmac.compare_digest(given_user.encode(), username.encode())
    right_password = hmac.compare_digest(given_password.encode(), password.encode())
    if not (right_user and right_password):
        raise refused
