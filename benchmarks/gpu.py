"""What to measure first where there is a GPU, in one command, within 25 minutes.

    python benchmarks/gpu.py --output outputs/gpu
    python benchmarks/gpu.py --device cpu --small --output outputs/gpu_small

In this order, each in a process of its own with a limit of time: the tests of the device (`pytest -m cuda`); the
networks, eager float32 against ours; the backends of the projector that are installed; a step of ADMM-TV; whole volumes
of 256 x 256 x 256 by the bundled priors; what `fit` makes of the minutes that are left. What a part printed is in
`gpu.md` as soon as it is there, beside the name of the card; a part that fails or runs out of time is told there, and
the others go on. `--small` makes all of it the smallest that runs, which proves on a CPU that it does. `--only` takes
some of the parts.

The training goes on from `--init` and leaves `prior.safetensors`, from which another goes on (`--init` again). Volumes
are those of `--train`, by default phantoms.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from lightning_mbir import FanBeam, ParallelBeam
from lightning_mbir.errors import InputError

HERE = Path(__file__).resolve().parent
BACKENDS = ("sparse", "matrix_free", "torch_radon", "astra")


@dataclass(frozen=True)
class Part:
    """A part of the list: its title, its command, and the minutes that it may take."""

    title: str
    words: list[str]
    minutes: float


def parts(given: argparse.Namespace) -> dict[str, Part]:
    """All parts by their names."""
    device, small = given.device, given.small
    accelerator = "gpu" if device.startswith("cuda") else device
    own = [sys.executable]
    bench = {name: [*own, str(HERE / f"{name}.py")] for name in ("gpu", "prior_throughput", "admm_step", "whole")}
    tests = [*own, "-m", "pytest", "-n0", "-rfE", str(HERE.parent / "tests")]
    tests += ["-k", "test_noise_is_that_of_the_cpu"] if small else ["-m", "cuda"]
    network = [*bench["prior_throughput"], "--device", device, "--batch", "1" if small else "16"]
    network += ["--cases", "light_128"] if small else ["--cases", "light_128", "light_256", "ncsnpp", "--compile"]
    network += ["--repeat", "1"] if small else []
    step = [*bench["admm_step"], "--device", device]
    step += ["--slices", "4", "--turns", "1", "--cases", "ct_8"] if small else ["--slices", "64", "256"]
    whole = [*bench["whole"], "--device", device, "--output", str(given.output / "whole"), "--task"]
    size = ["--size", "32", "--slices", "4", "--steps", "2"] if small else ["--size", "256", "--slices", "256"]
    fit = [*own, "-m", "lightning_mbir", "fit", "--output_dir", str(given.output / "fit")]
    fit += ["--trainer.accelerator", accelerator, "--trainer.devices", "1", "--seed", "1"]
    if small:
        fit += ["--data.image_size", "32", "--data.batch_size", "2", "--data.phantom_volumes", "1", "--steps", "2"]
        fit += ["--model.network_options={channels: [8, 16], blocks: 1}", "--model.ema_decay", "0.5"]
    else:
        fit += ["--config", given.config, "--data.batch_size", "64", "--data.num_workers", str(os.cpu_count() or 1)]
        fit += [
            "--steps",
            "100000",
            "--model.cosine",
            "false",
            "--trainer.max_time",
            f"00:00:{given.train_minutes:02}:00",
        ]
        fit += ["--data.path", str(given.train)] if given.train else []
    fit += ["--model.init", given.init] if given.init else []
    auto = ["--precision", "auto"]
    return {
        "tests": Part("Tests of the device", tests, 6),
        "network": Part("Networks: eager float32 against ours", network, 4),
        "projectors": Part("Projectors", [*bench["gpu"], "--device", device, "--projectors", *["--small"] * small], 3),
        "admm_step": Part("A step of ADMM-TV along z", step, 2),
        "ct": Part("A whole volume, 8 views", [*whole, "sv_ct", *size, *auto], 4),
        "mri": Part("A whole volume, k-space 8-fold", [*whole, "cs_mri", *size, *auto, "--set", "acc=8"], 4),
        "fit": Part("Training", fit, given.train_minutes + 2),
    }


def run(part: Part, limit: float) -> str:
    """What a part has to say, as Markdown."""
    started = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent), "PYTHONUNBUFFERED": "1"}
    try:
        done = subprocess.run(part.words, env=environment, capture_output=True, text=True, timeout=limit)
        printed, failed = done.stdout.strip(), done.returncode != 0
        ended = f"failed with status {done.returncode}" if failed else "done"
        if failed or not printed:
            printed += "\n" + done.stderr.strip()[-4000:]
    except subprocess.TimeoutExpired as error:
        printed = (error.stdout or b"").decode(errors="replace").strip()
        ended = f"stopped after its {limit / 60:.0f} minutes"
    seconds = time.perf_counter() - started
    table = any(line.startswith("|") for line in printed.splitlines())
    body = printed if table else f"```\n{printed[-4000:]}\n```"
    return f"## {part.title}\n\n{body}\n\n({ended}, {seconds:.0f} s)\n"


def machine(device: torch.device) -> str:
    """The device and its software in a line."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return f"{name}; torch {torch.__version__}, CUDA {torch.version.cuda}, Python {platform.python_version()}"


