"""What one visit costs: usage in, an exact sum out. No I/O; never a float in the reckoning."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import date
from decimal import Decimal, localcontext
from typing import Any, Final

from bridge.costs.prices import Price, Prices
from providers.base import Tokens, Usage

KINDS = tuple(one.name for one in fields(Tokens))
"""The kinds of tokens, as prices name them."""
SMALLEST = Decimal("0.000000001")
"""Sums are kept to a billionth of the currency."""
MOST: Final = 10**9
"""Of tokens, seconds or letters at once: more is a fault of whoever counted."""
_MILLION = Decimal(1_000_000)
_MS = Decimal("0.001")


@dataclass(frozen=True, slots=True)
class Currency:
    """What a tenant counts in: ISO 4217, and how much of it a US dollar is."""

    code: str = "USD"
    per_usd: Decimal = Decimal(1)


@dataclass(slots=True)
class _Line:
    """All usage of one model for one purpose."""

    tokens: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    seconds: Decimal = Decimal(0)
    characters: int = 0
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Bill:
    """What was reckoned.

    Attributes:
        usd: of what has a price.
        amount: the same in the tenant's currency.
        unknown: what is missing in the sum, in words; empty where it is all there.
        lines: by provider, model and purpose, as JSON's own types.
    """

    usd: Decimal
    amount: Decimal
    currency: Currency
    unknown: tuple[str, ...]
    lines: tuple[dict[str, Any], ...]
    as_of: date

    def data(self, *, final: bool) -> dict[str, Any]:
        """As the audit log has it, see :class:`visits.audit.VisitCost`."""
        return {
            "amount": plain(self.amount),
            "currency": self.currency.code,
            "usd": plain(self.usd),
            "per_usd": plain(self.currency.per_usd),
            "final": final,
            "complete": self.complete,
            "unknown": list(self.unknown),
            "usage": list(self.lines),
            "prices": self.as_of.isoformat(),
        }

    @property
    def complete(self) -> bool:
        """Nothing is missing."""
        return not self.unknown


class Account:
    """Adds up what the sessions of one visit use."""

    def __init__(self, prices: Prices, currency: Currency, provider: str) -> None:
        """`provider`: the tenant's, for what no usage tells."""
        self._prices = prices
        self._currency = currency
        self._provider = provider
        self._lines: dict[tuple[str, str, str], _Line] = {}
        self._unknown: dict[str, None] = {}

    def add(self, usage: Usage) -> None:
        """Something was used. Never raises: a count that can't be is left out, and the line is incomplete."""
        line = self._lines.setdefault((usage.provider, usage.model, usage.purpose), _Line())
        counts = {kind: getattr(usage.tokens, kind) for kind in KINDS}
        counts |= {"seconds": usage.seconds, "characters": usage.characters}
        told = {name: count for name, count in counts.items() if 0 <= count <= MOST}  # no NaN either
        for kind in KINDS:
            line.tokens[kind] += told.get(kind, 0)
        line.seconds += Decimal(str(told.get("seconds", 0))).quantize(_MS)
        line.characters += told.get("characters", 0)
        line.complete = line.complete and usage.complete and told.keys() == counts.keys()

    def cut_short(self) -> None:
        """A session was closed while a reply was under way: what that had cost until then nobody tells."""
        for (provider, model, purpose), line in self._lines.items():
            if purpose == "reply" and any(line.tokens.values()) and not self._free(provider, model):
                self._unknown[f"{provider}: the last reply was cut short"] = None

    def untold(self) -> None:
        """A session was open and never said what it costs."""
        if not self._free(self._provider, ""):
            self._unknown[f"{self._provider}: a session told nothing of what it costs"] = None

    def _free(self, provider: str, model: str) -> bool:
        price = self._prices.of(provider, model)
        return price is not None and price.free

    def bill(self) -> Bill:
        """What all of it costs."""
        usd = Decimal(0)
        unknown, lines = dict(self._unknown), []
        with localcontext() as context:
            context.prec = 60  # all sums below are exact
            for (provider, model, purpose), line in self._lines.items():
                cost, missing = cost_of(line, self._prices.of(provider, model))
                usd += cost
                name = f"{provider} {model}".rstrip()
                unknown |= {f"{name}: {why}": None for why in missing}
                if not line.complete:
                    unknown[f"{name}: not all of its {purpose} was told"] = None
                lines.append(_shown(provider, model, purpose, line, None if missing else _kept(cost)))
            kept = (_kept(usd), _kept(usd * self._currency.per_usd))
        return Bill(*kept, self._currency, tuple(unknown), tuple(lines), self._prices.as_of)


def cost_of(line: _Line, price: Price | None) -> tuple[Decimal, list[str]]:
    """US dollars, exact; and which prices are missing."""
    used = {kind: Decimal(count) / _MILLION for kind, count in line.tokens.items()}
    used |= {"per_minute": line.seconds / 60, "per_1000_characters": Decimal(line.characters) / 1000}
    cost, missing = Decimal(0), []
    for name, count in used.items():
        if not count or (price is not None and price.free):
            continue
        rate: Decimal | None = getattr(price, name) if price is not None else None
        if rate is None:
            missing.append(f"no price for {name}" if price is not None else "no price")
        else:
            cost += rate * count
    return cost, list(dict.fromkeys(missing))


def _kept(amount: Decimal) -> Decimal:
    return amount.quantize(SMALLEST)


def plain(amount: Decimal) -> str:
    """An amount as text, without zeros that say nothing."""
    text = format(amount, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _shown(provider: str, model: str, purpose: str, line: _Line, cost: Decimal | None) -> dict[str, Any]:
    shown: dict[str, Any] = {"provider": provider, "model": model, "purpose": purpose}
    shown |= {kind: count for kind, count in line.tokens.items() if count}
    if line.seconds:
        shown["seconds"] = float(line.seconds)
    if line.characters:
        shown["characters"] = line.characters
    return shown | {"usd": None if cost is None else plain(cost)}


__all__ = ["KINDS", "SMALLEST", "Account", "Bill", "Currency", "plain"]
