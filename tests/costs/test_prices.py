"""Prices: what ships is whole and right in form, and no file that is not is taken for one."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.costs.prices import Price, PricesError, known_prices, read_prices
from providers.openai_live import LiveSettings
from providers.openai_realtime import OpenAISettings

GOOD = 'as_of = 2026-11-21\n[openai."m"]\naudio_in = 0.1\n'


def test_what_ships_knows_the_models_that_are_used_where_nothing_is_said() -> None:
    prices = known_prices()
    assert prices.as_of >= date(2026, 11, 21)
    openai, live = OpenAISettings(api_key="k"), LiveSettings(api_key="k")
    reply, words = prices.of("openai", openai.model), prices.of("openai", openai.transcription_model)
    assert reply is not None and reply.audio_out == Decimal(64) and reply.audio_cached == Decimal("0.40")
    assert words is not None and words.per_minute == Decimal("0.0045")
    talk, backend = prices.of("openai-live", live.model), prices.of("openai", live.backend_model)
    assert talk is not None and talk.per_minute == Decimal("0.05")
    assert backend is not None and backend.text_out == Decimal("0.50")
    local = prices.of("local", "whatever")
    assert local is not None and local.free


def test_each_price_that_ships_says_where_it_is_from() -> None:
    (shipped,) = known_prices().layers
    sources = {
        (provider, model): price.source
        for provider, models in shipped.items()
        for model, price in models.items()
        if not price.free
    }
    assert sources and [name for name, source in sources.items() if not source.startswith("https://")] == []


def test_a_model_with_a_date_has_its_family_s_price_and_an_unknown_one_has_none() -> None:
    prices = known_prices()
    assert prices.of("openai", "gpt-realtime-2.1-2026-08-01") == prices.of("openai", "gpt-realtime-2.1")
    assert prices.of("openai", "gpt-realtime-2.1-next") is None
    assert prices.of("nobody", "gpt-realtime-2.1") is None


def test_own_prices_come_first(tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text('as_of = 2027-01-02\n[openai."gpt-realtime-2.1"]\naudio_in = 0.1\n')
    prices = known_prices(file)
    assert prices.as_of == date(2027, 1, 2)
    assert prices.of("openai", "gpt-realtime-2.1") == Price(audio_in=Decimal("0.1"))
    assert prices.of("openai", "gpt-transcribe") is not None  # the rest is as it ships
    own = {"openai": {"gpt-realtime-2.1": Price(audio_in=Decimal(3))}}
    assert prices.before(own).of("openai", "gpt-realtime-2.1") == Price(audio_in=Decimal(3))
    assert prices.before({}) is prices


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "as_of: found None"),
        ("as_of = 'today'", "as_of: found 'today'"),
        ("as_of = 2026-11-21T10:00:00", "as_of: found"),
        ("as_of = 2026-11-21\nopenai = 3", "openai: allowed: tables"),
        ("as_of = 2026-11-21\n[openai]\nm = 3", "openai.m: Input should be"),
        ("as_of = 2026-11-21\n[openai.m]\n", "either free = true, or at least one price"),
        ("as_of = 2026-11-21\n[openai.m]\nfree = true\naudio_in = 1", "either free = true"),
        ("as_of = 2026-11-21\n[openai.m]\naudio_in = -1", "openai.m.audio_in: Input should be greater"),
        ("as_of = 2026-11-21\n[openai.m]\naudio_in = true", "audio_in: found true; allowed: a number"),
        ("as_of = 2026-11-21\n[openai.m]\naudio_in = nan", "openai.m.audio_in"),
        ("as_of = 2026-11-21\n[openai.m]\naudio_im = 1", "openai.m.audio_im: Extra inputs"),
        ("as_of = 2026-11-21\n[openai.m]\naudio_in = 1e400", "openai.m.audio_in"),
        ("as_of = ", "not valid TOML"),
    ],
)
def test_a_file_that_can_t_be_used_is_refused_by_name(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(PricesError) as refused:
        read_prices(file)
    assert str(file) in str(refused.value) and why in str(refused.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PricesError, match="No such file"):
        known_prices(tmp_path / "none.toml")


@given(
    at=st.integers(0, len(GOOD)),
    cut=st.integers(0, 12),
    put=st.text(st.sampled_from("0123456789.-+=[]\"'einfat#\n \x00é"), max_size=8),
)
def test_no_text_is_more_than_a_price_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, at: int, cut: int, put: str
) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzzed.toml"
    file.write_text(GOOD[:at] + put + GOOD[at + cut :])
    try:
        prices = read_prices(file)
    except PricesError:
        return
    for models in prices.layers[0].values():
        for price in models.values():
            assert price.free or price.model_dump(exclude={"free", "source"}, exclude_none=True)
            assert all(
                isinstance(amount, Decimal) and amount.is_finite() and amount >= 0
                for amount in price.model_dump(exclude={"free", "source"}, exclude_none=True).values()
            )
