"""Executors: what they hold, what they refuse, what they execute."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import socket
import stat
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runc_async import ExecutorError, FdExecutor, PathExecutor, SealedExecutor
from runc_async._executor import SEALS, Executor

from ._ordinary import run_as_ordinary_user

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A copy of /bin/true called ``runc``."""
    return Path(shutil.copy("/bin/true", tmp_path / "runc"))


def execute(executor: Executor) -> int:
    """Run what an executor gives, the plainest way."""
    executable = executor.executable()
    path = executable.path if executable.fd is None else f"/proc/self/fd/{executable.fd}"
    assert path is not None
    try:
        pid = os.posix_spawn(path, executable.argv, os.environ)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        if executable.fd is not None:
            os.close(executable.fd)


HOLDERS: list[Callable[[Path], FdExecutor]] = [FdExecutor.open, SealedExecutor.open]


class TestPathExecutor:
    def test_resolves_the_name_at_every_call(self, program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(program.parent))
        executor = PathExecutor()
        assert executor.executable() == (("runc",), str(program), None)
        program.unlink()
        with pytest.raises(ExecutorError, match="runc: no such program on PATH"):
            executor.executable()

    def test_takes_a_relative_path_from_the_working_directory(
        self, program: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(program.parent)
        assert PathExecutor("./runc").executable().path == str(program)

    def test_after_close_it_gives_nothing(self) -> None:
        with PathExecutor("/bin/true") as executor:
            assert not executor.closed
        executor.close()
        assert executor.closed
        with pytest.raises(ExecutorError, match="closed"):
            executor.executable()

    @pytest.mark.parametrize("path", ["", "a\0b"])
    def test_refuses_what_is_no_path(self, path: str) -> None:
        with pytest.raises(ValueError, match="path or a name"):
            PathExecutor(path)


class TestHoldingADescriptor:
    @pytest.mark.parametrize("hold", HOLDERS)
    def test_runs_the_original_after_it_was_unlinked_and_replaced(
        self, hold: Callable[[Path], FdExecutor], program: Path
    ) -> None:
        with hold(program) as executor:
            program.unlink()
            assert execute(executor) == 0
            shutil.copy("/bin/false", program)
            assert execute(executor) == 0
            assert executor.executable is not None

    @pytest.mark.parametrize("hold", HOLDERS)
    def test_keeps_the_name_of_the_file(self, hold: Callable[[Path], FdExecutor], program: Path) -> None:
        with hold(program) as executor:
            executable = executor.executable()
            assert executable.fd is not None
            os.close(executable.fd)
            assert executable.argv == ("runc",)

    @pytest.mark.parametrize("hold", HOLDERS)
    def test_gives_each_call_a_close_on_exec_descriptor_of_its_own(
        self, hold: Callable[[Path], FdExecutor], program: Path
    ) -> None:
        with hold(program) as executor:
            one, two = executor.executable().fd, executor.executable().fd
            assert one is not None
            assert two is not None
            assert len({one, two, executor.fileno()}) == 3
            assert fcntl.fcntl(one, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
            executor.close()
            os.close(two)
            assert os.fstat(one).st_size > 0
            os.close(one)

    @pytest.mark.parametrize("hold", HOLDERS)
    def test_after_close_it_gives_nothing(self, hold: Callable[[Path], FdExecutor], program: Path) -> None:
        executor = hold(program)
        executor.close()
        executor.close()
        assert executor.closed
        with pytest.raises(ExecutorError, match="closed"):
            executor.executable()
        with pytest.raises(ExecutorError, match="closed"):
            executor.fileno()

    def test_duplicates_the_descriptor_that_it_is_given(self, program: Path) -> None:
        with open(program, "rb") as file:
            executor = FdExecutor(file)
            with FdExecutor(file.fileno()) as other:
                assert other.fileno() not in (file.fileno(), executor.fileno())
        assert execute(executor) == 0
        executor.close()

    @pytest.mark.parametrize(
        ("make", "reason"),
        [
            (lambda folder: os.open(folder, os.O_RDONLY), "not a regular file"),
            (lambda folder: os.open(folder / "plain", os.O_RDONLY | os.O_CREAT, 0o644), "not executable"),
            (lambda folder: socket.socket().detach(), "not a regular file"),
        ],
        ids=["directory", "not executable", "socket"],
    )
    def test_refuses_descriptors_that_nobody_can_execute(
        self, make: Callable[[Path], int], reason: str, tmp_path: Path
    ) -> None:
        fd = make(tmp_path)
        try:
            with pytest.raises(ExecutorError, match=reason):
                FdExecutor(fd)
        finally:
            os.close(fd)

    def test_refuses_a_closed_descriptor(self, program: Path) -> None:
        fd = os.open(program, os.O_RDONLY)
        os.close(fd)
        with pytest.raises(OSError, match="Bad file descriptor") as caught:
            FdExecutor(fd)
        assert caught.value.errno == errno.EBADF

    @pytest.mark.parametrize("path", ["/usr/sbin/runc", b"runc", Path("runc")])
    def test_points_from_a_path_to_open(self, path: Any) -> None:
        with pytest.raises(TypeError, match=r"fd must be a descriptor, not a path: use FdExecutor\.open\("):
            FdExecutor(path)

    @pytest.mark.parametrize("hold", HOLDERS)
    def test_refuses_paths_that_lead_nowhere(self, hold: Callable[[Path], FdExecutor], tmp_path: Path) -> None:
        with pytest.raises(ExecutorError, match="missing: No such file"):
            hold(tmp_path / "missing")
        with pytest.raises(ExecutorError, match="not a regular file"):
            hold(tmp_path)
        with pytest.raises(ExecutorError, match="no such program on PATH"):
            hold(Path("no-such-runtime"))
        os.mkfifo(tmp_path / "fifo", 0o755)
        with pytest.raises(ExecutorError, match="not a regular file"):
            hold(tmp_path / "fifo")

    def test_close_races_with_other_threads_without_a_wrong_file(self, program: Path) -> None:
        for _ in range(50):
            executor = FdExecutor.open(program)
            size = os.fstat(executor.fileno()).st_size
            wrong: list[int] = []

            def use(executor: FdExecutor = executor, size: int = size, wrong: list[int] = wrong) -> None:
                try:
                    while True:
                        fd = executor.executable().fd
                        assert fd is not None
                        if os.fstat(fd).st_size != size:
                            wrong.append(fd)
                        os.close(fd)
                except ExecutorError:
                    pass

            threads = [threading.Thread(target=use) for _ in range(3)]
            for thread in threads:
                thread.start()
            executor.close()
            reused = [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]
            for thread in threads:
                thread.join()
            for fd in reused:
                os.close(fd)
            assert not wrong


class TestSealedExecutor:
    def test_has_exactly_the_seals_that_make_runc_take_it_for_its_clone(self, program: Path) -> None:
        with SealedExecutor.open(program) as executor:
            assert fcntl.fcntl(executor.fileno(), fcntl.F_GET_SEALS) == SEALS
            assert stat.S_IMODE(os.fstat(executor.fileno()).st_mode) == 0o511
            assert os.readlink(f"/proc/self/fd/{executor.fileno()}") == "/memfd:runc (deleted)"

    def test_cannot_be_altered(self, program: Path) -> None:
        with SealedExecutor.open(program) as executor:
            # As root the file can be opened for writing anew; the seals still hold.
            fd = os.open(f"/proc/self/fd/{executor.fileno()}", os.O_RDWR)
            try:
                for alter in (
                    lambda: os.write(fd, b"x"),
                    lambda: os.ftruncate(fd, 0),
                    lambda: os.ftruncate(fd, 1 << 30),
                ):
                    with pytest.raises(PermissionError):
                        alter()
            finally:
                os.close(fd)

    def test_takes_bytes(self, program: Path) -> None:
        data = program.read_bytes()
        with SealedExecutor.from_bytes(memoryview(data)) as executor:
            program.unlink()
            assert execute(executor) == 0
            assert executor.sha256 == hashlib.sha256(data).hexdigest()

    def test_checks_the_digest(self, program: Path) -> None:
        digest = hashlib.sha256(program.read_bytes()).hexdigest()
        SealedExecutor.open(program, sha256=digest.upper()).close()
        SealedExecutor.from_bytes(program.read_bytes(), sha256=digest).close()
        with pytest.raises(ExecutorError, match=f"sha256 is {digest}, not the expected {'0' * 64}"):
            SealedExecutor.open(program, sha256="0" * 64)
        with pytest.raises(ExecutorError, match="not the expected"):
            SealedExecutor.from_bytes(b"other", sha256=digest)
        with pytest.raises(ValueError, match="64 hexadecimal digits"):
            SealedExecutor.from_bytes(b"other", sha256="abc")

    def test_refuses_nothing_and_nonsense(self, tmp_path: Path) -> None:
        with pytest.raises(ExecutorError, match="empty"):
            SealedExecutor.from_bytes(b"")
        with pytest.raises(ValueError, match="plain file name"):
            SealedExecutor.from_bytes(b"x", name="a/b")
        with pytest.raises(TypeError, match=r"SealedExecutor\.open"):
            SealedExecutor(0)
        (tmp_path / "plain").write_bytes(b"x")
        with pytest.raises(ExecutorError, match="not executable"):
            SealedExecutor.open(tmp_path / "plain")


class TestTrust:
    """What root executes, nobody else may write."""

    @pytest.fixture(autouse=True)
    def as_root(self) -> None:
        if os.geteuid() != 0:
            pytest.skip("only root is careful: run the suite as root")

    @pytest.mark.parametrize("make", [lambda path: PathExecutor(path).executable(), *HOLDERS])
    def test_a_runtime_that_others_may_write_is_refused(self, make: Callable[[Path], object], program: Path) -> None:
        program.chmod(0o757)
        with pytest.raises(ExecutorError, match=r"runc: others may write or replace it \(.*/runc has mode 0757\)"):
            make(program)

    @pytest.mark.parametrize("make", [lambda path: PathExecutor(path).executable(), *HOLDERS])
    def test_a_directory_in_which_others_may_replace_it_is_refused(
        self, make: Callable[[Path], object], program: Path
    ) -> None:
        program.parent.chmod(0o777)
        with pytest.raises(ExecutorError, match=r"others may write or replace it \(\S+ has mode 0777\)"):
            make(program)

    def test_a_link_is_no_way_around(self, program: Path, tmp_path: Path) -> None:
        folder = tmp_path / "open"
        folder.mkdir(mode=0o700)
        moved = program.rename(folder / "runc")
        link = tmp_path / "link"
        link.symlink_to(moved)
        assert PathExecutor(link).executable().path == str(link)
        folder.chmod(0o777)
        with pytest.raises(ExecutorError, match="open has mode 0777"):
            PathExecutor(link).executable()

    def test_a_shared_directory_such_as_tmp_is_fine(self, program: Path) -> None:
        program.parent.chmod(0o1777)
        assert PathExecutor(program).executable().path == str(program)

    def test_a_descriptor_of_a_file_that_others_may_write_is_refused(self, program: Path) -> None:
        program.chmod(0o757)
        with program.open("rb") as file, pytest.raises(ExecutorError, match=r"others may write it \(mode 0757\)"):
            FdExecutor(file)

    def test_a_memory_file_is_nobody_elses(self, program: Path) -> None:
        fd = os.memfd_create("runc")
        os.write(fd, program.read_bytes())
        with FdExecutor(fd) as executor:
            assert stat.S_IMODE(os.fstat(executor.fileno()).st_mode) & stat.S_IWOTH
        os.close(fd)

    def test_a_digest_makes_up_for_who_may_write(self, program: Path) -> None:
        program.chmod(0o757)
        digest = hashlib.sha256(program.read_bytes()).hexdigest()
        with SealedExecutor.open(program, sha256=digest) as executor:
            assert execute(executor) == 0

    def test_a_runtime_of_another_user_is_logged_once(self, program: Path, caplog: pytest.LogCaptureFixture) -> None:
        os.chown(program, 54321, -1)
        for _ in range(2):
            assert PathExecutor(program).executable().path == str(program)
        assert [record.getMessage() for record in caplog.records] == [
            f"{program}: users other than root may write {program}, and so replace what root executes"
        ]

    def test_relative_entries_of_the_path_are_not_searched(
        self, program: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(program.parent)
        for path in (".", "", ".:", "../" + program.parent.name):
            monkeypatch.setenv("PATH", path)
            with pytest.raises(ExecutorError, match="no such program on PATH"):
                PathExecutor().executable()
            with pytest.raises(ExecutorError, match="no such program on PATH"):
                SealedExecutor.open("runc")
        monkeypatch.setenv("PATH", f".:{program.parent}")
        assert PathExecutor().executable().path == str(program)


def test_another_user_may_execute_what_others_may_write() -> None:
    ended = run_as_ordinary_user(
        """
        import shutil, tempfile
        from runc_async import PathExecutor
        with tempfile.TemporaryDirectory(dir="/tmp") as folder:
            runc = shutil.copy("/bin/true", f"{folder}/runc")
            os.chmod(runc, 0o777)
            os.chdir(folder)
            os.environ["PATH"] = "."
            print(PathExecutor().executable().path == runc)
            os.chdir("/")
        """
    )
    assert ended.stdout == "True\n", ended.stderr


def test_the_digest_is_of_what_was_sealed_though_the_buffer_changes_meanwhile(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytearray(program.read_bytes())
    write = os.write

    def write_and_change(fd: int, view: memoryview) -> int:
        try:
            return write(fd, view)
        finally:
            data[:4] = b"EVIL"

    monkeypatch.setattr(os, "write", write_and_change)
    with SealedExecutor.from_bytes(data) as executor:
        sealed = os.pread(executor.fileno(), len(data) + 1, 0)
    assert executor.sha256 == hashlib.sha256(sealed).hexdigest() == hashlib.sha256(program.read_bytes()).hexdigest()


def test_a_kernel_that_makes_no_executable_memory_files_is_named() -> None:
    program = """
        import os, sys
        sys.path.insert(0, os.getcwd())
        with open("/proc/sys/vm/memfd_noexec", "w") as file:
            file.write("2")
        from runc_async import ExecutorError, SealedExecutor
        try:
            SealedExecutor.open("/bin/true")
        except ExecutorError as exc:
            print(exc)
    """
    if not Path("/proc/sys/vm/memfd_noexec").exists():
        pytest.skip("needs the sysctl vm.memfd_noexec: Linux 6.3")
    ended = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "sysctl vm.memfd_noexec=2" in ended.stdout, ended.stderr


def test_without_proc_it_says_so() -> None:
    program = """
        import os, sys
        sys.path.insert(0, os.getcwd())
        from runc_async import ExecutorError, FdExecutor, Runc, SealedExecutor
        import anyio, ctypes
        executor = FdExecutor.open("/bin/true")
        async def call(executor):
            try:
                await Runc(executor).version()
            except ExecutorError as exc:
                print(exc)
        MNT_DETACH = 2
        assert ctypes.CDLL(None).umount2(b"/proc", MNT_DETACH) == 0
        anyio.run(call, executor)
        try:
            SealedExecutor.open("/bin/true")
        except ExecutorError as exc:
            print(exc)
    """
    ended = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False
    )
    assert ended.stdout.count("/proc is not mounted") == 2, ended.stderr
