"""The flags of the command line that are mostly used: their help, and what their values may be.

Nothing heavy is imported here, so that a slip of the pen is told at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_mbir.errors import InputError
from lightning_mbir.flag_values import (
    Numbers,
    checkpoint,
    existing,
    faults,
    number,
    partial_fourier,
    rotation_center,
    scatter_share,
    slice_range,
    stack,
    truth,
    voxel_size,
    whitening,
    whole,
)  # fmt: skip
from lightning_mbir.lazy import check_trusted
from lightning_mbir.packaged import PACKAGE, config_file

MOST_STEPS, MOST_SAMPLES, MOST_PIXELS, MOST_SEED = 100_000, 10_000, 16_384, 2**32 - 1
"""More noise levels, samples or pixels along a side are a slip of the pen; seeds are those that numpy takes."""
MOST_VIEWS, MOST_COILS, MOST_ACC = 10_000, 1024, 1e6
"""Nor would more than these fit into memory; ``methods.settings`` refuses them, with words of their own."""
FORMATS = ("nifti", "dicom")
SPLITS = ("auto", "slices", "volumes")
MASKS = ("uniform1d", "gaussian1d", "gaussian2d", "poisson2d", "equispaced", "radial")
"""Kinds of masks of k-space; their order is in the seeds."""


HUB = re.compile(r"hub:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?(?:#([0-9a-f]{64}))?")
"""A prior of the Hugging Face hub: its repository, revision, and SHA-256 of the weights."""


@dataclass(frozen=True)
class Flag:
    """A short flag: another name of one of Lightning's arguments.

    Attributes:
        name: what is typed.
        help: a line, with the default in brackets.
        kind: makes the value of its text, or raises an ``InputError`` that says what would be right; of numbers it
            knows the range.
        argument: Lightning's; empty where it is the name.
    """

    name: str
    help: str
    kind: Callable[[str], Any] = str
    argument: str = ""

    @property
    def target(self) -> str:
        """Lightning's argument."""
        return self.argument or self.name

    @property
    def text(self) -> str:
        """What help says of it: a line with the default in brackets, then what numbers are allowed."""
        return "; ".join(filter(None, (self.help, self.kind.range if isinstance(self.kind, Numbers) else "")))

    def value(self, text: str) -> Any:
        """The value of a text; None of ``null``.

        Raises:
            InputError: a text that stands for none; what is wrong with it, by the name of the flag.
        """
        if text in ("null", "None", "~"):
            return None
        try:
            return self.kind(text)
        except InputError as error:
            raise InputError(f"{self.name} {text}: {error}") from error
        except OSError as error:  # of a path that no disk would have
            raise InputError(f"{self.name} {text}: {error.strerror}; give a shorter or another path") from error


def seed(text: str) -> int | bool:
    """A seed as numpy takes it; ``true`` draws one, ``false`` leaves all as it is."""
    return truth(text) if text.lower() in ("true", "false") else whole(0, MOST_SEED)(text)


def written(text: str) -> str:
    """``nifti`` or ``dicom``."""
    if text not in FORMATS:
        raise InputError(f"give {' or '.join(FORMATS)}")
    return text


def shared(text: str) -> str:
    """What devices share."""
    if text not in SPLITS:
        raise InputError(f"give {', '.join(SPLITS)}")
    return text


VOLUMES = existing("a volume (docs/volumes.md), a DICOM series or a folder of them")
MEASUREMENT = existing("an .h5, .npz, .mat, .tif, .dat, .cfl, .xml or .xtekct file, or a folder of TIFF or DICOM-CT-PD")
FIELD_MAP = existing("NIfTI, or .npz or .h5 with b0 in Hz", folders=False)
ANGLES = existing("a text file", folders=False)
NOISE = existing("an MRD (.h5) or TWIX (.dat) file", folders=False)
NETWORK = existing("the unet.safetensors of a `fit_unet`", folders=False)


def prior(text: str) -> str:
    """A bundled prior, a file or folder that is there, one of the hub, or a class path."""
    if text.startswith("hub:"):
        if not HUB.fullmatch(text):
            raise InputError("give hub:owner/name, or hub:owner/name@revision#SHA-256")
        return text
    bundled = sorted(path.stem for path in (PACKAGE / "assets").glob("*.safetensors"))
    if text not in bundled and not Path(text).exists() and not is_class_path(text):
        known = ", ".join(bundled) or "none, which is a damaged install: reinstall lightning_mbir"
        raise InputError(f"no such file or folder, and no bundled prior ({known})")
    return code(text)


def code(text: str) -> str:
    """A name, or a class path that may be imported."""
    if is_class_path(text):
        check_trusted(text)
    return text


