"""``python -m lightning_mbir.prior.convert IN OUT``: a prior from any file we read to one that can be shared."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

from torch import nn

from lightning_mbir.errors import InputError, fail
from lightning_mbir.files import sha256
from lightning_mbir.prior.checkpoints.checkpoint import ASSETS, BUNDLED, read_prior, save_prior
from lightning_mbir.prior.checkpoints.hub import HubPrior, is_hub, local, push_folder
from lightning_mbir.prior.checkpoints.weights import CARD, CONFIG, WEIGHTS

TRAINING = "## Training"
"""Heading of a model card after which comes what only the one who trained the prior can tell."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(message)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status (2 for input that cannot be used)."""
    parser = _Parser(
        prog="python -m lightning_mbir.prior.convert",
        description="Write a prior as one .safetensors file, or as a folder with model.safetensors, config.json and "
        "README.md that can be shared, or to the Hugging Face hub.",
    )
    parser.add_argument("source", metavar="IN", help="released checkpoint, checkpoint of `fit`, or a prior of ours")
    parser.add_argument("target", metavar="OUT", help="a .safetensors file, a folder, or hub:owner/name")
    parser.add_argument("--modality", choices=["ct", "mri"], help="what it was trained on [as IN says]")
    parser.add_argument("--raw", action="store_true", help="the raw weights of a checkpoint instead of the averaged")
    parser.add_argument("--half", action="store_true", help="store half precision, half the size [float32]")
    parser.add_argument("--force", action="store_true", help="replace OUT if it is there")
    parser.add_argument("--private", action="store_true", help="of the hub: a repository that is new is private")
    parser.add_argument("--prior_network", metavar="PATH", help="class path of a network not of ours, whose code runs")
    try:
        args = parser.parse_args(argv)
        changes, network = (args.modality, args.raw, args.half), args.prior_network
        if is_hub(args.target):
            print(f"-> {push_prior(args.source, args.target, *changes, private=args.private, network=network)}")
        else:
            print(convert(args.source, args.target, *changes, args.force, network))
    except InputError as error:
        return fail(str(error))
    return 0


def convert(
    source: str | Path,
    target: str | Path,
    modality: str | None = None,
    raw: bool = False,
    half: bool = False,
    force: bool = False,
    network: str | None = None,
) -> str:
    """Write a prior that ``load_prior`` reads as a file or folder of ours.

    Args:
        source: what ``load_prior`` takes.
        target: a ``.safetensors`` file, or a folder.
        modality: ``"ct"`` or ``"mri"``, where the source does not say or says something else.
        raw: of a checkpoint of a training, the raw weights instead of the averaged ones.
        half: half precision; else float32, which keeps the weights of a checkpoint exactly.
        force: replace what is there.
        network: class path of the source's network, where it is not ours and you trust it; its code runs.

    Returns:
        One line that tells what was written.

    Raises:
        InputError: a source that is no prior, a target that is there or cannot be written.
    """
    target, source = Path(target), local(source)
    _check_target(target, force)
    made, config = read_prior(source, ema=not raw, network=network)
    if modality is not None:
        config = {**config, "modality": modality}
    origin = _file_of(source)
    if "converted_from" not in config and origin.suffix != ".safetensors":
        weights = "raw" if raw else "averaged"
        config["converted_from"] = {"file": origin.name, "sha256": sha256(origin), "weights": weights}
    dtype = "half precision" if half else "float32"
    card = None if target.suffix == ".safetensors" else card_of(source, made, config, dtype)
    digest = save_prior(target, made, config, half=half, card=card)
    size = (target / WEIGHTS if card else target).stat().st_size
    return (
        f"{config['network']}, {_millions(made)} M parameters, modality {config['modality'] or 'none'}, {dtype}, "
        f"sha256 {digest}, {size / 1e6:.1f} MB -> {target}"
    )


