"""The tree in the documentation is the tree of the package."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..test_imports import FILES, ROOMS
from .test_blocks import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = ROOT / "docs/development.md"
PACKAGE = ROOT / "runc_async"


def written() -> Iterator[str]:
    """The paths in the tree, below the package."""
    tree = re.search(r"^```text\nrunc_async/\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert tree is not None
    above: list[str] = []
    for line in filter(None, tree[1].splitlines()):
        depth = (len(line) - len(line.lstrip())) // 2 - 1
        name, description = line.split(maxsplit=1)
        assert description, line
        above[depth:] = [name.rstrip("/")]
        yield "/".join(above)


def test_every_module_is_in_the_tree_and_nothing_else() -> None:
    modules = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py")}
    expected = {name for name in modules if not name.endswith("/__init__.py")}
    assert {name for name in written() if name.endswith(".py")} == expected
    assert [name for name in written() if not (PACKAGE / name).exists()] == []


def test_the_tree_is_in_the_order_of_the_rooms() -> None:
    order = [name.removesuffix(".py") for name in written() if "/" not in name]
    numbers = [next(number for number, room in enumerate(ROOMS) if name in room) for name in order]
    assert numbers == sorted(numbers)


def test_the_modules_that_the_page_names_exist() -> None:
    named = set(re.findall(r"`(_\w+/?[\w/]*(?:\.py)?)`", PAGE.read_text()))
    paths = {name for name in named if "/" in name or name.endswith(".py")}
    assert len(paths) > 15
    files = {path.name for path in FILES.values()}
    assert [name for name in paths if not (PACKAGE / name).exists() and name not in files] == []
