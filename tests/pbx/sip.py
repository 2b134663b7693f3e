"""SIP messages, digests, session descriptions without I/O: what a phone needs of RFC 3261, 2617, 4566."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field

COMPACT = {
    "v": "via",
    "f": "from",
    "t": "to",
    "i": "call-id",
    "m": "contact",
    "l": "content-length",
    "c": "content-type",
}
REASONS = {
    100: "Trying",
    180: "Ringing",
    200: "OK",
    481: "Call/Transaction Does Not Exist",
    486: "Busy Here",
    487: "Request Terminated",
    488: "Not Acceptable Here",
    501: "Not Implemented",
    603: "Decline",
}
PAYLOADS = {"PCMU": 0, "PCMA": 8}
KEYS_PAYLOAD = 101


class SipError(ValueError):
    """What came is not what SIP allows."""


@dataclass(slots=True)
class Message:
    """A request or a response.

    Attributes:
        first: the request or status line.
        headers: in their order; names are compared without case.
    """

    first: str
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: str = ""

    @classmethod
    def parse(cls, data: bytes) -> Message:
        """Read one datagram.

        Raises:
            SipError: it is no SIP message.
        """
        head, _, body = data.decode("utf-8", errors="replace").partition("\r\n\r\n")
        first, *lines = re.sub(r"\r\n[ \t]+", " ", head).split("\r\n")
        if "SIP/2.0" not in first:
            raise SipError(f"found {first[:60]!r}; allowed is a SIP request or status line")
        headers = []
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon:
                raise SipError(f"found the header line {line[:60]!r} without a colon")
            headers.append((COMPACT.get(name.strip().lower(), name.strip()), value.strip()))
        return cls(first, headers, body)

    def encode(self) -> bytes:
        """The datagram."""
        body = self.body.encode()
        lines = [
            self.first,
            *(f"{name}: {value}" for name, value in self.headers),
            f"Content-Length: {len(body)}",
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode() + body

    def all(self, name: str) -> list[str]:
        """Every value of a header."""
        return [value for each, value in self.headers if each.lower() == name.lower()]

    def __getitem__(self, name: str) -> str:
        """A header's first value; empty where there is none."""
        found = self.all(name)
        return found[0] if found else ""

    @property
    def status(self) -> int:
        """A response's code; 0: this is a request."""
        return int(self.first.split()[1]) if self.first.startswith("SIP/2.0") else 0

    @property
    def method(self) -> str:
        """The request's method, of a response too."""
        return self["cseq"].split()[-1] if self.status else self.first.split()[0]

    @property
    def cseq(self) -> int:
        """The request's number."""
        return int(self["cseq"].split()[0])

    @property
    def call_id(self) -> str:
        """Which call or registration it belongs to."""
        return self["call-id"]

    @property
    def branch(self) -> str:
        """Which transaction it belongs to."""
        return parameter(self["via"], "branch")

    def answer(self, status: int, *, tag: str = "", contact: str = "", body: str = "") -> Message:
        """A response to this request."""
        headers = [("Via", value) for value in self.all("via")]
        headers += [("Record-Route", value) for value in self.all("record-route")]
        to = self["to"]
        if tag and not parameter(to, "tag"):
            to = f"{to};tag={tag}"
        headers += [("From", self["from"]), ("To", to), ("Call-ID", self.call_id), ("CSeq", self["cseq"])]
        if contact:
            headers.append(("Contact", contact))
        if body:
            headers.append(("Content-Type", "application/sdp"))
        return Message(f"SIP/2.0 {status} {REASONS[status]}", headers, body)


def parameter(header: str, name: str) -> str:
    """A header's parameter, outside its `<…>`; empty where there is none."""
    found = re.search(rf";\s*{name}=([^;,\s]+)", re.sub(r"<[^>]*>", "", header), re.IGNORECASE)
    return found[1] if found else ""


