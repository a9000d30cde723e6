"""How the processes of a run share its volumes: a volume each, or slabs of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist

from lightning_mbir.data.measurements.measurement import Measurement
from lightning_mbir.data.measurements.own_layout import COUPLED
from lightning_mbir.data.volumes.volume import Volume
from lightning_mbir.errors import InputError
from lightning_mbir.methods.plans import Plan
from lightning_mbir.prior import SliceDenoiser
from lightning_mbir.reconstruction.record import gathered
from lightning_mbir.slabs import WHOLE, Slab


def processes_a_volume(split: str, volumes: int, processes: int) -> int:
    """How many processes share a volume.

    Args:
        split: ``slices``: all of them; ``volumes``: each has its own; ``auto``: as many as there are for each volume
            where volumes are fewer, in groups of one size.
        volumes, processes: how many there are.
    """
    if split == "slices":
        return processes
    if split == "volumes" or volumes >= processes:
        return 1
    return processes // max(n for n in range(1, volumes + 1) if processes % n == 0)


@dataclass(frozen=True)
class Sharing:
    """Who works on what: processes that follow each other share a volume.

    Attributes:
        each: processes of a volume.
        processes: all of them.
        own: the number of this one.
        group: of those that share a volume with it; none where that is all of them.
    """

    each: int = 1
    processes: int = 1
    own: int = 0
    group: Any = None

    @property
    def groups(self) -> int:
        """How many volumes are worked on at a time."""
        return self.processes // self.each

    @property
    def number(self) -> int:
        """The number of this process's group."""
        return self.own // self.each

    @property
    def first(self) -> bool:
        """Whether this process is the one of its group that writes."""
        return self.own % self.each == 0

    def slab(self, scan: Volume | Measurement) -> Slab:
        """What this process holds of a volume or a measurement."""
        if self.each == 1:
            return WHOLE
        depth = len(scan.y) if isinstance(scan, Measurement) else len(scan.data)
        start = self.number * self.each
        return Slab(depth, self.own - start, tuple(range(start, start + self.each)), self.group)


def share(each: int, names: Sequence[str]) -> Sharing:
    """Bring the processes of a run together, all of which come here once.

    Args:
        each: processes a volume.
        names: of the volumes, in their order.

    Raises:
        InputError: processes that see other volumes.
    """
    own, processes = dist.get_rank(), dist.get_world_size()
    seen = gathered([each, *names], processes)
    for rank, (other, *others) in enumerate(seen):
        if [other, *others] != seen[0]:
            raise InputError(
                f"process 0 sees {_told(seen[0][1:])}, process {rank} {_told(others)}; give all the same --data.path"
            )
    sharing = Sharing(each, processes, own)
    if sharing.groups == 1 or each == 1:
        return sharing
    groups = [dist.new_group(list(range(k, k + each))) for k in range(0, processes, each)]
    return Sharing(each, processes, own, groups[sharing.number])


def check_split(
    each: int,
    depths: Sequence[int],
    scan: Volume | Measurement | None,
    plans: Sequence[Plan],
    second: SliceDenoiser | None,
) -> None:
    """Raise where volumes cannot be shared, before the work.

    Args:
        each: processes a volume.
        depths: slices of all volumes.
        scan: the measurement, where there is one.
        plans: what is run.
        second: the prior of coronal slices, where there is one.

    Raises:
        InputError: fewer slices than processes; what needs whole volumes.
    """
    if min(depths) < each:
        raise InputError(
            f"{each} processes for a volume of {min(depths)} slices; give --trainer.devices {min(depths)} or fewer"
        )
    reason = ""
    if isinstance(scan, Measurement) and scan.geometry.get("beam") in COUPLED:
        reason = f"a {scan.geometry['beam']} beam measures all slices together"
    for plan in plans:
        names = [plan.method] if plan.choice is None else [c.method for c in plan.choice.candidates]
        if not plan.chosen.splits:
            reason = f"{plan.method} does not say that it can do with some of the slices (splits=True)"
        if "l1_wavelet" in names and "z" in plan.options.get("axes", ""):
            reason = "wavelets along z are those of whole volumes"
        if "second_prior" in plan.chosen.needs and second is not None and second.slices > 1:
            reason = "the second prior is of neighbouring slices, not all of which are with one process"
    if reason:
        raise InputError(f"{reason}; give --split volumes, with --trainer.devices {len(depths)} or fewer")


def _told(names: Sequence[object]) -> str:
    return f"{len(names)} volumes ({', '.join(map(str, names[:3]))}{', ...' if len(names) > 3 else ''})"
