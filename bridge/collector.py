"""Python's cyclic garbage collector, set for a service that lives for weeks.

By default it looks for cycles after every 700 new containers, many times a second with 20 calls: that took
8 % of the service's time. And each full look goes through all that the libraries loaded.
"""

from __future__ import annotations

import gc
from typing import Final

YOUNG: Final = 5_000
"""New containers after which the youngest are looked at."""
OLDER: Final = 5
"""So many looks at the younger make one at the older: what visits left is let go within minutes."""


def settle() -> None:
    """To be called once the service has started: what lives now lives for ever, and is looked at no more."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, OLDER, OLDER)
