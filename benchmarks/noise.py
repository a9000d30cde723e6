"""What statistical weights are worth under counting noise: PSNR without, with them, and with the model error added.

    python benchmarks/noise.py --data ../shared/data

Twelve slices of a training chest at 128 x 128, options as they were tuned without noise.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from lightning_mbir.data import VolumeDataModule
from lightning_mbir.data.volume import Volume
from lightning_mbir.physics import poisson_counts
from lightning_mbir.reconstruction import TASKS, image_metrics, reconstruct
from lightning_mbir.reconstruction.tasks import MODEL_ERROR


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    args = parser.parse_args()
    task, file = TASKS["sv_ct"], args.data / "ct/train/lidc0314_chest.nii.gz"
    volume = VolumeDataModule(file, modality="ct", image_size=128, slices="140:152").scan(0)
    assert isinstance(volume, Volume) and task.data_range
    print("| views | photons | method | no weights | 1 / variance | the default |\n|---|---|---|---|---|---|")
    for views, photons in ((8, 1e5), (8, 1e4), (8, 1e3), (60, 1e5), (60, 1e4)):
        operator = task.build_operator(128, volume.spacing[1], views=views)
        noisy = poisson_counts(operator(volume.data), photons, generator=torch.Generator().manual_seed(0))
        default = noisy.weights / (1 + noisy.weights * MODEL_ERROR**2)
        for method, steps in (("admm_tv", 60), ("dds", 20)):
            cells = []
            for weights in (None, noisy.weights, default):
                options = {"method": method, "steps": steps, "weights": weights, **task.options[method]}
                result = reconstruct(noisy.y, operator, **options)
                cells.append(f"{image_metrics(result.volume, volume.data, task.data_range)['volume_psnr']:.2f}")
            print(f"| {views} | {photons:g} | {method} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
