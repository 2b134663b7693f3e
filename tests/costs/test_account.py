"""The reckoning: exact, each token once, in any order; what has no price is said and never free."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from bridge.costs.account import KINDS, SMALLEST, Account, Bill, Currency
from bridge.costs.prices import Price, Prices
from providers.base import Tokens, Usage
from visits.audit import draft

RATES = {
    "text_in": "4",
    "text_cached": "0.40",
    "text_out": "24",
    "audio_in": "32",
    "audio_cached": "0.07",
    "audio_out": "64.3",
}
PRICES = Prices(
    date(2026, 11, 21),
    (
        {
            "p": {
                "talks": Price.model_validate(RATES),
                "writes": Price(per_minute=Decimal("0.0045")),
                "speaks": Price(per_1000_characters=Decimal("0.03")),
                "half": Price(text_in=Decimal(1)),
            },
            "local": {"*": Price(free=True)},
        },
    ),
)
BRL = Currency("BRL", Decimal("5.4321"))

counts = st.integers(0, 5_000_000)
tokens = st.builds(Tokens, **dict.fromkeys(KINDS, counts))
usages = st.one_of(
    st.builds(Usage, st.just("p"), st.just("talks"), st.just("reply"), tokens),
    st.builds(
        Usage,
        st.just("p"),
        st.just("writes"),
        st.just("transcription"),
        seconds=st.integers(0, 3_600_000).map(lambda ms: ms / 1000),
    ),
    st.builds(Usage, st.just("p"), st.just("speaks"), st.just("speech"), characters=counts),
    st.builds(Usage, st.just("local"), st.text(max_size=5), st.just("reply"), tokens),
)


def billed(used: list[Usage], currency: Currency = BRL) -> Bill:
    account = Account(PRICES, currency, "p")
    for usage in used:
        account.add(usage)
    return account.bill()


def reckoned(used: list[Usage]) -> Fraction:
    """The same in fractions, another way."""
    usd = Fraction(0)
    for usage in used:
        if usage.provider == "local":
            continue
        for kind, rate in RATES.items():
            usd += Fraction(rate) * getattr(usage.tokens, kind) / 1_000_000
        usd += Fraction("0.0045") * Fraction(str(usage.seconds)) / 60
        usd += Fraction("0.03") * usage.characters / 1000
    return usd


@given(st.lists(usages, max_size=12))
def test_a_sum_is_exact_to_the_last_billionth(used: list[Usage]) -> None:
    bill = billed(used)
    assert bill.complete
    assert abs(Fraction(bill.usd) - reckoned(used)) <= Fraction(SMALLEST) / 2
    assert abs(Fraction(bill.amount) - reckoned(used) * Fraction("5.4321")) <= Fraction(SMALLEST) / 2
    assert all(isinstance(sum_, Decimal) for sum_ in (bill.usd, bill.amount))


@given(st.lists(usages, max_size=8), st.randoms())
def test_the_order_and_the_pieces_make_no_difference(used: list[Usage], chance: object) -> None:
    assert billed(used).usd == billed(used[::-1]).usd
    whole = billed([*used, *used]).usd
    assert abs(whole - 2 * billed(used).usd) <= SMALLEST


@given(tokens)
def test_a_cached_token_costs_as_a_cached_one_and_no_more(used: Tokens) -> None:
    alone = Tokens(text_cached=used.text_cached, audio_cached=used.audio_cached)
    bill = billed([Usage("p", "talks", "reply", alone)])
    expected = Fraction("0.40") * used.text_cached + Fraction("0.07") * used.audio_cached
    assert abs(Fraction(bill.usd) - expected / 1_000_000) <= Fraction(SMALLEST) / 2


@given(st.lists(usages, max_size=6), usages)
def test_more_use_never_costs_less(used: list[Usage], more: Usage) -> None:
    assert billed([*used, more]).amount >= billed(used).amount


@given(st.lists(usages, max_size=6), st.booleans())
def test_what_goes_on_record_is_a_record(used: list[Usage], final: bool) -> None:
    bill = billed(used)
    visit = "5f3c8f5e-0000-4000-8000-000000000001"
    at = "2026-11-21T13:05:00.000250+00:00"
    made = draft(tenant="t", visit=visit, at=at, kind="visit.cost", data=bill.data(final=final))
    assert Decimal(made.data["amount"]) == bill.amount and Decimal(made.data["usd"]) == bill.usd


odd_counts = st.integers(-(2**70), 2**70)
odd_usages = st.builds(
    Usage,
    st.text(max_size=4) | st.just("p"),
    st.text(max_size=4) | st.just("talks"),
    st.sampled_from(["reply", "transcription", "speech", "session"]),
    st.builds(Tokens, **dict.fromkeys(KINDS, odd_counts)),
    seconds=st.floats(),
    characters=odd_counts,
)


@given(st.lists(odd_usages, max_size=5))
def test_no_usage_however_odd_is_an_error_or_money_back(used: list[Usage]) -> None:
    bill = billed(used, Currency("BRL", Decimal(1_000_000)))
    assert bill.amount >= 0 and bill.amount.is_finite()
    for usage in used:
        if not 0 <= usage.seconds <= 10**9:
            assert any(usage.purpose in why for why in bill.unknown)


def test_what_has_no_price_is_said_and_not_free() -> None:
    bill = billed([Usage("p", "new", "reply", Tokens(audio_in=5)), Usage("q", "m", "session", seconds=1.0)])
    assert bill.unknown == ("p new: no price", "q m: no price") and bill.usd == 0
    assert [line["usd"] for line in bill.lines] == [None, None]
    half = billed([Usage("p", "half", "reply", Tokens(text_in=1_000_000, audio_in=1))])
    assert half.usd == 1 and half.unknown == ("p half: no price for audio_in",)


def test_nothing_used_needs_no_price() -> None:
    assert billed([Usage("p", "new", "reply")]).complete
    assert billed([]).amount == 0 and billed([]).complete


def test_what_a_provider_left_out_is_said() -> None:
    bill = billed([Usage("p", "talks", "reply", Tokens(text_in=1), complete=False)])
    assert bill.unknown == ("p talks: not all of its reply was told",)


def test_a_reply_that_was_cut_short_and_a_session_that_told_nothing_are_said_where_they_cost() -> None:
    dear, free = Account(PRICES, BRL, "p"), Account(PRICES, BRL, "local")
    dear.cut_short()
    free.add(Usage("local", "porteiro", "reply", Tokens(audio_out=3)))
    for account in (dear, free):
        assert account.bill().complete
    dear.add(Usage("p", "talks", "reply", Tokens(audio_out=3)))
    for account in (dear, free):
        account.cut_short()
        account.untold()
    assert dear.bill().unknown == (
        "p: the last reply was cut short",
        "p: a session told nothing of what it costs",
    )
    assert free.bill().complete
