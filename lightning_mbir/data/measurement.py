"""Measurements that were really made: sinograms and k-space with their geometry, from one file."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from lightning_mbir.data.volume import Modality
from lightning_mbir.errors import InputError

REQUIRED = {"ct": ("measurement", "angles", "image_size", "pixel_size"), "mri": ("measurement", "mask")}


@dataclass(frozen=True)
class Measurement:
    """A measurement and what is needed to build its operator.

    Attributes:
        y: ``(Z, views, detectors)`` line integrals, or ``(Z, Y, X)`` centred complex k-space.
        geometry: CT: ``angles`` (degrees), ``image_size``, ``pixel_size`` and ``detector_spacing`` (mm),
            ``center_offset`` (mm). MRI: ``mask`` ``(Y, X)``.
        affine: of the volume to come, from ``(x, y, z)`` to mm.
        name: what its results are filed under.
        modality: ``"ct"`` or ``"mri"``.
    """

    y: Tensor
    geometry: dict[str, Any]
    affine: np.ndarray
    name: str
    modality: Modality


def read_measurement(path: str | Path, modality: Modality) -> Measurement:
    """Read ``measurement`` and its geometry from an HDF5 (``.h5``) or NumPy (``.npz``) file.

    Keys: ``measurement``; for CT ``angles`` (degrees), ``image_size``, ``pixel_size`` (mm) and optionally
    ``detector_spacing`` and ``center_offset`` (mm); for MRI ``mask`` ``(Y, X)`` or ``(X,)``; for both, optionally
    ``spacing``, the voxel size ``(z, y, x)`` in mm.

    Raises:
        InputError: no such file, keys that are missing, wrong dimensions, values that are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"--data.measurement {path}: no such file; give an .h5 or .npz file")
    content = _content(path)
    missing = [key for key in REQUIRED[modality] if key not in content]
    if missing:
        raise InputError(f"{path}: lacks {', '.join(missing)}; a {modality} measurement has {REQUIRED[modality]}")
    array = content["measurement"]
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3:
        raise InputError(f"{path}: the measurement has {array.ndim} dimensions; give (Z, views, bins) or (Z, Y, X)")
    if not np.isfinite(array).all():
        raise InputError(f"{path}: the measurement has NaN or infinite values; correct them first")
    if modality == "ct":
        y = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
        geometry = _ct_geometry(path, content, array.shape)
        pixel = (geometry["pixel_size"], geometry["pixel_size"])
    else:
        y = torch.from_numpy(np.ascontiguousarray(array, dtype=np.complex64))
        mask = content["mask"]
        if mask.shape not in (array.shape[1:], array.shape[2:]):
            raise InputError(f"{path}: the mask is {mask.shape}, k-space {array.shape[1:]}; give (Y, X) or (X,)")
        mask = np.broadcast_to(mask, array.shape[1:])
        geometry = {"mask": torch.from_numpy(np.array(mask, dtype=np.float32))}
        pixel = (1.0, 1.0)
    spacing = np.asarray(content.get("spacing", [1.0, *pixel]), dtype=float)
    if spacing.shape != (3,) or not (np.isfinite(spacing).all() and (spacing > 0).all()):
        raise InputError(f"{path}: spacing is {spacing.tolist()}; give the voxel size (z, y, x) in mm")
    if modality == "ct" and not np.allclose(spacing[1:], pixel, rtol=1e-3):
        raise InputError(f"{path}: spacing is {spacing.tolist()} but pixel_size {pixel[0]:g}; they must agree")
    z, dy, dx = spacing.tolist()
    name = path.name.rsplit(".", 1)[0]
    return Measurement(y, geometry, np.diag([dx, dy, z, 1.0]), name, modality)


def _ct_geometry(path: Path, content: dict[str, np.ndarray], shape: tuple[int, ...]) -> dict[str, Any]:
    angles = np.atleast_1d(content["angles"]).astype(float)
    if len(angles) != shape[1]:
        raise InputError(f"{path}: {len(angles)} angles but {shape[1]} views; give one angle a view, in degrees")
    for key in ("image_size", "pixel_size", "detector_spacing", "center_offset"):
        if key in content and content[key].size != 1:
            raise InputError(f"{path}: {key} has {content[key].size} values; give one number")
    pixel_size = float(content["pixel_size"].item())
    return {
        "image_size": int(content["image_size"].item()),
        "angles": angles.tolist(),
        "n_detectors": shape[2],
        "pixel_size": pixel_size,
        "detector_spacing": float(content["detector_spacing"].item()) if "detector_spacing" in content else pixel_size,
        "center_offset": float(content["center_offset"].item()) if "center_offset" in content else 0.0,
    }


def _content(path: Path) -> dict[str, np.ndarray]:
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return {key: file[key] for key in file.files}
        with h5py.File(path, "r") as file:
            return {key: np.asarray(file[key]) for key in file if isinstance(file[key], h5py.Dataset)}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: cannot be read as .h5 or .npz ({error}); the file may be cut short") from error
