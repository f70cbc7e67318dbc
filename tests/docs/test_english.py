"""The pages are in plain English: they name the noun, and a sentence is read once."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from .test_blocks import PAGES, ROOT

if TYPE_CHECKING:
    from pathlib import Path

UNCLEAR = {
    r"\bwho(ever|soever)\b": "name who: the caller, the client, another process",
    r"\b(ours|theirs|yours truly)\b": "name whose: the library's, the container's",
    r"\bthat one\b": "name the noun",
    r"\b(is|are) no (?!longer|more\b|good)": 'write "is not a …"',
    r"\bby any road\b|\bthe road\b": "write how, or name the module",
    r"\bthose who\b": "name who",
    r"\bin vain\b|\bof its own accord\b": "write what happens",
}
GENERATED = re.compile(r"<!-- bench: \w+ -->.*?<!-- bench: end -->|^```.*?^```", re.DOTALL | re.MULTILINE)
QUOTING = {ROOT / "docs/commands.md"}
"""Pages that quote what runtimes say."""
FIRST = re.compile(r"^# .+\n+((?:[^\n]+\n)+)", re.MULTILINE)


@pytest.mark.parametrize("page", sorted(set(PAGES) - QUOTING), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_says_what_it_means(page: Path) -> None:
    text = GENERATED.sub("", page.read_text())
    found = [
        f"{match[0]!r}: {advice}"
        for pattern, advice in UNCLEAR.items()
        for match in re.finditer(pattern, text, re.IGNORECASE)
        if not re.search(r"there $", text[: match.start()], re.IGNORECASE)
    ]
    assert found == []


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.is_relative_to(ROOT / "docs")], ids=lambda page: str(page.relative_to(ROOT))
)
def test_the_first_sentence_says_what_the_reader_can_do(page: Path) -> None:
    first = FIRST.search(page.read_text())
    assert first is not None
    sentence = re.split(r"(?<=[.:])\s", first[1])[0]
    assert re.search(r"\byou\b|\byour\b|^(Look up|Find|Run)\b", sentence, re.IGNORECASE), sentence
