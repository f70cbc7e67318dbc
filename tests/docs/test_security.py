"""The page about security says what the package knows."""

from __future__ import annotations

from pathlib import Path

from runc_async._cli.quirks import VULNERABILITIES

PAGE = Path(__file__).parents[2] / "docs/security.md"


def test_the_table_of_holes_is_the_one_that_the_doctor_uses() -> None:
    expected = [
        [runtime, hole.name, ", ".join(".".join(map(str, release)) for release in hole.fixed), hole.what]
        for runtime, holes in VULNERABILITIES.items()
        for hole in holes
    ]
    rows = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if " | CVE-" in line]
    assert rows == expected
