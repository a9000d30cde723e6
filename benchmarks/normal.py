"""Milliseconds a slice of ``A^H A`` of Cartesian k-space: ``normal`` against the adjoint after the forward transform.

    python benchmarks/normal.py --slices 16 --size 256 --threads 1

Both in one process, by turns; the least processor time of the turns counts. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor

from lightning_mbir.physics import FourierSampling, LinearOperator, MultiCoilFourier, loop_coil_maps, make_mask


def row(mask: str, coils: int, x: Tensor, turns: int) -> str:
    """A line of the table."""
    sampling = make_mask(mask, tuple(x.shape[1:]), 8)
    operator: LinearOperator = FourierSampling(sampling)
    if coils > 1:
        operator = MultiCoilFourier(sampling, loop_coil_maps(coils, x.shape[-1]))
    works = (lambda: operator.adjoint(operator(x)), lambda: operator.normal(x))
    both, one = (work() for work in works)
    least = [float("inf")] * 2
    for _ in range(turns):
        for k, work in enumerate(works):
            started = time.process_time()
            work()
            least[k] = min(least[k], 1e3 * (time.process_time() - started) / len(x))
    gap = float((both - one).norm() / both.norm())
    return f"| {mask} | {coils} | {least[0]:.2f} | {least[1]:.2f} | {least[0] / least[1]:.1f} | {gap:.0e} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--slices", type=int, default=16)
    parser.add_argument("--coils", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--masks", nargs="+", default=["gaussian1d", "gaussian2d"])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    x = torch.randn(given.slices, given.size, given.size, dtype=torch.complex64)
    print(
        "| mask, x8 | coils | adjoint after forward, ms | normal, ms | ratio | difference |\n|---|---|---|---|---|---|"
    )
    for coils in given.coils:
        for mask in given.masks:
            print(row(mask, coils, x, given.turns), flush=True)


if __name__ == "__main__":
    main()
