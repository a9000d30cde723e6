"""``python -m lightning_mbir.reconstruction.bundle PRIOR FOLDER``: a prior and its inference as a bundle of MONAI.

The layout is that of MONAI's bundle specification; ``configs/inference.json`` runs what ``predict`` runs, by class
path, so that nothing of ours is written twice.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from torch import nn

from lightning_mbir.errors import InputError, fail
from lightning_mbir.files import whole_folder
from lightning_mbir.methods.catalog import check_method
from lightning_mbir.methods.method import NEEDS
from lightning_mbir.methods.settings import SETTINGS, check_task
from lightning_mbir.packaged import packaged
from lightning_mbir.prior.checkpoints.checkpoint import BUNDLED, read_prior, save_prior
from lightning_mbir.prior.checkpoints.weights import WEIGHTS
from lightning_mbir.prior.convert import card_of
from lightning_mbir.version import __version__

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
REQUIRED = ("lightning", "nibabel", "numpy", "safetensors", "scipy")
"""Beside MONAI and torch, packages whose versions the metadata tells; the other ones come with ours."""
GIVEN = ("prior", "gradients")
"""What a method may need and have in a bundle."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(message)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status (2 for input that cannot be used)."""
    parser = _Parser(
        prog="python -m lightning_mbir.reconstruction.bundle",
        description="Write a prior and its inference as a bundle of MONAI.",
    )
    parser.add_argument("prior", metavar="PRIOR", help="a name, a file or a folder, or hub:owner/name")
    parser.add_argument("folder", metavar="FOLDER", help="of the bundle, which must not be there yet")
    parser.add_argument("--task", help="sv_ct, la_ct or cs_mri [by the modality of the prior]")
    parser.add_argument("--method", default="dds", help="that reconstructs [dds]")
    parser.add_argument("--license", type=Path, help="a text file, of a prior that is not bundled with lightning_mbir")
    try:
        args = parser.parse_args(argv)
        print(f"-> {export_bundle(args.prior, args.folder, args.task, args.method, args.license)}")
    except InputError as error:
        return fail(str(error))
    return 0


def export_bundle(
    prior: str | Path,
    folder: str | Path,
    task: str | None = None,
    method: str = "dds",
    license: str | Path | None = None,
) -> Path:
    """Write a prior and its inference as a bundle of MONAI, which ``python -m monai.bundle run`` runs where
    ``lightning_mbir`` is installed.

    Args:
        prior: what ``load_prior`` takes.
        folder: of the bundle, which must not be there yet.
        task: ``sv_ct``, ``la_ct`` or ``cs_mri``; by default that of the prior's modality.
        method: that reconstructs, with the options of the task.
        license: file with the licence of the weights; of our own priors it is Apache-2.0.

    Returns:
        the folder.

    Raises:
        InputError: no such prior, task or method; a method that needs more than a prior; no licence of a prior that is
            not ours; a folder that is there, or that cannot be written.
    """
    folder = Path(folder)
    if folder.exists():
        raise InputError(f"{folder}: is there already; give another folder")
    terms = _licence(prior, license)
    network, config = read_prior(prior)
    if task is None and config["modality"] is None:
        raise InputError(f"{prior}: does not say of what modality it is; give --task sv_ct, la_ct or cs_mri")
    task = task or {"ct": "sv_ct", "mri": "cs_mri"}[config["modality"]]
    check_task(task)
    chosen = check_method(method, SETTINGS[task][0], {}, None)
    for need in chosen.needs:
        if need not in GIVEN:
            raise InputError(f"--method {method}: needs {NEEDS[need]}, which a bundle has not; give another")
    with whole_folder(folder) as new:
        for name in ("configs", "models", "docs"):
            (new / name).mkdir()
        save_prior(new / "models" / WEIGHTS, network, config)
        _write(new / "configs" / "metadata.json", _metadata(prior, network, config, task, method))
        _write(new / "configs" / "inference.json", _inference(network, task, method))
        (new / "docs" / "README.md").write_text(_readme(prior, network, config, task), encoding="utf-8")
        (new / "LICENSE").write_text(terms, encoding="utf-8")
    return folder


def _licence(prior: str | Path, license: str | Path | None) -> str:
    if license is None and str(prior) not in BUNDLED:
        raise InputError(f"{prior}: under which licence are its weights? give a text file with --license")
    path = packaged("LICENSE") if license is None else Path(license)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--license {path}: cannot be read as text ({error})") from error


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")


