"""Python's cyclic garbage collector and its threads, set for a service that lives for weeks.

By default it looks for cycles after every 700 new containers, many times a second with 20 calls: that took
8 % of the service's time. And each full look goes through all that the libraries loaded.

And by default a thread that computes (an export, an import, a page) gives way to the event loop, which
carries the calls, after 5 ms: beside four exports 1 % of the loop's turns were 32 ms late; now it is 8 ms.
"""

from __future__ import annotations

import gc
import sys
from typing import Final

YOUNG: Final = 5_000
"""New containers after which the youngest are looked at."""
OLDER: Final = 5
"""So many looks at the younger make one at the older: what visits left is let go within minutes."""

GIVE_WAY_S: Final = 0.0005
"""After which a thread that computes lets another one on."""


def settle() -> None:
    """To be called once the service has started: what lives now lives for ever, and is looked at no more."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, OLDER, OLDER)
    sys.setswitchinterval(GIVE_WAY_S)
