"""Every block of Python and of shell in the README and in docs/ runs, on the real runtime."""

from __future__ import annotations

import ast
import contextlib
import inspect
import logging
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
import dask
import pytest

import runc_async

from .._cgroups import needs_controllers
from .._slowness import SLOWNESS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted(page for page in ROOT.glob("docs/**/*.md") if "_build" not in page.parts)]
BLOCK = re.compile(
    r"^(?:<!-- needs: (?P<need>\w+) -->\n|<!-- run by: (?P<driver>\S+) -->\n)?```python\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
SHELL = re.compile(
    r"^(?P<apart><!-- each on a host of its own -->\n)?```sh\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
IDS = ("hello", "job", "web")
"""The ids of the pages' containers; each test has its own in their place."""
LIMITS = ("memory", "cpu", "pids")
"""The controllers of cgroups that the pages limit containers by."""


class Block(NamedTuple):
    """One block, and what must be there for it to run."""

    line: int
    code: str
    need: str | None
    driver: str | None
    """The test that runs it, where it takes more than to be executed: a terminal, a client."""


def all_blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page."""
    text = page.read_text()
    for found in BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("code"))
        yield Block(line, found["code"], found["need"], found["driver"])


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page that are run here."""
    return (block for block in all_blocks(page) if block.driver is None)


def there(need: str | None, runtime: str) -> bool:
    """Whether what a block needs is there."""
    if need == "runc_criu":
        criu = shutil.which("criu")
        return (
            os.path.basename(runtime) == "runc"
            and criu is not None
            and subprocess.run([criu, "check"], capture_output=True).returncode == 0
        )
    if need == "pidfd":
        said = subprocess.run([runtime, "create", "--help"], capture_output=True, text=True).stdout
        return "--pidfd-socket" in said
    if need == "runsc":
        return shutil.which("runsc") is not None and os.geteuid() == 0
    assert need is None, f"nothing is known of {need}"
    return True


WITH_BLOCKS = [page for page in PAGES if any(blocks(page))]


@pytest.fixture(autouse=True)
def limits_of_processes() -> None:
    """The specifications here have one, as `default_spec` makes them."""
    needs_controllers("pids")


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page(
    page: Path,
    tmp_path: Path,
    rootfs: Path,
    state_root: Path,
    runtime_path: Path,
    new_id: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if re.search(r"\b(memory|cpus|pids)=", page.read_text()):
        needs_controllers(*LIMITS)
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setitem(dask.config.config, "temporary-directory", str(tmp_path))
    level = logging.getLogger("runc_async").level
    spec = runc_async.default_spec(["sleep", "60"])
    names: dict[str, Any] = {name: getattr(runc_async, name) for name in runc_async.__all__}
    names.update(
        __name__="page",
        anyio=anyio,
        runc=runc_async.Runc(runtime_path, root=state_root),
        spec=spec,
        rootfs=rootfs,
        bundle=runc_async.Bundle.create(tmp_path / "bundle", spec, rootfs=rootfs),
    )
    ids = {name: new_id() for name in IDS}
    for block in blocks(page):
        if not there(block.need, str(runtime_path)):
            continue
        code = (
            block.code.replace("/srv/rootfs", str(rootfs))
            .replace("/run/gvisor", str(state_root))
            .replace("timeout=10)", f"timeout={60 * SLOWNESS})")
        )
        for name, id in ids.items():
            code = code.replace(f'"{name}"', f'"{id}"')
        with warnings.catch_warnings():
            compiled = compile(
                "\n" * block.line + code, str(page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
            )
        if compiled.co_flags & inspect.CO_COROUTINE:

            async def run(compiled: Any = compiled) -> None:
                await eval(compiled, names)

            anyio.run(run)
        else:
            exec(compiled, names)
    logging.getLogger("runc_async").setLevel(level)


WITH_SHELL = [page for page in PAGES if SHELL.search(page.read_text())]


@pytest.mark.parametrize("page", WITH_SHELL, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_shell_blocks_of_a_page(page: Path, tmp_path: Path) -> None:
    """In one shell, in a directory that has ``examples`` in it. Of ``make`` and ``pip`` the names alone are checked."""
    code = "\n".join(found["code"] for found in SHELL.finditer(page.read_text()) if not found["apart"])
    for program in ("curl", "openssl"):
        if program in code and shutil.which(program) is None:
            pytest.skip(f"{program} is missing: apt-get install {program}")
    if "examples/" in code:
        needs_controllers(*LIMITS)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for written, meant in (("8080", str(port)), ("/var/lib/sandbox", str(tmp_path / "sandbox"))):
        code = code.replace(written, meant)
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, script in (
        ("python", f'exec "{sys.executable}" "$@"'),
        ("make", f'for target; do grep -q "^$target:" "{ROOT}/Makefile" || exit 1; done'),
        ("pip", f'test "$1" = install && grep -q "^name = \\"$2\\"" "{ROOT}/pyproject.toml"'),
    ):
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "examples").symlink_to(ROOT / "examples")
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    with open(tmp_path / "said", "w+") as said:
        shell = subprocess.Popen(
            ["sh", "-eu", "-c", code], cwd=folder, env=environment, stdout=said, stderr=said, start_new_session=True
        )
        try:
            assert shell.wait(timeout=60 * SLOWNESS) == 0, (tmp_path / "said").read_text()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()


def test_commands_for_several_hosts_have_the_flags_that_they_are_given() -> None:
    places = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    blocks = [found["code"] for page in WITH_SHELL for found in SHELL.finditer(page.read_text()) if found["apart"]]
    lines = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert lines
    for program, command, *arguments in lines:
        found = shutil.which(program, path=places)
        assert found is not None, program
        help = subprocess.run(
            [found, command, "--help"], capture_output=True, text=True, check=True, timeout=60 * SLOWNESS
        ).stdout
        assert [flag for flag in arguments if flag.startswith("--") and flag not in help] == []


def test_blocks_that_another_test_runs_are_run_by_it() -> None:
    """It exists, and it reads that page."""
    for page in PAGES:
        for driver in {block.driver for block in all_blocks(page)} - {None}:
            assert page.name in (ROOT / str(driver)).read_text(), f"{page}: {driver}"


def test_there_are_pages_for_what_was_promised() -> None:
    names = {str(page.relative_to(ROOT)) for page in WITH_BLOCKS}
    assert {"README.md", "docs/tutorial.md", "docs/go-runc.md", "docs/howto/errors.md"} <= names
    assert sum(len(list(blocks(page))) for page in WITH_BLOCKS) >= 25
