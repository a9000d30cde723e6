"""Sinograms beside their angles and distances, as the Helsinki tomography data and many scripts keep them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_mbir.data.measurements.angles import UNITS, full_turn, read_angles
from lightning_mbir.data.measurements.content import Content
from lightning_mbir.data.measurements.item import PART, Item
from lightning_mbir.data.measurements.opposite_rays import Fan
from lightning_mbir.data.measurements.rotation_center import find_rotation_center, seen_bins
from lightning_mbir.data.measurements.selection import chosen_slices
from lightning_mbir.errors import InputError
from lightning_mbir.free_memory import check_fits

STRUCTS = ("CtDataFull", "CtDataLimited", "CtDataSparse", "CtData", "ctData")
"""Structs of the Helsinki Tomography Challenge 2022 and of other data of that laboratory."""
SINOGRAM = "sinogram"
ANGLES = ("angles", "angles_deg", "angles_rad", "theta")
TO_AXIS = ("distanceSourceOrigin", "source_origin_mm")
TO_DETECTOR = ("distanceSourceDetector", "source_detector_mm")
PITCH = ("pixelSizePost", "pixelSize", "detector_pitch_mm")
MAGNIFICATION = "geometricMagnification"
EFFECTIVE = ("effectivePixelSizePost", "effectivePixelSize")
AGREE = 0.01
"""Share that lengths of a file may differ by which follow from each other."""
BINS = ("numDetectorsPost", "numDetectors")
LONGEST_TEXT = 1000
OLDER = {
    "m": "a sinogram m, and neither its sparse matrix A nor how it was measured",
    "sinogram120": "sinograms of intensities, and not how they were measured",
}
"""Variables of older sets of the Finnish Inverse Problems Society, and what such a file holds."""


class Sinograms(NamedTuple):
    """Sinograms as they were read.

    Attributes:
        y: ``(Z, views, bins)`` line integrals.
        geometry: the beam and the arguments of its operator.
        notes: what was done.
        calibrated: whether the file tells lengths in mm.
        first: number of the first slice in the file.
    """

    y: Tensor
    geometry: dict[str, Any]
    notes: tuple[str, ...]
    calibrated: bool
    first: int


def struct_of(content: Content) -> str | None:
    """The path, with a slash, before the names of a file of this layout; ``""`` where they are not in a struct, and
    none where a file is of another layout.

    Raises:
        InputError: several structs, or data of a set that does not tell its geometry.
    """
    found = [name for name in STRUCTS if f"{name}/{SINOGRAM}" in content]
    if len(found) > 1:
        raise InputError(f"{content.path}: has {' and '.join(found)}; keep one of them in the file")
    if found:
        return f"{found[0]}/"
    if SINOGRAM in content:
        return ""
    older = [] if content.path.suffix.lower() != ".mat" else [name for name in OLDER if name in content]
    if older:
        raise InputError(
            f"{content.path}: holds {OLDER[older[0]]}; give line integrals as `sinogram` (views, bins) with `angles` "
            "and the distances of the fan, which the set's documentation tells (docs/measurements.md)"
        )
    return None


def read_sinograms(
    content: Content,
    struct: str = "",
    image_size: int = 0,
    detector_spacing: float | None = None,
    rotation_center: float | str | None = None,
    slices: tuple[int, int] | None = None,
) -> Sinograms:
    """Line integrals of parallel rays or, where the file tells the distances, of a fan onto a flat detector.

    Args:
        content: of the file, with ``sinogram`` ``(views, bins)`` or ``(Z, views, bins)`` and one of ``ANGLES`` (in
            degrees, but for ``angles_rad``); of a fan one each of ``TO_AXIS``, ``TO_DETECTOR`` and ``PITCH``, in mm.
        struct: what stands before these names, see ``struct_of``.
        image_size: pixels of a slice, which covers what the detector sees; 0 for as many as bins.
        detector_spacing: distance of bins in mm, of a file that does not tell; without it, 1.
        rotation_center: the bin of the rotation axis, counted from 0, or ``search``; by default it is searched for
            where rays are parallel, and the middle of the detector of a fan.
        slices: which ones, from the first to before the last; all by default.

    Raises:
        InputError: values that are missing, not finite, of another number or unit; a cone beam; a spacing beside that
            of the file; a centre outside the detector, or that cannot be found.
    """
    path, item = content.path, content[f"{struct}{SINOGRAM}"]
    if item.ndim not in (2, 3) or 0 in item.shape or item.dtype.kind not in "iuf":
        raise InputError(
            f"{path}: {item.name} is {item.shape} of {item.dtype}; give real line integrals (views, bins) or "
            "(Z, views, bins)"
        )
    shape = (1, *item.shape) if item.ndim == 2 else item.shape
    lengths = _lengths(content, struct)
    angles, notes = _angles(content, struct, shape[1])
    chosen, more = chosen_slices(path, slices, shape[0])
    bins = shape[2]
    count = _one(content, struct, BINS)
    if count is not None and round(count) != bins:
        raise InputError(f"{path}: the file tells {count:g} detectors, {item.name} has {bins}; correct one of them")
    if struct and "source_distance" not in lengths:
        raise InputError(
            f"{path}: {struct[:-1]} is of a fan and lacks {TO_AXIS[0]} and {TO_DETECTOR[0]}; add them to its "
            "parameters from the set's documentation, in mm"
        )
    _check_lengths(content, struct, lengths)
    pitch = lengths.pop("pitch", None)
    if pitch is not None and detector_spacing is not None:
        raise InputError(f"--data.detector_spacing {detector_spacing:g}: {path} tells {pitch:g} mm; leave it out")
    if pitch is None and lengths and detector_spacing is None:
        raise InputError(f"{path}: tells the distances of a fan but no {' or '.join(PITCH)}; give detector_pitch_mm")
    spacing = pitch or detector_spacing or 1.0
    size = 4 * (chosen.stop - chosen.start) * (shape[1] * bins + (image_size or bins) ** 2) + 4 * PART
    check_fits(f"{path}: sinograms and slices", size, "take fewer slices (--data.slices)")
    y = np.asarray(item.read(*(() if item.ndim == 2 else (chosen,))), dtype=np.float32).reshape(-1, *shape[1:])
    if not np.isfinite(y).all():
        raise InputError(f"{path}: {item.name} has NaN or infinite values; correct them first")

    fan = Fan((lengths["source_distance"] + lengths["detector_distance"]) / spacing) if lengths else None
    center, found = (bins - 1) / 2, ""
    if isinstance(rotation_center, float | int):
        center = float(rotation_center)
        if not 0 <= center <= bins - 1:
            raise InputError(f"--data.rotation_center {center:g}: give a bin from 0 to {bins - 1}")
    elif fan is None or rotation_center == "search":
        center, found = find_rotation_center(torch.from_numpy(y), angles, fan), ", found"
    else:
        found = ", the middle of the detector"
    seen, wider = seen_bins(bins, center, full_turn(angles))
    width = seen * spacing
    if fan is not None:
        width = 2 * lengths["source_distance"] * math.sin(math.atan(seen / 2 / fan.distance))
    n = image_size or math.ceil(seen)
    geometry = {
        "beam": "parallel" if fan is None else "fan",
        "image_size": n,
        "angles": angles.tolist(),
        "n_detectors": bins,
        "pixel_size": width / n,
        "detector_spacing": spacing,
        "center_offset": spacing * (center - (bins - 1) / 2),
        **lengths,
    }
    notes = (*notes, *more, f"rotation centre at bin {center:.2f}{found}", *wider)
    known = pitch is not None or detector_spacing is not None
    return Sinograms(torch.from_numpy(y), geometry, notes, known, chosen.start)


def _lengths(content: Content, struct: str) -> dict[str, float]:
    """Distances and the ``pitch`` of the bins, as far as the file tells them, in mm."""
    path = content.path
    for key in ("distanceUnit", "pixelSizeUnit"):
        name = f"{struct}parameters/{key}"
        if (text := _text(content.get(name))) not in ("", "mm"):
            raise InputError(f"{path}: {name} is {text}; give mm")
    if _text(content.get(f"{struct}type")).upper() == "3D":
        raise InputError(f"{path}: holds a cone beam (type 3D); give it in our own layout (docs/measurements.md)")
    found = {"pitch": _one(content, struct, PITCH, length=True)}
    axis, detector = (_one(content, struct, names, length=True) for names in (TO_AXIS, TO_DETECTOR))
    if (axis is None) != (detector is None):
        raise InputError(f"{path}: give both distances of the source, {TO_AXIS[0]} and {TO_DETECTOR[0]}")
    if axis is not None and detector is not None:
        if not 0 < axis <= detector:
            raise InputError(f"{path}: the source is {axis:g} mm from the axis, {detector:g} from the detector")
        found |= {"source_distance": axis, "detector_distance": detector - axis}
    lengths = {key: value for key, value in found.items() if value is not None}
    if lengths.get("pitch", 1.0) <= 0:
        raise InputError(f"{path}: the distance of the bins is {lengths['pitch']:g} mm; give more than 0")
    return lengths


def _check_lengths(content: Content, struct: str, lengths: dict[str, float]) -> None:
    """Raise where the file tells lengths that do not follow from each other, as of other bins than the sinogram's."""
    if not {"pitch", "source_distance"} <= lengths.keys():
        return
    near, far = lengths["source_distance"], lengths["source_distance"] + lengths["detector_distance"]
    told = _one(content, struct, (MAGNIFICATION,))
    if told is not None and abs(told * near / far - 1) > AGREE:
        raise InputError(
            f"{content.path}: {MAGNIFICATION} is {told:g}, and by its distances {far / near:.4g}; correct one of them"
        )
    names = EFFECTIVE if _one(content, struct, PITCH[:1]) is None else EFFECTIVE[:1]
    for name in names:
        at_axis = _one(content, struct, (name,), length=True)
        if at_axis is not None and abs(at_axis * far / near / lengths["pitch"] - 1) > AGREE:
            raise InputError(
                f"{content.path}: bins are {lengths['pitch']:g} mm, and {at_axis * far / near:.4g} mm by {name}; give "
                f"those of {struct}{SINOGRAM} in both"
            )


