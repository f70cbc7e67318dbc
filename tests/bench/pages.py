"""Tables, and the places in the documentation that a run writes anew."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass
class Table:
    """A table, and what is said above it."""

    title: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    said: str = ""

    def text(self) -> str:
        """In Markdown, its columns aligned for those who read it as it is."""
        lines = [list(self.columns), *map(list, self.rows)]
        widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
        lines.insert(1, ["-" * width for width in widths])
        drawn = ["| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines]
        return "\n".join([f"### {self.title}", "", *([self.said, ""] if self.said else []), *drawn])


def replaced(page: str, name: str, text: str) -> str:
    """A page with a text between the markers of a name.

    :raises ValueError: the page has no such markers.
    """
    begin, end = f"<!-- bench: {name} -->", "<!-- bench: end -->"
    pattern = re.compile(f"{re.escape(begin)}\n.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(page):
        raise ValueError(f"no markers {begin} and {end}")
    return pattern.sub(lambda _: f"{begin}\n\n{text}\n\n{end}", page)


def write(file: Path, **texts: str) -> None:
    """Put texts between the markers of their names in a file."""
    page = file.read_text()
    for name, text in texts.items():
        page = replaced(page, name, text)
    file.write_text(page)
