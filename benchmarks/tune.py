"""Scan options of a method on one training volume.

    python benchmarks/tune.py TASK METHOD VOLUME --slices 10:22 --grid '{"rho": [0.01, 0.1], "lam": [0.001]}'

Prints a line for each combination, best axial PSNR last. Only training volumes belong here: the tables of the README
are on volumes that neither the priors nor this scan has seen.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

from lightning_mbir.data import VolumeDataModule
from lightning_mbir.data.units import magnitude_percentile
from lightning_mbir.data.volume import Volume
from lightning_mbir.prior import load_prior
from lightning_mbir.reconstruction import METHODS, TASKS, image_metrics, reconstruct


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=list(TASKS))
    parser.add_argument("method", choices=list(METHODS))
    parser.add_argument("volume", type=Path)
    parser.add_argument("--slices", default=None)
    parser.add_argument("--image_size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--prior", default=None)
    parser.add_argument("--grid", type=json.loads, required=True, help="JSON: option to list of values")
    args = parser.parse_args()
    task = TASKS[args.task]
    data = VolumeDataModule(args.volume, modality=task.modality, image_size=args.image_size, slices=args.slices)
    volume = data.scan(0)
    assert isinstance(volume, Volume)
    operator = task.build_operator(args.image_size, volume.spacing[1])
    y = operator(volume.data)
    data_range = task.data_range or magnitude_percentile(volume.data)
    prior = load_prior(args.prior or task.modality) if METHODS[args.method].needs_prior else None
    rows = []
    for values in itertools.product(*args.grid.values()):
        options = dict(zip(args.grid, values, strict=True))
        given = {**task.options.get(args.method, {}), **options}
        result = reconstruct(y, operator, prior, args.method, steps=args.steps, volume=volume.name, **given)
        scores = image_metrics(result.volume, volume.data, data_range)
        planes = " ".join(f"{scores[plane]['psnr']:.2f}" for plane in ("axial", "coronal", "sagittal"))
        rows.append((scores["axial"]["psnr"], f"{planes}  residual {result.residual:.1e}  {json.dumps(options)}"))
        print(rows[-1][1], flush=True)
    print("best:", max(rows)[1])


if __name__ == "__main__":
    main()
