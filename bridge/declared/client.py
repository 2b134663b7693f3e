"""Carries out a tenant's declared tools: one HTTP request a call, and what of its answer is shown.

Nothing is followed to elsewhere: no redirect, no proxy, no address that was not looked at. Whatever goes
wrong is an answer to the model and a line for the record, and never an exception.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import httpx2
import orjson
import structlog

from bridge.declared import answers, template
from bridge.declared.addresses import Address, NotAllowed, allowed_addresses
from bridge.settings import DeclaredTool
from bridge.signing import signature_headers

MAX_ANSWER: Final = 64 * 1024
"""Bytes of an answer that are read. A longer one is not used at all: half of it may say the contrary."""
MOST_KEPT: Final = 256
"""Answers of one tool that are kept for `cache_s`."""
PAUSE_S: Final = 0.2
"""Before the first further try; before the second twice that."""
NOT_WELL: Final = (502, 503, 504)
"""Status codes with which nothing was done, as far as a server can know."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class OutsideCall:
    """One call of a tool.

    Attributes:
        id: a UUID of its own, by which the service knows it when it comes twice.
        caller: the caller's number; empty where it is not known.
    """

    id: str
    tool: str
    arguments: template.Values
    tenant: str
    visit: str
    role: str
    caller: str = ""

    @property
    def values(self) -> dict[str, template.Value]:
        """What its templates are filled with."""
        known: dict[str, template.Value] = {
            "call": self.id,
            "role": self.role,
            "tenant": self.tenant,
            "visit": self.visit,
        }
        return {**self.arguments, **known, **({"caller": self.caller} if self.caller else {})}


@dataclass(frozen=True, slots=True)
class OutsideAnswer:
    """What came of it: for the model, and for the record, which has nothing of what was said."""

    result: Mapping[str, Any]
    about: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Secrets:
    """What one tool has out of the environment."""

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    signing_key: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    url: str
    headers: Mapping[str, str]
    content: bytes | None


@dataclass(slots=True)
class _Course:
    """How far a call has come."""

    tries: int = 0
    http: int = 0
    cached: bool = False
    sent: bool = False
    """Something of a request has left that the service may act on."""


class _Failed(Exception):
    """It was not done, or nobody knows; the text is for people and holds nothing of the request.

    Attributes:
        again: another try does no harm and may help.
        refused: the service has said that it does not do it.
    """

    def __init__(self, text: str, *, again: bool = False, refused: bool = False) -> None:
        self.again = again
        self.refused = refused
        super().__init__(text)


