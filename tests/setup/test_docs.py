"""Links of the documents lead somewhere, and both READMEs say the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def _prose(document: Path) -> str:
    """Its text without code, which has brackets of its own."""
    return re.sub(r"^```.*?^```|`[^`\n]*`", "", document.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def _links(document: Path) -> list[str]:
    """Where it leads within the repository, in order."""
    found: list[str] = re.findall(r"\]\(([^)\s]+)\)", _prose(document))
    return [link for link in found if not link.startswith(("http:", "https:"))]


def _anchors(document: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.name))
def test_every_link_leads_somewhere(document: Path) -> None:
    for link in _links(document):
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        assert target.exists(), link
        if anchor:
            assert anchor in _anchors(target), link


def test_every_page_is_in_both_readmes_and_in_the_same_order() -> None:
    english, portuguese = (_links(ROOT / name) for name in ("README.md", "README.pt-BR.md"))
    assert {link.partition("#")[0] for link in english} >= {
        f"docs/{page.name}" for page in DOCUMENTS if page.parent.name == "docs"
    }
    own = {"README.md", "README.pt-BR.md"}
    assert [link for link in english if link not in own and not link.startswith("#")] == [
        link for link in portuguese if link not in own and not link.startswith("#")
    ]
