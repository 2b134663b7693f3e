"""No argument becomes part of a request's structure, whatever a model was talked into."""

from __future__ import annotations

import urllib.parse
from typing import Any

import httpx2
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.declared import template
from bridge.declared.template import Unfit, fill_body, fill_header, fill_url

URL = "https://crm.example:8443/v1/customers/{cpf}/notes.{n}?q={q}&fixed=a%26b&n={n}&who={q}-{cpf}"
HOSTILE = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        [
            *("..", ".", "", "/", "%2e%2e", "../../admin", "..\\x", "a/b", "@evil.example", "//evil.example"),
            *(
                "x?y=1",
                "x#y",
                "x&admin=1",
                "\r\nX-Evil: 1",
                "x\0",
                "{cpf}",
                "{q}",
                "é",
                "\u202e",
                ";a=b",
                "%",
            ),
            *("http://evil.example/", ":80", "[::1]", "x y", '"}, "admin": true, {"', "\\", "\ud800"),
        ]
    ),
)
STORABLE = HOSTILE.filter(lambda text: not any("\ud800" <= char <= "\udfff" for char in text))
NUMBERS = st.one_of(st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False))


@given(cpf=STORABLE, q=STORABLE, n=NUMBERS)
@example(cpf="..", q="", n=0)
@example(cpf="1/../../admin", q="&admin=1#", n=-0.0)
def test_a_url_keeps_its_host_its_path_and_its_query_whatever_fills_it(cpf: str, q: str, n: float) -> None:
    try:
        filled = fill_url(URL, {"cpf": cpf, "q": q, "n": n})
    except Unfit:
        assert "/" in cpf or "\\" in cpf or not cpf.isprintable() or not cpf.strip("."), cpf
        return
    parts = urllib.parse.urlsplit(filled)
    assert (parts.scheme, parts.netloc, parts.fragment) == ("https", "crm.example:8443", "")
    assert filled.isascii() and not any(char.isspace() for char in filled)
    v1, customers, segment, notes = parts.path.split("/")[1:]
    assert (v1, customers, notes.partition(".")[0]) == ("v1", "customers", "notes")
    assert urllib.parse.unquote(segment) == cpf
    pairs = urllib.parse.parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True)
    assert [name for name, _ in pairs] == ["q", "fixed", "n", "who"]
    assert dict(pairs) == {"q": q, "fixed": "a&b", "n": template.as_text(n), "who": f"{q}-{cpf}"}
    sent = httpx2.URL(filled).copy_with(host="192.0.2.1")  # as the client reads and sends it
    assert sent.raw_path.decode() == filled.removeprefix("https://crm.example:8443")


def test_what_was_left_out_leaves_its_part_of_the_query_out() -> None:
    assert fill_url("https://a.example/x?q={q}&z=1", {}) == "https://a.example/x?z=1"
    assert fill_url("https://a.example/x?q={q}", {}) == "https://a.example/x"


@given(HOSTILE)
def test_a_header_has_one_line_of_plain_text_or_is_refused(text: str) -> None:
    try:
        filled = fill_header("order {n}", {"n": text})
    except Unfit:
        assert not (text.isascii() and text.isprintable())
        return
    assert filled == f"order {text}" and filled.isprintable() and filled.isascii()
    assert fill_header("order {n}", {}) is None


