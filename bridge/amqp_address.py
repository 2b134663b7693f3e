"""Where a RabbitMQ is and who we are there: what an `amqp://` URL says, its password in no text."""

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass
from pathlib import Path

PORTS = {"amqp": 5672, "amqps": 5671}
EXAMPLE = "amqp://user:password@broker.example:5672/vhost, or amqps:// for TLS"


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """One broker and one login; equal ones share a connection.

    Attributes:
        url: with the password in it; for the connection alone.
        host: as the URL has it.
        port: the URL's, or the protocol's own.
        user: who logs in.
        vhost: the virtual host.
        ca_file: the certificate of a broker that signs its own.
    """

    url: str
    host: str
    port: int
    user: str
    vhost: str
    ca_file: Path | None = None

    @property
    def name(self) -> str:
        """How people hear of it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"RabbitMQ at {host}:{self.port}"

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.url.startswith("amqps:")

    def __repr__(self) -> str:
        return f"BrokerAddress({self.host}:{self.port}, {self.user}, {self.vhost})"


def read_address(url: str, ca_file: Path | None = None) -> BrokerAddress:
    """What a URL says.

    Raises:
        ValueError: it is none for a broker. The text does not quote it, since a password may stand anywhere.
    """
    try:
        parts = urllib.parse.urlsplit(url.strip())
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"holds no URL of a broker; allowed: {EXAMPLE}") from None
    if parts.scheme not in PORTS or not host:
        raise ValueError(f"holds no URL of a broker; allowed: {EXAMPLE}")
    if not parts.username or parts.password is None:
        raise ValueError(f"holds a URL without a user and a password; allowed: {EXAMPLE}")
    vhost = urllib.parse.unquote(parts.path[1:]) or "/"
    user = urllib.parse.unquote(parts.username)
    return BrokerAddress(url.strip(), host, port or PORTS[parts.scheme], user, vhost, ca_file)
