"""Our own layout: ``measurement`` and its geometry, by the names of the operator's arguments."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_mbir.data.measurements.angles import read_angles
from lightning_mbir.data.measurements.content import Content
from lightning_mbir.data.measurements.field_map import read_field
from lightning_mbir.data.measurements.item import PART, Item
from lightning_mbir.data.measurements.kspace import count_slices, read_complex
from lightning_mbir.data.measurements.opposite_rays import Fan
from lightning_mbir.data.measurements.rotation_center import find_rotation_center
from lightning_mbir.data.measurements.sampling import masked, read_mask
from lightning_mbir.data.measurements.selection import chosen_slices
from lightning_mbir.data.measurements.trajectory import check_gaps
from lightning_mbir.data.units import LENGTHS, Modality, factor
from lightning_mbir.errors import InputError
from lightning_mbir.free_memory import check_fits

SOURCE = ("source_distance", "detector_distance")
REQUIRED = {
    "mri": ("measurement", "mask"),
    "parallel": ("measurement", "angles", "image_size", "pixel_size"),
    "fan": ("measurement", "angles", "image_size", "pixel_size", *SOURCE),
    "cone": ("measurement", "angles", "volume_shape", "pixel_size", *SOURCE),
    "modular": ("measurement", "views", "volume_shape", "pixel_size"),
}
COUPLED = ("cone", "modular")
"""Beams whose views show all slices at once."""
NUMBERS = {
    "parallel": {"image_size": 1, "pixel_size": 1, "detector_spacing": 1, "center_offset": 1},
    "cone": {"volume_shape": 3, "pixel_size": 1, "slice_thickness": 1, "detector_spacing": 2, "offsets": 2},
}
NUMBERS["fan"] = {**NUMBERS["parallel"], **dict.fromkeys(SOURCE, 1)}
NUMBERS["cone"] |= dict.fromkeys(SOURCE, 1)
NUMBERS["modular"] = {"volume_shape": 3, "pixel_size": 1, "slice_thickness": 1}
"""What a beam's geometry consists of beside its angles or views, and how many values that has."""

WHOLE = ("image_size", "volume_shape")
POSITIVE = (*WHOLE, "pixel_size", "detector_spacing", "slice_thickness", "source_distance")


class OwnLayout(NamedTuple):
    """A measurement as it was read.

    Attributes:
        y: as in ``Measurement``, and so is ``geometry``.
        spacing: voxel size ``(z, y, x)`` in mm.
        first: number of the first slice in the file.
        notes: what was done to it.
        sized: whether the file tells the distance of the slices.
    """

    y: Tensor
    geometry: dict[str, Any]
    spacing: tuple[float, float, float]
    first: int
    notes: tuple[str, ...]
    sized: bool = False


def read_own_layout(
    content: Content,
    modality: Modality,
    axes: str | None = None,
    slices: tuple[int, int] | None = None,
    rotation_center: float | str | None = None,
) -> OwnLayout:
    """A measurement in our own layout, see ``docs/measurements.md``.

    Args:
        content: of the file.
        modality: of the measurement.
        axes: k-space: names of the dimensions, where they are not in our order.
        slices: which ones, from the first to before the last; all by default, and no others are read.
        rotation_center: CT without ``center_offset``: the bin of the rotation axis, counted from 0, or ``search``.

    Raises:
        InputError: keys that are missing, wrong dimensions, values that are not finite or not what the key stands for,
            slices of a beam that measures all of them together, views of a helix that are missing, a rotation centre
            where the file has one or that cannot be found, too little memory.
    """
    path = content.path
    beam = content["beam"].text() if "beam" in content else "parallel"
    if beam not in NUMBERS:
        raise InputError(f"{path}: beam is {beam}; there are parallel, fan, cone and modular")
    required = REQUIRED[beam if modality == "ct" else "mri"]
    missing = [key for key in required if key not in content]
    if missing:
        raise InputError(f"{path}: lacks {', '.join(missing)}; such a measurement has {', '.join(required)}")
    read = _kspace(content, axes, slices) if modality == "mri" else _projections(content, beam, slices)
    read = read._replace(notes=(*read.notes, *_units(content)))
    if rotation_center is not None:
        read = _centred(path, read, rotation_center, "offsets" in content or "center_offset" in content)
    if "spacing" not in content:
        return read
    spacing = content["spacing"].lengths(3)
    if min(spacing) <= 0:
        raise InputError(f"{path}: spacing is {spacing}; give the voxel size (z, y, x) in mm")
    if modality == "ct" and not np.allclose(spacing[1:], read.spacing[1:], rtol=1e-3):
        raise InputError(f"{path}: spacing is {spacing} but pixel_size {read.spacing[1]:g}; they must agree")
    return read._replace(spacing=(spacing[0], spacing[1], spacing[2]), sized=True)


