"""Charts: what is drawn stands for the numbers, and lies on the drawing."""

from __future__ import annotations

from collections import Counter
from datetime import date
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.http.console.charts import draw
from bridge.http.console.drawing import BOTTOM, HEIGHT, LEFT, TOP, WIDTH, columns, curves, heat, percentile
from bridge.http.console.language import read_languages
from storage.figures import Figures

ZONE = ZoneInfo("America/Sao_Paulo")
PORTUGUESE = read_languages()["pt-BR"]


def plainly(value: float) -> str:
    return f"{value:g}"


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), min_size=1, max_size=90))
def test_columns_are_as_high_as_their_numbers(counts: list[tuple[int, int]]) -> None:
    parts = {"a": [float(a) for a, _ in counts], "b": [float(b) for _, b in counts]}
    chart = columns([str(at) for at in range(len(counts))], parts, plainly, {"a": "A", "b": "B"}, whole=True)
    top = float(chart.ticks[-1].text)
    assert top >= max(map(sum, counts))
    room = HEIGHT - BOTTOM - TOP
    assert sum(bar.height for bar in chart.bars) == pytest.approx(
        room * sum(map(sum, counts)) / top, abs=0.1 * len(chart.bars) + 0.01
    )
    for bar in chart.bars:
        assert LEFT <= bar.x <= bar.x + bar.width <= WIDTH + 0.1
        assert TOP - 0.1 <= bar.y <= bar.y + bar.height <= HEIGHT - BOTTOM + 0.1
    assert all(float(tick.text) == int(float(tick.text)) for tick in chart.ticks)


def test_a_line_has_a_gap_where_nothing_is_known() -> None:
    chart = curves(["a", "b", "c", "d"], [("c0", "p50", False, [1.0, 2.0, None, 3.0])], plainly)
    (line,) = chart.lines
    assert [part[0] for part in line.path.split(" ") if part[0].isalpha()] == ["M", "L", "M"]
    assert [text for _, _, text in line.points] == ["a · p50: 1", "b · p50: 2", "d · p50: 3"]


@given(st.dictionaries(st.integers(0, 200).map(lambda n: n * 20), st.integers(1, 50), min_size=1))
def test_a_percentile_lies_where_the_values_are(counts: dict[int, int]) -> None:
    values = [percentile(counts, share, 20) for share in (0.01, 0.5, 0.95, 1.0)]
    known = [value for value in values if value is not None]
    assert known == sorted(known) and len(known) == 4
    assert min(counts) <= known[0] and known[-1] <= max(counts) + 20


def test_the_fullest_hour_is_the_darkest_and_an_empty_one_has_no_colour() -> None:
    cells = heat({(0, 8): 10, (6, 23): 1}, lambda day, hour, count: f"{day} {hour} {count}")
    levels = {cell.text: cell.level for cell in cells}
    assert (levels["0 8 10"], levels["6 23 1"], levels["3 3 0"]) == (5, 1, 0)
    assert len(cells) == 7 * 24


def test_a_visit_at_night_belongs_to_the_day_of_its_house() -> None:
    figures = Figures()
    figures.visits["2026-11-21T02", "authorized"] = 1  # the 20th, at eleven in the evening
    figures.costs["2026-11-21T02", "BRL"] = Decimal("1.5")
    figures.responses["2026-11-21T02", "openai"] = Counter({600: 1})
    charts = draw(figures, date(2026, 11, 20), date(2026, 11, 21), ZONE, PORTUGUESE)
    assert charts.total == 1
    assert charts.days == (("20/11", ("1",)), ("21/11", ("0",)))
    assert [bar.text for bar in charts.visits.bars] == ["20/11 · Autorizada: 1"]
    assert [cell.text for cell in charts.hours if cell.level] == ["sex 23:00 · 1 visita"]
    assert [(currency, total) for currency, _, total in charts.costs] == [("BRL", "1,50")]
    assert charts.responses is not None and charts.providers[0][1] == "openai"


def test_what_began_before_the_first_day_is_not_drawn() -> None:
    figures = Figures()
    figures.visits["2026-11-20T02", "denied"] = 1
    assert draw(figures, date(2026, 11, 20), date(2026, 11, 21), ZONE, PORTUGUESE).total == 0
