"""What is written as TOML is read back as it was."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bridge.toml_text import toml_text

# Half a surrogate pair is no text that a file could hold; tomllib takes a carriage return for a line's end.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=20)
PLAIN = st.one_of(TEXT, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False))
VALUES: st.SearchStrategy[Any] = st.recursive(
    PLAIN, lambda below: st.one_of(st.lists(below, max_size=4), st.dictionaries(TEXT, below, max_size=4))
)


@given(st.dictionaries(TEXT, VALUES, max_size=6))
def test_any_tree_comes_back(tree: dict[str, Any]) -> None:
    assert tomllib.loads(toml_text(tree)) == tree


def test_a_tenant_is_written_as_people_would() -> None:
    tree = {
        "name": "Edifício Ipê",
        "numbers": ["9000", "9001"],
        "limits": {"ring_s": 20.0},
        "gate": {"kind": "http", "headers": {"X-Door": "1"}},
        "fallback": [{"provider": "openai"}],
        "prompt_extra": "Uma regra.\nOutra regra.",
        "goodbye": None,
    }
    assert toml_text(tree) == (
        'name = "Edifício Ipê"\n'
        'numbers = ["9000", "9001"]\n'
        "prompt_extra = '''\nUma regra.\nOutra regra.'''\n"
        "\n[limits]\nring_s = 20.0\n"
        '\n[gate]\nkind = "http"\n'
        '\n[gate.headers]\nX-Door = "1"\n'
        '\n[[fallback]]\nprovider = "openai"\n'
    )
