"""Images: an OCI image layout, unpacked by umoci."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import anyio
import anyio.to_thread
import msgspec

from .bundle import Bundle
from .default_spec import default_spec
from .mounts import check_mount_points
from .removal import remove_tree
from .rootfs import arriving, tool

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._cli.options import StrPath
    from .spec import Process, Spec, User

__all__ = ["Image", "unpack_image"]


class Image(msgspec.Struct, frozen=True):
    """An image that was unpacked by `unpack_image`.

    :ivar rootfs: its root file system.
    :ivar args: what it runs: its entrypoint and command.
    :ivar env: its environment.
    :ivar cwd: its working directory.
    :ivar user: ``uid:gid`` of its user, in numbers, as the image's own ``/etc/passwd`` has them.
    :ivar additional_gids: the further groups of that user, as the image's own ``/etc/group`` has them.
    """

    rootfs: Path
    args: list[str]
    env: dict[str, str]
    cwd: str
    user: str
    additional_gids: list[int]

    def spec(self, args: Sequence[str] | None = None, **keywords: Any) -> Spec:
        """`default_spec` with what the image says, where the keywords say nothing else.

        :param args: what to run instead of the image's own.
        :param keywords: those of `default_spec`; ``env`` adds to the image's. A rootless container has no other user
            than the caller, so the image's is then left out.
        """
        env: dict[str, str] = {**self.env, **(keywords.pop("env", None) or {})}
        rootless = keywords.get("rootless")
        mapped = os.geteuid() != 0 if rootless is None else rootless
        if not mapped and "user" not in keywords:
            keywords |= {"user": self.user, "additional_gids": self.additional_gids}
        keywords.setdefault("cwd", self.cwd)
        return default_spec(list(args) if args is not None else self.args, env=env, **keywords)


async def unpack_image(layout: StrPath, folder: StrPath, *, tag: str = "latest") -> Image:
    """Unpack an image of an OCI image layout, by the program umoci.

    Images come from registries into a layout by ``skopeo copy docker://NAME oci:LAYOUT:TAG``.

    :param layout: the layout's directory.
    :param folder: the directory to make; the root file system is ``rootfs`` in it. Only its owner can enter it, since
        an image may have set-user-id programs and device nodes, which are nothing for other users of the host.
    :param tag: the image's name in the layout.
    :returns: where it is, and what it is to run.
    :raises FileNotFoundError: umoci is missing; the message names the package.
    :raises FileExistsError: the directory exists.
    :raises ValueError: umoci could not unpack it (the message is umoci's), or ``dev``, ``proc``, ``sys`` or ``tmp``
        in it is not a directory. Nothing is left of it.
    """
    umoci = tool("umoci", "umoci")
    wanted = Path(os.path.abspath(folder))
    async with arriving(folder, 0o700) as partial:
        command = [umoci, "unpack", *(["--rootless"] if os.geteuid() != 0 else []), "--image"]
        unpacked = partial / "unpacked"
        ended = await anyio.run_process([*command, f"{os.fspath(layout)}:{tag}", str(unpacked)], check=False)
        if ended.returncode:
            words = ended.stderr.decode(errors="replace").strip() or f"umoci ended with status {ended.returncode}"
            raise ValueError(f"{os.fspath(layout)}:{tag}: {words}")
        try:
            check_mount_points(unpacked / "rootfs")
        except ValueError as error:
            raise ValueError(f"{os.fspath(layout)}:{tag}: {error}") from None
        process = cast("Process", Bundle.load(unpacked).spec.get("process") or {"cwd": "/"})
        os.rename(unpacked / "rootfs", partial / "rootfs")
        await anyio.to_thread.run_sync(remove_tree, unpacked)
    user: User = process.get("user") or {"uid": 0, "gid": 0}
    return Image(
        rootfs=wanted / "rootfs",
        args=process.get("args", []),
        env=dict(line.split("=", 1) for line in process.get("env", []) if "=" in line),
        cwd=process["cwd"],
        user=f"{user['uid']}:{user['gid']}",
        additional_gids=user.get("additionalGids", []),
    )
