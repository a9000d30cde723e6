"""What to train a prior with: noise levels, preconditioning and size, for the same number of steps on the same slices.

    python benchmarks/prior_training.py --data ../shared/data --steps 800

Trains from the same seed on the training CT volumes, whole slices of 128 x 128 pixels and crops of those of 256 x 256:
the paper's VE-SDE, noise levels log-uniform from 0.01 to 378, score parametrisation; the same levels with EDM
preconditioning; EDM preconditioning and log-normal levels, the mean and the deviation of their logarithm in brackets;
the same with the loss of each level divided by its expected value; that with lower levels, which is the default; the
default with a network of ten times the parameters; and the levels of ``ct``, ``mri`` and ``phantom``. A step of all but
the large network costs the same. Prints the denoising PSNR of the held-out patient by noise level at both sizes, and
the PSNR of its reconstruction from 8 views at 128 x 128 by `dds` with 50 and 20 network evaluations. Finished rows are
kept in the output folder and not trained again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import nn

from lightning_mbir.data import SliceDataModule, VolumeDataModule
from lightning_mbir.data.volumes.volume import Volume
from lightning_mbir.prior import ScorePriorModule, SliceDenoiser, Unit
from lightning_mbir.prior.training.evaluate import SIGMAS
from lightning_mbir.reconstruction import TASKS, image_metrics, reconstruct

CASES: dict[str, dict[str, Any]] = {
    "VE levels, VE preconditioning": {"objective": "dsm", "network_options": {"preconditioning": "ve"}},
    "VE levels, EDM preconditioning": {"objective": "dsm"},
    "EDM, levels (-0.4, 1.9)": {"log_sigma_mean": -0.4, "log_sigma_std": 1.9, "uncertainty": False},
    "the same, loss over its expectation": {"log_sigma_mean": -0.4, "log_sigma_std": 1.9},
    "that, levels (-1.2, 1.8): the default": {},
    "the default, 10 x the parameters": {"network_options": {"channels": [48, 80, 192, 512]}},
    "levels (-0.8, 1.9): `ct`, `mri` and `phantom`": {"log_sigma_mean": -0.8, "log_sigma_std": 1.9},
}
SEEDS = range(4)
VOLUME, HELD_OUT, SLICES = "ct/train/acrin013_chest.nii.gz", "acrin013", "12:28"


def train(options: dict[str, Any], args: argparse.Namespace) -> tuple[ScorePriorModule, float]:
    """The module after training, and the seconds that it took."""
    L.seed_everything(0)
    data = SliceDataModule(
        args.data / "ct/train",
        "ct",
        image_size=[128, 256],
        crop_size=128,
        held_out=HELD_OUT,
        slices_per_epoch=8 * args.steps,
    )
    module = ScorePriorModule(**options)
    trainer = L.Trainer(
        max_steps=args.steps,
        precision="bf16-mixed",
        gradient_clip_val=1.0,
        logger=False,
        default_root_dir=args.output,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    started = time.perf_counter()
    trainer.fit(module, data)
    return module, time.perf_counter() - started


def reconstruction_psnr(network: nn.Module, data: Path, steps: int) -> float:
    """Axial PSNR of the held-out patient from 8 views, a mean over seeds, which differ by some tenths of a dB."""
    task = TASKS["sv_ct"]
    volume = VolumeDataModule(data / VOLUME, modality="ct", image_size=128, slices=SLICES).scan(0)
    assert isinstance(volume, Volume)
    operator = task.build_operator(128, volume.spacing[1])
    prior = SliceDenoiser(network, Unit.of("ct"), "ct", precision="bfloat16")
    y, options, scores = operator(volume.data), task.options["dds"], []
    for seed in SEEDS:
        result = reconstruct(y, operator, prior, "dds", steps=steps, seed=seed, **options)
        scores.append(float(image_metrics(result.volume, volume.data, task.data_range or 1.0)["axial"]["psnr"]))
    return sum(scores) / len(scores)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--output", type=Path, default=Path("outputs/prior_training"))
    parser.add_argument("--cases", nargs="*", type=int, default=list(range(len(CASES))))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    names = list(CASES)
    for number in args.cases:
        file = args.output / f"{number}_{args.steps}.json"
        if not file.exists():
            module, seconds = train(CASES[names[number]], args)
            parameters = sum(p.numel() for p in module.network.parameters()) / 1e6
            row = {"seconds": seconds, "parameters": parameters, "denoising": module.validation_psnr}
            torch.save(module.ema.module.state_dict(), file.with_suffix(".pt"))
            row |= {str(nfe): reconstruction_psnr(module.ema.module, args.data, nfe) for nfe in (50, 20)}
            file.write_text(json.dumps(row))
    heads = ["training", "parameters", "seconds", "pixels", *(f"{sigma:g}" for sigma in SIGMAS), "50 NFE", "20 NFE"]
    print("| " + " | ".join(heads) + " |")
    print("|---" * len(heads) + "|")
    for number, name in enumerate(names):
        file = args.output / f"{number}_{args.steps}.json"
        row = json.loads(file.read_text()) if file.exists() else {"denoising": {}}
        for size, values in row["denoising"].items():
            cells = [name, f"{row['parameters']:.1f} M", f"{row['seconds']:.0f}", size]
            cells += [f"{value:.2f}" for value in (*values, row["50"], row["20"])]
            print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
