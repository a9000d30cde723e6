"""Measurements that were really made: sinograms and k-space with their geometry, from one file."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_mbir.data.measurements.data_exchange import is_data_exchange, read_data_exchange
from lightning_mbir.data.measurements.kspace import kspace_axes, read_kspace
from lightning_mbir.data.units import Modality
from lightning_mbir.errors import InputError

SOURCE = ("source_distance", "detector_distance")
REQUIRED = {
    "mri": ("measurement", "mask"),
    "parallel": ("measurement", "angles", "image_size", "pixel_size"),
    "fan": ("measurement", "angles", "image_size", "pixel_size", *SOURCE),
    "cone": ("measurement", "angles", "volume_shape", "pixel_size", *SOURCE),
}


@dataclass(frozen=True)
class MeasurementOptions:
    """What a file may leave open.

    Attributes:
        image_size: pixels of a slice, for projections in the Data Exchange layout.
        detector_spacing: distance of detector bins in mm, where the file does not tell. Without it attenuation is
            per bin and the unit of the prior is estimated from the measurement.
        rotation_center: the bin that the rotation axis falls on, counted from 0; searched for where not given.
        axes: names of the dimensions of raw k-space, of ``slice``, ``coil``, ``y`` and ``x``, such as ``coil y x``;
            ``x`` is the phase-encoding direction.
    """

    image_size: int = 256
    detector_spacing: float | None = None
    rotation_center: float | None = None
    axes: str | None = None


@dataclass(frozen=True)
class Measurement:
    """A measurement and what is needed to build its operator.

    Attributes:
        y: line integrals ``(Z, views, detectors)``, of a cone beam ``(views, rows, columns)``; centred complex k-space
            ``(Z, Y, X)`` or, of several coils, ``(Z, coils, Y, X)``.
        geometry: CT: ``beam`` (``parallel``, ``fan`` or ``cone``) and the arguments of its operator. MRI:
            ``mask`` ``(Y, X)`` and, where they were measured, ``coil_maps`` ``(coils, Y, X)`` or ``(Z, coils, Y, X)``.
        affine: of the volume to come, from ``(x, y, z)`` to mm.
        name: what its results are filed under.
        modality: ``"ct"`` or ``"mri"``.
        calibrated: CT: whether lengths are really mm, so that attenuation is in 1/mm. Otherwise the length of a bin
            is the unit of all of them.
        notes: what was done to the file's numbers, a line each, for the log.
        noise_std: MRI: standard deviation of the noise in each part of k-space; 0 where the file does not tell.
    """

    y: Tensor
    geometry: dict[str, Any]
    affine: np.ndarray
    name: str
    modality: Modality
    calibrated: bool = True
    notes: tuple[str, ...] = field(default=())
    noise_std: float = 0.0


def read_measurement(path: str | Path, modality: Modality, options: MeasurementOptions | None = None) -> Measurement:
    """Read a measurement with its geometry, in any of the layouts of ``docs/measurements.md``.

    These are ours (``measurement`` and its geometry by the names of the operator's arguments), Data Exchange's
    (``exchange/data``), and fastMRI's (``kspace``), in HDF5 (``.h5``) or NumPy (``.npz``).

    Args:
        path: the file.
        modality: of the task, ``"ct"`` or ``"mri"``; a file that says another is refused.
        options: what the file leaves open.

    Raises:
        InputError: no such file, keys that are missing, wrong dimensions, values that are not finite, options that the
            file's layout has no use for.
    """
    path, options = Path(path), options or MeasurementOptions()
    if not path.is_file():
        raise InputError(f"--data.measurement {path}: no such file; give an .h5 or .npz file")
    content = _content(path)
    kind: Modality = "ct" if is_data_exchange(content) else "mri" if "kspace" in content else modality
    if kind != modality:
        raise InputError(f"{path}: holds a measurement of {kind}, the task is of {modality}; give another --task")
    _check_options(path, options, kind, is_data_exchange(content))
    name = path.name.rsplit(".", 1)[0]
    if is_data_exchange(content):
        given = (options.image_size, options.detector_spacing, options.rotation_center)
        y, geometry, notes = read_data_exchange(path, content, *given)
        affine = _affine([geometry["slice_thickness"], geometry["pixel_size"], geometry["pixel_size"]])
        del geometry["slice_thickness"]
        return Measurement(y, geometry, affine, name, "ct", options.detector_spacing is not None, notes)
    if "kspace" in content:
        y, mask, spacing, notes = read_kspace(path, content, options.axes)
        noise_std = _noise_std(path, content.get("noise_std", 0.0), "mri")
        return Measurement(y, {"mask": mask}, _affine(spacing), name, "mri", noise_std=noise_std, notes=notes)
    return _own_layout(path, content, name, modality, options.axes)


def _check_options(path: Path, options: MeasurementOptions, kind: Modality, exchange: bool) -> None:
    """Refuse what would be ignored."""
    for name in ("detector_spacing", "rotation_center"):
        if getattr(options, name) is not None and not exchange:
            raise InputError(f"--data.{name}: {path} tells its geometry by itself; leave it out")
    if options.axes is not None and kind == "ct":
        raise InputError(f"--data.axes '{options.axes}': {path} holds projections, that is for k-space; leave it out")


def _own_layout(
    path: Path, content: dict[str, np.ndarray], name: str, modality: Modality, axes: str | None
) -> Measurement:
    beam = _text(content["beam"]) if "beam" in content else "parallel"
    if beam not in ("parallel", "fan", "cone"):
        raise InputError(f"{path}: beam is {beam}; there are parallel, fan and cone")
    required = REQUIRED[beam if modality == "ct" else "mri"]
    missing = [key for key in required if key not in content]
    if missing:
        raise InputError(f"{path}: lacks {', '.join(missing)}; such a measurement has {', '.join(required)}")
    array = content["measurement"]
    if array.ndim == 2 and axes is None:
        array = array[None]
    thickness = 1.0
    if modality == "ct":
        if array.ndim != 3:
            axes = "(views, rows, columns)" if beam == "cone" else "(Z, views, bins)"
            raise InputError(f"{path}: the measurement has {array.ndim} dimensions; give {axes}")
        y = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
        geometry = _ct_geometry(path, content, array.shape, beam)
        pixel = (geometry["pixel_size"], geometry["pixel_size"])
        thickness = geometry.get("slice_thickness", pixel[0] if beam == "cone" else 1.0)
    else:
        if axes is None and array.ndim not in (3, 4):
            raise InputError(f"{path}: the measurement has {array.ndim} dimensions; give (Z, Y, X) or (Z, coils, Y, X)")
        y = kspace_axes(path, array, axes or ("slice coil y x" if array.ndim == 4 else "slice y x"))
        shape = tuple(y.shape[-2:])
        mask = content["mask"]
        if mask.shape not in (shape, shape[1:]):
            raise InputError(f"{path}: the mask is {mask.shape}, k-space {shape}; give (Y, X) or (X,)")
        geometry = {"mask": torch.from_numpy(np.array(np.broadcast_to(mask, shape), dtype=np.float32))}
        y = y * (geometry["mask"] != 0)  # what the file does not call measured must not count as such
        if "coil_maps" in content:
            geometry["coil_maps"] = _coil_maps(path, content["coil_maps"], y)
        pixel = (1.0, 1.0)
    if not bool(torch.isfinite(torch.view_as_real(y) if y.is_complex() else y).all()):
        raise InputError(f"{path}: the measurement has NaN or infinite values; correct them first")
    spacing = np.asarray(content.get("spacing", [thickness, *pixel]), dtype=float)
    if spacing.shape != (3,) or not (np.isfinite(spacing).all() and (spacing > 0).all()):
        raise InputError(f"{path}: spacing is {spacing.tolist()}; give the voxel size (z, y, x) in mm")
    if modality == "ct" and not np.allclose(spacing[1:], pixel, rtol=1e-3):
        raise InputError(f"{path}: spacing is {spacing.tolist()} but pixel_size {pixel[0]:g}; they must agree")
    noise_std = _noise_std(path, content.get("noise_std", 0.0), modality)
    return Measurement(y, geometry, _affine(spacing.tolist()), name, modality, noise_std=noise_std)


def _noise_std(path: Path, value: Any, modality: Modality) -> float:
    values = np.asarray(value).ravel()
    if values.size != 1 or values.dtype.kind not in "fiu" or not (np.isfinite(values[0]) and values[0] >= 0):
        raise InputError(
            f"{path}: noise_std is {values.tolist()}; give the standard deviation of each part of the noise"
        )
    if modality == "ct" and values[0] > 0:
        raise InputError(f"{path}: noise_std is for k-space; projections of a CT scanner have no such number")
    return float(values[0])


def _affine(spacing: Sequence[float]) -> np.ndarray:
    z, y, x = spacing
    return np.diag([x, y, z, 1.0])


def _coil_maps(path: Path, maps: np.ndarray, y: Tensor) -> Tensor:
    shape = tuple(y.shape)
    if y.ndim != 4 or maps.shape not in (shape, shape[1:]):
        raise InputError(f"{path}: coil_maps are {maps.shape}, k-space {shape}; give (coils, Y, X) or one set a slice")
    if not np.isfinite(maps).all():
        raise InputError(f"{path}: coil_maps have NaN or infinite values; correct them first")
    return torch.from_numpy(np.ascontiguousarray(maps, dtype=np.complex64))


def _ct_geometry(path: Path, content: dict[str, np.ndarray], shape: tuple[int, ...], beam: str) -> dict[str, Any]:
    """The beam and the arguments of its operator; what these are worth is for the operator to check."""
    angles = np.atleast_1d(content["angles"]).astype(float)
    views = shape[0] if beam == "cone" else shape[1]
    if len(angles) != views:
        raise InputError(f"{path}: {len(angles)} angles but {views} views; give one angle a view, in degrees")
    geometry: dict[str, Any] = {"beam": beam, "angles": angles.tolist()}
    numbers = {"pixel_size": 1, "detector_spacing": 1, "center_offset": 1, "image_size": 1}
    if beam == "cone":
        numbers = {"pixel_size": 1, "slice_thickness": 1, "volume_shape": 3, "detector_spacing": 2, "offsets": 2}
    if beam != "parallel":
        numbers |= {"source_distance": 1, "detector_distance": 1}
    for key, count in numbers.items():
        if key in content:
            values = np.asarray(content[key]).ravel().tolist()
            if len(values) != count:
                raise InputError(f"{path}: {key} has {len(values)} values; give {count}")
            geometry[key] = values[0] if count == 1 else tuple(values)
    if beam == "cone":
        geometry["detector_shape"] = shape[1:]
        geometry["volume_shape"] = tuple(int(n) for n in geometry["volume_shape"])
    else:
        geometry["n_detectors"] = shape[2]
        geometry["image_size"] = int(geometry["image_size"])
        if beam == "parallel":  # a fan's own default is magnified
            geometry.setdefault("detector_spacing", geometry["pixel_size"])
    if beam == "fan" and "detector" in content:
        geometry["detector"] = _text(content["detector"])
    return geometry


def _text(value: np.ndarray) -> str:
    text = np.asarray(value).item()
    return text.decode() if isinstance(text, bytes) else str(text)


def _content(path: Path) -> dict[str, np.ndarray]:
    """Every dataset by its path in the file."""
    import h5py

    content: dict[str, np.ndarray] = {}
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return {key: file[key] for key in file.files}

        def keep(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                content[name] = np.asarray(item)

        with h5py.File(path, "r") as file:
            file.visititems(keep)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: cannot be read as .h5 or .npz ({error}); the file may be cut short") from error
    return content
