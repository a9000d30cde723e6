"""Whole volumes at their own size: seconds, peak memory and PSNR in all planes, by method.

    python benchmarks/whole.py --task sv_ct --size 256 --slices 256
    python benchmarks/whole.py --task cs_mri --size 256 --slices 256 --set acc=8
    python benchmarks/whole.py --task sv_ct --data ../shared/data/ct/test/lungfcp0001_chest.nii.gz --size 256
    python benchmarks/whole.py --task sv_ct --size 256 --slices 64 --methods dds --against ANOTHER_CHECKOUT

Without ``--data`` the volume is the built-in phantom, stretched to the size: its seconds and memory are those of a
patient, its PSNR is not. Options are those of the task in ``configs/tuned``. With ``--against`` the same measurement
is reconstructed by another checkout of the project too, by turns, each in a process of its own; the ratio is of the
medians. Memory is what a method takes beyond what was there, network included. Each row is kept (``--output``) as soon
as it is there, and not run again, even where the code has changed since: delete its file for that. Prints Markdown.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
import yaml

from lightning_mbir import TASKS, VolumeDataModule, image_metrics, load_prior
from lightning_mbir.data.units import magnitude_percentile
from lightning_mbir.data.volumes.volume import Volume
from lightning_mbir.methods.run import run_method
from lightning_mbir.reconstruction.case import Case, simulate
from lightning_mbir.reconstruction.memory import PeakMemory

METHODS = {"ct": ["fbp", "admm_tv", "dds"], "mri": ["zero_filled", "admm_tv", "dds"]}


def volume(given: argparse.Namespace, device: torch.device) -> Volume:
    """What is measured: a file as ``predict`` takes it, or the phantom of the modality."""
    modality = TASKS[given.task].modality
    if given.data is not None:
        data = VolumeDataModule(given.data, modality=modality, image_size=given.size)
        scan = cast(Volume, data.scan(0))
        return scan.with_data(scan.data.to(device))
    data = VolumeDataModule(modality=modality, image_size=given.size, demo_volumes=1)
    like = cast(Volume, data.scan(0))
    shape = (given.slices, given.size, given.size)
    stretched = F.interpolate(like.data[None, None], shape, mode="trilinear", align_corners=True)[0, 0]
    return like.with_data(stretched.contiguous().to(device))


def run(given: argparse.Namespace) -> dict[str, Any]:
    """One method, once."""
    device = torch.device(given.device)
    task, method = TASKS[given.task], given.methods[0]
    scan = volume(given, device)
    settings = task.settings(**{name: yaml.safe_load(value) for name, value in (pair.split("=") for pair in given.set)})
    options = task.tuned(method, views=settings.get("views"))
    case: Case = simulate(scan, task, settings, 0, has_phase=False)
    operator = case.operator(False)
    operator.norm()
    prior = load_prior(given.prior or task.modality, precision=given.precision).to(device)
    small = case.y[:3] if operator.separable else case.y
    run_method(small, operator, prior, method, modality=task.modality, spacing=case.spacing)  # what is made once
    with PeakMemory(device) as memory:
        result = run_method(
            case.y, operator, prior, method,
            modality=task.modality, steps=given.steps if method not in ("fbp", "zero_filled") else None,
            volume=case.name, spacing=case.spacing, **options,
        )  # fmt: skip
    assert case.truth is not None
    peak = task.data_range or magnitude_percentile(case.truth)
    scores = image_metrics(result.image, case.truth, peak)
    return {
        "method": method,
        "shape": list(result.volume.shape),
        "seconds": result.seconds,
        "mib": None if memory.bytes is None else memory.bytes / 2**20,
        "nfe": result.nfe,
        "psnr": {plane: scores[plane]["psnr"] for plane in ("axial", "coronal", "sagittal")},
    }


def measured(given: argparse.Namespace, method: str, checkout: Path) -> dict[str, Any]:
    """The same in a process of its own, of the code of a checkout."""
    words = [sys.executable, str(Path(__file__).resolve()), "--task", given.task, "--methods", method, "--child"]
    words += ["--size", str(given.size), "--slices", str(given.slices), "--device", given.device]
    words += ["--precision", given.precision, "--threads", str(given.threads)]
    words += [word for name in ("data", "steps", "prior") if getattr(given, name) is not None
              for word in (f"--{name}", str(getattr(given, name)))]  # fmt: skip
    words += ["--set", *given.set] if given.set else []
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    with tempfile.TemporaryDirectory() as folder:  # not the checkout: what is imported is by PYTHONPATH alone
        words = [str(Path(word).resolve()) if word == str(given.data) else word for word in words]
        done = subprocess.run(words, env=environment, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def row_name(given: argparse.Namespace, method: str, checkouts: list[Path]) -> str:
    """The file of a row: what it is of, for people, and a checksum of all that it depends on but the code."""
    prior = Path(given.prior) if given.prior else Path("own")
    named = [given.task, method, *given.set, given.size, given.data.stem if given.data else given.slices]
    named += [given.steps or "all", prior.stem, given.precision, given.device]
    weights = hashlib.sha256(prior.read_bytes()).hexdigest() if prior.is_file() else given.prior
    rest = [given.data and str(given.data.resolve()), weights, given.threads, given.turns, *map(str, checkouts[1:])]
    digest = hashlib.sha256(json.dumps([*named, *rest]).encode()).hexdigest()[:8]
    return f"{'_'.join(map(str, named))}_{digest}.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="sv_ct", choices=list(TASKS))
    parser.add_argument("--data", type=Path, help="a volume [the phantom]")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--slices", type=int, default=256, help="of the phantom")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings of the task")
    parser.add_argument("--methods", nargs="+", help="[direct inversion, admm_tv, dds]")
    parser.add_argument("--steps", type=int, help="levels or iterations [those of the method]")
    parser.add_argument("--prior")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16", "auto"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--against", type=Path, help="another checkout, side by side")
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("outputs/whole"))
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.prior and Path(given.prior).exists():
        given.prior = str(Path(given.prior).resolve())  # the work is done in another folder
    torch.set_num_threads(given.threads)
    given.methods = given.methods or METHODS[TASKS[given.task].modality]
    if given.child:
        print(json.dumps(run(given)))
        return
    here = Path(__file__).resolve().parents[1]
    checkouts = [here] if given.against is None else [here, given.against.resolve()]
    given.output.mkdir(parents=True, exist_ok=True)
    print(f"{given.task} {' '.join(given.set)}, {given.precision}, {given.device}, {given.threads} threads\n")
    print("| method | volume | seconds | MiB | network calls | PSNR axial, coronal, sagittal | ratio |")
    print("|---|---|---|---|---|---|---|")
    for method in given.methods:
        kept = given.output / row_name(given, method, checkouts)
        if kept.is_file():
            turns = json.loads(kept.read_text())
        else:
            turns = [[measured(given, method, checkout) for checkout in checkouts] for _ in range(given.turns)]
            kept.write_text(json.dumps(turns))
        ours = turns[0][0]
        seconds = [statistics.median(turn[k]["seconds"] for turn in turns) for k in range(len(turns[0]))]
        ratio = f"{seconds[1] / seconds[0]:.2f}" if len(seconds) > 1 else "-"
        psnr = " ".join(f"{ours['psnr'][plane]:.2f}" for plane in ("axial", "coronal", "sagittal"))
        mib = "-" if ours["mib"] is None else f"{ours['mib']:.0f}"
        shape = " x ".join(map(str, ours["shape"]))
        print(f"| `{method}` | {shape} | {seconds[0]:.1f} | {mib} | {ours['nfe']} | {psnr} | {ratio} |", flush=True)


if __name__ == "__main__":
    main()
