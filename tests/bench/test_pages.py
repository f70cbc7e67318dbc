"""Tables, and the places that a run writes anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from .pages import Table, replaced, write

ROOT = Path(__file__).resolve().parents[2]


def test_a_table_in_markdown() -> None:
    assert Table("Title", ("", "ms"), [("path", "1.5")], "Said.").text() == (
        "### Title\n\nSaid.\n\n|      | ms  |\n| ---- | --- |\n| path | 1.5 |"
    )


def test_only_what_is_between_the_markers_is_replaced() -> None:
    old, end = "old\n<!-- bench: end -->", "\n\n<!-- bench: end -->"
    page = f"before\n<!-- bench: one -->\n{old}\n<!-- bench: two -->\n{old}\nafter"
    after = f"before\n<!-- bench: one -->\n{old}\n<!-- bench: two -->\n\nnew \\1{end}\nafter"
    assert replaced(page, "two", r"new \1") == after
    with pytest.raises(ValueError, match="no markers <!-- bench: three -->"):
        replaced(page, "three", "new")


@pytest.mark.parametrize("name", ["README.md", "docs/measured.md"])
def test_the_documentation_has_the_markers(name: str, tmp_path: Path) -> None:
    copy = tmp_path / "page.md"
    copy.write_text((ROOT / name).read_text())
    write(copy, measured="what a run found")
    assert "<!-- bench: measured -->\n\nwhat a run found\n\n<!-- bench: end -->" in copy.read_text()