def _units(content: Content) -> Iterator[str]:
    """What is said of lengths that the file does not have in mm."""
    named = {key for beam in NUMBERS.values() for key in beam if key not in WHOLE}
    for key in sorted(named | {"spacing", "views", "volume_center", "curvature_radius"}):
        unit = content[key].attributes.get("units", "") if key in content else ""
        if factor(unit, LENGTHS) not in (None, 1.0):
            yield f"{key} in {unit.strip()} scaled to mm"


def _centred(path: Path, read: OwnLayout, wanted: float | str, known: bool) -> OwnLayout:
    """With the rotation axis on the bin that is ``wanted``, or searched for."""
    geometry = read.geometry
    flag, bins = f"--data.rotation_center {wanted}", read.y.shape[-1]
    if known or geometry["beam"] in COUPLED:
        where = "tells its geometry by itself" if known else f"is of a {geometry['beam']} beam, which has offsets"
        raise InputError(f"{flag}: {path} {where}; leave it out")
    total = geometry.get("source_distance", 0.0) + geometry.get("detector_distance", 0.0)
    # A fan's own default is a pixel, magnified.
    spacing = geometry.get("detector_spacing") or geometry["pixel_size"] * total / geometry["source_distance"]
    if wanted == "search":
        fan = Fan(total / spacing, geometry.get("detector", "flat")) if total else None
        center, found = find_rotation_center(read.y, np.asarray(geometry["angles"]), fan), ", found"
    else:
        center, found = float(wanted), ""
    if not 0 <= center <= bins - 1:
        raise InputError(f"{flag}: give a bin from 0 to {bins - 1}, or search")
    offset = spacing * (center - (bins - 1) / 2)
    notes = (*read.notes, f"rotation centre at bin {center:.2f}{found}")
    return read._replace(geometry={**geometry, "center_offset": offset}, notes=notes)


def noise_std(content: Content, modality: Modality) -> float:
    """Standard deviation of the noise in each part of k-space, 0 where the file does not tell.

    Raises:
        InputError: no such number, or one beside projections.
    """
    if "noise_std" not in content:
        return 0.0
    (value,) = content["noise_std"].numbers(1)
    if value < 0:
        raise InputError(f"{content.path}: noise_std is {value:g}; give a standard deviation, 0 or more")
    if modality == "ct" and value > 0:
        raise InputError(f"{content.path}: noise_std is for k-space; projections of a CT scanner have no such number")
    return float(value)


def _projections(content: Content, beam: str, slices: tuple[int, int] | None) -> OwnLayout:
    path, item = content.path, content["measurement"]
    wanted = "(views, rows, columns)" if beam in COUPLED else "(Z, views, bins)"
    flat = item.ndim == 2
    if item.ndim not in (2, 3) or 0 in item.shape or item.dtype.kind not in "iuf":
        kind = f"has {item.ndim} dimensions, {item.shape} of {item.dtype}"
        raise InputError(f"{path}: the measurement {kind}; give real numbers {wanted}")
    shape = (1, *item.shape) if flat else item.shape
    if beam in COUPLED and slices is not None:
        raise InputError(
            f"--data.slices {slices[0]}:{slices[1]}: the views of a {beam} beam show all slices at once; leave it out"
        )
    geometry, notes = _ct_geometry(content, shape, beam)
    if beam in COUPLED:
        chosen = slice(0, shape[0])
        voxels, named = math.prod(geometry["volume_shape"]), f"volume_shape {geometry['volume_shape']}"
    else:
        chosen, more = chosen_slices(path, slices, shape[0])
        notes = (*notes, *more)
        voxels = (chosen.stop - chosen.start) * geometry["image_size"] ** 2
        named = f"image_size {geometry['image_size']}"
    check_fits(f"{path}: the volume of {named}", 4 * voxels, "give a smaller one")
    size = 4 * (chosen.stop - chosen.start) * math.prod(shape[1:]) + 4 * PART * item.dtype.itemsize
    check_fits(f"{path}: measurement", size, "take fewer slices (--data.slices)")
    array = np.empty((chosen.stop - chosen.start, *shape[1:]), dtype=np.float32)
    there = array[0] if flat else array
    for place, values in item.parts(*(() if flat else (chosen,))):
        with np.errstate(over="ignore"):  # becomes infinite, and is found as such
            there[place] = values
        if not np.isfinite(there[place]).all():
            raise InputError(f"{path}: the measurement has NaN or infinite values (or beyond 3e38); correct them first")
    pixel = geometry["pixel_size"]
    thickness = geometry.get("slice_thickness", pixel if beam in COUPLED else 1.0)
    first, sized = 0 if beam in COUPLED else chosen.start, beam in COUPLED or "slice_thickness" in geometry
    return OwnLayout(torch.from_numpy(array), geometry, (thickness, pixel, pixel), first, notes, sized)


