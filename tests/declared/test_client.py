"""One call, one request, one bounded answer: against a real server that behaves in every way it can."""

from __future__ import annotations

import asyncio
import base64
import ssl
import time
from collections.abc import Mapping
from typing import Any

import pytest
import standardwebhooks

from bridge.declared.calls import VisitCalls, build_outside
from bridge.declared.check import ToolUnfit, reach_tool
from bridge.declared.client import MAX_ANSWER, OutsideAnswer, OutsideCall
from bridge.settings import Tenant, build
from tests.declared.site import HOST, answer, site
from tests.gates.test_http_gate import DOOR

PARAMETERS = {
    "properties": {
        "cpf": {"description": "O CPF.", "pattern": "[0-9]{11}"},
        "note": {"description": "Uma nota."},
    },
    "required": ["cpf"],
}
CALL = "6f1c3a52-51de-5f0a-9f0e-0f9a5c3a2b11"
SHOWN = [{"name": "name", "at": "/customer/name", "max_chars": 20}]
ANA = {"customer": {"name": "Ana Prado", "cpf": "12345678901"}, "internal": "nobody sees it"}


def tenant(url: str, *, secrets: Mapping[str, str] | None = None, **own: Any) -> Tenant:
    tool = {"description": "Procura.", "parameters": PARAMETERS, "private_network": True, "answer": SHOWN}
    tree = {"tenants": {"jardim": {"tools": {"lookup": {**tool, "url": url, **own}}}}}
    return build(tree, environ=secrets or {}).tenants["jardim"]


async def ask(
    url: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    secrets: Mapping[str, str] | None = None,
    **own: Any,
) -> OutsideAnswer:
    """One call of a tool that is declared so."""
    known = secrets or {}
    outside = build_outside(tenant(url, **own), lambda name: known.get(name or ""))
    return await outside.tools["lookup"].ask(called(arguments))


def called(arguments: Mapping[str, Any] | None = None) -> OutsideCall:
    return OutsideCall(CALL, "lookup", arguments or {"cpf": "12345678901"}, "jardim", "v1", "visitor", "1199")


async def test_the_request_is_the_template_filled_and_the_answer_what_is_named_of_it() -> None:
    secrets = {"CRM": "Bearer xyz"}
    async with site(answer(ANA)) as here:
        came = await ask(
            f"{here.url}/v1/{{cpf}}?note={{note}}&from={{caller}}",
            {"cpf": "12345678901", "note": "a&b=c"},
            headers={"X-Visit": "{visit}"},
            headers_env={"Authorization": "CRM"},
            secrets=secrets,
        )
    assert came.result == {"status": "ok", "answer": {"name": "Ana Prado"}}
    assert came.about == {"host": HOST, "tries": 1, "http": 200}
    (asked,) = here.asked
    assert (asked.method, asked.target) == ("GET", "/v1/12345678901?note=a%26b%3Dc&from=1199")
    assert asked.headers["host"] == f"{HOST}:{here.port}"
    assert asked.headers["authorization"] == "Bearer xyz" and asked.headers["x-visit"] == "v1"
    assert "idempotency-key" not in asked.headers and asked.body == b""


async def test_what_changes_something_has_the_calls_id_and_a_signature_that_receivers_can_check() -> None:
    secret = "whsec_" + base64.b64encode(b"k" * 32).decode()
    async with site(answer({}, "201 Created")) as here:
        came = await ask(
            f"{here.url}/tickets",
            {"cpf": "1", "note": 'x"}\r\n'},
            method="POST",
            body={"cpf": "{cpf}", "text": "Diz: {note}", "visit": "{visit}"},
            signing_secret_env="KEY",
            secrets={"KEY": secret},
            answer=[],
        )
    assert came.result == {"status": "ok"}
    (asked,) = here.asked
    assert asked.json == {"cpf": "1", "text": 'Diz: x"}\r\n', "visit": "v1"}
    assert asked.headers["content-type"] == "application/json"
    assert asked.headers["idempotency-key"] == asked.headers["webhook-id"] == CALL
    standardwebhooks.Webhook(secret).verify(asked.body, dict(asked.headers))


