"""Machines for a cluster: network namespaces with addresses of their own, on one bridge, some with a root of their own.

Nothing has a name outside: each namespace lives as long as a process that sleeps in it, its devices with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).parents[3]
SETTINGS = {
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "1s",  # Dask makes ten heartbeats of it: 5 s
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "11s",  # the least that it takes
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "3s",
}


def environment(folder: Path) -> dict[str, str]:
    """For Dask's processes; a folder for what they leave there."""
    # A worker that is killed cannot remove its temporary files.
    temporary = {"DASK_TEMPORARY_DIRECTORY": str(folder), "TMPDIR": str(folder), "XDG_RUNTIME_DIR": ""}
    return {**os.environ, **SETTINGS, **temporary}


def require_ip() -> None:
    """Fail, with the way out, where there is no ``ip``."""
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    if shutil.which("ip") is None:
        pytest.fail("no ip found: `apt-get install iproute2`")


class Namespace:
    """A network namespace."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; exec sleep infinity"], stdout=-1)
        assert self._holder.stdout is not None
        self._holder.stdout.readline()
        self.pid = self._holder.pid
        self.ip("link set lo up")

    def inside(self, *command: object) -> list[str]:
        """What runs a command in here."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", *map(str, command)]

    def ip(self, *lines: str) -> None:
        """``ip`` in here, one command a line."""
        subprocess.run(self.inside("ip", "-batch", "-"), input="\n".join(lines), text=True, check=True)

    def close(self) -> None:
        """The namespace goes when the last process in it has ended."""
        assert self._holder.stdout is not None
        self._holder.stdout.close()
        self._holder.kill()
        self._holder.wait()


class Machine:
    """A host: an address, a directory of states, and a worker that is started and killed."""

    def __init__(self, number: int, network: Network, folder: Path, without: Path | None) -> None:
        self.number = number
        self.folder = folder / f"machine-{number}"
        self.folder.mkdir()
        self.state = self.folder / "state"
        self.address = f"{network.subnet}.{number + 1}"
        self.scheduler = network.scheduler
        self._network = network
        self._without = without
        self._worker: subprocess.Popen[bytes] | None = None
        self._namespace = Namespace()
        network.hub.ip(
            f"link add m{number} type veth peer name eth0 netns {self._namespace.pid}",
            f"link set m{number} master bridge up",
        )
        self._namespace.ip(f"address add {self.address}/24 dev eth0", "link set eth0 up")

    def start(self, *launcher: str) -> None:
        """Start a worker, below some other program; when the scheduler knows it is the client's business."""
        worker = [
            sys.executable, "-m", "distributed.cli.dask_worker", self.scheduler, "--no-nanny", "--no-dashboard",
            "--host", self.address, "--nthreads", 4, "--name", f"machine-{self.number}",
        ]  # fmt: skip
        if self._without is not None:
            worker = ["unshare", "--mount", sys.executable, __file__, self.folder, self._without, *worker]
        with open(self.folder / "log", "ab") as log:
            self._worker = subprocess.Popen(
                self._namespace.inside(*launcher, *worker),
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=environment(self.folder),
            )

    @property
    def log(self) -> str:
        """What its workers have said."""
        return (self.folder / "log").read_text()

    def containers(self) -> list[str]:
        """The ids of the containers on it, whoever began them."""
        return [os.path.basename(path) for path in glob.glob(f"{self.folder}/state/*/containers/*")]

    def kill(self) -> None:
        """SIGKILL its worker."""
        assert self._worker is not None
        self._worker.kill()
        self._worker.wait()

    def wait(self) -> None:
        """Wait until its worker has ended by itself."""
        assert self._worker is not None
        self._worker.wait(60)

    def cut(self) -> None:
        """Nothing reaches it any more, and nothing leaves it."""
        self._network.hub.ip(f"link set m{self.number} down")

    def heal(self) -> None:
        """It is connected again."""
        self._network.hub.ip(f"link set m{self.number} up")

    def close(self) -> None:
        """Ask its worker to end, and wait."""
        worker, self._worker = self._worker, None
        try:
            if worker is not None and worker.poll() is None:
                below = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
                for pid in below or [worker.pid]:  # unshare hands no signal on
                    os.kill(int(pid), signal.SIGTERM)
                worker.wait(30)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
            raise
        finally:
            self._namespace.close()


