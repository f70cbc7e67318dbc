"""Imports point one way: a module imports from its own room or from one below, also where only types need it."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "runc_async"

ROOMS = [
    ["_errors", "_models"],
    ["_linux", "_eventloop"],
    ["_cli"],
    ["_executor", "_io", "_sockets", "_console", "_orphans", "_monitor", "_usage", "_files", "_bundle"],
    ["_spawn"],
    ["_process"],
    ["_lifecycle"],
    ["_container_process"],
    ["_container"],
    ["_container_context"],
    ["_jobs"],
    ["_client"],
    ["__init__"],
    ["_doctor", "__main__", "contrib"],
]
"""From the lowest to the highest; docs/development.md says what is in each."""

TO_BE_REMOVED = {("_bundle.default_spec", "_process.environment")}
"""Imports against the rules, still: the importing module, the module that is imported."""


class Import(NamedTuple):
    """One import of a module of the package."""

    source: str
    line: int
    target: str
    """The module, without the package's name: ``_linux.pidfd``; the package itself is ``__init__``."""
    name: str | None
    """What is imported from it; None is the module as a whole."""

    def __str__(self) -> str:
        return f"{PACKAGE}/{self.source.replace('.', '/')}.py:{self.line} imports {self.name or ''} of {self.target}"


def module_name(path: Path) -> str:
    """``_linux.pidfd`` of its path; a package's own file is the package, and the outermost is ``__init__``."""
    parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
    if parts[-1] == "__init__" and len(parts) > 1:
        parts = parts[:-1]
    return ".".join(parts)


FILES = {module_name(path): path for path in sorted((ROOT / PACKAGE).rglob("*.py"))}


def room(module: str) -> int:
    """The number of the room that a module is in."""
    return next(number for number, names in enumerate(ROOMS) if module.partition(".")[0] in names)


def absolute(node: ast.ImportFrom, module: str) -> str | None:
    """The module that an ``from … import`` names, without the package's name; None if it is another package's."""
    if node.level == 0:
        package, _, rest = (node.module or "").partition(".")
        return rest if package == PACKAGE else None
    parts = [] if module == "__init__" else module.split(".")
    if FILES[module].name != "__init__.py":
        parts = parts[:-1]
    above = parts[: len(parts) - (node.level - 1)]
    return ".".join([*above, *(node.module or "").split(".")]).strip(".")


def imports_of(module: str) -> Iterator[Import]:
    """All imports of modules of the package: at the top, in functions, and for type checkers alone."""
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                package, _, rest = alias.name.partition(".")
                if package == PACKAGE:
                    yield Import(module, node.lineno, rest or "__init__", None)
        elif isinstance(node, ast.ImportFrom) and (base := absolute(node, module)) is not None:
            for alias in node.names:
                whole = f"{base}.{alias.name}".strip(".")
                if whole in FILES:
                    yield Import(module, node.lineno, whole, None)
                else:
                    yield Import(module, node.lineno, base or "__init__", alias.name)


IMPORTS = [found for module in FILES for found in imports_of(module)]


def test_every_module_is_in_a_room() -> None:
    rooms = {name for names in ROOMS for name in names}
    assert {module.partition(".")[0] for module in FILES} - rooms == set()
    assert len(IMPORTS) > 100


def test_no_import_points_up() -> None:
    up = [found for found in IMPORTS if room(found.target) > room(found.source)]
    assert [str(found) for found in up if (found.source, found.target) not in TO_BE_REMOVED] == []


def test_no_modules_import_each_other() -> None:
    graph = {module: {found.target for found in IMPORTS if found.source == module} - {module} for module in FILES}
    for source, target in TO_BE_REMOVED:
        graph[source].discard(target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"these import each other, each the next: {' → '.join(error.args[1])}")


def test_no_private_name_is_imported_from_another_module() -> None:
    private = [
        str(found)
        for found in IMPORTS
        if found.name
        and found.name.startswith("_")
        and found.name != "__version__"
        and (found.source, found.target) not in TO_BE_REMOVED
    ]
    assert private == []