@pytest.mark.parametrize(
    ("said", "status", "trouble"),
    [
        (answer({}, "404 Not Found"), "not_found", ""),
        (answer({}, "403 Forbidden"), "refused", "the service answered 403"),
        (
            answer({}, "302 Found", more="Location: http://127.0.0.3/\r\n"),
            "error",
            "the service answered 302",
        ),
        (answer(b"<p>hi", kind="text/html"), "error", "the answer is no JSON but text/html"),
        (answer(b"{", kind="application/json"), "error", "the answer is no JSON"),
        (answer(b"x" * (MAX_ANSWER + 1)), "error", f"the answer has more than {MAX_ANSWER} bytes"),
        (answer({}, more="Content-Encoding: gzip\r\n"), "error", "the answer is packed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", "error", "the connection failed"),
        (b"not HTTP at all\r\n\r\n", "error", "the connection failed"),
        (answer(ANA, kind="application/problem+json; charset=utf-8"), "ok", ""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "ok", ""),
    ],
)
async def test_each_answer_is_used_or_refused_whole(said: bytes, status: str, trouble: str) -> None:
    async with site(said) as here:
        came = await ask(f"{here.url}/{{cpf}}")
    assert came.result["status"] == status
    assert str(came.about.get("trouble", "")).startswith(trouble) and len(here.asked) == 1
    assert "nobody sees it" not in str(came)


async def test_over_tls_the_certificate_is_the_named_hosts_and_one_that_is_believed() -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(DOOR)
    async with site(answer(ANA), tls=tls, host="127.0.0.1") as here:
        believed = await ask(f"{here.url}/x", ca_file=str(DOOR))
        unknown = await ask(f"{here.url}/x")
    assert believed.result["status"] == "ok"
    assert unknown.about["trouble"] == "the service's certificate is not trusted"
    async with site(answer(ANA), tls=tls) as here:
        another = await ask(f"{here.url}/x", ca_file=str(DOOR))
        assert another.about["trouble"] == "the service's certificate is not trusted", "it is another host's"
    assert here.asked == []


async def test_a_service_that_is_away_or_slow_is_given_up_on_in_time() -> None:
    async with site(answer(ANA)) as here:
        gone = here.url
    assert (await ask(f"{gone}/x")).about["trouble"] == "the service can't be reached"
    async with site(answer(ANA)) as here:
        here.slow_s = 5
        began = time.monotonic()
        read = await ask(f"{here.url}/x", timeout_s=0.3)
        wrote = await ask(f"{here.url}/x", timeout_s=0.3, method="POST")
        assert time.monotonic() - began < 2
    assert read.result["status"] == "error", "nothing was changed"
    assert wrote.result["status"] == "unknown", "it may have been done"


@pytest.mark.parametrize(
    ("status", "means"),
    [
        ("303 See Other", "unknown"),
        ("409 Conflict", "refused"),
        ("500 Oh", "unknown"),
        ("503 Later", "unknown"),
    ],
)
async def test_whether_something_was_done_is_said_as_far_as_it_is_known(status: str, means: str) -> None:
    async with site(answer({}, status)) as here:
        assert (await ask(f"{here.url}/x", method="POST")).result["status"] == means
        read = (await ask(f"{here.url}/x")).result["status"]
        assert read == ("refused" if means == "refused" else "error") and len(here.asked) == 2


async def test_only_what_may_be_done_twice_is_tried_again() -> None:
    away = answer({}, "503 Service Unavailable")
    async with site(away, answer(ANA)) as here:
        came = await ask(f"{here.url}/x", retries=1)
        assert came.result["status"] == "ok" and came.about["tries"] == 2
        here.will_say(away)
        assert (await ask(f"{here.url}/x", retries=2)).about == {
            "host": HOST,
            "tries": 3,
            "http": 503,
            "trouble": "the service answered 503",
        }
        here.asked.clear()
        here.will_say(b"")  # it hangs up
        assert (await ask(f"{here.url}/x", method="PUT", retries=1)).result["status"] == "unknown"
        assert len({one.headers["idempotency-key"] for one in here.asked}) == 1 and len(here.asked) == 2
        here.asked.clear()
        assert (await ask(f"{here.url}/x", method="POST")).result["status"] == "unknown"
        assert len(here.asked) == 1


