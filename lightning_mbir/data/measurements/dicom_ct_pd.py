"""Projections of clinical scanners in DICOM-CT-PD, a folder of files with one view each."""

from __future__ import annotations

import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_mbir.data.measurements.item import DAMAGED
from lightning_mbir.data.measurements.scan import modular_geometry, on_arc
from lightning_mbir.errors import InputError
from lightning_mbir.free_memory import check_fits

SPACING_ACROSS, SPACING_ALONG = 0x70291002, 0x70291006
SHAPE, ROWS, COLUMNS = 0x7029100B, 0x70291010, 0x70291011
ANGLE, HEIGHT, RADIUS, TO_DETECTOR, CENTRAL = 0x70311001, 0x70311002, 0x70311003, 0x70311031, 0x70311033
SHIFT_ANGLE, SHIFT_HEIGHT, SHIFT_RADIUS = 0x7033100B, 0x7033100C, 0x7033100D
SPECTRUM = 0x70331063
POSITION = 0x00185100
LOGARITHM = 0x70391009
NAMES = {
    SPACING_ACROSS: "DetectorElementTransverseSpacing",
    SPACING_ALONG: "DetectorElementAxialSpacing",
    ROWS: "NumberofDetectorRows",
    COLUMNS: "NumberofDetectorColumns",
    ANGLE: "DetectorFocalCenterAngularPosition",
    HEIGHT: "DetectorFocalCenterAxialPosition",
    RADIUS: "DetectorFocalCenterRadialDistance",
    TO_DETECTOR: "ConstantRadialDistance",
    CENTRAL: "DetectorCentralElement",
}
"""Tags without which there is no geometry, by the names of the dictionary."""
LENGTHS = (SPACING_ACROSS, SPACING_ALONG, ROWS, COLUMNS, RADIUS, TO_DETECTOR)
"""Tags that are above 0."""
SAME = (SPACING_ACROSS, SPACING_ALONG, ROWS, COLUMNS, TO_DETECTOR)
"""Tags that are one for the scan."""


def read_dicom_ct_pd(
    folder: Path, image_size: int = 0
) -> tuple[Tensor, dict[str, Any], NDArray[Any], tuple[str, ...], bool]:
    """A scan in DICOM-CT-PD (Chen et al., Med. Phys. 42(12), 2015; user manual, version 3, 2020), such as the Mayo
    clinic's low-dose data.

    The manual's axes are left-handed: a focal centre at ``(rho, phi, z)`` is at ``(-rho sin(phi), rho cos(phi), z)``,
    z from the table into the gantry, 12 o'clock at ``phi = 0``, counter-clockwise as seen from the table. Ours are its
    ``(x, -y, z)``, so that rows run downwards: of a patient who lies on the back, head first, x towards the left, y
    towards the back, z towards the head, as DICOM has them. Columns lie on an arc about the focal centre of the
    detector (``CYLINDRICAL``) or on a plane (``FLAT``), counted from the left as seen from the table with the detector
    at 6 o'clock; rows are counted from the farthest. ``DetectorCentralElement`` counts from 1. The focal spot is off
    that centre by the shifts of its view, so that a flying one leaves the arc where it is. Views go by
    ``InstanceNumber``.

    Args:
        folder: with the ``.dcm`` files of one scan.
        image_size: pixels along a side of a slice; 0 for as many as columns.

    Returns:
        ``(views, rows, columns)`` line integrals, the arguments of ``ModularBeam``, an affine ``(4, 4)`` from
        ``(x, y, z)`` to RAS mm, notes, and whether the file tells how the patient lies.

    Raises:
        InputError: files that are not of one scan, tags that are missing or not finite, a spherical detector, several
            spectra, projections without logarithm, views of a helix that are missing, too little memory.
    """
    import pydicom
    from pydicom.errors import InvalidDicomError

    paths = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if not paths:
        raise InputError(f"{folder}: holds no file; give a folder of DICOM-CT-PD projections")
    check_fits(f"{folder}: {len(paths)} projections", 2 * sum(path.stat().st_size for path in paths), "give fewer")
    files: list[tuple[int, Path, Any]] = []
    for path in paths:
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
        except InvalidDicomError as error:
            raise InputError(f"{path}: no DICOM file; leave projections alone in the folder") from error
        except _unreadable() as error:
            raise InputError(f"{path}: cannot be read ({_why(error)}); the file may be damaged or cut short") from error
        missing = [f"{name} ({tag >> 16:04X},{tag & 0xFFFF:04X})" for tag, name in NAMES.items() if tag not in header]
        if missing:
            raise InputError(f"{path}: no projection in DICOM-CT-PD, which has {', '.join(missing[:3])}")
        files.append((_instance(path, header), path, header))
    files.sort(key=lambda item: (item[0], item[1]))
    _check_scan(folder, files)
    first = files[0][2]
    rows, columns = int(_numbers(files[0][1], first, ROWS)[0]), int(_numbers(files[0][1], first, COLUMNS)[0])
    curved = _text(files[0][1], first, SHAPE, "CYLINDRICAL") != "FLAT"
    values = np.array([_view(path, header) for _, path, header in files])
    step = float(np.abs(np.diff(values[:, 0])).max(initial=0.0))
    if step > 2 * np.pi + 1e-3:
        raise InputError(
            f"{folder}: {NAMES[ANGLE]} goes by up to {step:.4g} from a view to the next, which are no radians; convert "
            "it to radians"
        )
    views = _views(values, (rows, columns), curved)
    geometry, affine, notes = modular_geometry(
        folder, views, (rows, columns), float(values[0, 5]) if curved else None, image_size
    )
    y = np.stack([_projection(path, rows, columns) for _, path, _ in files])
    numbers = [number for number, _, _ in files]
    if (lost := numbers[-1] - numbers[0] + 1 - len(numbers)) > 0:
        notes = (*notes, f"{lost} of the InstanceNumbers from {numbers[0]} to {numbers[-1]} are not there")
    flown = int((np.abs(values[:, 8:]) > 1e-6).any(1).sum())
    if flown:
        notes = (*notes, f"the focal spot is off the centre of the detector's arc in {flown} of {len(y)} views")
    lies = _text(files[0][1], first, POSITION, "") or "is not there"
    if sided := lies == "HFS":
        affine[:2] *= -1  # left and back are minus R and minus A
    else:
        notes = (*notes, f"PatientPosition {lies}: sides are not told")
    return torch.from_numpy(y), geometry, affine, notes, sided


