"""What `default_spec` says of namespaces: which there are, which ids a user namespace has, which knobs may be set."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .._cli.validation import MOST_ID, check_type

if TYPE_CHECKING:
    from .._cli.options import StrPath
    from .spec import IDMapping, Namespace

__all__ = ["map_ids", "network_namespace", "new_namespaces", "parse_sysctl"]

IN_IPC_NAMESPACE = re.compile(
    r"fs\.mqueue\..+|kernel\.(msgmax|msgmnb|msgmni|sem|shmall|shmmax|shmmni|shm_rmid_forced|auto_msgmni"
    r"|msg_next_id|sem_next_id|shm_next_id)"
)


def network_namespace(network: StrPath) -> Namespace | None:
    """The namespace that the parameter ``network`` asks for; None is the host's.

    :raises TypeError: it is neither str nor a path.
    :raises ValueError: it is neither ``none``, ``host`` nor the absolute path of a file.
    """
    check_type("network", network, str, os.PathLike)
    name = os.fspath(network)
    if name == "none":
        return {"type": "network"}
    if name == "host":
        return None
    if "\0" in name or not os.path.isabs(name) or not os.path.exists(name):
        raise ValueError(f"network must be 'none', 'host' or the path of a network namespace that exists, not {name!r}")
    return {"type": "network", "path": name}


def new_namespaces(network: Namespace | None, user: bool) -> list[Namespace]:
    """All namespaces of a container.

    :param network: the network namespace; None is the host's.
    :param user: whether there is a user namespace.
    """
    namespaces: list[Namespace] = [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}]
    namespaces.append({"type": "cgroup"})
    if network is not None:
        namespaces.append(network)
    if user:
        namespaces.append({"type": "user"})
    return namespaces


def map_ids(rootless: bool, ids: range | None) -> tuple[list[IDMapping], list[IDMapping]]:
    """The mappings of users and of groups in the user namespace; empty without one.

    :param rootless: whether root in the container is the caller.
    :param ids: the ids on the host for the container's own: from 0 on, and if `rootless` from 1 on.
    :raises TypeError: the ids are not a range.
    :raises ValueError: the range is empty, has another step than 1, or ids that cannot be.
    """
    first: list[list[IDMapping]] = [[], []]
    if rootless:
        first = [[{"containerID": 0, "hostID": own, "size": 1}] for own in (os.geteuid(), os.getegid())]
    if ids is None:
        return first[0], first[1]
    check_type("user_namespace", ids, range, None, wanted="a range of ids")
    if not ids or ids.step != 1 or not 0 <= ids[0] <= ids[-1] <= MOST_ID:
        raise ValueError(f"user_namespace must be a range of ids on the host, such as range(100000, 165536), not {ids}")
    if ids[0] == 0:
        raise ValueError(f"user_namespace: {ids} has id 0 in it, which is root of the host")
    rest: IDMapping = {"containerID": int(rootless), "hostID": ids[0], "size": len(ids)}
    return [*first[0], {**rest}], [*first[1], {**rest}]


def parse_sysctl(sysctl: Mapping[str, str | int] | None, network: Namespace | None) -> dict[str, str]:
    """Read the parameter ``sysctl``: only what belongs to a namespace of the container.

    :raises TypeError: it is not a mapping of str to str or int.
    :raises ValueError: a name that is the host's, or cannot be.
    """
    if sysctl is None:
        return {}
    check_type("sysctl", sysctl, Mapping, wanted="a mapping of names to values")
    found: dict[str, str] = {}
    for name, value in sysctl.items():
        check_type("sysctl", name, str)
        check_type(f"sysctl: {name}", value, str, int)
        if not re.fullmatch(r"[a-zA-Z0-9_][a-zA-Z0-9_/.-]*", name) or ".." in name:
            raise ValueError(f"sysctl: {name!r} cannot be a name: write it as in sysctl(8), such as net.core.somaxconn")
        text = str(value)
        if "\0" in text or "\n" in text:
            raise ValueError(f"sysctl: {name}: {text!r} cannot be a value")
        is_of_network = name.startswith("net.")
        if is_of_network and network is None:
            raise ValueError(f"sysctl: {name} would change the host, since network is 'host'")
        if not is_of_network and not IN_IPC_NAMESPACE.fullmatch(name):
            raise ValueError(f"sysctl: {name} does not belong to a namespace: it would change the host")
        found[name] = text
    return found