async def test_an_answer_is_kept_for_the_same_question_alone() -> None:
    async with site(answer(ANA)) as here:
        own: dict[str, Any] = {"cache_s": 60, "headers": {"X-Note": "{note}"}}
        outside = build_outside(tenant(f"{here.url}/{{cpf}}", **own), lambda _: None)
        tool = outside.tools["lookup"]
        first = await tool.ask(called({"cpf": "1"}))
        again = await tool.ask(called({"cpf": "1"}))
        await tool.ask(called({"cpf": "2"}))
        await tool.ask(called({"cpf": "1", "note": "x"}))
        assert first.result == again.result and again.about == {"host": HOST, "tries": 0, "cached": True}
        assert [one.target for one in here.asked] == ["/1", "/2", "/1"]
        here.will_say(answer({}, "500 Oh"))
        assert (await tool.ask(called({"cpf": "3"}))).result["status"] == "error"
        here.will_say(answer(ANA))
        assert (await tool.ask(called({"cpf": "3"}))).result["status"] == "ok", "a failure is not kept"


async def test_it_goes_to_no_address_inside_and_to_no_gate() -> None:
    async with site(answer(ANA)) as here:
        public = await ask(
            f"https://localhost:{here.port}/x", private_network=False
        )  # a name that stands for this machine
        assert public.about["trouble"] == "localhost has no address that may be connected to"
        settings = build(
            {
                "tenants": {
                    "jardim": {
                        "gate": {"kind": "http", "url": "http://127.0.0.2:1/open"},
                        "tools": {
                            "lookup": {
                                "description": "x",
                                "url": f"http://localhost2.invalid:{here.port}/",
                                "private_network": True,
                            }
                        },
                    }
                }
            }
        )
        outside = build_outside(settings.tenants["jardim"], lambda _: None)
        lookup = outside.tools["lookup"].declared.model_copy(update={"url": f"{here.url}/x"})
        outside.tools["lookup"].declared = lookup  # as if the name stood for the gate by now
        came = await outside.tools["lookup"].ask(called())
        assert came.about["trouble"] == f"{HOST} is where the gate is moved"
        assert here.asked == []


async def test_a_check_connects_and_asks_nothing() -> None:
    async with site(answer(ANA)) as here:
        outside = build_outside(tenant(f"{here.url}/x"), lambda _: None)
        assert await reach_tool(outside.tools["lookup"]) == f"{HOST}:{here.port}"
        inside = build_outside(tenant("https://127.0.0.2/x", private_network=False), lambda _: None)
        with pytest.raises(ToolUnfit, match="private_network = true"):
            await reach_tool(inside.tools["lookup"])
    with pytest.raises(ToolUnfit, match="does not answer"):
        await reach_tool(outside.tools["lookup"])
    assert here.asked == []


async def test_an_argument_that_would_leave_its_place_is_not_sent() -> None:
    async with site(answer(ANA)) as here:
        came = await ask(f"{here.url}/v1/{{cpf}}", {"cpf": ".."})
        assert came.result["status"] == "error" and here.asked == []
        came = await ask(f"{here.url}/v1/{{cpf}}", {"cpf": "a/b"})
        assert "slash" in came.result["message"] and here.asked == []


async def test_a_visit_asks_one_thing_at_a_time_and_each_tool_so_often() -> None:
    async with site(answer(ANA)) as here:
        here.slow_s = 0.05
        outside = build_outside(tenant(f"{here.url}/{{cpf}}", calls_per_visit=2), lambda _: None)
        visit = VisitCalls(outside)
        assert visit.refusal("lookup") is None
        asking = asyncio.create_task(visit.ask(called()))
        busy = visit.refusal("lookup")
        assert busy is not None and busy["status"] == "busy"
        assert (await asking).result["status"] == "ok"
        assert visit.refusal("lookup") is None
        await visit.ask(called())
        exhausted = visit.refusal("lookup")
        assert exhausted is not None and exhausted["status"] == "exhausted"
        assert VisitCalls(outside).refusal("lookup") is None, "another visit begins anew"
        assert len(here.asked) == 2


async def test_a_test_call_reads_and_changes_nothing() -> None:
    reads = build_outside(tenant("http://127.0.0.2/x"), lambda _: None).in_rehearsal()
    writes = build_outside(tenant("http://127.0.0.2/x", method="POST"), lambda _: None).in_rehearsal()
    assert reads.visit().refusal("lookup") is None
    refused = writes.visit().refusal("lookup")
    assert refused is not None and refused["status"] == "not_in_a_test"