class OutsideTool:
    """One declared tool."""

    def __init__(
        self,
        name: str,
        declared: DeclaredTool,
        secrets: Secrets,
        tls: ssl.SSLContext | bool,
        apart_from: Sequence[tuple[str, int | None]],
    ) -> None:
        """
        Args:
            tls: whose certificates are believed; False for plain HTTP.
            apart_from: (host, port) of what moves the gate, where it never connects to; port None: any.
        """
        self.name = name
        self.declared = declared
        self._secrets = secrets
        self.tls = tls
        self._apart_from = apart_from
        self._kept: OrderedDict[tuple[object, ...], tuple[float, Mapping[str, Any]]] = OrderedDict()

    @property
    def only_reads(self) -> bool:
        """Whether nothing is changed by it, as HTTP has it."""
        return self.declared.method == "GET"

    async def addresses(self) -> Sequence[Address]:
        """Where it may connect to now, in the order to try.

        Raises:
            NotAllowed: nowhere.
            OSError: no such host is known.
        """
        host, port = self.declared.host_and_port
        return await allowed_addresses(
            host, port, private=self.declared.private_network, apart_from=self._apart_from
        )

    async def ask(self, call: OutsideCall) -> OutsideAnswer:
        """Make the request, and choose what is shown of its answer. Within `timeout_s`."""
        began = time.perf_counter()
        course, trouble = _Course(), ""
        try:
            async with asyncio.timeout(self.declared.timeout_s):
                result = await self._ask(call, course)
        except template.Unfit as error:
            result = {"status": "error", "message": str(error)}
            trouble = "an argument can't stand where the request has it"
        except TimeoutError:
            result, trouble = self._trouble(course), f"no answer in {self.declared.timeout_s:g} s"
        except _Failed as error:
            refused = {"status": "refused", "message": "the service does not do it"}
            result = refused if error.refused else self._trouble(course)
            trouble = str(error)
        about: dict[str, Any] = {"host": self.declared.host_and_port[0], "tries": course.tries}
        about |= {"http": course.http} if course.http else {}
        about |= {"cached": True} if course.cached else {}
        about |= {"trouble": trouble} if trouble else {}
        ms = round((time.perf_counter() - began) * 1000)
        log.info("tool.asked_outside", tool=self.name, status=result["status"], ms=ms, **about)
        return OutsideAnswer(result, about)

    def _trouble(self, course: _Course) -> Mapping[str, Any]:
        """What the model is told where no answer can be used."""
        if course.sent and not self.only_reads:
            return {"status": "unknown", "message": "no answer: it may have been done or not"}
        return {"status": "error", "message": "the service can't be asked now"}

    async def _ask(self, call: OutsideCall, course: _Course) -> Mapping[str, Any]:
        request = self._request(call)
        # What one call has of its own (its id, its signature) is no part of what was asked.
        key = (request.url, *(request.headers.get(name, "") for name in self.declared.headers))
        if (kept := self._kept_answer(key)) is not None:
            course.cached = True
            return kept
        status, body = await self._tried(request, course)
        if status == 404:
            return {"status": "not_found"}
        if not 200 <= status < 300:
            # Whoever redirects may have acted before, and whoever fails in the middle of it as well.
            raise _Failed(f"the service answered {status}", refused=400 <= status < 500)
        try:
            document = answers.read(body)
        except answers.Unreadable as error:
            raise _Failed(str(error)) from None
        result: dict[str, Any] = {"status": "ok"}
        if self.declared.answer:
            result["answer"] = answers.chosen(document, self.declared.answer)
        self._keep(key, result)
        return result

    # ---- the request -------------------------------------------------------------------------------------

    def _request(self, call: OutsideCall) -> _Request:
        declared, values = self.declared, call.values
        url = template.fill_url(declared.url, values)
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "porteiro"}
        for name, text in declared.headers.items():
            if (filled := template.fill_header(text, values)) is not None:
                headers[name] = filled
        headers |= self._secrets.headers
        content = None
        if declared.body:
            content = orjson.dumps(template.fill_body(declared.body, values))
            headers["Content-Type"] = "application/json"
        if not self.only_reads:
            headers["Idempotency-Key"] = call.id
        if self._secrets.signing_key is not None:
            key = self._secrets.signing_key
            headers |= signature_headers(key, call.id, int(time.time()), content or b"")
        return _Request(declared.method, url, headers, content)

    async def _tried(self, request: _Request, course: _Course) -> tuple[int, bytes]:
        """(status, body) of the first try that is answered well enough, or of the last."""
        while True:
            left = self.declared.retries - course.tries
            course.tries += 1
            try:
                status, body = await self._connected(request, course)
            except _Failed as error:
                if not error.again or left <= 0:
                    raise
            else:
                if status not in NOT_WELL or left <= 0:
                    return status, body
            await asyncio.sleep(PAUSE_S * course.tries)

    async def _connected(self, request: _Request, course: _Course) -> tuple[int, bytes]:
        try:
            addresses = await self.addresses()
        except NotAllowed as error:
            raise _Failed(str(error)) from None
        except OSError:
            raise _Failed("no such host is known", again=True) from None
        for address in addresses[:-1]:
            try:
                return await self._send(request, address, course)
            except httpx2.ConnectError:
                continue  # nothing was sent: the next one may take connections
            except (httpx2.HTTPError, httpx2.StreamError, OSError) as error:
                raise self._failure(error) from error
        try:
            return await self._send(request, addresses[-1], course)
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, OSError) as error:
            raise self._failure(error) from error

    async def _send(self, request: _Request, address: Address, course: _Course) -> tuple[int, bytes]:
        """To this very address, whatever the host's name stands for by now."""

        async def trace(event: str, _: Mapping[str, Any]) -> None:
            if event.endswith("send_request_headers.started"):
                course.sent = True

        url = httpx2.URL(request.url)
        # trust_env: a proxy or a .netrc of this machine has nothing to say about it.
        # timeout: its own, a little before ours, so that it tidies its connection up.
        limit = 0.9 * self.declared.timeout_s
        async with httpx2.AsyncClient(verify=self.tls, trust_env=False, timeout=limit) as client:
            made = client.build_request(
                request.method,
                url.copy_with(host=str(address)),
                headers={"Host": url.netloc.decode("ascii"), **request.headers},
                content=request.content,
                extensions={"trace": trace, "sni_hostname": url.raw_host.decode("ascii")},
            )
            response = await client.send(made, stream=True, auth=None, follow_redirects=False)
            try:
                course.http = response.status_code
                return response.status_code, await self._read(response)
            finally:
                await response.aclose()

    @staticmethod
    async def _read(response: httpx2.Response) -> bytes:
        if not 200 <= response.status_code < 300:
            return b""  # nothing of it is shown
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise _Failed("the answer is packed, which was not asked for")
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > MAX_ANSWER:
                raise _Failed(f"the answer has more than {MAX_ANSWER} bytes")
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if body and kind != "application/json" and not kind.endswith("+json"):
            raise _Failed(f"the answer is no JSON but {kind[:60] or 'of no type'}")
        return bytes(body)

    @staticmethod
    def _failure(error: Exception) -> _Failed:
        """The class of an error in words; its message may quote the URL, with what a caller said in it."""
        root: BaseException = error
        while (below := root.__cause__ or root.__context__) is not None:
            root = below
        if isinstance(root, ssl.SSLCertVerificationError):
            return _Failed("the service's certificate is not trusted")
        if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
            return _Failed("the service can't be reached", again=True)
        if isinstance(error, httpx2.TimeoutException):
            return _Failed("the service gave no answer in time")
        return _Failed(f"the connection failed ({type(error).__name__})", again=True)

    # ---- answers that are kept ---------------------------------------------------------------------------

    def _kept_answer(self, key: tuple[object, ...]) -> Mapping[str, Any] | None:
        until, result = self._kept.get(key, (0.0, {}))
        return result if time.monotonic() < until else None

    def _keep(self, key: tuple[object, ...], result: Mapping[str, Any]) -> None:
        if self.declared.cache_s:
            self._kept.pop(key, None)
            self._kept[key] = (time.monotonic() + self.declared.cache_s, result)
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)


Secret = Callable[[str | None], str | None]
"""Looks an environment variable up (:meth:`bridge.settings.Settings.secret`)."""
