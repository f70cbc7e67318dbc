"""Records what a runtime prints, for `test_models.py`: ``python -m tests.record_samples [RUNTIME]``.

Writes ``tests/data/runtimes/RUNTIME-VERSION/``: the version, the features, the flags of every command as its help has
them, and of one running container the state, the list and the statistics, once per version of cgroups.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from runc_async._models import parse_version

from .cli.test_commands import documented_commands, documented_flags
from .conftest import minimal_spec

DATA = Path(__file__).parent / "data" / "runtimes"
PLACE = Path("/tmp/sample")
"""Where the container is, so that a sample says nothing about the machine."""


def main(runtime: str) -> None:
    """Record everything that this runtime prints here."""

    def say(*args: str) -> str:
        words = [runtime, "--root", str(PLACE / "state"), *args]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            print(" ".join(words), "failed:", done.stderr.strip())
        return done.stdout if done.returncode == 0 else ""

    version = say("--version")
    found = parse_version(version)
    folder = DATA / f"{found.runtime}-{'.'.join(map(str, found.release))}"
    cgroups = "v2" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "v1"
    folder.mkdir(parents=True, exist_ok=True)

    def keep(name: str, text: str) -> None:
        if text:
            (folder / name).write_text(text.rstrip() + "\n")

    keep("version.txt", version)
    keep("features.json", say("features"))
    text = say("--help")
    flags = {"": [flag.name for flag in documented_flags(text)]}
    for command in documented_commands(text):
        flags[command] = [flag.name for flag in documented_flags(say(command, "--help"))]
    keep("flags.json", json.dumps({name: sorted(set(flags[name])) for name in sorted(flags)}, indent=1))

    rootfs = PLACE / "rootfs"
    for sub in ("bin", "dev", "proc", "sys", "tmp"):
        (rootfs / sub).mkdir(parents=True, exist_ok=True)
    shutil.copy(shutil.which("busybox") or "/bin/busybox", rootfs / "bin/busybox")
    spec = minimal_spec(["busybox", "sleep", "100"], rootfs)
    spec["annotations"] = {"org.example.key": "value"}
    if cgroups == "v1":
        spec["linux"]["resources"] = {
            "memory": {"limit": 64 << 20},
            "cpu": {"quota": 50000, "period": 100000},
            "pids": {"limit": 50},
        }
    bundle = PLACE / "bundle"
    bundle.mkdir(exist_ok=True)
    (bundle / "config.json").write_text(json.dumps(spec))
    for id in ("sample", "created"):
        subprocess.run(
            [runtime, "--root", PLACE / "state", "create", "--bundle", bundle, id],
            check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    try:
        say("start", "sample")
        keep(f"state-{cgroups}.json", say("state", "sample"))
        keep(f"list-{cgroups}.json", say("list", "--format", "json"))
        keep(f"stats-{cgroups}.json", say("events", "--stats", "sample"))
        keep(f"ps-{cgroups}.json", say("ps", "--format", "json", "sample"))
    finally:
        for id in ("sample", "created"):
            say("delete", "--force", id)
        shutil.rmtree(PLACE)


if __name__ == "__main__":
    main(*(sys.argv[1:] or [os.environ.get("RUNC_ASYNC_RUNTIME", "runc")]))
