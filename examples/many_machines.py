"""A stream of jobs in containers, on this machine or on many: three lines differ.

    python examples/many_machines.py /srv/rootfs                                      on this machine
    python examples/many_machines.py /srv/rootfs --scheduler tls://scheduler:8786     on the workers of a Dask cluster

Each job looks for prime numbers in a range, with half a CPU and 32 MB. Where the workers' hosts have no runtime, this
machine's own travels to them (`--carry`). The root file system must be at the same path on each.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections import Counter
from pathlib import Path

import anyio
from distributed import Client, LocalCluster
from distributed.security import Security

from runc_async import default_spec
from runc_async.contrib.dask import ContainerPlugin, Containers, Job, Result

SCRIPT = 'seq $1 $2 | factor | awk "NF == 2" | wc -l'


def job(number: int, options: argparse.Namespace) -> Job:
    """One range of a thousand numbers."""
    first = number * 1000
    args = ["sh", "-c", SCRIPT, "sh", str(first), str(first + 999)]
    return Job(default_spec(args, memory="32M", cpus=0.5), options.rootfs, name=f"{options.name}-{first}", timeout=60)


async def on_this_machine(options: argparse.Namespace) -> int:
    """A scheduler and a worker in this process."""
    async with (
        LocalCluster(n_workers=1, processes=False, asynchronous=True, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster, asynchronous=True) as client,
    ):
        return await run(client, ContainerPlugin(options.runtime, state=options.state), options)


async def on_many(options: argparse.Namespace) -> int:
    """Those that have joined the scheduler, now or later."""
    security = Security(**{f"tls_{name}": value for name, value in vars(options).items() if name in TLS and value})
    async with Client(options.scheduler, security=security, asynchronous=True) as client:
        path: str = options.runtime
        runtime = Path(shutil.which(path) or path).read_bytes() if options.carry else path
        return await run(client, ContainerPlugin(runtime, state=options.state), options)


async def run(client: Client, plugin: ContainerPlugin, options: argparse.Namespace) -> int:
    """The jobs, and what comes of them: the same everywhere."""
    containers = Containers(client)
    await containers.prepare(plugin)
    primes = failed = 0
    workers: Counter[str] = Counter()
    async with containers.results(job(number, options) for number in range(options.number)) as results:
        async for done, result in results:
            if isinstance(result, Result) and result.status == 0:
                primes += int(result.stdout)
                workers[result.worker] += 1
            else:
                failed += 1
                print(f"{done.name}: {result}", file=sys.stderr)
    print(f"{primes} primes below {options.number * 1000}; jobs by worker: {dict(workers)}; failed: {failed}")
    return 1 if failed else 0


TLS = ("ca_file", "client_cert", "client_key")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Prime numbers, by containers on one machine or many.")
    parser.add_argument("rootfs", help="a root file system with a busybox, at this path on every machine")
    parser.add_argument("-n", "--number", type=int, default=50, help="how many jobs (default: %(default)s)")
    parser.add_argument("--scheduler", help="address of a Dask scheduler; without it, this machine alone")
    parser.add_argument("--runtime", default="runc", help="path or name (default: %(default)s)")
    parser.add_argument("--carry", action="store_true", help="send this machine's runtime to the workers")
    parser.add_argument("--state", help="directory of container states on each machine")
    parser.add_argument("--name", default="primes", help="of the jobs (default: %(default)s)")
    for name in TLS:
        parser.add_argument(f"--tls-{name.replace('_', '-')}", dest=name, help="a PEM file")
    options = parser.parse_args()
    return anyio.run(on_many if options.scheduler else on_this_machine, options)


if __name__ == "__main__":
    sys.exit(main())