def _inference(network: nn.Module, task: str, method: str) -> dict[str, Any]:
    """What MONAI's parser makes of it: names that a user may give come first, then objects, then what is run."""
    return {
        "imports": ["$import pathlib"],
        "bundle_root": ".",
        "volume": None,
        "output_dir": "$@bundle_root + '/eval'",
        "prior": f"$@bundle_root + '/models/{WEIGHTS}'",
        "task": task,
        "method": method,
        "steps": None,
        "seed": 0,
        "image_size": 0,
        "slices": None,
        "data": {
            "_target_": "lightning_mbir.VolumeDataModule",
            "path": "$pathlib.Path(@volume) if @volume else None",
            "modality": SETTINGS[task][0],
            "image_size": "@image_size",
            "slices": "@slices",
        },
        "module": {
            "_target_": "lightning_mbir.ReconstructionModule",
            "task": "@task",
            "method": "@method",
            "prior": "@prior",
            "phase": True if getattr(network, "in_channels", 1) == 2 else None,
            "steps": "@steps",
            "seed": "@seed",
            "output_dir": "@output_dir",
        },
        "trainer": {
            "_target_": "lightning.Trainer",
            "accelerator": "auto",
            "devices": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        },
        "run": ["$@trainer.predict(@module, @data)"],
    }


def _metadata(prior: str | Path, network: nn.Module, config: dict[str, Any], task: str, method: str) -> dict[str, Any]:
    channels, stride = int(getattr(network, "in_channels", 1)), int(getattr(network, "stride", 1))
    together = int(getattr(network, "slices", 1))
    slices = {
        "type": "image",
        "format": "magnitude" if channels == 1 else "complex",
        "modality": {"ct": "CT", "mri": "MR"}.get(config["modality"] or "", "any"),
        "num_channels": channels * together,
        "spatial_shape": [f"{stride}*n", f"{stride}*n"],
        "dtype": "float32",
        "value_range": [0, 1] if channels == 1 else [-1, 1],
        "is_patch_data": False,
        "channel_def": {str(k): name for k, name in enumerate(_channels(channels, together))},
    }
    return {
        "schema": SCHEMA,
        "version": __version__,
        "changelog": {__version__: f"written by lightning_mbir {__version__}"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").partition("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {"lightning-mbir": __version__, **{name: version(name) for name in REQUIRED}},
        "name": f"Slice prior {Path(prior).name if Path(prior).exists() else prior}",
        "task": f"Reconstruction of {config['modality'] or 'medical'} volumes from too few measurements ({task})",
        "description": f"A 2D diffusion prior and its inference: {task} by {method}. No medical device.",
        "authors": "see docs/README.md",
        "copyright": "see LICENSE",
        "intended_use": "Research. What the measurement does not tell, the prior makes up, and it looks like anatomy.",
        "network_data_format": {
            "inputs": {
                "image": slices,
                "sigma": {
                    "type": "raw",
                    "format": "noise level",
                    "num_channels": 1,
                    "spatial_shape": [1],
                    "dtype": "float32",
                    "value_range": [0.01, 378],
                    "is_patch_data": False,
                    "channel_def": {"0": "standard deviation of the noise"},
                },
            },
            "outputs": {"pred": slices},
        },
    }


def _channels(channels: int, together: int) -> list[str]:
    parts = ["image"] if channels == 1 else ["real part", "imaginary part"]
    return [part if together == 1 else f"{part} of slice {k}" for k in range(together) for part in parts]


def _readme(prior: str | Path, network: nn.Module, config: dict[str, Any], task: str) -> str:
    lines = [
        card_of(prior, network, config),
        "## Running it",
        "",
        f"Where `lightning_mbir` {__version__} is installed, in the folder of the bundle:",
        "",
        "    python -m monai.bundle run --config_file configs/inference.json",
        "    python -m monai.bundle run --config_file configs/inference.json --volume scan.nii.gz --output_dir out",
        "",
        f"The first reconstructs a drawn phantom, the second a measurement simulated from a NIfTI file ({task}).",
        "`recon.nii.gz`, `metrics.json` (PSNR and SSIM) and `report.html` go into `output_dir` [eval]. Also `--steps`,",
        "`--method`, `--seed`, `--image_size`, `--slices 40:56`.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
