"""The typed keywords are those of the tables, and every method says them."""

from __future__ import annotations

import inspect
from typing import get_type_hints

import pytest

from runc_async import Runc
from runc_async._cli import options
from runc_async._cli.commands import COMMANDS

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


def test_every_command_has_a_method() -> None:
    assert [command for command in COMMANDS if not callable(getattr(Runc, command, None))] == []
