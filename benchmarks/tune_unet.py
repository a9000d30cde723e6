"""Search what the supervised baseline is trained with: short trainings, scored as benchmarks/tune.py scores methods.

    python benchmarks/tune_unet.py --data ../shared/data --tasks sv_ct

Each choice of learning rate and loss is a training of ``--steps`` steps (``fit_unet``, its cosine ends there) on the
training volumes, with the patient held out on whom the networks are then compared. A training that is there already in
``--output`` is not made again.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import torch
from tune import VOLUMES, Problem

from lightning_mbir.cli import main as lightning_mbir
from lightning_mbir.data.slices.datamodule import patient
from lightning_mbir.reconstruction import TASKS

RATES = ("3e-4", "1e-3", "3e-3")
LOSSES = ("l2", "l1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, default=Path("outputs/tune_unet"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    lines = []
    for task in args.tasks:
        problem = Problem(task, args.data)
        held_out = patient(Path(VOLUMES[problem.task.modality][0][0]))
        volumes = args.data / problem.task.modality / "train"
        for rate, loss in product(RATES, LOSSES):
            folder = args.output / f"{task}_{rate}_{loss}_{args.steps}"
            network = folder / "unet.safetensors"
            flags = ["--task", task, "--data.path", str(volumes), "--data.held_out", held_out]
            flags += ["--steps", str(args.steps), "--model.learning_rate", rate, "--model.loss", loss]
            flags += ["--output_dir", str(folder), "--trainer.accelerator", "cpu"]
            if not network.is_file() and (status := lightning_mbir(["fit_unet", *flags])):
                raise SystemExit(status)
            score = problem.score("fbp_unet", {"network": network})
            lines.append(f"| {task} | {rate} | {loss} | {score:.2f} |")
            print(lines[-1], flush=True)
    print("\n| task | learning rate | loss | PSNR, dB |\n|---|---|---|---|", *lines, sep="\n")


if __name__ == "__main__":
    main()
