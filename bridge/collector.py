"""Python's cyclic garbage collector, set for a service that lives for weeks.

By default it looks for cycles after every 700 new containers, many times a second with 20 calls: that took
8 % of the service's time. And each full look goes through all that the libraries loaded.
"""

from __future__ import annotations

import gc
from typing import Final

YOUNG: Final = 20_000
"""New containers after which the youngest are looked at: about every three seconds at a hundred calls."""


def settle() -> None:
    """To be called once the service has started: what lives now lives for ever, and is looked at no more."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 10, 10)
