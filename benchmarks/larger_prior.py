"""What a network of twelve times the parameters gains over a bundled prior, which is of the size that CPUs can run.

    python benchmarks/larger_prior.py --data ../shared/data --priors ct mri phantom --steps 1500

The larger one starts from the bundled prior's own weights, widened so that it computes the very same (Chen et al. 2016,
"Net2Net", section 2.3), and is trained on the same slices, with ``fit`` and the prior's configuration: what it gains
is what width gains and further steps together. Prints the denoising PSNR of both by noise level, on the patient whom
both held out, who chooses the best checkpoint of ``fit``, and on one of ``test`` whom nothing has seen; for ``phantom``
on phantoms of either kind. All of it at full resolution, without ``coarse_size``. A training goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from prior_quality import SCANS, in_parts, slices
from torch import Tensor, nn

from lightning_mbir.cli import main as lightning_mbir
from lightning_mbir.prior import load_prior
from lightning_mbir.prior.checkpoints.checkpoint import read_prior, save_prior
from lightning_mbir.prior.networks.build import build_network
from lightning_mbir.prior.training.evaluate import SIGMAS, denoising_mse

CHANNELS = [48, 80, 192, 560]
"""The lower two levels of (48, 80, 96, 112), twice and five times as wide."""
HELD_OUT = {"ct": "acrin013", "mri": "openms_p20"}
SHOWN: dict[str, dict[str, Sequence[str]]] = {
    "ct": {"acrin013": ("ct/train/acrin013_chest.nii.gz",), "lungfcp0001": SCANS["chest CT"][2]},
    "mri": {
        "openms_p20": ("mri/train/openms_p20_T1W.nii.gz", "mri/train/openms_p20_FLAIR.nii.gz"),
        "openms_p04": SCANS["brain MRI"][2],
    },
    "phantom": {"held-out phantoms": ("chest 1000", "head 1000"), "other phantoms": ("chest 2000", "head 2000")},
}
"""Whose slices are denoised, by prior: files, or kinds of phantom and their seeds. The first choose the checkpoint."""


def widened(weights: dict[str, Tensor], into: nn.Module, uneven: float = 0.5, seed: int = 0) -> dict[str, Tensor]:
    """Weights with which a wider network computes what the narrower one of ``weights`` computes.

    Channels become so many equal ones, side by side, that the groups of group norm stay what they are. What leads on
    from one is shared among its copies, unevenly: equal shares would have equal gradients, and copies stay copies.

    Args:
        weights: of a ``LightUNet``.
        into: one whose widths are multiples of those, which are multiples of 16 where they differ.
        uneven: standard deviation of the shares, relative to their mean.
        seed: of the shares.
    """
    generator = torch.Generator().manual_seed(seed)
    result = {}
    for name, new in into.state_dict().items():
        w = weights[name]
        out = len(new) // len(w)
        w = w.repeat_interleave(out, 0)
        if "attention.qkv" in name:  # logits are sums over the copies too, and divided by the root of their number
            queries_and_keys = torch.arange(len(w)) < len(w) * 2 // 3
            w = w * torch.where(queries_and_keys, out**-0.25, 1.0).reshape(-1, *[1] * (w.ndim - 1))
        if w.ndim > 1 and (copies := new.shape[1] // w.shape[1]) > 1:
            noise = torch.randn(len(w), w.shape[1], copies, generator=generator)
            shares = (1 + uneven * (noise - noise.mean(2, keepdim=True))) / copies
            shares = shares.reshape(len(w), -1, *[1] * (w.ndim - 2))
            w = w.repeat_interleave(copies, 1) * shares
        result[name] = w
    return result


def grow(name: str, path: Path) -> None:
    """Write the wider network that computes what the bundled prior does."""
    network, config = read_prior(name)
    options = {**(config["network_options"] or {}), "channels": CHANNELS}
    wider = build_network(config["network"], options)
    wider.load_state_dict(widened(network.state_dict(), wider))
    save_prior(path, wider, {**config, "network_options": options, "coarse_size": None}, half=False)


def train(name: str, start: Path, folder: Path, args: argparse.Namespace) -> Path:
    """The larger prior after training."""
    if not (found := sorted(folder.glob("**/prior.safetensors"))):
        flags = ["--config", f"prior_{name}", "--model.init", str(start)]
        if name in HELD_OUT:
            flags += ["--data.path", str(args.data / name / "train"), "--data.held_out", HELD_OUT[name]]
        flags += ["--model.network_options", json.dumps({"channels": CHANNELS}), "--model.coarse_size", "null"]
        flags += ["--model.learning_rate", str(args.learning_rate), "--steps", str(args.steps)]
        flags += ["--data.cache_dir", str(args.output / "cache"), "--output_dir", str(folder)]
        flags += ["--trainer.accelerator", args.accelerator, "--trainer.devices", "1"]
        if checkpoints := sorted(folder.glob("**/last.ckpt"), key=lambda path: path.stat().st_mtime):
            flags += ["--ckpt_path", str(checkpoints[-1])]
        if status := lightning_mbir(["fit", *flags]):
            raise SystemExit(status)
        found = sorted(folder.glob("**/prior.safetensors"))
    return found[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--priors", nargs="+", default=list(SHOWN), choices=list(SHOWN))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--learning_rate", type=float, default=2e-4)
    parser.add_argument("--count", type=int, default=16, help="slices of each patient that are denoised")
    parser.add_argument("--accelerator", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, default=Path("outputs/larger_prior"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    lines = []
    for name in args.priors:
        start = args.output / f"{name}_wider.safetensors"
        grow(name, start)
        networks = {name: name, "wider, before training": start}
        folder = args.output / f"{name}_{args.steps}_{args.learning_rate:g}"
        networks[f"wider, after {args.steps} steps"] = train(name, start, folder, args)
        for who, sources in SHOWN[name].items():
            for size in (128, 256):
                images = slices(args.data, None if name == "phantom" else name, "axial", sources, size, args.count)
                for called, source in networks.items():
                    network = load_prior(source).network
                    network.coarse_size = None  # type: ignore[assignment]
                    cells = " | ".join(f"{value:.2f}" for value in in_parts(partial(denoising_mse, network), images))
                    parameters = sum(p.numel() for p in network.parameters()) / 1e6
                    lines.append(f"| {who} | {size} | {called} | {parameters:.1f} M | {cells} |")
                    print(lines[-1], flush=True)
    print("\n| patient | pixels | network | parameters | " + " | ".join(f"sigma {sigma:g}" for sigma in SIGMAS) + " |")
    print("|---" * (len(SIGMAS) + 4) + "|", *lines, sep="\n")


if __name__ == "__main__":
    main()
