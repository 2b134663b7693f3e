"""Prices of models: a dated file, and what a tenant or the service puts in its place."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

SHIPPED = Path(__file__).resolve().parents[2] / "data" / "prices.toml"
ANY_MODEL = "*"
_DATED = re.compile(r"-\d{4}-\d{2}-\d{2}\Z")

Amount = Annotated[Decimal, Field(ge=0, le=1_000_000, allow_inf_nan=False)]


class PricesError(Exception):
    """A file of prices that can't be used: which, and what is wrong in it."""


class Price(BaseModel):
    """What one model costs, in US dollars. What is not set is not known."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    text_in: Amount | None = None
    text_cached: Amount | None = None
    text_out: Amount | None = None
    audio_in: Amount | None = None
    audio_cached: Amount | None = None
    audio_out: Amount | None = None
    per_minute: Amount | None = None
    per_1000_characters: Amount | None = None
    free: bool = False
    source: str = ""

    @model_validator(mode="before")
    @classmethod
    def _no_bool_for_an_amount(cls, data: Any) -> Any:
        """Pydantic would take true for 1."""
        if isinstance(data, dict):
            for name, value in data.items():
                if isinstance(value, bool) and name != "free":
                    raise ValueError(f"{name}: found {str(value).lower()}; allowed: a number")
        return data

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        amounts = self.model_dump(exclude={"free", "source"}, exclude_none=True)
        if self.free is bool(amounts):
            raise ValueError("either free = true, or at least one price")
        return self


OwnPrices = Mapping[str, Mapping[str, Price]]
"""By provider and model."""


@dataclass(frozen=True, slots=True)
class Prices:
    """What is known of prices.

    Attributes:
        as_of: of when the file is.
        layers: the first that has a model counts.
    """

    as_of: date
    layers: tuple[OwnPrices, ...]

    def of(self, provider: str, model: str) -> Price | None:
        """A model's price; None where it is not known."""
        for layer in self.layers:
            models = layer.get(provider, {})
            for name in (model, _DATED.sub("", model), ANY_MODEL):
                if name in models:
                    return models[name]
        return None

    def before(self, own: OwnPrices) -> Prices:
        """The same, with a tenant's own prices in front."""
        return Prices(self.as_of, (own, *self.layers)) if own else self


def read_prices(file: Path) -> Prices:
    """The prices of one file.

    Raises:
        PricesError: it is not there, or not as it must be.
    """
    try:
        with file.open("rb") as stream:
            tree = tomllib.load(stream, parse_float=Decimal)
    except OSError as error:
        raise PricesError(f"{file}: can't be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ArithmeticError, RecursionError) as error:
        raise PricesError(f"{file}: not valid TOML: {error}") from error
    as_of = tree.pop("as_of", None)
    if type(as_of) is not date:
        raise PricesError(f"{file}: as_of: found {as_of!r:.40}; allowed: a date, such as 2026-11-21")
    return Prices(as_of, ({name: _models(file, name, models) for name, models in tree.items()},))


def _models(file: Path, provider: str, models: Any) -> Mapping[str, Price]:
    if not isinstance(models, dict):
        raise PricesError(f'{file}: {provider}: allowed: tables, such as [{provider}."MODEL"]')
    found = {}
    for model, price in models.items():
        try:
            found[model] = Price.model_validate(price)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join((provider, model, *map(str, first["loc"])))
            raise PricesError(f"{file}: {place}: {first['msg']}") from error
    return found


def known_prices(own: Path | None = None) -> Prices:
    """The prices that ship with the program, behind those of the service's own file where there is one.

    Raises:
        PricesError: a file can't be used.
    """
    shipped = read_prices(SHIPPED)
    if own is None:
        return shipped
    first = read_prices(own)
    return Prices(first.as_of, (*first.layers, *shipped.layers))


__all__ = ["OwnPrices", "Price", "Prices", "PricesError", "known_prices", "read_prices"]
