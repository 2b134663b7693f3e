"""Azure OpenAI's front door before the simulator of OpenAI's protocol: path, deployment, credentials."""

from __future__ import annotations

import http
import json
from typing import Self
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from tests.simulators.openai_realtime import Faults, Reply, Simulator

DEPLOYMENT = "porteiro-realtime"


class AzureSimulator(Simulator):
    """Takes whoever brings the key, or one of the tokens, and names the deployment."""

    def __init__(self, *replies: Reply, faults: Faults | None = None, key: str = "azure-key") -> None:
        super().__init__(*replies, faults=faults)
        self.key = key
        self.tokens: set[str] = set()

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        return self

    @property
    def resource(self) -> str:
        """The resource's address, as Azure's portal shows it."""
        return self.url.removesuffix("/v1")

    async def _greet(self, connection: ServerConnection, request: Request) -> Response | None:
        found = await super()._greet(connection, request)
        return found or self._refusal(request)

    def _refusal(self, request: Request) -> Response | None:
        address = urlsplit(request.path)
        query = parse_qs(address.query)
        if address.path != "/openai/v1/realtime" or set(query) != {"model"}:
            return _refuse(404, "404", "Resource not found")
        keys, bearers = request.headers.get_all("api-key"), request.headers.get_all("authorization")
        by_key = keys == [self.key] and not bearers
        by_token = not keys and len(bearers) == 1 and bearers[0].removeprefix("Bearer ") in self.tokens
        if not by_key and not by_token:
            return _refuse(401, "401", "Access denied due to invalid subscription key or wrong API endpoint.")
        if query["model"] != [DEPLOYMENT]:
            return _refuse(404, "DeploymentNotFound", "The API deployment for this resource does not exist.")
        return None


def _refuse(status: int, code: str, message: str) -> Response:
    body = json.dumps({"error": {"code": code, "message": message}}).encode()
    headers = Headers({"Content-Length": str(len(body)), "Connection": "close"})
    return Response(status, http.HTTPStatus(status).phrase, headers, body)
