"""In CI nothing is skipped silently."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")


def run_pytest(folder: Path, source: str, ci: str) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text(CONFTEST.read_text())
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = platform: may skip\n")
    (folder / "test_it.py").write_text("import pytest\n" + source)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"],
        cwd=folder,
        env={**os.environ, "CI": ci},
        capture_output=True,
        text=True,
        timeout=60,
    )


SKIPS = {
    "marked": "@pytest.mark.skip(reason='no phone')\ndef test_it(): pass\n",
    "conditional": "@pytest.mark.skipif(True, reason='no phone')\ndef test_it(): pass\n",
    "within": "def test_it(): pytest.skip('no phone')\n",
    "module": "pytest.importorskip('no_such_phone')\ndef test_it(): pass\n",
    "fixture": "@pytest.fixture\ndef f(): pytest.skip('no phone')\ndef test_it(f): pass\n",
}


@pytest.mark.parametrize("source", SKIPS.values(), ids=SKIPS.keys())
def test_a_skip_fails_in_ci_and_says_why(source: str, tmp_path: Path) -> None:
    done = run_pytest(tmp_path, source, "true")
    assert done.returncode == (2 if "importorskip" in source else 1), done.stdout
    assert "counts as a failure in CI" in done.stdout
    assert "phone" in done.stdout


def test_a_skip_is_fine_elsewhere(tmp_path: Path) -> None:
    assert "1 skipped" in run_pytest(tmp_path, SKIPS["marked"], "").stdout


@pytest.mark.parametrize(
    "source",
    [
        "@pytest.mark.platform\n@pytest.mark.skipif(True, reason='no such system')\ndef test_it(): pass\n",
        "@pytest.mark.xfail(reason='known')\ndef test_it(): assert False\n",
        "def test_it(): pass\n",
    ],
)
def test_what_is_no_hole_passes_in_ci(source: str, tmp_path: Path) -> None:
    assert run_pytest(tmp_path, source, "true").returncode == 0
