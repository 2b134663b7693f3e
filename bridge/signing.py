"""Signs what we send over HTTP as Standard Webhooks has it, so that receivers can check it with a library.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
import hmac
from hashlib import sha256
from typing import Final

PREFIX: Final = "whsec_"
KEY_BYTES: Final = (24, 64)
"""The least and the most of a key."""


def key_of(secret: str) -> bytes:
    """The key that a secret of the environment stands for: base64, with or without `whsec_`.

    Raises:
        ValueError: what is allowed.
    """
    least, most = KEY_BYTES
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not least <= len(key) <= most:
        raise ValueError(f"{least} to {most} bytes in base64 (`openssl rand -base64 32` makes some)")
    return key


def signature_headers(key: bytes, message: str, at: int, body: bytes) -> dict[str, str]:
    """The headers that say who sent a body, and when.

    Args:
        message: the id by which the receiver knows that it has had it already; without a dot.
        at: seconds since 1970.
    """
    signed = hmac.new(key, f"{message}.{at}.".encode() + body, sha256).digest()
    return {
        "webhook-id": message,
        "webhook-timestamp": str(at),
        "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
    }