def _check_scan(folder: Path, files: list[tuple[int, Path, Any]]) -> None:
    """Raise where files are not of one scan with one detector and spectrum, or two of them of the same view."""
    numbers = [number for number, _, _ in files]
    twice = next((number for number, after in pairwise(numbers) if number == after), None)
    if twice is not None:
        raise InputError(f"{folder}: InstanceNumber {twice} is there twice; leave the files of one scan in the folder")
    first = files[0][2]
    for _, path, header in files:
        for tag in SAME:
            if not np.allclose(_numbers(path, header, tag), _numbers(path, first, tag), rtol=1e-5):
                raise InputError(f"{path}: another {NAMES[tag]} than in {files[0][1].name}; give one scan alone")
        for tag in LENGTHS:
            if not (value := _numbers(path, header, tag)[0]) > 0:
                raise InputError(f"{path}: {NAMES[tag]} is {value:g}; give more than 0")
        if SPECTRUM in header and SPECTRUM in first and _value(path, header, SPECTRUM) != _value(path, first, SPECTRUM):
            raise InputError(f"{path}: another SpectrumIndex than in {files[0][1].name}; give one spectrum alone")
        if _text(path, header, LOGARITHM, "YES") != "YES":
            raise InputError(f"{path}: LogFlag is NO, so projections are no line integrals; give those with logarithm")
        shape = _text(path, header, SHAPE, "CYLINDRICAL")
        if shape not in ("CYLINDRICAL", "FLAT"):
            raise InputError(f"{path}: DetectorShape is {shape}; there are CYLINDRICAL and FLAT")


def _view(path: Path, header: Any) -> list[float]:
    """Angle, height and radius of the focal centre, spacings, distance to the detector, central element, shifts."""
    read = [
        _numbers(path, header, tag)[0] for tag in (ANGLE, HEIGHT, RADIUS, SPACING_ACROSS, SPACING_ALONG, TO_DETECTOR)
    ]
    central = _numbers(path, header, CENTRAL)
    if len(central) != 2:
        raise InputError(f"{path}: DetectorCentralElement has {len(central)} values; give column and row")
    sizes = [int(_numbers(path, header, tag)[0]) for tag in (COLUMNS, ROWS)]
    if not all(0.5 <= one <= size + 0.5 for one, size in zip(central, sizes, strict=True)):
        raise InputError(
            f"{path}: DetectorCentralElement is column {central[0]:g}, row {central[1]:g} of {sizes[0]} columns and "
            f"{sizes[1]} rows; give column and row on the detector, counted from 1"
        )
    tags = (SHIFT_ANGLE, SHIFT_HEIGHT, SHIFT_RADIUS)
    return [*read, *central, *(_numbers(path, header, tag)[0] if tag in header else 0.0 for tag in tags)]


