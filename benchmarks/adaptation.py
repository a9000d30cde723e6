"""Whether fitting a few weights of a prior to the measurement, while sampling, helps where the prior is wrong.

    python benchmarks/adaptation.py --data ../shared/data --output adaptation
    python benchmarks/adaptation.py --data ../shared/data --output adaptation --cases thigh8 tooth12

Before a level denoises the volume, Adam takes five steps on low-rank additions to the convolutions (rank 4), with three
random slices each: the loss is ``||A u - y||^2`` of ``u``, one steepest-descent step of the denoised slices towards the
data (Chung and Ye, "Deep diffusion image prior", arXiv 2407.10641; Barbano et al., "Steerable conditional diffusion",
IEEE TMI 2025). 15 % of the measurement are held out of that loss, and what a level has changed is taken back where they
are predicted worse. PSNR in dB of `dds` with the options of the task and the same number of levels: as it is, with
`generic` instead, and adapted at each rate; beside these on how many levels the change was kept, and seconds.
A case is a file in ``--output``; the table is that of all files there.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from trust import CASES, MEASURED, psnr, rows_in, simulated, views_of

from lightning_mbir.methods.candidates import GENERIC
from lightning_mbir.methods.dds import dds
from lightning_mbir.methods.held_out import hold_out
from lightning_mbir.methods.method import Count, Method, method
from lightning_mbir.methods.priors import load_task_prior
from lightning_mbir.methods.problem import Problem
from lightning_mbir.methods.run import run_method
from lightning_mbir.prior import SliceDenoiser
from lightning_mbir.prior.denoiser import denoised
from lightning_mbir.reconstruction import TASKS

SHOULDER = ("shoulder, 8 views", "sv_ct", partial(simulated, volume="ct/ood/sts037_shoulder", first=35), False)
OBJECTS: dict[str, tuple[str, str, Callable[..., Any], bool]] = {
    **{name: CASES[name] for name in ("thigh8", "leg8")},
    "shoulder8": SHOULDER,
    **{name: CASES[name] for name in ("disc20", "tooth12", "coils4", "knee4", "liver8")},
}
RATES = (1e-4, 1e-3)
STEPS, SLICES, RANK = 5, 3, 4


class LowRank(nn.Module):
    """``W + B A`` with ``B`` zero at first: Hu et al., "LoRA", ICLR 2022, equation 3."""

    def __init__(self, weight: Tensor, generator: torch.Generator) -> None:
        super().__init__()
        inputs = weight[0].numel()
        self.a = nn.Parameter(torch.randn(RANK, inputs, generator=generator) / math.sqrt(inputs))
        self.b = nn.Parameter(torch.zeros(len(weight), RANK))

    def forward(self, weight: Tensor) -> Tensor:
        return (weight + (self.b @ self.a).view(weight.shape)).contiguous(memory_format=torch.channels_last)


class Adapted:
    """A copy of a prior whose low-rank additions are fitted to a measurement at each level, before it denoises."""

    def __init__(self, p: Problem, rate: float) -> None:
        prior: SliceDenoiser = p.denoise
        self.network = copy.deepcopy(prior.network)
        self.denoise = SliceDenoiser(self.network, prior.unit, prior.modality)
        self.complex = prior.complex
        generator = torch.Generator().manual_seed(0)
        for module in self.network.modules():
            if isinstance(module, nn.Conv2d) and min(len(module.weight), module.weight[0].numel()) > RANK:
                parametrize.register_parametrization(module, "weight", LowRank(module.weight, generator))
        self.added = [own for own in self.network.parameters() if own.requires_grad]
        self.adam = torch.optim.Adam(self.added, lr=rate)
        self.fold = hold_out(p.operator, p.y)[0]
        self.levels = self.kept = 0

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        before, weights = self.missed(x, sigma), [own.detach().clone() for own in self.added]
        moments = copy.deepcopy(self.adam.state_dict())
        generator = torch.Generator().manual_seed(self.levels)
        for _ in range(STEPS):
            self.step(x, sigma, torch.randperm(len(x), generator=generator)[:SLICES])
        self.levels += 1
        if self.missed(x, sigma) < before:
            self.kept += 1
        else:
            for own, old in zip(self.added, weights, strict=True):
                own.copy_(old)
            self.adam.load_state_dict(moments)
        return self.denoise(x, sigma)

    def step(self, x: Tensor, sigma: float, slices: Tensor) -> None:
        """One step of Adam. The gradient with respect to the denoised slices is written down, with the length of the
        step towards the data taken as given; autograd sees the network alone."""
        operator, y = self.fold.operator, self.fold.y[slices]
        with torch.enable_grad():
            h = self.clean(x[slices], sigma)
        u, length = self.nearer(h.detach(), y)
        gradient = operator.adjoint(operator(u) - y)
        gradient -= length * operator.adjoint(operator(gradient))
        self.adam.zero_grad()
        torch.autograd.backward(h, gradient / y.abs().square().sum())
        self.adam.step()

    def clean(self, x: Tensor, sigma: float) -> Tensor:
        if not self.complex:
            return denoised(self.network, x[:, None], sigma)[:, 0]
        parts = denoised(self.network, torch.view_as_real(x).movedim(-1, 1), sigma / math.sqrt(2))
        return torch.view_as_complex(parts.movedim(1, -1).contiguous())

    def nearer(self, h: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """One step of steepest descent, of each slice, and its length ``(Z, 1, 1)``."""
        operator = self.fold.operator
        down = operator.adjoint(y - operator(h))
        seen = operator(down).abs().square().flatten(1).sum(1)
        length = (down.abs().square().flatten(1).sum(1) / seen.clamp_min(1e-20))[:, None, None]
        return h + length * down, length

    def missed(self, x: Tensor, sigma: float) -> float:
        return sum(self.fold.errors(self.nearer(self.denoise(x, sigma), self.fold.y)[0]))


def adapting(rate: float, settings: dict[str, Any], counts: dict[str, int]) -> Method:
    """`dds` with a prior that is adapted."""

    def adapted(p: Problem, *, steps: Count = 25) -> Tensor:
        """Adapt the prior."""
        prior = Adapted(p, rate)
        volume = dds(replace(p, denoise=prior), steps=steps, **settings)
        counts.update(kept=prior.kept, levels=prior.levels)
        return volume

    return method(needs=("prior",))(adapted)


def run(name: str, data: Path, levels: int) -> dict[str, Any]:
    """One object: `dds` as it is, with `generic`, adapted, and ADMM-TV."""
    title, task_name, make, noisy = OBJECTS[name]
    case, task = make(data, task_name), TASKS[task_name]
    complex = task.modality == "mri" and name.startswith(MEASURED)
    operator = case.operator(complex)
    tuned = partial(task.tuned, noisy=noisy, views=views_of(task, operator))
    settings = {key: value for key, value in tuned("dds").items() if key != "steps"}

    def scored(way: str | Method, prior: SliceDenoiser | None, **options: Any) -> list[float]:
        began = time.perf_counter()
        done = run_method(
            case.y, operator, prior, way, modality=task.modality, volume=case.name, weights=case.weights,
            noise_std=case.noise_std, calibrated=case.calibrated, spacing=case.spacing, **options,
        )  # fmt: skip
        return [psnr(done.image, case, task.modality == "ct"), time.perf_counter() - began]

    prior = load_task_prior(None, task.modality, complex=complex)
    row: dict[str, Any] = {"title": title, "admm_tv": scored("admm_tv", None, **tuned("admm_tv"))}
    row["dds"] = scored("dds", prior, steps=levels, **settings)
    if not complex:
        row["generic"] = scored("dds", load_task_prior(GENERIC, task.modality), steps=levels, **settings)
    for rate in RATES:
        counts: dict[str, int] = {}
        row[f"{rate:g}"] = [*scored(adapting(rate, settings, counts), prior, steps=levels), counts]
    return row


def table(rows: list[dict[str, Any]]) -> str:
    names = [f"adapted, {rate:g} | kept" for rate in RATES]
    lines = [f"| object | ADMM-TV | dds | dds, `generic` | {' | '.join(names)} | seconds, without and with |"]
    lines.append("|---" * (5 + 2 * len(RATES)) + "|")
    for row in rows:
        cells = [f"{row[key][0]:.2f}" if key in row else "" for key in ("admm_tv", "dds", "generic")]
        for rate in RATES:
            score, _, counts = row[f"{rate:g}"]
            cells += [f"{score:.2f}", f"{counts['kept']} of {counts['levels']}"]
        cells.append(f"{row['dds'][1]:.0f}, {row[f'{RATES[0]:g}'][1]:.0f}")
        lines.append(f"| {row['title']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--cases", nargs="+", default=list(OBJECTS), choices=list(OBJECTS), metavar="CASE")
    parser.add_argument("--levels", type=int, default=15)
    args = parser.parse_args()
    print(table(rows_in(args.output, OBJECTS, args.cases, lambda name: run(name, args.data, args.levels))))


if __name__ == "__main__":
    with torch.no_grad():
        main()