@given(STORABLE, NUMBERS, st.booleans())
def test_a_body_is_built_of_values(text: str, number: float, flag: bool) -> None:
    body: dict[str, Any] = {
        "text": "{text}",
        "within": "said: {text}, {number}",
        "typed": ["{number}", "{flag}", 7, True],
        "gone": "{missing}",
        "below": {"gone": "{missing} {text}", "list": ["{missing}", "x"]},
    }
    filled = orjson.loads(orjson.dumps(fill_body(body, {"text": text, "number": number, "flag": flag})))
    assert filled == {
        "text": text,
        "within": f"said: {text}, {template.as_text(number)}",
        "typed": [number, flag, 7, True],
        "below": {"list": ["x"]},
    }


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://{cpf}.example/", "a host, without placeholders in it"),
        ("https://a.example:{cpf}/", "a host, without placeholders in it"),
        ("{cpf}://a.example/", "a host, without placeholders in it"),
        ("ftp://a.example/", "https:// or http://"),
        ("https:///x", "a host"),
        ("https://user:word@a.example/", "without a user or password"),
        ("https://a.example:99999/", "a port from"),
        ("https://a.example:0/", "a port from"),
        ("https://a.example/{q}", "in the path: required arguments"),
        ("https://a.example/{caller}", "in the path: required arguments"),
        ("https://a.example/../x", "a path without . and .."),
        ("https://a.example/%2e%2e/x", "a path without . and .."),
        ("https://a.example/?{q}=1", "not in its names"),
        ("https://a.example/?q={nobody}", "not {nobody}"),
        ("https://a.example/?q={q", "braces around a name"),
        ("https://a.example/?q={{q}}", "braces around a name"),
        ("https://a.example/?q={q.__class__}", "braces around a name"),
        ("https://a.example/#x", "without spaces"),
        ("https://a.example/\\x", "without spaces"),
        ("https://a.example/ x", "without spaces"),
        ("https://á.example/", "ASCII"),
        ("https://a.example/" + "x" * 2000, "up to 2000"),
    ],
)
def test_a_url_that_is_no_template_is_refused(url: str, allowed: str) -> None:
    with pytest.raises(ValueError, match=allowed.replace(".", r"\.").replace("{", r"\{")):
        template.check_url(url, ["cpf", "q"], ["cpf"])


@given(st.text(alphabet="{}cpfq/?&=#:@.%\\ a\n", max_size=40))
def test_any_template_is_judged_and_one_that_is_well_can_be_filled(rest: str) -> None:
    url = f"https://a.example{rest}"
    try:
        template.check_url(url, ["cpf", "q"], ["cpf"])
    except ValueError:
        return
    try:
        filled = fill_url(url, {"cpf": "1", "call": "c", "role": "r", "tenant": "t", "visit": "v"})
    except Unfit:
        return
    assert urllib.parse.urlsplit(filled).netloc == urllib.parse.urlsplit(url).netloc


@pytest.mark.parametrize("name", ["Host", "content-length", "Idempotency-Key", "X Y", "", "X\r\n", "é"])
def test_headers_that_are_the_requests_own_are_not_set(name: str) -> None:
    with pytest.raises(ValueError, match="a header's name"):
        template.check_header_name(name)


@pytest.mark.parametrize(
    ("name", "text", "allowed"),
    [
        ("Authorization", "Bearer x", "headers_env"),
        ("X-Api-Key", "x", "headers_env"),
        ("X-Shop", "a\r\nX-Evil: 1", "one line"),
        ("X-Shop", "{nobody}", "not {nobody}"),
    ],
)
def test_a_header_that_may_not_be_is_refused(name: str, text: str, allowed: str) -> None:
    with pytest.raises(ValueError, match=allowed.replace("{", r"\{")):
        template.check_header(name, text, ["cpf"])


@pytest.mark.parametrize(
    ("body", "allowed"),
    [
        ({"{cpf}": 1}, "not in its names"),
        ({"x": "{nobody}"}, "not {nobody}"),
        ({"x": {"x": {"x": {"x": {"x": {"x": {"x": {}}}}}}}}, "within one another"),
        ({"x": None}, "text, numbers"),
        ({"x": float("inf")}, "text, numbers"),
        ({"x": "y" * 9000}, "up to 8000"),
    ],
)
def test_a_body_that_is_no_template_is_refused(body: dict[str, Any], allowed: str) -> None:
    with pytest.raises(ValueError, match=allowed.replace("{", r"\{")):
        template.check_body(body, ["cpf"])
