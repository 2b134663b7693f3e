"""The last good copy: what is written is read again, and whatever else lies there is refused in words."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.tenants_copy import CopyError, entry, read_copy, write_copy
from tests.service.household import ROOT
from visits.directory import Directory

PEOPLE = Directory.from_records(json.loads((ROOT / "data" / "apartamentos.json").read_bytes()))
LINES = (
    entry("jardim", (3, "a digest"), {"name": "Jardim", "numbers": ["7"]}, (5, PEOPLE)),
    entry("bosque", (None, "another"), None, (2, Directory(()))),
    entry("cedro", (1, "a third"), {}, None),
)
JSON = st.sampled_from([b"null", b"{}", b"[]", b"-1"])


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "copy.json"
    for _ in range(2):  # over the one before
        write_copy(file, "here", "now", LINES)
    copy = read_copy(file, "here")
    assert copy.written_at == "now"
    assert {name: (one.version, one.digest) for name, one in copy.tenants.items()} == {
        "jardim": (3, "a digest"),
        "cedro": (1, "a third"),
    }
    assert copy.tenants["jardim"].content == {"name": "Jardim", "numbers": ["7"]}
    assert dict(copy.directories) == {"jardim": (5, PEOPLE), "bosque": (2, Directory(()))}
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("database", ["", "there"])
def test_another_databases_copy_is_not_used(tmp_path: Path, database: str) -> None:
    write_copy(tmp_path / "copy.json", "here", "now", LINES)
    with pytest.raises(CopyError, match="of another database"):
        read_copy(tmp_path / "copy.json", database)
    with pytest.raises(CopyError, match="there is none"):
        read_copy(tmp_path / "no.json", "here")


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_copy_is_refused_or_whole(data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "copy.json"
        write_copy(file, "here", "now", LINES)
        content = bytearray(file.read_bytes())
        begin = data.draw(st.integers(0, len(content)))
        end = data.draw(st.integers(begin, min(len(content), begin + 40)))
        content[begin:end] = data.draw(st.binary(max_size=20) | JSON)
        file.write_bytes(content)
        try:
            found: object = read_copy(file, "here").directories
        except CopyError as error:
            found = str(error)
        if isinstance(found, str):
            assert "\n" not in found
        else:
            assert isinstance(found, dict) and all(isinstance(one, Directory) for _, one in found.values())
