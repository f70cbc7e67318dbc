"""The names and patterns of `Job.collect`."""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["find_missing", "make_matcher"]

WILDCARDS = re.compile(r"[*?\[]")


def make_matcher(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Give what says whether a file is wanted by its name, ``a/b``.

    :param patterns: names of files, or of directories, with all that is in them; or patterns, in which ``*`` and ``?``
        stand for what has no slash, and ``**`` for any number of directories.
    """
    names = {_clean(pattern) for pattern in patterns if not WILDCARDS.search(pattern)}
    if "." in names:
        return lambda name: True
    wanted = [re.compile(_translate(_clean(pattern))) for pattern in patterns if WILDCARDS.search(pattern)]

    def matches(name: str) -> bool:
        parts = name.split("/")
        above = ("/".join(parts[:count]) for count in range(1, len(parts) + 1))
        return any(at in names for at in above) or any(pattern.fullmatch(name) for pattern in wanted)

    return matches


def find_missing(patterns: Sequence[str], found: Iterable[str]) -> list[str]:
    """Give the names that nothing was found for. A pattern may match nothing."""
    names = list(found)
    plain = [_clean(pattern) for pattern in patterns if not WILDCARDS.search(pattern)]
    return [name for name in plain if name != "." and not any(f"{at}/".startswith(f"{name}/") for at in names)]


def _clean(pattern: str) -> str:
    return "/".join(part for part in pattern.split("/") if part not in ("", ".")) or "."


def _translate(pattern: str) -> str:
    parts = pattern.split("/")
    found = ""
    for number, part in enumerate(parts):
        is_last = number == len(parts) - 1
        if part == "**":
            found += ".*" if is_last else "(?:[^/]+/)*"
        else:
            found += _translate_part(part) + ("" if is_last else "/")
    return f"(?s:{found})"


def _translate_part(part: str) -> str:
    """As `fnmatch`, but no wildcard stands for a slash."""
    pieces = re.split(r"(\*+|\?|\[!?\]?[^\]]*\])", part)
    words = {"*": "[^/]*", "?": "[^/]"}
    return "".join(
        words[piece[:1]] if piece[:1] in words else _inside(fnmatch.translate(piece)) if piece else ""
        for piece in pieces
    )


def _inside(translated: str) -> str:
    """What `fnmatch.translate` makes of a piece without ``*``, without its frame."""
    return re.sub(r"^\(\?s:(.*)\)\\[Zz]$", r"\1", translated, flags=re.DOTALL)
