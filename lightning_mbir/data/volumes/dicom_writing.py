"""A volume that was read from a DICOM series, written as a new, derived series of the same study."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightning_mbir.data.units import Modality
from lightning_mbir.data.volumes.dicom.derived import Source, derived, source_of
from lightning_mbir.data.volumes.dicom.files import decoding
from lightning_mbir.data.volumes.dicom.slices import Slice
from lightning_mbir.data.volumes.dicom.stack import Stack
from lightning_mbir.data.volumes.grid import Grid
from lightning_mbir.data.volumes.listing import kind_of
from lightning_mbir.data.volumes.resample import on_own_grid
from lightning_mbir.data.volumes.volume import Volume, mu_to_hu
from lightning_mbir.errors import InputError
from lightning_mbir.files import writing

CT_SLOPES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
"""Steps of the stored values in HU: the first that 16 bits hold all values with."""
MOST = 65535
CT_WINDOW = (40.0, 400.0)
"""Centre and width in HU, where the source has none."""


def check_dicom(scans: Sequence[Path | int], measured: bool) -> None:
    """Refuse ``--write dicom`` where there is no DICOM series that a new one could be derived from.

    Args:
        scans: files and folders, or the numbers of demo phantoms.
        measured: whether they are measurements.

    Raises:
        InputError: one of them is something else.
    """
    for scan in scans:
        what = "a measurement" if measured else "a demo phantom" if isinstance(scan, int) else ""
        if not what and isinstance(scan, Path) and kind_of(scan) != "dicom":
            what = f"{scan}, which is no DICOM"
        if what:
            raise InputError(f"--write dicom: a series is derived from another, not from {what}; give DICOM")


def dicom_headers(volume: Volume, description: str) -> list[Any]:
    """The datasets of a derived series, without pixels: a slice each, of those that ``volume`` still has.

    Patient and study are those of the source; series and objects are new, and name their source images. It is made
    before the work, so that a source that cannot be copied is told then.

    Args:
        volume: read from a DICOM series.
        description: how its values are made, for DerivationDescription.

    Raises:
        InputError: the volume was not read from a DICOM series, or a header cannot be copied.
    """
    from pydicom.uid import generate_uid

    stack = volume.stack
    if stack is None:
        raise InputError(f"--write dicom: {volume.name} was not read from a DICOM series; leave it out")
    grid, first = _measured(volume, stack)
    series, now = generate_uid(), datetime.now()
    study = source_of(stack.slices[0])
    with decoding(stack.slices[0].file):
        reference = str(study.header.get("FrameOfReferenceUID") or "") or generate_uid()
        window = _source_window(study) if volume.modality == "ct" else None
    headers, source = [], study
    for k, one in enumerate(stack.slices[first[2] : first[2] + grid.shape[2]]):
        source = source_of(one, source)
        header = derived(study, source, one, series, reference, now, description)
        header.InstanceNumber = k + 1
        header.Columns, header.Rows = grid.shape[:2]
        _place(header, one, first)
        if window is not None:
            header.WindowCenter, header.WindowWidth = (f"{value:.8g}" for value in window)
        headers.append(header)
    return headers


def write_dicom(folder: Path, volume: Volume, headers: list[Any]) -> None:
    """Write a volume as a DICOM series on the slices that it was measured on, a file each.

    Values are whole numbers of 16 bits with one slope for all slices: of CT in HU, of MRI in the unit of the source.

    Args:
        folder: where to, made where it is not.
        volume: read from a DICOM series.
        headers: of ``dicom_headers``; they get the pixels.

    Raises:
        WriteError: what the disk refused to take.
    """
    import pydicom

    assert volume.stack is not None  # dicom_headers refuses it
    data, _ = on_own_grid(replace(volume, grid=_measured(volume, volume.stack)[0]))
    values = (mu_to_hu(data) if volume.modality == "ct" else data).to("cpu", torch.float32).numpy()
    slope, intercept = _rescale(values, volume.modality)
    most = float(np.percentile(values, 99.5)) or 1.0
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for k, header in enumerate(headers):
        stored = np.round((values[:, :, k].T.astype(np.float64) - float(intercept)) / float(slope))
        header.RescaleSlope, header.RescaleIntercept = slope, intercept
        header.RescaleType = "HU" if volume.modality == "ct" else "US"
        if "WindowCenter" not in header:
            header.WindowCenter, header.WindowWidth = f"{most / 2:.8g}", f"{abs(most):.8g}"
        header.PixelData = np.clip(stored, 0, MOST).astype("<u2").tobytes()
        header["PixelData"].VR = "OW"
        with writing(folder), pydicom.config.disable_value_validation():
            header.save_as(folder / f"{k + 1:04d}.dcm", enforce_file_format=True)
        del header.PixelData


def _measured(volume: Volume, stack: Stack) -> tuple[Grid, tuple[int, int, int]]:
    """The part of the grid as measured that a volume still covers along its slices, and where that part begins."""
    to_volume = np.linalg.inv(volume.affine) @ stack.grid.affine
    axis = int(np.abs(to_volume[2, :3]).argmax())
    shape, first = list(stack.grid.shape), [0, 0, 0]
    at = to_volume[2, axis] * np.arange(shape[axis]) + to_volume[2, 3]
    inside = np.flatnonzero((at > -0.5) & (at < volume.data.shape[0] - 0.5))
    first[axis], shape[axis] = int(inside[0]), len(inside)
    affine = stack.grid.affine.copy()
    affine[:, 3] = stack.grid.affine @ [*first, 1]
    return Grid((shape[0], shape[1], shape[2]), affine), (first[0], first[1], first[2])


def _rescale(values: np.ndarray, modality: Modality) -> tuple[str, str]:
    """Slope and intercept, as they are written, with which 16 bits hold all values."""
    low, high = float(values.min()), float(values.max())
    if modality == "ct":
        low = math.floor(low)
        slope = next((slope for slope in CT_SLOPES if (high - low) / slope <= MOST), 0.0)
    else:
        low, slope = min(low, 0.0), 0.0
    slope = slope or (high - low) / MOST * (1 + 1e-6) or 1.0  # a little more, so that rounding its text leaves none out
    return f"{slope:.9g}", f"{low:.9g}"


def _source_window(study: Source) -> tuple[float, float]:
    """Centre and width for display that the source has first."""
    values = [study.get(name) for name in ("WindowCenter", "WindowWidth")]
    centre, width = (value if isinstance(value, float) else next(iter(value or ()), None) for value in values)
    return CT_WINDOW if centre is None or not width else (float(centre), float(width))


def _place(dataset: Any, one: Slice, first: tuple[int, int, int]) -> None:
    """The place of the source slice, begun at the first column and row that are written."""
    from pydicom.valuerep import format_number_as_ds

    row, column = np.array(one.orientation[:3]), np.array(one.orientation[3:])
    position = np.array(one.position) + first[0] * one.spacing[1] * row + first[1] * one.spacing[0] * column
    dataset.ImagePositionPatient = [format_number_as_ds(float(value)) for value in position]
    dataset.ImageOrientationPatient = [format_number_as_ds(float(value)) for value in one.orientation]
    dataset.PixelSpacing = [format_number_as_ds(float(value)) for value in one.spacing]
