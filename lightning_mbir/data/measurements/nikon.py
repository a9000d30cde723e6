"""Scans of Nikon's (X-Tek's) micro-CT scanners: an ``.xtekct`` file of parameters and a TIFF file a projection."""

from __future__ import annotations

import configparser
import math
import re
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lightning_mbir.data.measurements.angles import looks_like_radians
from lightning_mbir.data.measurements.content import Content
from lightning_mbir.data.measurements.data_exchange import DATA, WHITE, line_integrals
from lightning_mbir.data.measurements.item import Item
from lightning_mbir.data.measurements.opposite_rays import Fan, center_of_opposite_rays
from lightning_mbir.data.measurements.scan import modular_geometry
from lightning_mbir.data.measurements.tiff import MOST_TEXT, read_angle_text, tiff_files, tiff_pages
from lightning_mbir.errors import InputError

SECTION = "XTekCT"
START = 180.0
"""Degrees from ``InitialAngle`` to our angles, as the Core Imaging Library has them: slices are then its slices."""
WITHIN = 1.0
"""Pixels on the detector that what nobody defines may move a ray by."""
FLAT = 0.1
"""Pixels that a ray may be off where an axis off centre counts as a source that is turned about it."""


def read_nikon(
    path: Path,
    image_size: int = 0,
    rotation_center: float | Literal["search"] | None = None,
    angles: Path | None = None,
) -> tuple[Tensor, dict[str, Any], NDArray[Any], tuple[str, ...], bool]:
    """Projections of an ``.xtekct`` file: counts over ``WhiteLevel`` become line integrals.

    The format has no public definition. What is done is what the readers of the Core Imaging Library (CIL) and of TIGRE
    do alike, checked against the geometries that these hand on; lengths are in mm, angles in degrees:

    - columns go to the right, rows down, for who looks from the source with the axis upright; turned by half a turn
      about the beam that is the same scan (CIL has columns to the left and rows down, TIGRE columns to the right and
      rows up, of the axis upside down);
    - from view to view the sample turns clockwise, seen from above, by ``AngularStep`` from ``InitialAngle`` on;
    - a positive ``ObjectOffsetX`` has the axis, a positive ``DetectorOffsetX`` the detector, farther along the columns.

    Where they differ it is refused if it moves a ray by a pixel: ``DetectorOffsetY`` (opposite signs),
    ``CentreOfRotationTop`` and ``Bottom`` of older files (at the detector or at the axis, mean or top), ``ObjectRoll``
    and ``ObjectTilt`` (CIL alone), files of angles (CIL calls them wrong, TIGRE takes them). ``rotation_center`` and
    ``angles`` are there to say what is right.

    Slices go up along the axis; ours and CIL's axes are the same. The volume is ``ConeBeam``'s where the offsets are
    small, so that it has an FDK, and ``ModularBeam``'s otherwise.

    Args:
        path: the ``.xtekct`` file.
        image_size: pixels along a side of a slice; 0 for as many as columns.
        rotation_center: the column, from 0, that the axis projects to in the plane of the source, instead of what the
            file says of the axis; ``search`` for it where views are all around.
        angles: text file of an angle a view in degrees, in the sense of ``AngularStep``.

    Returns:
        ``(views, rows, columns)``, the arguments of the operator with ``beam``, an affine ``(4, 4)`` from voxels ``(x,
        y, z)`` to mm from the axis, notes, and that sides are not known.

    Raises:
        InputError: parameters that are missing, no numbers or defined by nobody, other projections than they say.
    """
    values = _Parameters(path)
    views, rows, columns = (values.whole(name) for name in ("Projections", "DetectorPixelsY", "DetectorPixelsX"))
    pitch = (values.positive("DetectorPixelSizeY"), values.positive("DetectorPixelSizeX"))
    near, total = values.positive("SrcToObject"), values.positive("SrcToDetector")
    if near >= total:
        raise InputError(f"{path}: SrcToObject {near:g} is not below SrcToDetector {total:g}; correct the file")
    magnification = total / near
    notes = _unheeded(values, rows, columns, pitch)
    turned, more = _angles(values, views, angles, columns * pitch[1] / 2)
    y, counted = _projections(values, (views, rows, columns))
    aside = values.number("DetectorOffsetX", 0.0)
    if rotation_center is None:
        axis, where = _axis(values, magnification, pitch[1]), "by the file"
    else:
        searched = rotation_center == "search"
        middle = y[(rows - 1) // 2][None].flip(-1).numpy()  # in the sense of our angles
        center = (
            columns - 1 - center_of_opposite_rays(middle, turned, Fan(total / pitch[1]))
            if searched
            else float(rotation_center)
        )
        if not 0 <= center <= columns - 1:
            raise InputError(f"--data.rotation_center {center:g}: give a column from 0 to {columns - 1}")
        axis, where = ((center - (columns - 1) / 2) * pitch[1] + aside) / magnification, "found" if searched else "told"
    # Upright for us: columns against the file's, rows upwards.
    y = y.permute(1, 0, 2).flip(1, 2).contiguous()
    projected = magnification * axis - aside
    notes = (
        *notes,
        *more,
        *counted,
        f"rotation axis at column {(columns - 1) / 2 + projected / pitch[1]:.2f} of the projections, {where}",
    )
    table = nikon_views(turned, near, total, axis, aside, pitch)
    geometry, affine, volume = modular_geometry(path, table, (rows, columns), None, image_size)
    beside = math.atan2(axis, near)
    reach = columns * pitch[1] / 2 + abs(projected)
    if reach**2 * abs(math.sin(beside)) / total < FLAT * pitch[1]:
        cone = {name: geometry[name] for name in ("volume_shape", "pixel_size", "slice_thickness", "detector_shape")}
        geometry = {
            **cone,
            "beam": "cone",
            "angles": (turned + START + math.degrees(beside)).tolist(),
            "source_distance": near / math.cos(beside),
            "detector_distance": (total - near) / math.cos(beside),
            "detector_spacing": pitch,
            "offsets": (0.0, -projected),
        }
    return y, geometry, affine, (*notes, *volume), False


def nikon_views(
    angles: NDArray[Any], near: float, total: float, axis: float, aside: float, pitch: tuple[float, float]
) -> NDArray[Any]:
    """The table that ``ModularBeam`` takes, ``(views, 12)`` mm, of projections whose rows and columns were reversed.

    Args:
        angles: ``(views,)`` degrees, ``InitialAngle`` and on.
        near, total: from the source to the axis and to the detector.
        axis, aside: mm that the axis and the detector are moved by, along the columns of the file.
        pitch: ``(rows, columns)``.
    """
    theta = np.deg2rad(angles + START)
    zero, one = np.zeros_like(theta), np.ones_like(theta)
    out = np.stack((np.sin(theta), -np.cos(theta), zero), 1)
    across = np.stack((np.cos(theta), np.sin(theta), zero), 1)
    up = np.stack((zero, zero, one), 1)
    # Our columns go against those of the file, and the axis stays where it is while source and detector move.
    source = near * out + axis * across
    middle = (near - total) * out + (axis - aside) * across
    return np.concatenate((source, middle, pitch[1] * across, pitch[0] * up), 1)


class _Parameters:
    """The numbers of the section ``XTekCT``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.stat().st_size > MOST_TEXT:
            raise InputError(f"{path}: is of more than 16 MB; give the .xtekct file that the scanner wrote")
        text = path.read_bytes().decode("utf-8-sig", errors="replace")
        own = re.search(rf"^[ \t]*\[{SECTION}\].*?(?=^[ \t]*\[|\Z)", text, re.IGNORECASE | re.MULTILINE | re.DOTALL)
        parser = configparser.ConfigParser(interpolation=None)  # which refuses what is there twice
        parser.optionxform = str  # type: ignore[assignment, method-assign]
        try:
            parser.read_string(text if own is None else own[0])
        except configparser.Error as error:
            why = " ".join(str(error).split())[:200]
            raise InputError(f"{path}: is no .xtekct file ({why}); give the one that the scanner wrote") from error
        section = next((name for name in parser.sections() if name.lower() == SECTION.lower()), None)
        if section is None:
            raise InputError(f"{path}: lacks the section [{SECTION}]; give the .xtekct file that the scanner wrote")
        self.values = dict(parser[section])

    def text(self, name: str) -> str:
        return self.values.get(name, "").strip()

    def has(self, name: str) -> bool:
        return bool(self.text(name))

    def number(self, name: str, default: float | None = None) -> float:
        text = self.text(name)
        if not text:
            if default is None:
                raise InputError(f"{self.path}: lacks {name}; give the .xtekct file that the scanner wrote")
            return default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise InputError(f"{self.path}: {name} is {text[:40]!r}; give a number")
        return value

    def positive(self, name: str) -> float:
        value = self.number(name)
        if value <= 0:
            raise InputError(f"{self.path}: {name} is {value:g}; give more than 0")
        return value

    def whole(self, name: str) -> int:
        value = self.positive(name)
        if value != int(value):
            raise InputError(f"{self.path}: {name} is {value:g}; give a whole number")
        return int(value)


def _unheeded(values: _Parameters, rows: int, columns: int, pitch: tuple[float, float]) -> tuple[str, ...]:
    """Notes of what is left out because it hardly changes anything; raises where it would."""
    path, half = values.path, rows * pitch[0] / 2
    unit = values.text("Units")
    if unit and unit.lower() != "mm":
        raise InputError(f"{path}: Units is {unit[:40]}; give mm")
    rolled = math.tan(math.radians(values.number("ObjectRoll", 0.0)))
    apart = values.number("CentreOfRotationTop", 0.0) - values.number("CentreOfRotationBottom", 0.0)
    tilt = math.sin(math.radians(values.number("ObjectTilt", 0.0)))
    effects = {
        "DetectorOffsetY": (values.number("DetectorOffsetY", 0.0) / pitch[0], "readers have it up and down"),
        "ObjectRoll": (rolled * half / pitch[1], "its sign is told by one reader alone"),
        "ObjectTilt": (tilt * columns * pitch[1] / 2 / pitch[0], "its sign is told by one reader alone"),
        "CentreOfRotationTop": (
            0.0 if values.has("ObjectRoll") else apart / 2 / pitch[1],
            "it is not CentreOfRotationBottom, and an axis that leans is not read",
        ),
    }
    notes = []
    for name, (pixels, why) in effects.items():
        if abs(pixels) >= WITHIN:
            raise InputError(
                f"{path}: {name} is {values.number(name):g}, which moves rays by {abs(pixels):.3g} pixels, and {why}; "
                "give the scan in our own layout (docs/measurements.md), or 0 if that is right"
            )
        if pixels:
            notes.append(f"{name} left out: it moves rays by {abs(pixels):.2g} pixels")
    bent = [name for name in ("CoefX0", "CoefX2", "CoefX3", "CoefX4") if values.number(name, 0.0)]
    if bent:
        notes.append(f"beam hardening by {', '.join(bent)} left out; see --data.beam_hardening")
    return tuple(notes)


def _axis(values: _Parameters, magnification: float, pitch: float) -> float:
    """How far the axis is along the columns of the file, in mm at the axis."""
    given: dict[str, float] = {}
    if values.has("ObjectOffsetX"):
        given["ObjectOffsetX"] = values.number("ObjectOffsetX")
    top, bottom = (values.number(f"CentreOfRotation{end}", 0.0) for end in ("Top", "Bottom"))
    if top or bottom:  # newer files leave these at 0 and have the other
        given["CentreOfRotationTop and CentreOfRotationBottom, at the detector"] = (top + bottom) / 2 / magnification
        given["CentreOfRotationTop, at the axis"] = top
    if not given:
        return 0.0
    apart = magnification * (max(given.values()) - min(given.values())) / pitch
    if apart >= WITHIN:
        found = "; ".join(f"{value:.4g} mm by {name}" for name, value in given.items())
        raise InputError(
            f"{values.path}: readers differ by {apart:.3g} pixels in where the axis is ({found}); give "
            "--data.rotation_center, the column that it projects to, or search"
        )
    return next(iter(given.values()))


def _angles(values: _Parameters, views: int, given: Path | None, half: float) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Degrees ``(views,)``, and notes; ``half`` is that of the detector in mm."""
    if given is not None:
        angles = read_angle_text(given)
        if len(angles) != views or not np.isfinite(angles).all():
            raise InputError(f"--data.angles {given}: has {len(angles)} angles, the scan {views} views; give one each")
        if looks_like_radians(angles):
            raise InputError(
                f"--data.angles {given}: covers {np.ptp(angles):.4g}, which looks like radians; give degrees"
            )
        return angles, (f"angles of {given.name}",)
    step = values.number("AngularStep")
    if step == 0 and views > 1:
        raise InputError(f"{values.path}: AngularStep is 0; give the degrees from a view to the next")
    if looks_like_radians(step * np.arange(views)):
        raise InputError(
            f"{values.path}: {views} views of AngularStep {step:g} cover {abs(step) * (views - 1):.4g}, which looks "
            "like radians; give degrees, or --data.angles"
        )
    if abs(step) * (views - 1) > 370:
        raise InputError(
            f"{values.path}: {views} views of AngularStep {step:g} go round more than once; a helix is not read"
        )
    angles = values.number("InitialAngle", 0.0) + step * np.arange(views)
    for file in sorted(values.path.parent.glob("*.ang")) + sorted(values.path.parent.glob("*_ctdata.txt")):
        told = _told_angles(file)
        if len(told) != views:
            continue
        off = min(float(np.abs(_about_mean(sign * told - angles)).max()) for sign in (1, -1))
        if math.radians(off) * half >= WITHIN * values.positive("DetectorPixelSizeX"):
            raise InputError(
                f"{values.path}: {file.name} has angles that are off those of AngularStep by up to {off:.3g} degrees, "
                "and readers differ in which are right; give --data.angles, an angle in degrees a view"
            )
    return angles, ()


def _about_mean(difference: NDArray[Any]) -> NDArray[Any]:
    """Differences of angles in degrees without what all have in common."""
    turned = (difference - difference[0] + 180) % 360 - 180
    return np.asarray(turned - turned.mean())


def _told_angles(file: Path) -> NDArray[Any]:
    """The second number of each line that begins with a number of a view."""
    if file.stat().st_size > MOST_TEXT:
        return np.zeros(0)
    text = file.read_bytes().decode("utf-8", errors="replace")
    lines = re.findall(r"^\s*\d+\s*[:,\s]\s*([-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)\b", text, re.MULTILINE)
    return np.array([float(word) for word in lines])


def _projections(values: _Parameters, shape: tuple[int, int, int]) -> tuple[Tensor, tuple[str, ...]]:
    """Line integrals ``(rows, views, columns)`` as the file has them, and notes."""
    path, inside = values.path, values.text("InputFolderName").replace("\\", "/")
    folder = path.parent
    if inside and not inside.startswith("/") and ":" not in inside and ".." not in inside.split("/"):
        folder = folder / inside if (folder / inside).is_dir() else folder
    files = tiff_files(folder)
    name = values.text("Name") + (values.text("InputSeparator") or "_" if values.text("Name") else "")
    named = [file for file in files if re.fullmatch(re.escape(name) + r"\d+", file.stem)]
    files = named or files
    if len(files) != shape[0]:
        raise InputError(
            f"{path}: Projections is {shape[0]}, and there are {len(files)} TIFF files {name}0001.tif and on in "
            f"{folder}; give all of them and no others"
        )
    numbers = [int(re.findall(r"\d+", file.stem)[-1]) for file in named]
    for (file, number), (_, after) in pairwise(zip(named, numbers, strict=True)):
        if after != number + 1:
            raise InputError(
                f"{path}: after {file.name} comes number {after}; give all projections, numbered one by one"
            )
    white = values.positive("WhiteLevel")
    with tiff_pages(folder, DATA, files) as data:
        if data.shape != shape:
            found, wanted = (" x ".join(str(size) for size in one) for one in (data.shape, shape))
            raise InputError(
                f"{path}: projections are {found} (views, rows, columns), the file says {wanted}; give them as they are"
            )
        if data.dtype.kind not in "iuf":
            raise InputError(f"{path}: projections are of {data.dtype}; give counts")
        flat = np.full(shape[1:], white, np.float32)
        fields = {DATA: data, WHITE: Item(path, WHITE, flat.shape, flat.dtype, flat.__getitem__, (1, 1))}
        y, notes = line_integrals(Content(path, fields.get))
    return y, (f"{shape[0]} projections over WhiteLevel {white:g}", *notes)
