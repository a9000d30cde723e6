"""What one looks at during training, and what a finished training leaves: rates, curves, the prior and its card."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from torch import Tensor, nn

from lightning_mbir.board import pixels, writer_of
from lightning_mbir.files import whole_file
from lightning_mbir.prior.checkpoints.checkpoint import read_prior, save_prior
from lightning_mbir.prior.checkpoints.weights import read_torch
from lightning_mbir.prior.denoiser import denoised
from lightning_mbir.prior.training.evaluate import SIGMAS, generate, noisy_copies, psnr, psnr_figure, rows_figure, sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVELS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Limits between the noise levels that the training loss is told apart by."""

SETTINGS = ("data/batch_size", "data/image_size", "learning_rate", "network", "objective")
"""Those that are looked at first."""
SHOWN = (0.1, 0.5, 2.0)
"""Noise levels of the slices that are shown."""


def key(*parts: int) -> int:
    """A seed that depends on all parts."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def level_of(sigma: Tensor) -> list[int]:
    """The interval between ``LEVELS`` of each noise level."""
    found: list[int] = torch.bucketize(sigma, torch.tensor(LEVELS, device=sigma.device)).tolist()
    return found


def level_name(level: int) -> str:
    """``0.1_to_0.3`` and the like."""
    low = f"{LEVELS[level - 1]:g}" if level else "0"
    return f"{low}_to_{LEVELS[level]:g}" if level < len(LEVELS) else f"above_{low}"


class Rate:
    """Slices a second of training, without the time of validation."""

    def __init__(self) -> None:
        self.pause()

    def pause(self) -> None:
        """Start anew, as after a validation."""
        self._started, self._slices = time.monotonic(), 0

    def add(self, slices: int) -> None:
        """Count slices of all devices."""
        self._slices += slices

    def take(self) -> float:
        """Slices a second since the last call or pause."""
        rate = self._slices / max(time.monotonic() - self._started, 1e-9)
        self.pause()
        return rate


def curves(found: Mapping[int, list[float]], reference: Mapping[int, Tensor]) -> Figure:
    """Denoising PSNR over the noise level of each image size, beside the best Gaussian smoothing."""
    lines = {f"prior, {size} pixels": values for size, values in found.items()}
    lines |= {f"best smoothing, {size} pixels": psnr(mse).tolist() for size, mse in reference.items()}
    return psnr_figure(lines)


def show_denoised(
    module: L.LightningModule, network: nn.Module, images: Tensor, distance: Tensor | None, seed: int
) -> None:
    """Held-out slices ``(B, C, Y, X)``, with noise, and what a network makes of them, in TensorBoard, where that is."""
    if (writer := writer_of(module.loggers)) is None:
        return
    for sigma in SHOWN:
        noisy = noisy_copies(images, sigma, seed)
        clean = denoised(network, noisy, sigma, distance)
        found = psnr((clean - images).square().mean())
        rows = {"held-out slices": images, f"with noise, sigma {sigma:g}": noisy, f"denoised, {found:.2f} dB": clean}
        _add(writer, f"denoised_{images.shape[-1]}/sigma_{sigma:g}", rows, module.global_step)


def show_generated(module: L.LightningModule, network: nn.Module, shape: tuple[int, int]) -> None:
    """Samples of a prior, of a shape ``(Y, X)``, in TensorBoard, where that is."""
    if (writer := writer_of(module.loggers)) is not None:
        rows = {"samples of the prior, without a measurement": generate(network, 4, shape, device=module.device)}
        _add(writer, "generated", rows, module.global_step)


def show_curves(module: L.LightningModule, found: Mapping[int, list[float]], reference: Mapping[int, Tensor]) -> None:
    """``curves`` in TensorBoard, where that is."""
    if (writer := writer_of(module.loggers)) is not None:
        writer.add_figure("denoising", curves(found, reference), module.global_step)


def _add(writer: Any, tag: str, rows: Mapping[str, Tensor], step: int) -> None:
    writer.add_image(tag, pixels(rows_figure(f"step {step}", rows)), step, dataformats="HWC")


@dataclass(frozen=True)
class Finished:
    """What a finished training leaves and tells of itself.

    Attributes:
        network: with the averaged weights of the last step; ``parameters`` is how many it has.
        hparams: of the module, for the prior's file and its card.
        best: checkpoint with the best held-out loss, where there is one.
        step: the last one.
        psnr: denoising of held-out slices by ``network``, of each image size.
        shape: ``(Y, X)`` of the largest held-out slices; zeros where nothing was validated.
        device: to draw samples on.
        data, course: lines of the card: what was trained on, and how.
        mirrors: whether slices were mirrored.
    """

    network: nn.Module
    parameters: int
    hparams: Mapping[str, Any]
    best: Path | None
    step: int
    psnr: Mapping[int, list[float]]
    shape: tuple[int, int]
    device: torch.device
    data: str
    course: str
    mirrors: bool


def write_prior(finished: Finished, folder: Path, reference: Mapping[int, Tensor]) -> None:
    """``prior.safetensors`` with the averaged weights of the best checkpoint (the last weights where there is none),
    ``prior.md``, ``prior_samples.png`` and ``prior_denoising.png``."""
    from matplotlib.image import imsave

    network, found, origin = finished.network, finished.psnr, f"step {finished.step}"
    if finished.best is not None:
        network = read_prior(finished.best, network=finished.hparams["network"])[0].to(finished.device)
        found = read_torch(finished.best)["training"].get("validation_psnr", {})
        origin = f"{finished.best.stem.replace('=', ' ')}, the best by held-out loss"
    config = {name: finished.hparams[name] for name in ("network", "network_options", "modality", "coarse_size")}
    if found:
        config["largest_size"] = max(found)
    if not finished.mirrors:
        config["mirrors"] = False
    digest = save_prior(folder / "prior.safetensors", network, config)
    with whole_file(folder / "prior.md") as temporary:
        temporary.write_text(_card(finished, digest, origin, found))
    square = max(found, default=4 * int(getattr(network, "stride", 16)))
    shape = finished.shape if any(finished.shape) else (square, square)
    rows = [generate(network, 4, shape, seed=seed, device=finished.device) for seed in (0, 1)]
    with whole_file(folder / "prior_samples.png", ".png") as temporary:
        imsave(temporary, sheet(rows).numpy(), cmap="gray", vmin=0, vmax=1)
    if found:
        with whole_file(folder / "prior_denoising.png", ".png") as temporary:
            curves(found, reference).savefig(temporary, dpi=110)
    print(f"prior ({origin}) -> {folder / 'prior.safetensors'}", flush=True)


def _card(finished: Finished, digest: str, origin: str, found: Mapping[int, list[float]]) -> str:
    hparams = finished.hparams
    sizes = sorted(found)
    lines = [
        f"# Slice prior: {hparams['modality'] or 'any modality'}{', complex' if hparams['complex'] else ''}",
        "",
        f"- network: `{hparams['network']}` {hparams['network_options'] or ''}, {finished.parameters / 1e6:.2f} M "
        "parameters, stored in half precision"
        + (f"; used with coarse_size {hparams['coarse_size']}" if hparams["coarse_size"] else ""),
        f"- data: {finished.data}",
        f"- trained: {finished.course}",
        f"- weights: averaged (EMA), of {origin}",
        f"- SHA-256: `{digest}`",
        "",
        "Denoising of held-out slices by these weights (PSNR in dB, peak 1):" if sizes else "Not validated.",
        "",
    ]
    if sizes:
        lines += [f"| sigma | {' | '.join(f'{size} pixels' for size in sizes)} |", "|---" * (len(sizes) + 1) + "|"]
        for i, sigma in enumerate(SIGMAS):
            lines.append(f"| {sigma:g} | {' | '.join(f'{found[size][i]:.2f}' for size in sizes)} |")
        lines.append("")
    return "\n".join(lines)
