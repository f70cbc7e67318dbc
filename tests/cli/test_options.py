"""The typed keywords are those of the tables, and every method says them."""

from __future__ import annotations

import ast
import inspect
import json
import pydoc
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

from runc_async import Container, Runc
from runc_async._cli import options
from runc_async._cli.commands import COMMANDS

PROJECT = Path(__file__).parents[2]
BY_METHOD = {
    "create": (options.StartOptions, {"bundle", "preserve_fds"}),
    "run": (options.RunOptions, {"bundle", "preserve_fds", "detach"}),
    "exec": (options.ExecOptions, {"preserve_fds", "detach", "process"}),
    "update": (options.UpdateOptions, {"resources"}),
    "checkpoint": (options.CheckpointOptions, {"image_path", "status_fd"}),
    "restore": (options.RestoreOptions, {"bundle", "image_path", "detach"}),
}
NO_OPTIONS = {
    "delete": {"force"},
    "kill": {"all"},
    "spec": {"bundle", "rootless"},
    "events": {"interval", "stats"},
    "list": {"format"},
    "ps": {"format"},
}
LEFT_TO_EXTRA_ARGS = {"delete": {"regex"}, "kill": {"regex"}, "list": {"quiet"}, "spec": {"file"}}


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_the_typed_keywords_are_those_of_the_tables(command: str) -> None:
    shape, handled = BY_METHOD.get(command, (None, NO_OPTIONS.get(command, set())))
    typed = set(get_type_hints(shape)) if shape else set()
    assert not typed & handled
    assert typed | handled | LEFT_TO_EXTRA_ARGS.get(command, set()) == set(COMMANDS[command].flags)


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - set(BY_METHOD)))
def test_flags_without_a_typed_shape_are_parameters_or_settled_by_the_method(command: str) -> None:
    settled = {"events": {"stats"}, "list": {"format"}, "ps": {"format"}}
    parameters = set(inspect.signature(getattr(Runc, command)).parameters)
    assert parameters >= NO_OPTIONS.get(command, set()) - settled.get(command, set())
    assert "extra_args" in parameters


def arguments(function: ast.AsyncFunctionDef | ast.FunctionDef) -> dict[str, str]:
    """The keywords that a method writes out: each with its type and its default."""
    pairs = zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
    return {a.arg: f"{ast.unparse(a.annotation or a)} = {ast.unparse(d) if d else ''}" for a, d in pairs}


@pytest.mark.parametrize(
    ("where", "method", "shape"),
    [
        *((Runc, command, shape) for command, (shape, _) in sorted(BY_METHOD.items())),
        (Runc, "container", options.StartOptions),
        (Container, "exec", options.ExecOptions),
    ],
)
def test_a_method_writes_out_every_keyword_of_its_options(where: type, method: str, shape: type) -> None:
    """With the type of the class of options, and in every overload, so that editors and `help` show them."""
    types: dict[str, str] = {}
    for name, annotation in shape.__annotations__.items():
        kind = getattr(annotation, "__forward_arg__", annotation)
        types[name] = f"{kind} = {'False' if kind == 'bool' else 'None'}"
    [body] = ast.parse(inspect.getsource(where)).body
    assert isinstance(body, ast.ClassDef)
    found = [node for node in body.body if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef)]
    definitions = [arguments(node) for node in found if node.name == method]
    assert definitions
    for definition in definitions:
        assert {name: definition.get(name) for name in types} == types


SHOWN = """
import json, sys, jedi
for method in sys.argv[1:]:
    code = f"from runc_async import Runc\\nrunc = Runc()\\nrunc.{method}("
    script = jedi.Script(code, environment=jedi.InterpreterEnvironment())
    print(json.dumps([parameter.name for signature in script.get_signatures() for parameter in signature.params]))
"""


def test_an_editor_shows_every_keyword() -> None:
    pytest.importorskip("jedi", reason="jedi is missing: `make setup` installs it")
    command = [sys.executable, "-c", SHOWN, *BY_METHOD, "container"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, cwd=PROJECT)
    assert done.returncode == 0, done.stderr
    shapes = [shape for shape, _ in BY_METHOD.values()] + [options.StartOptions]
    for line, shape in zip(done.stdout.splitlines(), shapes, strict=True):
        assert set(shape.__annotations__) <= set(json.loads(line)), shape


def test_help_shows_every_keyword() -> None:
    for command, (shape, _) in BY_METHOD.items():
        shown = pydoc.render_doc(getattr(Runc, command), renderer=pydoc.plaintext)
        assert [name for name in shape.__annotations__ if f"{name}: " not in shown] == []


def test_values_that_are_not_given_are_not_passed_on() -> None:
    given = {
        **dict.fromkeys(options.RunOptions.__annotations__),
        "keep": False,
        "no_pivot": True,
        "pid_file": "",
        "x": 1,
    }
    assert options.pick(options.RunOptions, given) == {"no_pivot": True, "pid_file": ""}


def test_every_command_has_a_method() -> None:
    assert [command for command in COMMANDS if not callable(getattr(Runc, command, None))] == []