def push_prior(
    source: str | Path,
    target: str,
    modality: str | None = None,
    raw: bool = False,
    half: bool = False,
    private: bool = False,
    network: str | None = None,
) -> str:
    """Push a prior and its card to the Hugging Face hub, as safetensors, which hold no code (extra ``hub``).

    Args:
        source: what ``load_prior`` takes.
        target: ``hub:owner/name``, or ``hub:owner/name@branch``; the repository is made where it is not there.
        modality, raw, half: as the command has them: what it was trained on where ``source`` does not say it, the raw
            weights of a training instead of the averaged ones, half precision.
        private: a repository that is made is seen by its owner alone.
        network: class path of the source's network, where it is not ours and you trust it; its code runs.

    Returns:
        what ``--prior`` and ``load_prior`` take from now on, with the commit and the SHA-256 of the weights.

    Raises:
        InputError: a source that is no prior; no such extra, no network, nobody logged in, no permission.
    """
    wanted = HubPrior.of(target)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "prior"
        convert(source, folder, modality, raw, half, network=network)
        digest = sha256(folder / WEIGHTS)
        commit = push_folder(folder, wanted.repo, wanted.revision, private)
    return str(HubPrior(wanted.repo, commit, digest))


def _check_target(target: Path, force: bool) -> None:
    if target.suffix in (".ckpt", ".pth", ".pt", ".bin", ".json"):
        raise InputError(f"{target}: give a name that ends in .safetensors, or a folder")
    if target.suffix == ".safetensors" and target.is_dir():
        raise InputError(f"{target}: a folder is there; give another name")
    if target.exists() and not force:
        raise InputError(f"{target}: is there already; give another name, or --force to replace it")


def _file_of(source: str | Path) -> Path:
    """The file that holds the weights."""
    if str(source) in BUNDLED:
        return ASSETS / f"{source}.safetensors"
    return Path(source) / WEIGHTS if Path(source).is_dir() else Path(source)


def card_of(source: str | Path, network: nn.Module, config: dict[str, Any], dtype: str = "half precision") -> str:
    """The model card of a prior, in Markdown, with what its source's card tells of the training.

    Args:
        source: what ``read_prior`` was given.
        network, config: what it gave.
        dtype: in which it is stored, in words.
    """
    return _card(network, config, dtype, _old_card(local(source)), str(source) in BUNDLED)


def _old_card(source: str | Path) -> str:
    """What the source's card tells of the training: of a folder its README.md, of a file the .md beside it."""
    path = Path(source) / CARD if Path(source).is_dir() else _file_of(source).with_suffix(".md")
    if not path.is_file():
        return ""
    text = path.read_text(encoding="utf-8", errors="replace")
    if TRAINING in text:
        return text.partition(TRAINING)[2].strip()
    stale = ("# ", "- network:", "- SHA-256:")  # said anew, of what is written now
    return "\n".join(line for line in text.splitlines() if not line.startswith(stale)).strip()


def _card(network: nn.Module, config: dict[str, Any], dtype: str, training: str, bundled: bool) -> str:
    kind = config["modality"] or "any modality"
    complex_ = ", complex" if getattr(network, "in_channels", 1) == 2 else ""
    origin = config.get("converted_from")
    tags = ["diffusion", "inverse-problems", "medical-imaging", *filter(None, [config["modality"]])]
    lines = [
        "---",
        "library_name: lightning_mbir",
        *(["license: apache-2.0"] if bundled else []),
        f"tags: [{', '.join(tags)}]",
        "---",
        "",
        f"# Slice prior: {kind}{complex_}",
        "",
        f"- network: `{config['network']}` {json.dumps(config['network_options'] or {})}, {_millions(network)} M "
        f"parameters, {dtype}" + (f"; used with coarse_size {coarse}" if (coarse := config.get("coarse_size")) else ""),
        *([f"- converted from `{origin['file']}`, {origin['weights']} weights"] if isinstance(origin, dict) else []),
        f"- SHA-256 of `{WEIGHTS}`: in `{CONFIG}`, checked when it is loaded",
        '- use: `python -m lightning_mbir predict --prior THIS_FOLDER`, or `load_prior("THIS_FOLDER")`',
        "",
        *([TRAINING, "", training, ""] if training else []),
    ]
    return "\n".join(lines)


def _millions(network: nn.Module) -> str:
    return f"{sum(p.numel() for p in network.parameters()) / 1e6:.2f}"


if __name__ == "__main__":
    sys.exit(main())