def _text(item: Item | None) -> str:
    """What a file says in words, with nothing around it; empty where it says nothing, or a number."""
    if item is None:
        return ""
    if item.dtype == np.uint16 and math.prod(item.shape) < LONGEST_TEXT:  # characters in MATLAB 7.3
        return "".join(map(chr, item.read().ravel().tolist())).strip(" \0")
    return item.text().strip() if item.dtype.kind in "SU" else ""


def _one(content: Content, struct: str, names: tuple[str, ...], length: bool = False) -> float | None:
    """The first of these numbers that is there, in the struct or its parameters; a length in mm."""
    for name in names:
        for place in (f"{struct}parameters/{name}", f"{struct}{name}"):
            if place in content:
                item = content[place]
                return float((item.lengths(1) if length else item.numbers(1))[0])
    return None


def _angles(content: Content, struct: str, views: int) -> tuple[np.ndarray, tuple[str, ...]]:
    for name in ANGLES:
        for place in (f"{struct}parameters/{name}", f"{struct}{name}"):
            item = content.get(place)
            if item is not None and name == "angles_rad":
                if math.prod(item.shape) != views:
                    raise InputError(f"{item.path}: {place} has {math.prod(item.shape)} angles but {views} views")
                return np.array(item.numbers()) * UNITS["rad"], (f"{place} converted from radians",)
            if item is not None:
                return read_angles(item, views)
    raise InputError(f"{content.path}: lacks angles; give {' or '.join(ANGLES)}, one a view")
