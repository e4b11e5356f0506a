"""The pages for people: width, status, links, and the index of the experiments."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
WIDTH = 100
STATUS = re.compile(
    r"\b(?:Status: (?:normative|exact|free)\b|This page is (?:normative|informative))"
)
INDEX = DOCS / "experiments.md"
TOPICS = sorted((DOCS / "experiments").glob("*.md"))
HEAD = "## What has been tried\n"


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of the lines that are neither code nor tables."""
    code = False
    for n, line in enumerate(text_of(path).splitlines(), 1):
        if line.lstrip().startswith("```"):
            code = not code
        elif not code and not line.lstrip().startswith("|"):
            yield n, line


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_lines_are_wrapped(page: Path) -> None:
    """Where links lead is not counted."""
    for n, line in prose(page):
        seen = re.sub(r"\]\([^)]*\)", "]", line)
        assert len(seen) <= WIDTH or len(seen.split()) <= 2, f"{name(page)}:{n}"


@pytest.mark.parametrize("page", [p for p in PAGES if DOCS in p.parents], ids=name)
def test_status_is_at_the_top(page: Path) -> None:
    if page.name == "format.md":  # has a table with the status of each page of the format
        assert "| page | what it specifies | status |" in text_of(page)
    else:
        top = " ".join(text_of(page).splitlines()[:6])
        assert STATUS.search(top)


def anchors(page: Path) -> set[str]:
    """The names under which headings can be linked to, as GitHub makes them."""
    heads = re.findall(r"^#+ (.*)$", text_of(page), re.M)
    return {anchor(head) for head in heads}


def anchor(head: str) -> str:
    return re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if re.match(r"https?:", target):
            continue
        file, _, place = target.partition("#")
        found = (page.parent / file).resolve() if file else page
        assert found.exists(), f"{name(page)}: {target}"
        assert not place or place in anchors(found), f"{name(page)}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_that_are_named_exist(page: Path) -> None:
    if page.name == "CHANGELOG.md" or page.parent.name in ("decisions", "experiments"):
        return  # records, of files that may be gone
    for file in re.findall(r"`((?:[a-z_]+/)+[a-z_0-9]+\.py)`", text_of(page)):
        assert any((base / file).is_file() for base in (ROOT, ROOT / "mdlzip")), file


def test_decisions_have_numbers_of_their_own() -> None:
    numbers = [page.name[:4] for page in sorted((DOCS / "decisions").glob("*.md"))]
    assert numbers == [f"{n:04}" for n in range(1, len(numbers) + 1)]


def test_the_index_lists_every_experiment() -> None:
    """MDLZIP_REWRITE=1 brings the index up to date."""
    parts = []
    for page in TOPICS:
        title = re.sub("^# Experiments: ", "", text_of(page).splitlines()[0])
        heads = re.findall(r"^### (.*)$", text_of(page), re.M)
        links = [f"- [{h.replace('`', '')}](experiments/{page.name}#{anchor(h)})\n" for h in heads]
        assert len(links) == len(set(links)) > 3, page
        parts.append(f"\n### [{title[0].upper() + title[1:]}](experiments/{page.name})\n\n")
        parts += links
    top = text_of(INDEX).partition(HEAD)[0]
    wanted = top + HEAD + "".join(parts)
    if os.environ.get("MDLZIP_REWRITE"):
        INDEX.write_text(wanted, encoding="utf-8")
    assert text_of(INDEX) == wanted
