"""What a model is yet to be asked for, where its protocol has no queue of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(slots=True)
class Asked:
    """A reply that the server was asked for and has not begun. ``wanted`` None: its turn is in doubt."""

    kind: Literal["turn", "exact", "about", "tool"]
    receipts: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    wanted: bool | None = True
    perhaps: bool = False
    """It may have been given already, as the rest of a reply that was running."""

    def again(self) -> Asked:
        """The same, to be asked for once more."""
        return Asked("exact" if self.kind == "exact" else "about", self.receipts, self.texts)


class ToAsk(deque[Asked]):
    """What is to be asked for: exact words first."""

    def about(self, text: str, *receipts: str) -> None:
        """Have it spoken about, behind all that waits."""
        self.append(Asked("about", receipts, (text,)))

    def exact(self, text: str, receipt: str) -> None:
        """Have it said word for word, behind what is to be said so."""
        self.insert(sum(asked.kind == "exact" for asked in self), Asked("exact", (receipt,), (text,)))

    def again(self, asked: Iterable[Asked]) -> None:
        """Ask once more, before all that waits, for what somebody has a receipt of."""
        self.extendleft(reversed([one.again() for one in asked if one.receipts]))

    def together(self) -> Asked:
        """All that waits, as one thing to speak about; nothing waits any more."""
        receipts = tuple(receipt for one in self for receipt in one.receipts)
        texts = tuple(text for one in self for text in one.texts)
        self.clear()
        return Asked("about", receipts, texts)


__all__ = ["Asked", "ToAsk"]
