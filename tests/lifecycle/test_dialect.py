"""How a runtime talks is asked once, and only when it matters."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from runc_async import (
    CommandError,
    ContainerExistsError,
    ContainerNotFoundError,
    Runc,
    SealedExecutor,
    UnsupportedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio

SAYS = """
echo "$*" >> {log}
case "$*" in *--version) echo '{version}'; exit {status};; esac
echo "not a container" >&2
exit 9
"""


class Fake:
    """A runtime that says a version, writes down its arguments and fails at everything else."""

    def __init__(self, make: Callable[[str], Path], folder: Path, version: str, status: int = 0) -> None:
        self.log = folder / "calls"
        self.path = make(SAYS.format(log=self.log, version=version, status=status))

    def questions(self) -> int:
        return sum(line.endswith("--version") for line in self.calls())

    def calls(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


async def test_the_version_is_asked_once_by_the_first_call_that_needs_it(
    fake_runtime: Callable[[str], Path], tmp_path: Path
) -> None:
    fake = Fake(fake_runtime, tmp_path, "runc version 1.3.6")
    runc = Runc(fake.path)
    for _ in range(2):
        with pytest.raises(CommandError):
            await runc.state("x")
    assert fake.questions() == 0
    for call in (runc.kill, runc.delete, lambda id: runc.run(id, tmp_path)):
        with pytest.raises(CommandError):
            await call("x")
    assert fake.questions() == 1
    with pytest.raises(CommandError):
        await Runc(fake.path).kill("x")
    assert fake.questions() == 1, "another client of the same file"


async def test_version_answers_it_too(fake_runtime: Callable[[str], Path], tmp_path: Path) -> None:
    fake = Fake(fake_runtime, tmp_path, "crun version 1.28")
    runc = Runc(fake.path)
    await runc.version()
    with pytest.raises(CommandError):
        await runc.kill("x")
    assert fake.questions() == 1


async def test_a_given_dialect_is_not_asked_for(fake_runtime: Callable[[str], Path], tmp_path: Path) -> None:
    fake = Fake(fake_runtime, tmp_path, "somerunc version 1")
    with pytest.raises(UnsupportedError, match="runsc has no command update"):
        await Runc(fake.path, dialect="runsc").update("x", pids_limit=5)
    assert fake.calls() == []
    with pytest.raises(ValueError, match="dialect must be one of runc, crun, runsc, youki, not 'docker'"):
        Runc(fake.path, dialect="docker")


@pytest.mark.parametrize(("version", "status"), [("somerunc version 7", 0), ("hello", 0), ("broken", 3)])
async def test_an_unknown_runtime_is_treated_as_runc_and_logged(
    fake_runtime: Callable[[str], Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    version: str,
    status: int,
) -> None:
    fake = Fake(fake_runtime, tmp_path, version, status)
    runc = Runc(fake.path)
    with caplog.at_level(logging.WARNING, logger="runc_async"):
        for _ in range(2):
            with pytest.raises(CommandError, match="not a container"):
                await runc.kill("x", "RTMIN+3")
    (record,) = caplog.records
    assert "is treated as runc" in record.getMessage()
    if status == 0:
        assert version.partition(" ")[0] in record.getMessage()


async def test_a_wrapper_is_what_it_wraps(fake_runtime: Callable[[str], Path], tmp_path: Path) -> None:
    fake = Fake(fake_runtime, tmp_path, "Some Wrapper version 2\n\nrunsc version 0.0~20221219.0\nspec: 1.0.2-dev")
    runc = Runc(fake.path, root=tmp_path)
    with pytest.raises(ContainerNotFoundError):
        await runc.kill("x")
    with pytest.raises(UnsupportedError, match="runsc has no command features"):
        await runc.features()
    assert len(fake.calls()) == 1


async def test_wrong_arguments_are_refused_before_anything_is_started(
    fake_runtime: Callable[[str], Path], tmp_path: Path
) -> None:
    fake = Fake(fake_runtime, tmp_path, "runc version 1.3.6")
    runc = Runc(fake.path)
    for call in (
        lambda: runc.kill(""),
        lambda: runc.kill("x", "NOSUCH"),
        lambda: runc.delete("../x"),
        lambda: runc.exec("x", []),
        lambda: runc.exec("", ["true"]),
        lambda: runc.exec("x", ["true"], user="root"),
        lambda: runc.run("x", ""),
    ):
        with pytest.raises(ValueError, match=r"."):
            await call()
    with pytest.raises(OSError, match="is not open: 12345"):
        await runc.run("x", tmp_path, preserve_fds=[12345])
    assert fake.calls() == []


async def test_a_runtime_that_never_says_its_version_is_treated_as_runc(
    fake_runtime: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("runc_async._lifecycle.dialect.PATIENCE", 0.1)
    runc = Runc(fake_runtime('case "$*" in *--version) exec sleep 60;; esac; echo "not a container" >&2; exit 9'))
    with anyio.fail_after(30), pytest.raises(CommandError, match="not a container"):
        await runc.kill("x")
    assert "has not ended within 0.1 s" in caplog.text


# -- what gVisor would do to another container -------------------------------------------------------------

GVISOR = "runsc version 0.0~20221219.0\nspec: 1.0.2-dev"


@pytest.fixture
def gvisor(fake_runtime: Callable[[str], Path], tmp_path: Path, state_root: Path) -> Fake:
    """One that has a container ``abc``."""
    for name in ("abc_sandbox:abc.lock", "abc_sandbox:abc.state"):
        (state_root / name).touch()
    return Fake(fake_runtime, tmp_path, GVISOR)


@pytest.fixture
def remove_state(state_root: Path) -> object:
    yield
    for path in state_root.iterdir():
        path.unlink()


@pytest.mark.usefixtures("remove_state")
async def test_the_beginning_of_an_id_reaches_no_other_container(gvisor: Fake, state_root: Path) -> None:
    runc = Runc(gvisor.path, root=state_root, dialect="runsc")
    for call in (runc.kill, runc.delete, runc.state, runc.ps, runc.pause, runc.start, lambda id: runc.exec(id, ["x"])):
        with pytest.raises(ContainerNotFoundError, match="container ab does not exist"):
            await call("ab")
    await runc.delete("ab", force=True)
    assert gvisor.calls() == []
    with pytest.raises(CommandError, match="not a container"):
        await runc.kill("abc")


@pytest.mark.usefixtures("remove_state")
async def test_an_id_that_is_taken_is_refused_before_the_runtime_forgets_its_container(
    gvisor: Fake, state_root: Path, tmp_path: Path
) -> None:
    runc = Runc(gvisor.path, root=state_root)
    for call in (runc.create, runc.run):
        with pytest.raises(ContainerExistsError, match="container abc exists already"):
            await call("abc", tmp_path)
    assert [line for line in gvisor.calls() if not line.endswith("--version")] == []


async def test_a_sealed_copy_starts_no_container(gvisor: Fake, state_root: Path, tmp_path: Path) -> None:
    for path in state_root.iterdir():
        path.unlink()
    with SealedExecutor.open(gvisor.path) as executor:
        runc = Runc(executor, root=state_root)
        with pytest.raises(UnsupportedError, match="runsc create does not work from a sealed copy: use PathExecutor"):
            await runc.create("x", tmp_path)
        with pytest.raises(UnsupportedError, match="sealed copy"):
            await runc.run("x", tmp_path)


async def test_crun_starts_nothing_with_a_limit_of_files_that_it_runs_into_itself(
    runc: Runc, make_bundle: Callable[..., Path], new_id: Callable[[], str], runtime_name: str, state_root: Path
) -> None:
    """It would cut its cache of filters: this container and all later ones would end with status 1 and no word."""

    def limit(size: int) -> Callable[[dict[str, Any]], None]:
        def alter(spec: dict[str, Any]) -> None:
            spec["process"]["rlimits"] = [{"type": "RLIMIT_FSIZE", "soft": size, "hard": size}]

        return alter

    for size in (1024, 1 << 16):
        call = runc.run(new_id(), make_bundle("sh", "-c", "exit 7", spec=limit(size)))
        if runtime_name == "crun" and size == 1024:
            with pytest.raises(UnsupportedError, match="crun needs an RLIMIT_FSIZE of at least 65536 bytes, not 1024"):
                await call
            assert not any(path.name not in (".cache", ".empty-directory") for path in state_root.glob("*"))
        else:
            assert await call == 7
