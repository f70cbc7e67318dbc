"""Errors of task groups."""

from __future__ import annotations

from typing import cast

__all__ = ["unwrap"]


def unwrap(error: BaseException) -> BaseException:
    """Give the one error of a group, and of groups in it; the group itself if there are several."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    group = cast("BaseExceptionGroup[BaseException]", error)
    return unwrap(group.exceptions[0]) if len(group.exceptions) == 1 else group
