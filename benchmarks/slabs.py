"""One volume over 1, 2 and 4 processes: what crosses between them a level, against the formula, and what each needs.

    python benchmarks/slabs.py --slices 64 --size 128 --levels 3

`dds` at 8 views, a thread a process, gloo. A prior of Gaussian pixels stands for the network, which takes the memory of
a slice batch, however many slices there are. Processor seconds are of all that a process does in a level but the
network, so that other work on the machine does not count; `speed-up` is how many times less that is than for one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lightning_mbir.methods.run import run_method
from lightning_mbir.physics import ParallelBeam
from lightning_mbir.prior import Unit
from lightning_mbir.reconstruction.memory import PeakMemory
from lightning_mbir.slabs import Slab, gathered, holding

CG = 15


class Shrinkage:
    """Posterior mean of Gaussian pixels."""

    unit = Unit.of("ct")

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        return (x - 0.3).mul_(0.25 / (0.25 + sigma**2)).add_(0.3)


class Traffic:
    """Counts what this process receives of others, as long as the context."""

    def __init__(self) -> None:
        self.bytes = self.exchanges = self.sums = 0

    def __enter__(self) -> Traffic:
        self._before = dist.batch_isend_irecv, dist.all_reduce

        def exchange(ops: list[Any]) -> Any:
            self.exchanges += 1
            self.bytes += sum(op.tensor.nbytes for op in ops if op.op is dist.irecv)
            return self._before[0](ops)

        def add(tensor: Tensor, *args: Any, **options: Any) -> Any:
            self.sums += 1
            self.bytes += tensor.nbytes
            return self._before[1](tensor, *args, **options)

        dist.batch_isend_irecv, dist.all_reduce = exchange, add
        return self

    def __exit__(self, *_: object) -> None:
        dist.batch_isend_irecv, dist.all_reduce = self._before


def formula(slab: Slab, pixels: int) -> int:
    """Bytes that a process receives in a level of ``dds``."""
    below, above = slab.rank > 0, slab.rank + 1 < slab.ranks
    slices = CG * (below + above) + below + 2 * above
    return 4 * pixels * slices + 8 * (2 * CG + 2)


def process(rank: int, ranks: int, folder: str, slices: int, size: int, levels: int, found: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/{ranks}", rank=rank, world_size=ranks)
    slab = Slab(slices, rank, tuple(range(ranks)))
    operator = ParallelBeam(size, [i * 22.5 for i in range(8)], pixel_size=2.7)
    axes = [torch.linspace(-1, 1, n) for n in (slices, size, size)]
    z, y, x = torch.meshgrid(axes[0][slab.start : slab.stop], *axes[1:], indexing="ij")
    measured = operator(0.02 * torch.sigmoid((0.7 - (x**2 + y**2 + z**2).sqrt()) * 12))
    del z, y, x
    told: dict[int, tuple[int, float]] = {}
    with holding(slab), Traffic() as traffic, PeakMemory(measured.device) as memory:
        result = run_method(
            measured, operator, Shrinkage(), "dds", steps=levels, cg_iterations=CG,
            callback=lambda state: told.update({state.step: (traffic.bytes, time.process_time())}),
        )  # fmt: skip
    with holding(slab):
        volume = gathered(result.volume)
    received, seconds = ((last - first) / (levels - 1) for first, last in zip(told[1], told[levels], strict=True))
    found.put((rank, received, formula(slab, size**2), memory.bytes, seconds, volume.numpy() if rank == 0 else None))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=64)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--levels", type=int, default=3)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    given = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    one, alone = None, 0.0
    print(
        "| processes | rank | bytes a level | formula | MiB at the peak | of a volume | processor s a level | speed-up "
        "| largest relative difference |\n|---|---|---|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as folder:
        for ranks in given.ranks:
            found = context.Queue()
            rest = (ranks, folder, given.slices, given.size, given.levels, found)
            processes = [context.Process(target=process, args=(rank, *rest)) for rank in range(ranks)]
            for each in processes:
                each.start()
            results = sorted((found.get() for _ in processes), key=lambda row: row[0])
            for each in processes:
                each.join()
            volume = torch.from_numpy(results[0][-1])
            one, alone = (volume, results[0][4]) if one is None else (one, alone)
            error = float((volume - one).abs().max() / one.abs().max())
            mib = 4 * given.slices * given.size**2 / 2**20
            for rank, measured, expected, peak, seconds, _ in results:
                if ranks == 1:
                    measured = expected = 0
                told = f"{peak / 2**20:.1f} | {peak / 2**20 / mib:.2f}" if peak is not None else "- | -"
                cost = f"{seconds:.2f} | {alone / seconds:.2f} | {error:.1e}"
                print(f"| {ranks} | {rank} | {measured:,.0f} | {expected:,.0f} | {told} | {cost} |", flush=True)


if __name__ == "__main__":
    main()
