"""How much memory is left, on a GPU, on a machine, and in the share of it that a container or a batch job was given."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from lightning_mbir.errors import InputError

MEMINFO, CGROUPS, OWN_CGROUPS = Path("/proc/meminfo"), Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
LIMITS = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""Files of a control group, versions 2 and 1: the limit, the use, and what of the use is cached files (see
``memory.stat``), which the kernel gives up when asked."""
ALWAYS_FREE = 16 << 20
"""Bytes that are not worth asking for."""


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on the device."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + cached)
    rooms = [room for folder in _cgroups() if (room := _cgroup_room(folder)) is not None]
    return min([_machine_memory("MemAvailable"), *rooms])


def total_memory(device: torch.device) -> int:
    """Bytes that a GPU has, or that this process may take of a machine: unlike those that are free, the same today and
    tomorrow."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    limits = [limit for folder in _cgroups() if (limit := _cgroup_limit(folder)) is not None]
    return min([_machine_memory("MemTotal"), *limits])


def check_fits(what: str, size: float, right: str) -> None:
    """Refuse what would take more than the machine's memory that is free, before it is made.

    Args:
        what: what takes it, for the message.
        size: bytes.
        right: what would be right, for the message.

    Raises:
        InputError: it does not fit.
    """
    if size < ALWAYS_FREE:
        return
    free = free_memory(torch.device("cpu"))
    if size > free:
        raise InputError(
            f"{what}: takes {size / 2**30:,.1f} GiB of memory, of which {free / 2**30:,.1f} are free; {right}"
        )


def _machine_memory(field: str) -> int:
    """Of ``/proc/meminfo``; elsewhere half of what there is."""
    try:
        lines = MEMINFO.read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
    except (OSError, StopIteration):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):
        return 4 << 30


def _cgroups() -> list[Path]:
    """Control groups that may limit this process: what a container sees as the root, and the process's own with all
    above it."""
    folders = {CGROUPS, CGROUPS / "memory"}
    try:
        lines = OWN_CGROUPS.read_text().splitlines()
    except OSError:
        return sorted(folders)
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" or "memory" in controllers.split(","):
            own = (CGROUPS if number == "0" else CGROUPS / "memory") / path.lstrip("/")
            folders |= {own, *(parent for parent in own.parents if CGROUPS in parent.parents)}
    return sorted(folders)


def _cgroup_room(folder: Path) -> int | None:
    """What a control group may still take; None if it has no limit."""
    for limit, used, cached in LIMITS:
        try:
            most = int((folder / limit).read_text())  # "max" without one
            taken = int((folder / used).read_text())
            lines = (folder / "memory.stat").read_text().splitlines()
        except (OSError, ValueError):
            continue
        given_up = next((int(line.split()[1]) for line in lines if line.startswith(f"{cached} ")), 0)
        return max(0, most - taken + given_up)
    return None


def _cgroup_limit(folder: Path) -> int | None:
    """What a control group may take in all; None if it has no limit."""
    for limit, _, _ in LIMITS:
        try:
            return int((folder / limit).read_text())
        except (OSError, ValueError):
            continue
    return None
