"""What a result depends on, in plain data that can be hashed and written beside it."""

from __future__ import annotations

import hashlib
import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from lightning_mbir.data.measurements.measurement import Measurement
from lightning_mbir.data.units import Modality
from lightning_mbir.data.volumes.volume import Volume
from lightning_mbir.files import sha256
from lightning_mbir.flags import is_class_path
from lightning_mbir.lazy import imported
from lightning_mbir.methods.catalog import source_sha256
from lightning_mbir.packaged import PACKAGE
from lightning_mbir.prior import SliceDenoiser
from lightning_mbir.prior.checkpoints.checkpoint import bundled_sums
from lightning_mbir.prior.checkpoints.hub import local
from lightning_mbir.prior.checkpoints.weights import CONFIG, WEIGHTS

CHECKOUT = PACKAGE.parent


def digest(settings: dict[str, Any]) -> str:
    """SHA-256 of plain data, whatever the order of its keys."""
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def tensor_sha256(tensor: Tensor) -> str:
    """SHA-256 of the values, of float32 or whatever the tensor holds."""
    return hashlib.sha256(tensor.detach().cpu().contiguous().numpy().data).hexdigest()


def plain_data(value: Any) -> Any:
    """The same with the SHA-256 of arrays, sparse matrices and tensors in their place, so that it can be hashed."""
    if isinstance(value, dict):
        return {key: plain_data(item) for key, item in value.items()}
    if scipy.sparse.issparse(value):
        return plain_data({"shape": list(value.shape), "at": value.indptr, "of": value.indices, "values": value.data})
    if isinstance(value, np.ndarray):
        return tensor_sha256(torch.from_numpy(np.ascontiguousarray(value)))
    return tensor_sha256(value) if isinstance(value, Tensor) else value


def volume_identity(scan: Volume | Measurement) -> dict[str, Any]:
    """What is told of a volume or a measurement."""
    volume: dict[str, Any] = {"name": scan.name}
    if isinstance(scan, Volume):
        volume |= {"shape": list(scan.data.shape), "spacing_mm": [round(size, 6) for size in scan.spacing]}
        volume["sha256"] = tensor_sha256(scan.data)
    else:
        volume |= {"sha256": tensor_sha256(scan.y), "calibrated": scan.calibrated}
        volume["noise_std"] = scan.noise_std
        volume["geometry"] = plain_data(scan.geometry)
    return volume


def prior_identity(source: str | None, modality: Modality, prior: SliceDenoiser) -> dict[str, str | None]:
    """Name and SHA-256 of what ``load_task_prior`` reads; of a folder, those of its weights and its configuration, of a
    class path those of the weights that it has and of the file that it is from."""
    name = source or (f"{modality}_complex" if prior.complex else modality)
    if is_class_path(name):
        weights = digest(plain_data(dict(prior.network.state_dict())))
        return {
            "name": name,
            "sha256": weights,
            "module_sha256": source_sha256(imported("--prior", name, SliceDenoiser)),
        }
    bundled = bundled_sums()
    if name in bundled:
        return {"name": name, "sha256": bundled[name]}
    path = Path(local(name))
    config = {"config_sha256": sha256(path / CONFIG)} if path.is_dir() else {}
    return {"name": name, "sha256": file_sha256(path), **config}


def file_sha256(path: Path) -> str:
    """SHA-256 of a file or of the weights in a folder, read once as long as it stays the same file."""
    path = path / WEIGHTS if path.is_dir() else path
    known = path.stat()
    return _sha256(path, known.st_ino, known.st_mtime_ns, known.st_size)


@cache
def _sha256(path: Path, *_: int) -> str:
    return sha256(path)


def device_name(device: torch.device) -> str:
    """The model of a GPU; of others what torch calls them."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


@cache
def git_revision() -> str | None:
    """The revision that the package runs from, with ``-dirty`` where files were changed; None if not of a checkout."""
    if not (CHECKOUT / ".git").exists():
        return None
    command = ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None
