"""Where a runtime puts the cgroups of a container: what follows from its specification, and from the caller's cgroups.

``linux.cgroupsPath`` is left to the runtime to interpret ("Control groups" in ``config-linux.md`` of the OCI runtime
specification), and runc and crun interpret it differently. The tests compare with what they do.
"""

from __future__ import annotations

import functools
import os
import posixpath
from typing import TYPE_CHECKING, NamedTuple

from .cgroups import HYBRID, ROOT, Hierarchy, hierarchies, parse_membership
from .procfs import read_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["container_cgroups"]

RUNC_CONTROLLERS = frozenset(
    {
        *("blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "hugetlb", "memory", "misc", "name=systemd"),
        *("net_cls", "net_prio", "perf_event", "pids", "rdma"),
    }
)
"""The hierarchies of v1 that runc joins."""


def container_cgroups(
    id: str,
    cgroups_path: str | None,
    runtime: str,
    *,
    systemd_cgroup: bool = False,
    rootless: bool | None = None,
) -> list[str]:
    """Which directories the cgroups of a container will be in, in every mounted hierarchy.

    Where a runtime has a second choice for a place that it cannot use, both are named. The top of a hierarchy (``"/"``)
    and the caller's own cgroup (``"."``) are never a container's. Reads ``/proc``; looks at no cgroup.

    :param id: the container's id.
    :param cgroups_path: ``linux.cgroupsPath`` of its specification; None if there is none.
    :param runtime: as it calls itself (``runc``, ``crun``). Of others nothing is known, and the list is empty.
    :param systemd_cgroup: whether systemd makes the cgroups.
    :param rootless: as given to the runtime; None is its own choice.
    """
    rule = RULES.get(runtime)
    if rule is None:
        return []
    own = parse_membership(read_file("/proc/thread-self/cgroup"))  # a child is in those of the thread that starts it
    rootless = os.geteuid() != 0 if rootless is None else rootless
    found: list[str] = []
    mounted = hierarchies()
    is_unified = any(hierarchy.point == ROOT and hierarchy.version == 2 for hierarchy in mounted)
    for hierarchy in mounted:
        if hierarchy.version == 2 and hierarchy.point != (ROOT if is_unified else HYBRID):
            continue
        if hierarchy.version == 1 and is_unified:
            continue
        place = _Place(id, cgroups_path, hierarchy, own.get(hierarchy.controllers, "/"), is_unified, rootless)
        inner = SYSTEMD_RULES[runtime](place) if systemd_cgroup else rule(place)
        paths = [posixpath.normpath(f"{hierarchy.point}/{path}") for path in inner]
        above = f"{hierarchy.path(place.own) or hierarchy.point}/"
        found += [path for path in paths if path.startswith(f"{hierarchy.point}/") and not above.startswith(f"{path}/")]
    return list(dict.fromkeys(found))


class _Place(NamedTuple):
    """What decides where a container's cgroup is in one hierarchy."""

    id: str
    cgroups_path: str | None
    hierarchy: Hierarchy
    own: str
    """The caller's cgroup in it."""
    is_unified: bool
    rootless: bool


def _runc(place: _Place) -> list[str]:
    hierarchy = place.hierarchy
    if hierarchy.version == 1 and not RUNC_CONTROLLERS.intersection(hierarchy.controllers):
        return []
    path = _clean(place.cgroups_path or place.id)
    if path.startswith("/"):
        return [path]
    if place.is_unified:  # a cgroup with processes gives its children no controllers, so it is made beside this one
        return [f"{posixpath.dirname(posixpath.normpath(place.own))}/{path}"]
    if hierarchy.version == 2:
        return [path]
    # As runc computes it, which is another place than the caller's own where the mount is from another namespace.
    return [f"{_relative(place.own, hierarchy.root)}/{path}"]


@functools.lru_cache
def _relative(cgroup: str, root: str) -> str:
    return posixpath.relpath(posixpath.normpath(cgroup), posixpath.normpath(root))


def _crun(place: _Place) -> list[str]:
    hierarchy = place.hierarchy
    if hierarchy.version == 1 and hierarchy.point not in _names_in_crun(hierarchy):
        return []
    if place.cgroups_path is not None:
        return [place.cgroups_path]
    if place.is_unified:  # where it may make none at the top, beside this one
        return [place.id, f"{posixpath.dirname(posixpath.normpath(place.own))}/{place.id}"]
    return [place.id]


def _names_in_crun(hierarchy: Hierarchy) -> Iterator[str]:
    """Where crun finds a hierarchy of v1: by its controllers, in one of two orders."""
    yield f"{ROOT}/{','.join(hierarchy.controllers).removeprefix('name=')}"
    yield f"{ROOT}/{','.join(reversed(hierarchy.controllers))}"


def _runc_systemd(place: _Place) -> list[str]:
    slice, prefix, name = "", "runc", place.id
    if place.cgroups_path:
        parts = place.cgroups_path.split(":")
        if len(parts) != 3:  # refused
            return []
        slice, prefix, name = parts
    unit = name if name.endswith(".slice") else f"{prefix}-{name}.scope"
    return [f"{_manager(place)}{_expand_slice(slice or _default_slice(place))}/{unit}"]


def _crun_systemd(place: _Place) -> list[str]:
    manager = _manager(place)
    if not place.cgroups_path:
        unit = f"crun-{place.id}.scope"
        if not manager:
            return [f"/system.slice/{unit}"]
        return [f"{manager}/app.slice/{unit}", f"{manager}/{unit}"]  # newer and older versions of systemd
    slice, separator, name = place.cgroups_path.partition(":")
    unit = f"{name.replace(':', '-', 1) if separator else slice}.scope"
    return [f"{manager}{_expand_slice(slice or _default_slice(place))}/{unit}"]


def _default_slice(place: _Place) -> str:
    return "user.slice" if place.rootless and place.is_unified else "system.slice"


def _manager(place: _Place) -> str:
    """The cgroup of the systemd that is asked: the system's own, or a user's."""
    if not (place.rootless and place.is_unified):
        return ""
    uid = os.geteuid()
    return f"/user.slice/user-{uid}.slice/user@{uid}.service"


def _expand_slice(name: str) -> str:
    """The path of a slice: ``a-b.slice`` is in ``a.slice`` (systemd.slice(5))."""
    parts = [part for part in name.removesuffix(".slice").split("-") if part]
    return "".join(f"/{'-'.join(parts[: count + 1])}.slice" for count in range(len(parts)))


def _clean(path: str) -> str:
    """A path without ``..`` that would leave its top: a relative one stays relative."""
    cleaned = posixpath.normpath(f"/{path}").replace("//", "/")
    return cleaned if path.startswith("/") else cleaned[1:]


RULES: Mapping[str, Callable[[_Place], list[str]]] = {"runc": _runc, "crun": _crun}
SYSTEMD_RULES: Mapping[str, Callable[[_Place], list[str]]] = {"runc": _runc_systemd, "crun": _crun_systemd}
