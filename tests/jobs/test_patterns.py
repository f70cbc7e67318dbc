"""The names and patterns of `Job.collect`."""

from __future__ import annotations

import pytest

from runc_async._jobs.patterns import find_missing, make_matcher


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("a.txt", ["a.txt"], ["b/a.txt", "a.txt2", "aXtxt"]),
        ("./a//b", ["a/b", "a/b/c"], ["a", "a/bc"]),
        (".", ["a", "a/b"], []),
        ("out", ["out", "out/a", "out/b/c"], ["output", "in/out"]),
        ("*.txt", ["a.txt", ".txt"], ["a/b.txt", "a.txt.gz"]),
        ("?.txt", ["a.txt"], ["ab.txt", "/.txt"]),
        ("[ab].txt", ["a.txt", "b.txt"], ["c.txt"]),
        ("[!ab].txt", ["c.txt"], ["a.txt"]),
        ("**/*.log", ["a.log", "b/a.log", "c/b/a.log"], ["a.txt"]),
        ("out/**", ["out/a", "out/b/c"], ["in/a", "out"]),
        ("a+(b).*", ["a+(b).c"], ["aab.c"]),
    ],
)
def test_a_pattern_matches(pattern: str, matching: list[str], others: list[str]) -> None:
    matches = make_matcher([pattern])
    assert [name for name in [*matching, *others] if matches(name)] == matching


def test_names_that_nothing_was_found_for_are_missing_and_patterns_never_are() -> None:
    assert find_missing(["a", "out", "*.txt", "b", "."], ["a", "out/x"]) == ["b"]