def folder(text: str) -> Path:
    """A folder, which need not be there yet."""
    Path(text).exists()  # raises for a name that no disk would have
    return Path(text)


def is_class_path(text: object) -> bool:
    """Whether this is ``package.module.name`` rather than a name or a file."""
    if not isinstance(text, str) or "." not in text or Path(text).exists():
        return False
    parts = text.split(".")
    known = parts[-1] in ("safetensors", "ckpt", "pth", "pt")
    return len(parts) > 1 and not known and all(part.isidentifier() for part in parts)


TRUST = Flag("--trust", "packages whose class paths may be named, with commas; their code runs [none]")
"""Counts only where it is typed; see ``lazy.trusting``."""
CONFIG = Flag("--config", "YAML file, or the name of one in configs/", config_file)


RECONSTRUCTION_FLAGS = (
    Flag("--task", "sv_ct (sparse views), la_ct (limited angle) or cs_mri (undersampled k-space)", str, "--model.task"),
    Flag("--views", f"CT: number of views [8; la_ct 90]; 1 to {MOST_VIEWS}", whole(), "--model.views"),
    Flag(
        "--angle_range",
        "CT: degrees that views are spread over [180; la_ct 90]; above 0, to 180",
        number(),
        "--model.angle_range",
    ),
    Flag(
        "--acc", f"MRI: acceleration, all samples over measured ones [8]; 1 to {MOST_ACC:.0f}", number(), "--model.acc"
    ),
    Flag(
        "--mask", "uniform1d, gaussian1d, equispaced, gaussian2d, poisson2d or radial [gaussian1d]", str, "--model.mask"
    ),
    Flag(
        "--photons",
        "CT: photons a ray, for noise and weights, such as 1e5 [no noise]; above 0, to 1e15",
        number(),
        "--model.photons",
    ),
    Flag("--snr", "MRI: signal to noise of k-space in dB, such as 30 [no noise]; -300 to 300", number(), "--model.snr"),
    Flag(
        "--coils",
        f"MRI: receive coils with known maps [one that sees all alike]; 1 to {MOST_COILS}",
        whole(),
        "--model.coils",
    ),
    Flag("--phase", "MRI: true simulates a smooth image phase [false]", truth, "--model.phase"),
    Flag(
        "--method",
        "one of those below, a class path, or auto: what predicts held-out data best [dds; measured: auto]",
        code,
        "--model.method",
    ),
    Flag("--tune", "true: search the method's options by the measurement itself [with auto]", truth, "--model.tune"),
    Flag("--tune_evaluations", "settings that are tried at most [30]", whole(1), "--model.tune_evaluations"),
    Flag(
        "--tune_minutes",
        "minutes after which no more are tried [no limit]",
        number(positive=True),
        "--model.tune_minutes",
    ),
    Flag(
        "--samples",
        "of the posterior: gives their mean and standard deviation [1]",
        whole(1, MOST_SAMPLES),
        "--model.samples",
    ),
    Flag("--steps", "noise levels or iterations [the method's own]", whole(1, MOST_STEPS), "--model.steps"),
    Flag("--seed", "of all noise and the mask; the same seed gives the same volume [0]", whole(0), "--model.seed"),
    Flag(
        "--prior",
        "ct, ct3, mri, mri_complex, phantom, generic, a file, or hub:owner/name [by the task]",
        prior,
        "--model.prior",
    ),
    Flag(
        "--prior_network",
        "class path of its network, where that is another package's [what its file says]",
        code,
        "--model.prior_network",
    ),
    Flag("--operator", "class path of your own operator, that simulates, not the task's", code, "--model.operator"),
    Flag("--ckpt_path", "the same as --prior", prior, "--model.prior"),
    Flag("--second_prior", "tpdm: prior of coronal slices, such as ct_coronal", prior, "--model.second_prior"),
    Flag("--network", "file of a trained network, for methods that need one", NETWORK, "--model.network"),
    Flag("--slice_batch", "slices that pass the network at once [by the memory]", whole(1), "--model.slice_batch"),
    Flag(
        "--model.precision",
        "of the prior: float32, bfloat16, or auto: bfloat16 where the device has it in hardware [auto]",
    ),
    Flag("--model.compile", "true: run the prior through torch.compile [false]", truth),
    Flag("--output_dir", "where results go [outputs]", folder, "--model.output_dir"),
    Flag("--overwrite", "true: do again what is finished, with the same settings [false]", truth, "--model.overwrite"),
    Flag("--report", "false: leave out report.html, with which results are looked at [true]", truth, "--model.report"),
    Flag("--data.path", "a volume, a DICOM folder, or a folder of them [a demo phantom]", VOLUMES),
    Flag(
        "--data.measurement",
        "or a measurement (.h5, .npz, .mat, .tif, .dat, .cfl, .xml, .xtekct, folder of TIFF or DICOM-CT-PD)",
        MEASUREMENT,
    ),
    Flag("--data.correct", "faults taken from projections: rings,zingers,drift [none]", faults),
    Flag(
        "--data.scatter",
        "its share of the open beam, such as 0.02 [none]; above 0, below 1",
        scatter_share,
    ),
    Flag("--data.beam_hardening", "of one material: consistency, or a text file of a polynomial or spectrum [none]"),
    Flag(
        "--data.rotation_center",
        "bin of the rotation axis, or search [searched for, of parallel rays]",
        rotation_center,
    ),
    Flag("--data.angles", "TIFF, Nikon: text file of an angle in degrees a view", ANGLES),
    Flag("--data.flat_field", "TIFF: flat fields, counts of the open beam, or none"),
    Flag("--data.dark_field", "TIFF: dark fields", existing("a TIFF file or a folder of them")),
    Flag("--data.axes", "what the dimensions of a measured kspace are, such as 'coil y x'"),
    Flag("--data.select", "which of several in a scanner's file: echo=1,repetition=0"),
    Flag("--data.noise_scan", "another scanner's file, with noise of the same coils", NOISE),
    Flag(
        "--data.whiten",
        "false: leave the noise of coils as a noise scan shows it; corners: whiten what the corners of k-space show "
        "[true]",
        whitening,
    ),
    Flag("--data.oversampling", "of the readout, where the file leaves it open: 1 or 2 [what the file says]", number()),
    Flag(
        "--data.partial_fourier",
        "a side of k-space that was not measured: zero, or completed by pocs or homodyne [zero]",
        partial_fourier,
    ),
    Flag(
        "--data.coil_energy",
        "compress coils: share of energy to keep, such as 0.99 [no compression]; above 0, to 1",
        number(),
    ),
    Flag("--data.field_map", "how far the main field is off, in Hz [not at all]", FIELD_MAP),
    Flag("--data.readout_time", "for a field map: seconds of a readout [of the scanner's file]", number(positive=True)),
    Flag("--data.echo_spacing", "for a field map: seconds between echo-planar lines [none]", number(positive=True)),
    Flag("--data.image_size", "pixels a side that slices are reconstructed at [0: their own]", whole(0, MOST_PIXELS)),
    Flag("--data.series", "which series of a DICOM folder with several: its number or UID"),
    Flag("--data.spacing", "voxel size z,y,x in mm of an .npy or .npz array: 3,0.8,0.8", voxel_size),
    Flag("--data.slices", "part of the volume, or of a measurement, such as 20:44 [all]", slice_range),
    Flag("--trainer.devices", "devices that share the volumes or slices [all there are]"),
    CONFIG,
    TRUST,
)
SIMULATION = ("--task", "--views", "--angle_range", "--acc", "--mask", "--photons", "--snr", "--coils", "--phase")
TEST_FLAGS = (
    Flag("--methods", "several to compare on the same measurements, such as dds,admm_tv,fbp", str, "--model.methods"),
    Flag("--lpips", "true: score by LPIPS too, which needs torchvision [false]", truth, "--model.lpips"),
    *RECONSTRUCTION_FLAGS,
)
TRAINING_FLAGS = (
    Flag("--data.path", "a folder of volumes [phantoms]", VOLUMES),
    Flag("--data.modality", "ct or mri [ct]"),
    Flag("--data.axis", "axial, coronal or sagittal slices [axial]"),
    Flag("--data.image_size", "pixels a side of the slices, or several sizes: [128,256] [128]"),
    Flag("--data.complex", "true: slices with a simulated phase, for complex MRI [false]", truth),
    Flag("--data.slices", "3: a prior of three neighbouring slices [1]", stack),
    Flag("--data.batch_size", "slices a step and device [8]", whole(1)),
    Flag("--data.num_workers", "processes that read and vary slices [0]", whole(0)),
    Flag("--data.held_out", "patient kept for validation, or several: [a,b] [the last by name]"),
    Flag(
        "--data.leaves_fraction",
        "share of slices that are dead leaves: objects of no anatomy [0]",
        number(least=0, most=1),
    ),
    Flag("--model.network", "light, ncsnpp or monai [light]", code),
    Flag("--model.init", "prior to start from: a name or a file", prior),
    Flag("--model.objective", "edm or dsm (the paper's) [edm]"),
    Flag("--model.learning_rate", "of Adam, after a warm-up [0.0005]", number(positive=True)),
    Flag("--model.compile", "true: run the network through torch.compile [false]", truth),
    Flag("--steps", "optimiser steps, -1 for no end [20000]", whole(-1), "--trainer.max_steps"),
    Flag("--seed", f"of weights, order and noise; true draws one [0]; 0 to {MOST_SEED}", seed, "--seed_everything"),
    Flag(
        "--output_dir", "where logs, checkpoints and the prior go [outputs/fit]", folder, "--trainer.default_root_dir"
    ),
    Flag("--ckpt_path", "checkpoint to go on from", checkpoint),
    CONFIG,
    TRUST,
)
VALIDATION_FLAGS = (
    Flag("--model.init", "the prior to score: a name or a file", prior),
    Flag("--ckpt_path", "or a checkpoint of a training, with its --model settings", checkpoint),
    Flag("--data.path", "a folder of volumes, of which the held-out ones count [phantoms]", VOLUMES),
    Flag("--data.held_out", "the patient that counts, or several: [a,b] [the last by name]"),
    *(flag for flag in TRAINING_FLAGS if flag.name in ("--data.modality", "--data.axis", "--data.image_size")),
    Flag("--data.complex", "true: of a prior of complex slices; a phase is simulated [false]", truth),
    Flag("--data.slices", "3: of a prior of three neighbouring slices [1]", stack),
    Flag("--data.batch_size", "slices that pass the network at once [8]", whole(1)),
    *(flag for flag in TRAINING_FLAGS if flag.name in ("--data.num_workers", "--model.network")),
    CONFIG,
    TRUST,
)
UNET_FLAGS = (
    *(flag for flag in RECONSTRUCTION_FLAGS if flag.name in SIMULATION),
    Flag("--data.path", "a folder of volumes, of two patients or more", VOLUMES),
    Flag("--data.image_size", "pixels a side that slices are resized to, as in predict [128]", whole(1, MOST_PIXELS)),
    Flag("--data.batch_size", "slices a step and device [8]", whole(1)),
    Flag("--data.held_out", "patient kept for validation [the last by name]"),
    Flag("--data.variants", "measurements of each volume, as it is and varied [32]", whole(1)),
    Flag("--model.loss", "l2 or l1 [l2]"),
    Flag("--model.learning_rate", "of Adam, after a warm-up [0.001]", number(positive=True)),
    Flag("--steps", "optimiser steps, -1 for no end [2000]", whole(-1), "--trainer.max_steps"),
    Flag("--seed", "of the mask, the weights and the order of slices [0]", whole(0), "--model.seed"),
    Flag(
        "--output_dir",
        "where logs, checkpoints and the network go [outputs/unet]",
        folder,
        "--trainer.default_root_dir",
    ),
    Flag("--ckpt_path", "checkpoint to go on from", checkpoint),
    CONFIG,
    TRUST,
)
PREDICTION_FLAGS = (
    *RECONSTRUCTION_FLAGS[:-1],
    Flag(
        "--off_by",
        "with samples: map how likely a voxel is off by more; CT: HU, such as 50; MRI: share of the peak: 0.05 [none]",
        number(positive=True),
        "--model.off_by",
    ),
    Flag(
        "--split",
        "what devices share: volumes, slices of each volume, or auto: slices where volumes are fewer [auto]",
        shared,
        "--model.split",
    ),
    Flag(
        "--checkpoint_minutes",
        "between two states that are kept, from which the same command goes on; 0 for none [5]",
        number(least=0),
        "--model.checkpoint_minutes",
    ),
    Flag("--write", "nifti, or dicom: a derived series of a DICOM input too [nifti]", written, "--model.write"),
    RECONSTRUCTION_FLAGS[-1],
)
SUBCOMMANDS = {
    "predict": ("reconstruct volumes and write them", PREDICTION_FLAGS),
    "test": ("reconstruct volumes and score them, or compare several methods; writes no volume", TEST_FLAGS),
    "fit": ("train a slice prior", TRAINING_FLAGS),
    "validate": ("score a slice prior on held-out slices: how well it takes noise away", VALIDATION_FLAGS),
    "fit_unet": ("train a network for one measurement, for --method fbp_unet", UNET_FLAGS),
}
SWITCHES = {
    "--quiet": "errors and results alone: no messages, no progress",
    "--verbose": "also what was chosen, with all that is set, and how long it took",
}
"""Of every subcommand, without a value."""
DEFAULT_TASKS = {"predict": "cs_mri", "test": "cs_mri", "fit_unet": "sv_ct"}
"""What ``--task`` is where it is not given, of the subcommands that have one."""
