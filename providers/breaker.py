"""Which of a tenant's providers are passed over for a while, because they would only cost a caller time.

Shared by all sessions of a tenant. No clock: whoever asks says what time it is, in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

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


class Breaker:
    """See the module. Providers by their place in the tenant's list."""

    def __init__(self, providers: int) -> None:
        self._states = [_State() for _ in range(providers)]

    def failed(self, at: int, code: str, now: float) -> bool:
        """No session could be opened, or one was lost. True: a lasting refusal that nobody knew of yet."""
        state = self._states[at]
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

    def passed_over(self, at: int, now: float) -> bool:
        """Whether another provider is to be tried first."""
        return now < self._states[at].until
