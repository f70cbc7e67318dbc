"""What the runtime says of itself, and what is known of its version."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from .._cli.quirks import OLDEST, known_vulnerabilities
from .._errors import RuncError, UnsupportedError
from .line import PATIENCE, Line, describe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._client import Runc
    from .._models import Version

__all__ = ["check_features", "check_version", "check_vulnerabilities"]

TESTED = frozenset({"runc", "crun", "runsc"})


async def check_version(runc: Runc) -> tuple[Version | None, Line]:
    """Ask the runtime for its name and version; None if it cannot tell."""
    name = "version"
    try:
        with anyio.fail_after(PATIENCE):
            version = await runc.version()
    except (RuncError, OSError) as exc:
        return None, Line(name, "bad", describe(exc), "install a working runc or crun for this machine")
    if not version.runtime:
        said = version.text.strip().partition("\n")[0]
        return version, Line(name, "warning", f"unknown: it says {said!r}", "it is treated as runc: see Runc(dialect=)")
    found = f"{version.runtime} {version.version}, specification {version.spec or 'unknown'}"
    oldest = OLDEST.get(version.runtime)
    if version.runtime not in TESTED:
        return version, Line(name, "warning", found, "only runc, crun and gVisor's runsc are tested")
    if oldest is not None and version.release < oldest:
        advice = f"{version.runtime} {'.'.join(map(str, oldest))} is the oldest one tested"
        return version, Line(name, "warning", found, advice)
    return version, Line(name, "good", found)


def check_vulnerabilities(version: Version | None) -> Iterator[Line]:
    """Look up the published holes of a version; nothing is said of a runtime that is not in the table."""
    name = "vulnerabilities"
    if version is None or version.runtime not in OLDEST:
        return
    holes = known_vulnerabilities(version.runtime, version.release)
    if holes:
        found = ", ".join(hole.name for hole in holes)
        fixed = max(hole.fixed[-1] for hole in holes)
        advice = (
            f"{version.runtime} {'.'.join(map(str, fixed))} has none of these. A distribution may have closed them "
            "without a new version number: see its change log, and docs/security"
        )
        yield Line(name, "warning", found, advice)
    else:
        yield Line(name, "good", "none known of this version")


async def check_features(runc: Runc) -> Line:
    """Ask the runtime what it was built with."""
    name = "features"
    try:
        with anyio.fail_after(PATIENCE):
            linux = (await runc.features()).linux
    except UnsupportedError:
        return Line(name, "warning", "the runtime does not tell", "runc 1.1 and crun 1.8.6 are the first to")
    except (RuncError, OSError) as exc:
        return Line(name, "warning", describe(exc), "")
    if linux is None:
        return Line(name, "warning", "nothing is said about Linux")
    cgroup, seccomp = linux.cgroup, linux.seccomp
    parts = [
        f"cgroup {' and '.join(v for v in ('v1', 'v2') if cgroup and getattr(cgroup, v))}",
        f"{len(linux.namespaces or ())} kinds of namespaces",
    ]
    if seccomp is None or not seccomp.enabled:
        advice = 'default_spec(..., seccomp="unconfined"), or a runtime that was built with libseccomp'
        return Line(name, "warning", ", ".join([*parts, "no seccomp"]), advice)
    return Line(name, "good", ", ".join([*parts, "seccomp"]))