def projectors(device: torch.device, small: bool) -> None:
    """Milliseconds a slice of ``A x`` and ``A^T y`` by each backend that is there, and the gap between them."""
    size, views, slices, turns = (32, 8, 4, 2) if small else (256, 180, 64, 20)
    angles = [180.0 * k / views for k in range(views)]
    print(f"{size} x {size}, {views} views, {slices} slices; medians of {turns}\n")
    print("| beam | backend | forward ms | adjoint ms | gap of the adjoint | from `sparse` |")
    print("|---|---|---|---|---|---|")
    for beam in ("parallel", "fan"):
        expected = None
        for backend in BACKENDS:
            try:
                if beam == "parallel":
                    operator = ParallelBeam(size, angles, backend=backend).to(device)
                else:
                    fan = {"source_distance": 3.0 * size, "detector_distance": 1.0 * size}
                    operator = FanBeam(size, angles, **fan, backend=backend).to(device)
                ramp = torch.linspace(-1, 1, size, device=device)
                ball = torch.sigmoid((0.7 - torch.hypot(ramp[:, None], ramp)) * 12)  # smooth: beams differ in corners
                x = ball.expand(slices, size, size).contiguous()
                y = operator(x)
            except InputError as error:
                print(f"| {beam} | {backend} | {str(error)[:90]} | | | |", flush=True)
                continue
            y = torch.rand_like(y)
            times = []
            for work in (lambda: operator(x), lambda: operator.adjoint(y)):  # noqa: B023
                took = []
                for _ in range(turns):
                    started = time.perf_counter()
                    work()
                    if device.type == "cuda":
                        torch.cuda.synchronize(device)
                    took.append(time.perf_counter() - started)
                times.append(1e3 * sorted(took)[turns // 2] / slices)
            left, right = (
                float((a.double() * b.double()).sum()) for a, b in ((operator(x), y), (x, operator.adjoint(y)))
            )
            found = operator(x)
            expected = found if expected is None else expected
            away = float((found - expected).norm() / expected.norm())
            gap = abs(left - right) / abs(left)
            print(f"| {beam} | {backend} | {times[0]:.3f} | {times[1]:.3f} | {gap:.0e} | {away:.0e} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="the smallest that runs")
    parser.add_argument("--only", nargs="+", help="names of parts")
    parser.add_argument("--output", type=Path, default=Path("outputs/gpu"))
    parser.add_argument("--minutes", type=float, default=25, help="of all parts together")
    parser.add_argument("--train_minutes", type=int, default=5)
    parser.add_argument("--train", type=Path, help="folder of volumes [phantoms]")
    parser.add_argument("--config", default="prior_ct", help="of the training")
    parser.add_argument("--init", help="prior to start from")
    parser.add_argument("--projectors", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    device = torch.device(given.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA device is here; --device cpu --small shows that all parts run")
    if given.projectors:
        projectors(device, given.small)
        return
    known = parts(given)
    unknown = set(given.only or ()) - set(known)
    if unknown:
        raise SystemExit(f"--only {' '.join(sorted(unknown))}: there are {', '.join(known)}")
    given.output.mkdir(parents=True, exist_ok=True)
    path, end = given.output / "gpu.md", time.monotonic() + 60 * given.minutes
    told = [f"# {machine(device)}\n"]
    for name in given.only or known:
        left = end - time.monotonic()
        part = known[name]
        text = run(part, min(60 * part.minutes, left)) if left > 5 else f"## {part.title}\n\n(no time was left)\n"
        told.append(text)
        path.write_text("\n".join(told))
        print(text, flush=True)
    print(f"-> {path}")


if __name__ == "__main__":
    main()
