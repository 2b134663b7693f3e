"""A form with a file, as browsers send it; and anything else, which is refused and never taken for one."""

from __future__ import annotations

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.http.multipart import MOST_PARTS, Part, is_multipart, parts_of

BOUND = "multipart/form-data; boundary=x1"


def body(*parts: tuple[str, bytes]) -> bytes:
    """Heads and contents between their marks."""
    whole = b"".join(b"--x1\r\n" + head.encode() + b"\r\n\r\n" + data + b"\r\n" for head, data in parts)
    return whole + b"--x1--\r\n"


NAMED = 'Content-Disposition: form-data; name="a"'


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", "ç"]), st.binary(max_size=200)), max_size=5),
    st.binary(max_size=2000),
)
def test_what_was_sent_is_what_is_read(fields: list[tuple[str, bytes]], file: bytes) -> None:
    given = [(f'Content-Disposition: form-data; name="{name}"', data) for name, data in fields]
    head = 'Content-Disposition: form-data; name="f"; filename="lista.csv"\r\nContent-Type: text/csv'
    sent = body(*given, (head, file))
    if any(b"\r\n--x1" in b"\r\n" + data for _, data in [*fields, ("f", file)]):
        return  # no browser chooses a boundary that stands in the content
    read = parts_of(sent, BOUND)
    assert read == [*(Part(name, None, data) for name, data in fields), Part("f", "lista.csv", file)]


def test_a_client_s_own_form_is_read() -> None:
    files = {"file": ("moradores ç.csv", b"a;b\r\n\r\n1;2", "text/csv")}
    request = httpx2.Request("POST", "http://x/", data={"csrf_token": "t"}, files=files)
    read = parts_of(request.read(), request.headers["content-type"])
    assert [(one.name, one.file_name) for one in read] == [("csrf_token", None), ("file", "moradores ç.csv")]
    assert read[0].text == "t" and read[1].content == b"a;b\r\n\r\n1;2"
    assert is_multipart(request.headers["content-type"]) and not is_multipart("text/multipart/form-data")


@pytest.mark.parametrize(
    ("sent", "kind", "said"),
    [
        (body((NAMED, b"1")), "multipart/form-data", "without its boundary"),
        (body((NAMED, b"1"))[:-6], BOUND, "cut off"),
        (b"", BOUND, "cut off"),
        (body(("Content-Type: text/plain", b"1")), BOUND, "without a name"),
        (b"--x1\r\n--x1--\r\n", BOUND, "without a name"),
        (body(*[(NAMED, b"1")] * (MOST_PARTS + 1)), BOUND, f"more than {MOST_PARTS} fields"),
    ],
)
def test_what_is_no_such_form_is_refused(sent: bytes, kind: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parts_of(sent, kind)


@given(st.binary(max_size=400), st.text(max_size=60))
def test_any_bytes_are_fields_or_refused(sent: bytes, kind: str) -> None:
    for content_type in (kind, BOUND, f"multipart/form-data; boundary={kind}"):
        try:
            read = parts_of(sent, content_type)
        except ValueError:
            read = []
        assert len(read) <= MOST_PARTS