def _views(values: NDArray[Any], shape: tuple[int, int], curved: bool) -> NDArray[Any]:
    """The table that ``ModularBeam`` takes, from the values of ``_view``."""
    angle, height, radius, across, along, total, column, row, turned, raised, farther = values.T

    def at(radius: NDArray[Any], angle: NDArray[Any], height: NDArray[Any]) -> NDArray[Any]:
        return np.stack((-radius * np.sin(angle), -radius * np.cos(angle), height), 1)

    zero, one = np.zeros_like(angle), np.ones_like(angle)
    source = at(radius + farther, angle + turned, height + raised)
    inward = at(one, angle, zero)  # from the axis to the focal centre
    columns = np.stack((np.cos(angle), -np.sin(angle), zero), 1)
    rows = np.stack((zero, zero, -one), 1)
    central = at(radius - total, angle, height)
    beside, below = ((shape[1] + 1) / 2 - column) * across, ((shape[0] + 1) / 2 - row) * along
    if curved:
        middle, columns = on_arc(central, columns, inward, float(total[0]), beside)
    else:
        middle = central + beside[:, None] * columns
    middle = middle + below[:, None] * rows
    return np.concatenate((source, middle, across[:, None] * columns, along[:, None] * rows), 1)


def _projection(path: Path, rows: int, columns: int) -> NDArray[np.float32]:
    """Line integrals ``(rows, columns)``. Pixels are stored row by row or, as in the Mayo data, column by column, which
    ``Rows`` and ``Columns`` of the file tell."""
    import pydicom

    try:
        file = pydicom.dcmread(path)
        stored, pixels = (int(file.Rows), int(file.Columns)), None
        if stored in ((rows, columns), (columns, rows)):
            pixels = file.pixel_array
        slope, intercept = (
            float(file.get(name, default)) for name, default in (("RescaleSlope", 1), ("RescaleIntercept", 0))
        )
        if not slope > 0:
            raise InputError(f"{path}: RescaleSlope is {slope:g}; give more than 0")
    except _unreadable() as error:
        raise InputError(
            f"{path}: pixels cannot be read ({_why(error)}); the file may be damaged or cut short"
        ) from error
    if pixels is None or pixels.shape != stored:
        raise InputError(
            f"{path}: pixels are {stored[0]} x {stored[1]}, the detector has {rows} rows, {columns} columns"
        )
    if stored != (rows, columns):
        pixels = pixels.T
    with np.errstate(over="ignore", invalid="ignore"):  # becomes infinite, and is found as such
        values = pixels.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    if not np.isfinite(values).all():
        raise InputError(
            f"{path}: RescaleSlope and RescaleIntercept give values that are not finite; correct them first"
        )
    return values


def _numbers(path: Path, header: Any, tag: int) -> list[float]:
    """The values of a private tag, also where a reader without the dictionary has kept its bytes."""
    value = _value(path, header, tag)
    if isinstance(value, bytes):
        kind = "H" if tag in (ROWS, COLUMNS) else "f"
        count = len(value) // struct.calcsize(kind)
        value = list(struct.unpack(f"<{count}{kind}", value[: count * struct.calcsize(kind)]))
    try:
        numbers = [
            float(one) for one in (value if isinstance(value, list | tuple) or hasattr(value, "append") else [value])
        ]
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: {NAMES.get(tag, hex(tag))} is {value!r}; give numbers") from error
    if not numbers or not np.isfinite(numbers).all():
        raise InputError(f"{path}: {NAMES.get(tag, hex(tag))} is {numbers}; give finite numbers")
    return numbers


def _value(path: Path, header: Any, tag: int) -> Any:
    """A value, which pydicom reads when it is asked for."""
    try:
        return header[tag].value
    except _unreadable() as error:
        name = NAMES.get(tag, f"({tag >> 16:04X},{tag & 0xFFFF:04X})")
        raise InputError(f"{path}: {name} cannot be read ({_why(error)}); the file may be damaged") from error


def _instance(path: Path, header: Any) -> int:
    try:
        return int(header.get("InstanceNumber", 0) or 0)
    except _unreadable() as error:
        raise InputError(f"{path}: InstanceNumber is no number ({_why(error)}); give that of the view") from error


def _unreadable() -> tuple[type[Exception], ...]:
    """What pydicom raises at files that are damaged."""
    from pydicom.errors import BytesLengthException

    return (AttributeError, BytesLengthException, *DAMAGED)


def _why(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _text(path: Path, header: Any, tag: int, default: str) -> str:
    value = _value(path, header, tag) if tag in header else default
    return (value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)).strip(" \0").upper()
