"""Which of a tenant's providers are passed over for a while, because they would only cost a caller time.

Shared by all sessions of a tenant. No clock: whoever asks says what time it is, in seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

LASTING = frozenset(
    {
        "key_refused",
        "invalid_api_key",
        "no_token",
        "account_deactivated",
        "quota",
        "insufficient_quota",
        "unknown_model",
        "model_not_found",
        "unsupported_voice",
        "unsupported_format",
    }
)
"""Codes of refusals that stand until a person does something about them."""
RATE_LIMITED = frozenset({"rate_limit", "rate_limit_exceeded"})
"""Codes of refusals that a minute may heal."""
LASTING_S = 120.0
RATE_LIMITED_S = 15.0
FAILING_S = 30.0
"""How long a provider is passed over: refused for good, asked too often, failed time after time."""
FAILURES = 2
"""So many failures without a session in between make it the last."""


@dataclass(slots=True)
class _State:
    until: float = float("-inf")
    failures: int = 0
    told: str = ""
    """The lasting refusal that is known already."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How one of the providers stands now.

    Attributes:
        at: its place in the tenant's list.
        state: `well`: a session was opened, and none failed since.
        code: why not; empty where it is well.
        for_s: for so long it is passed over from now on.
    """

    at: int
    state: Literal["well", "failing", "passed_over"]
    code: str = ""
    for_s: float = 0.0


class Breaker:
    """See the module. Providers by their place in the tenant's list.

    Args:
        told: told whenever one of them stands otherwise than before.
    """

    def __init__(self, providers: int, told: Callable[[Standing], None] = lambda standing: None) -> None:
        self._states = [_State() for _ in range(providers)]
        self._told = told
        self._last: dict[int, Standing] = {}

    def failed(self, at: int, code: str, now: float) -> bool:
        """No session could be opened, or one was lost. True: a lasting refusal that nobody knew of yet."""
        news = self._failed(self._states[at], code, now)
        for_s = max(0.0, self._states[at].until - now)
        self._tell(Standing(at, "passed_over" if for_s else "failing", code, for_s))
        return news

    @staticmethod
    def _failed(state: _State, code: str, now: float) -> bool:
        state.failures += 1
        if code in LASTING:
            state.until = now + LASTING_S
            news, state.told = state.told != code, code
            return news
        if code in RATE_LIMITED:
            state.until = now + RATE_LIMITED_S
        elif state.failures >= FAILURES:
            state.until = now + FAILING_S
        return False

    def well(self, at: int) -> None:
        """A session was opened."""
        self._states[at] = _State()
        self._tell(Standing(at, "well"))

    def _tell(self, standing: Standing) -> None:
        if standing != self._last.get(standing.at):
            self._last[standing.at] = standing
            self._told(standing)

    def passed_over(self, at: int, now: float) -> bool:
        """Whether another provider is to be tried first."""
        return now < self._states[at].until
