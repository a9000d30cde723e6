"""What half the slice size saves, by turns in one process: what a long run's forecast tells its user.

    python benchmarks/half_size.py --file ../shared/data/ct/train/lidc0314_chest.nii.gz --task sv_ct --turns 2

`dds` on the same slices from the middle of a volume at 256 and at 128. Prints Markdown.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from precision import case

from lightning_mbir.methods.tasks import TASKS
from lightning_mbir.prior import load_prior
from lightning_mbir.reconstruction import reconstruct


def main() -> None:
    """Print the seconds at each size, and their ratio."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--task", default="sv_ct")
    parser.add_argument("--slices", type=int, default=12)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--turns", type=int, default=2)
    args = parser.parse_args()
    modality = TASKS[args.task].modality
    prior, options = load_prior(modality), TASKS[args.task].tuned("dds")
    cases = {size: case(args.file, args.task, size, args.slices) for size in (256, 128)}
    seconds: dict[int, list[float]] = {size: [] for size in cases}
    for turn in range(args.turns + 1):
        for size, one in cases.items():
            operator = one.operator(False)
            started = time.perf_counter()
            reconstruct(one.y, operator, prior, "dds", modality=modality, volume=one.name, steps=args.steps, **options)
            if turn:  # the first fills caches
                seconds[size].append(time.perf_counter() - started)
    large, small = (statistics.median(seconds[size]) for size in cases)
    print("| task | s at 256 | s at 128 | ratio |\n|---|---|---|---|")
    print(f"| {args.task} | {large:.1f} | {small:.1f} | {large / small:.2f} |")


if __name__ == "__main__":
    main()
