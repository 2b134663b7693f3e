"""TLS with the authorities that the system trusts: read once for all connections."""

from __future__ import annotations

import functools
import ssl


@functools.cache
def system_tls() -> ssl.SSLContext:
    """The one context. To read the authorities takes a tenth of a second, and a megabyte each time."""
    return ssl.create_default_context()


__all__ = ["system_tls"]
