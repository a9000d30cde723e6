"""Priors in files: our safetensors format, Lightning checkpoints, released checkpoints, and the bundled ones."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from lightning_mbir.errors import InputError
from lightning_mbir.prior.denoiser import SliceDenoiser, Unit
from lightning_mbir.prior.networks import build_network
from lightning_mbir.prior.score_sde import import_score_sde

BUNDLED = ("ct", "mri")
FORMAT = "lightning_mbir.prior.1"


def save_prior(path: str | Path, network: nn.Module, config: dict[str, Any]) -> str:
    """Write a network in half precision with what is needed to build it again; returns the file's SHA-256.

    Args:
        path: a ``.safetensors`` file; written whole or not at all.
        network: its parameters and buffers.
        config: plain data with ``network``, ``network_options`` and ``modality``.
    """
    path = Path(path)
    tensors = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).detach().cpu().contiguous()
        for name, tensor in network.state_dict().items()
    }
    data = safetensors.torch.save(tensors, metadata={"format": FORMAT, "config": json.dumps(config)})
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".partial-")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        Path(temporary).chmod(0o644)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return hashlib.sha256(data).hexdigest()


def load_prior(source: str | Path, slice_batch: int = 16, precision: str = "float32") -> SliceDenoiser:
    """A denoiser from the name of a bundled prior, or from a file.

    Args:
        source: ``"ct"``, ``"mri"``; a ``.safetensors`` file of ours; a Lightning ``.ckpt`` of ``ScorePriorModule``
            (its EMA weights); or a ``.pth`` in the released score_sde_pytorch layout (EMA weights, images in [0, 1]).
        slice_batch: slices that pass the network at once.
        precision: ``"float32"`` or ``"bfloat16"``.

    Raises:
        InputError: no such prior, a file that is cut short, or that holds something else.
    """
    if str(source) in BUNDLED:
        with resources.as_file(resources.files("lightning_mbir") / "assets" / f"{source}.safetensors") as path:
            network, modality = _read_safetensors(path)
    else:
        path = Path(source)
        if not path.is_file():
            raise InputError(f"--prior {source}: no such file, and no bundled prior ({', '.join(BUNDLED)})")
        if path.suffix == ".safetensors":
            network, modality = _read_safetensors(path)
        elif path.suffix == ".ckpt":
            network, modality = _read_lightning(path)
        elif path.suffix in (".pth", ".pt"):
            network, modality = import_score_sde(path), None
        else:
            raise InputError(f"--prior {source}: give a .safetensors, .ckpt or .pth file, not {path.suffix or 'this'}")
    unit = Unit.of(modality) if modality else Unit()
    return SliceDenoiser(network, unit, modality, slice_batch=slice_batch, precision=precision)


def _read_safetensors(path: Path) -> tuple[nn.Module, Any]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a whole safetensors file ({error}); get it again") from error
    if metadata.get("format") != FORMAT:
        raise InputError(f"{path}: safetensors of something else; a prior of ours says format {FORMAT}")
    config = json.loads(metadata["config"])
    network = build_network(config["network"], config["network_options"])
    _load_exactly(network, tensors, path)
    return network, config["modality"]


def _read_lightning(path: Path) -> tuple[nn.Module, Any]:
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
        raise InputError(f"{path}: not a whole Lightning checkpoint; train it again or take an earlier one") from error
    if not isinstance(checkpoint, dict) or not {"state_dict", "hyper_parameters"} <= checkpoint.keys():
        raise InputError(f"{path}: not a checkpoint of `fit`; give one that ScorePriorModule wrote")
    hyper = checkpoint["hyper_parameters"]
    if not {"network", "network_options", "modality"} <= hyper.keys():
        raise InputError(f"{path}: a Lightning checkpoint of another module; give one that ScorePriorModule wrote")
    network = build_network(hyper["network"], hyper["network_options"])
    prefix = "ema.module."
    tensors = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
    _load_exactly(network, tensors, path)
    return network, hyper["modality"]


def _load_exactly(network: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Every weight, and no other, or an error: a prior that is partly untrained must never run."""
    try:
        network.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        first = next((line.strip() for line in str(error).splitlines()[1:]), str(error))
        raise InputError(f"{path}: the weights do not fit the network that the file names ({first[:160]})") from error