class Network:
    """A bridge in a namespace of its own, where the scheduler runs, too; this host has an address on it."""

    def __init__(self, folder: Path) -> None:
        self.subnet = f"10.{os.getpid() % 200 + 50}.{os.getpid() // 200 % 250}"
        self.folder = folder
        self.hub = Namespace()
        mine = f"dask{os.getpid()}"
        self.hub.ip(
            "link add bridge type bridge",
            f"address add {self.subnet}.1/24 dev bridge",
            "link set bridge up",
            f"link add host type veth peer name {mine} netns {os.getpid()}",
            "link set host master bridge up",
        )
        subprocess.run(["ip", "address", "add", f"{self.subnet}.254/24", "dev", mine], check=True)
        subprocess.run(["ip", "link", "set", mine, "up"], check=True)
        self.scheduler = f"tcp://{self.subnet}.1:8786"
        command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", f"{self.subnet}.1"]
        with open(folder / "scheduler.log", "ab") as log:
            self._scheduler = subprocess.Popen(
                self.hub.inside(*command, "--port", 8786, "--dashboard-address", ":0"),
                stdout=log, stderr=log, cwd=folder, env=environment(folder),
            )  # fmt: skip

    def close(self) -> None:
        """End the scheduler and remove the bridge; the devices go with their namespace."""
        self._scheduler.terminate()
        self._scheduler.wait(30)
        self.hub.close()


@contextlib.contextmanager
def machines(count: int, folder: Path, runtime: Path) -> Iterator[list[Machine]]:
    """So many machines with a scheduler; no worker is started yet. The last one's root has not this runtime."""
    with contextlib.ExitStack() as stack:
        network = Network(folder)
        stack.callback(network.close)
        made: list[Machine] = []
        for number in range(1, count + 1):
            made.append(Machine(number, network, folder, without=runtime if number == count else None))
            stack.callback(made[-1].close)
        yield made


# -- run in a mount namespace of its own: a root that lacks the runtime ----------------------------------------------


def compose(source: Path, target: Path, without: Path) -> None:
    """Make a directory of all that is in another, but for one file, without copying any."""
    target.mkdir(exist_ok=True)
    for entry in os.scandir(source):
        path, made = Path(entry.path), target / entry.name
        if path == without:
            continue
        if entry.is_symlink():
            made.symlink_to(os.readlink(path))
        elif without.is_relative_to(path):
            compose(path, made, without)
        else:
            made.mkdir() if entry.is_dir() else made.touch()
            mount(path, made, MS_BIND | MS_REC)


MS_BIND, MS_REC, MNT_DETACH = 4096, 16384, 2


def mount(source: Path, target: Path, flags: int, kind: bytes = b"none") -> None:
    """``mount(2)``."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(bytes(source), bytes(target), kind, flags, None) != 0:
        raise OSError(ctypes.get_errno(), f"mount {source} {target}")


def enter(folder: Path, without: Path, command: list[str]) -> None:
    """Go into such a root, and become a command there."""
    root = folder / "root"
    root.mkdir(exist_ok=True)
    mount(Path("root"), root, 0, b"tmpfs")
    compose(Path("/"), root, without)
    here = os.getcwd()
    os.chdir(root)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.pivot_root(b".", b".") != 0 or libc.umount2(b".", MNT_DETACH) != 0:
        raise OSError(ctypes.get_errno(), f"{root} cannot become the root")
    os.chdir(here)
    if without.exists():
        raise FileExistsError(without)
    os.execv(command[0], command)


if __name__ == "__main__":
    enter(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