def address_of(header: str) -> str:
    """The URI in a From, To or Contact."""
    found = re.search(r"<([^>]+)>", header)
    return found[1] if found else header.split(";")[0].strip()


def token(length: int = 8) -> str:
    """Something that nobody else has: tags, branches, call ids."""
    return secrets.token_hex(length)


def authorization(challenge: str, method: str, uri: str, user: str, password: str) -> str:
    """The answer to a Digest challenge (MD5, with or without qop).

    Raises:
        SipError: the challenge asks for another algorithm.
    """
    asked = {
        name.lower(): quoted or plain
        for name, quoted, plain in re.findall(r'(\w+)=(?:"([^"]*)"|([^,\s]+))', challenge)
    }
    if asked.get("algorithm", "MD5").upper() != "MD5":
        raise SipError(f"found the digest algorithm {asked['algorithm']!r}; allowed is MD5")

    def md5(*parts: str) -> str:
        return hashlib.md5(":".join(parts).encode(), usedforsecurity=False).hexdigest()

    one, two = md5(user, asked["realm"], password), md5(method, uri)
    fields = [
        f'username="{user}"',
        f'realm="{asked["realm"]}"',
        f'nonce="{asked["nonce"]}"',
        f'uri="{uri}"',
        "algorithm=MD5",
    ]
    if "qop" in asked:
        nonce, count = token(), "00000001"
        fields.append(f'response="{md5(one, asked["nonce"], count, nonce, "auth", two)}"')
        fields += ["qop=auth", f"nc={count}", f'cnonce="{nonce}"']
    else:
        fields.append(f'response="{md5(one, asked["nonce"], two)}"')
    if "opaque" in asked:
        fields.append(f'opaque="{asked["opaque"]}"')
    return "Digest " + ", ".join(fields)


# --------------------------------------------------------------------------------------------------------
# Session descriptions
# --------------------------------------------------------------------------------------------------------


def description(host: str, port: int, codecs: Iterable[str], version: int) -> str:
    """A session description: one audio stream, these codecs in their order, and keys as events (RFC 4733)."""
    offered = [(PAYLOADS[codec], codec) for codec in codecs]
    numbers = " ".join(str(number) for number, _ in offered)
    lines = [
        "v=0",
        f"o=- 1 {version} IN IP4 {host}",
        "s=-",
        f"c=IN IP4 {host}",
        "t=0 0",
        f"m=audio {port} RTP/AVP {numbers} {KEYS_PAYLOAD}",
        *(f"a=rtpmap:{number} {codec}/8000" for number, codec in offered),
        f"a=rtpmap:{KEYS_PAYLOAD} telephone-event/8000",
        f"a=fmtp:{KEYS_PAYLOAD} 0-16",
        "a=ptime:20",
        "a=sendrecv",
    ]
    return "\r\n".join(lines) + "\r\n"


@dataclass(frozen=True, slots=True)
class Media:
    """Where the other side takes sound, and in which of our codecs."""

    address: tuple[str, int]
    codec: str
    keys_payload: int


def media_of(body: str, codecs: Iterable[str]) -> Media:
    """What a session description says.

    Raises:
        SipError: it has no audio, or none in a codec of ours.
    """
    audio = re.search(r"(?m)^m=audio (\d+) RTP/AVP ([\d ]+)", body)
    host = re.search(r"(?m)^c=IN IP4 (\S+)", body)
    if not audio or not host:
        raise SipError("found a session description without audio over IPv4")
    theirs = audio[2].split()
    ours = [codec for codec in codecs if str(PAYLOADS[codec]) in theirs]
    if not ours:
        raise SipError(f"found the payloads {audio[2]}; allowed are those of {list(codecs)}")
    keys = re.search(r"(?m)^a=rtpmap:(\d+) telephone-event/8000", body)
    return Media((host[1], int(audio[1])), ours[0], int(keys[1]) if keys else KEYS_PAYLOAD)
