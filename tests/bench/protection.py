"""`Container.run` where the runtime can protect itself by overlayfs, and where it cannot; run in the sid root.

python -m tests.bench.protection FILE ROUNDS: writes what was measured, as JSON.

runc 1.2 and newer executes itself in a container from a read-only overlayfs, where that can be mounted; else, and
older ones always, from a copy in memory, made for every call. A sealed copy it takes for that one.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

from .cases import Field
from .contenders import interleaved
from .place import place, runtime_path

WHERE = {"can": False, "cannot": True}
"""To `place`'s parameter."""


def main() -> None:
    file, rounds = sys.argv[1:]
    with contextlib.ExitStack() as stack:
        ways = {}
        for where, below in WHERE.items():
            here = Field(stack.enter_context(place(below_the_binary=below)), stack)
            for way in (*here.ours(loops=["asyncio"]), *here.go()):
                ways[where, way.name] = way
        order = [way._replace(name=f"{where}: {name}") for (where, name), way in ways.items()]
        found = interleaved(order, "run", rounds=int(rounds), times=3)
    runtime = subprocess.run([runtime_path(), "--version"], capture_output=True, text=True, check=True).stdout
    said = {
        "runtime": runtime.splitlines()[0].replace(" version", ""),
        "python": sys.version.split()[0],
        "found": {where: {name: found[f"{where}: {name}"] for w, name in ways if w == where} for where in WHERE},
    }
    Path(file).write_text(json.dumps(said))


if __name__ == "__main__":
    main()