def _kspace(content: Content, axes: str | None, slices: tuple[int, int] | None) -> OwnLayout:
    path, item = content.path, content["measurement"]
    if axes is None:
        if item.ndim not in (2, 3, 4):
            raise InputError(f"{path}: the measurement has {item.ndim} dimensions; give (Z, Y, X) or (Z, coils, Y, X)")
        axes = ("y x", "slice y x", "slice coil y x")[item.ndim - 2]
    y, chosen, notes = read_complex(item, axes, slices)
    mask = read_mask(content["mask"], count_slices(item, axes), chosen, y.shape[-2:])
    mask, more = masked(path, y, mask)
    notes = (*notes, *more)
    geometry: dict[str, Any] = {"mask": mask.float()}
    if "coil_maps" in content:
        geometry["coil_maps"] = _coil_maps(content["coil_maps"], y, chosen, count_slices(item, axes))
    if "b0" in content or "times" in content:
        geometry |= read_field(content, count_slices(item, axes), chosen, (y.shape[-2], y.shape[-1]))
        notes = (*notes, f"field off by {float(geometry['b0'].min()):.3g} to {float(geometry['b0'].max()):.3g} Hz")
    return OwnLayout(y, geometry, (1.0, 1.0, 1.0), chosen.start, notes)


def _coil_maps(item: Item, y: Tensor, chosen: slice, count: int) -> Tensor:
    shape = tuple(y.shape[1:])
    if y.ndim != 4 or item.shape not in (shape, (count, *shape)):
        raise InputError(
            f"{item.path}: coil_maps are {item.shape}, k-space {tuple(y.shape)}; give (coils, Y, X) or one set a slice"
        )
    if item.dtype.kind not in "iufc":
        raise InputError(f"{item.path}: coil_maps are of type {item.dtype}; give complex numbers")
    maps = item.read(*((chosen,) if item.ndim == 4 else ())).astype(np.complex64)
    if not np.isfinite(maps).all():
        raise InputError(f"{item.path}: coil_maps have NaN or infinite values; correct them first")
    return torch.from_numpy(maps)


def _ct_geometry(content: Content, shape: tuple[int, ...], beam: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The beam and the arguments of its operator, and notes; how they go together is for the operator to check."""
    path = content.path
    notes: tuple[str, ...] = ()
    if beam == "modular":
        geometry: dict[str, Any] = {"beam": beam, **_views(content, shape[0])}
    else:
        angles, notes = read_angles(content["angles"], shape[0] if beam == "cone" else shape[1])
        geometry = {"beam": beam, "angles": angles.tolist()}
    for key, count in NUMBERS[beam].items():
        if key in content:
            values = content[key].numbers(count, whole=True) if key in WHOLE else content[key].lengths(count)
            if key in POSITIVE and min(values) <= 0:
                raise InputError(f"{path}: {key} is {', '.join(f'{value:g}' for value in values)}; give more than 0")
            geometry[key] = values[0] if count == 1 else tuple(values)
    if beam in COUPLED:
        geometry["detector_shape"] = shape[1:]
    else:
        geometry["n_detectors"] = shape[2]
        if beam == "parallel":  # a fan's own default is magnified
            geometry.setdefault("detector_spacing", geometry["pixel_size"])
    if beam in ("fan", "modular") and "detector" in content:
        geometry["detector"] = content["detector"].text()
    return geometry, notes


def _views(content: Content, count: int) -> dict[str, Any]:
    """The table of a modular beam; what one view alone can be wrong in is for the operator to check."""
    item = content["views"]
    if item.shape != (count, 12):
        raise InputError(
            f"{content.path}: views are {item.shape}, but the measurement has {count} views; give ({count}, 12): "
            "source, middle of the detector, step from a column and from a row to the next, x, y, z of each in mm"
        )
    table = np.array(item.lengths()).reshape(count, 12)
    check_gaps(content.path, table)
    if "volume_center" in content:
        table[:, :6] -= np.tile(content["volume_center"].lengths(3), 2)
    geometry: dict[str, Any] = {"views": table.tolist()}
    if "curvature_radius" in content:
        radii = content["curvature_radius"].lengths()
        geometry["curvature_radius"] = radii[0] if len(radii) == 1 else radii
    return geometry
