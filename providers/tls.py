"""TLS with the authorities that the system trusts: read once for all connections."""

from __future__ import annotations

import functools
import ssl


@functools.cache
def system_tls() -> ssl.SSLContext:
    """The one context. To read the authorities takes a tenth of a second, and a megabyte each time."""
    return ssl.create_default_context()


def distrusted(error: BaseException) -> bool:
    """Whether a connection failed because the other's certificate is not trusted."""
    below = error.__cause__ or error.__context__
    return isinstance(error, ssl.SSLCertVerificationError) if below is None else distrusted(below)


__all__ = ["distrusted", "system_tls"]
