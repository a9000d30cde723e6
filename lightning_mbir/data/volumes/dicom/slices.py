"""What the header of a DICOM file says of its slices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from lightning_mbir.data.volumes.dicom.files import decoding, dicom_header
from lightning_mbir.data.volumes.dicom.frames import Groups, frame_marks, is_enhanced
from lightning_mbir.errors import InputError

CLASSIC = {"1.2.840.10008.5.1.4.1.1.2": "CT", "1.2.840.10008.5.1.4.1.1.4": "MR"}
ENHANCED = {
    "1.2.840.10008.5.1.4.1.1.2.1": "CT",
    "1.2.840.10008.5.1.4.1.1.2.2": "CT",
    "1.2.840.10008.5.1.4.1.1.4.1": "MR",
    "1.2.840.10008.5.1.4.1.1.4.4": "MR",
}
"""Classes of objects whose slices make up a volume (Legacy Converted ones too), and their modality."""

MARKS = (
    "AcquisitionNumber", "TemporalPositionIdentifier", "EchoNumbers", "EchoTime", "ImageType", "TriggerTime",
    "NominalPercentageOfCardiacPhase", "DiffusionBValue", "InversionTime", "FlipAngle", "RepetitionTime",
    "ConvolutionKernel", "KVP", "ContrastBolusAgent", "ScanOptions", "AcquisitionDateTime", "AcquisitionTime",
)  # fmt: skip
"""What may tell slices at the same place apart, in the order in which it is asked."""

PERPENDICULAR = 1e-3
"""How far the two directions of a slice may be from unit length and from a right angle."""

_TAGS = [
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality", "Rows",
    "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit", "ImagePositionPatient",
    "ImageOrientationPatient", "PixelSpacing", "ImagerPixelSpacing", "SpacingBetweenSlices", "FrameOfReferenceUID",
    "RescaleSlope", "RescaleIntercept", "RescaleType", "ModalityLUTSequence", "PhotometricInterpretation",
    "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence", *MARKS,
]  # fmt: skip


@dataclass(frozen=True)
class Slice:
    """A slice in a file.

    Attributes:
        file: where it is.
        frame: which one of a multi-frame object, from 0; None where the file is one slice.
        uid, sop_class: of its object.
        series, number, description, modality: UID of its series, its number and description (or ``""``), ``CT``,
            ``MR`` or what else it says.
        shape: rows and columns.
        position: LPS millimetres of the centre of the first pixel.
        orientation: LPS directions along a row and along a column, perpendicular and of unit length.
        spacing: millimetres from row to row and from column to column.
        decimals: how many the position was written with.
        slope, intercept: of the rescale; None where the file has none.
        rescale_type: such as ``HU``.
        between: SpacingBetweenSlices, where it is told.
        reference: UID of the frame of reference.
        localizer: whether it is a scout.
        inverse: whether it is MONOCHROME1.
        lut: whether it has a modality LUT instead of a slope.
        syntax: UID of the transfer syntax.
        marks: values of ``MARKS``, and of the dimensions of a multi-frame object.
        problem: why it cannot be used, or ``""``.
    """

    file: Path
    frame: int | None
    uid: str
    sop_class: str
    series: str
    number: str
    description: str
    modality: str
    shape: tuple[int, int] = (0, 0)
    position: tuple[float, ...] = ()
    orientation: tuple[float, ...] = ()
    spacing: tuple[float, ...] = ()
    decimals: int = 0
    slope: float | None = None
    intercept: float | None = None
    rescale_type: str = ""
    between: float | None = None
    reference: str = ""
    localizer: bool = False
    inverse: bool = False
    lut: bool = False
    syntax: str = ""
    marks: dict[str, str] = field(default_factory=dict)
    problem: str = ""

    @property
    def name(self) -> str:
        """The file's name, with the number of the frame from 1."""
        return self.file.name if self.frame is None else f"frame {self.frame + 1} of {self.file.name}"


def read_slices(file: Path) -> list[Slice] | str:
    """The slices of a CT or MR image, of a file of anything else what that is, such as ``RTSTRUCT``.

    Raises:
        InputError: the header cannot be read.
    """
    header = dicom_header(file, stop_before_pixels=True, specific_tags=_TAGS)
    with decoding(file):
        return _slices(file, header)


def _slices(file: Path, header: Any) -> list[Slice] | str:
    from pydicom.uid import UID_dictionary

    meta = header.file_meta
    sop_class = str(header.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID") or "")
    modality = str(header.get("Modality") or "") or {**CLASSIC, **ENHANCED}.get(sop_class, "")
    if not modality and sop_class not in UID_dictionary:
        raise InputError(f"{file}: does not say what it is, it may be cut short; copy it again, or take it out")
    if not _is_image(header, sop_class, modality):
        return _kind(sop_class, modality)
    common: dict[str, Any] = {
        "file": file,
        "uid": str(header.get("SOPInstanceUID") or meta.get("MediaStorageSOPInstanceUID") or ""),
        "sop_class": sop_class,
        "series": str(header.get("SeriesInstanceUID") or ""),
        "number": _text(header, "SeriesNumber"),
        "description": _text(header, "SeriesDescription"),
        "modality": modality,
        "reference": _text(header, "FrameOfReferenceUID"),
        "inverse": header.get("PhotometricInterpretation") == "MONOCHROME1",
        "syntax": str(meta.get("TransferSyntaxUID") or ""),
    }
    if not header.get("Rows") or not header.get("Columns"):
        raise InputError(f"{file}: lacks Rows or Columns, it may be cut short; copy it again, or take it out")
    frames = int(header.get("NumberOfFrames") or 1)
    common["shape"] = int(header.Rows), int(header.Columns)
    if problem := _no_pixels(header):
        return [Slice(**common, frame=None, problem=problem)]
    if is_enhanced(header):
        groups = header.PerFrameFunctionalGroupsSequence
        if len(groups) != frames:
            problem = f"{file}: has {frames} frames and the places of {len(groups)}; write it again"
            return [Slice(**common, frame=0, problem=problem)]
        return [_slice(common, Groups(header, frame), frame, frame_marks(header, frame)) for frame in range(frames)]
    if frames > 1:
        problem = f"{file}: a multi-frame image whose {frames} frames have no places; give the series as single slices"
        return [Slice(**common, frame=0, problem=problem)]
    return [_slice(common, header, None, {mark: text for mark in MARKS if (text := _text(header, mark))})]


def _slice(common: dict[str, Any], says: Any, frame: int | None, marks: dict[str, str]) -> Slice:
    """A slice of what a header, or the groups of a frame, say of it."""
    image_type = marks.get("ImageType", marks.get("FrameType", "")).upper()
    try:
        position = _numbers(says, "ImagePositionPatient", 3)
        orientation = _perpendicular(_numbers(says, "ImageOrientationPatient", 6))
        spacing = _numbers(says, "PixelSpacing", 2)
        slope, intercept = (_optional(says, name) for name in ("RescaleSlope", "RescaleIntercept"))
        between = _optional(says, "SpacingBetweenSlices")
        if min(spacing) <= 0:
            raise ValueError(f"PixelSpacing is {spacing[0]:g} x {spacing[1]:g} mm")
        if slope == 0:
            raise ValueError("RescaleSlope is 0")
    except ValueError as error:
        problem = f"{common['file']}: {error}; correct the header, or take the file out"
        return Slice(**common, frame=frame, localizer="LOCALIZER" in image_type, problem=problem)
    return Slice(
        **common,
        frame=frame,
        position=position,
        orientation=orientation,
        spacing=spacing,
        decimals=max(_decimals(value) for value in says.get("ImagePositionPatient")),
        slope=slope,
        intercept=intercept,
        rescale_type=_text(says, "RescaleType"),
        between=between,
        localizer="LOCALIZER" in image_type,
        lut=bool(says.get("ModalityLUTSequence")),
        marks=marks,
    )


def _is_image(header: Any, sop_class: str, modality: str) -> bool:
    """Whether it is CT or MR: by its class; of an unknown (private) class, by what it has."""
    from pydicom.uid import UID_dictionary

    if sop_class in CLASSIC or sop_class in ENHANCED:
        return True
    placed = "ImagePositionPatient" in header and "Rows" in header
    return sop_class not in UID_dictionary and modality in ("CT", "MR") and placed


def _kind(sop_class: str, modality: str) -> str:
    from pydicom.uid import UID_dictionary

    name = UID_dictionary[sop_class][0].removesuffix(" Storage") if sop_class in UID_dictionary else ""
    return name if modality in ("CT", "MR", "") and name else modality or "of an unknown kind"


def _no_pixels(header: Any) -> str:
    """Why the pixels cannot be those of a slice, or ``""``."""
    file = header.filename
    monochrome = str(header.get("PhotometricInterpretation") or "MONOCHROME2").startswith("MONOCHROME")
    if int(header.get("SamplesPerPixel") or 1) != 1 or not monochrome:
        return f"{file}: an image in colour; give a series of CT or MR slices"
    stored, high = header.get("BitsStored"), header.get("HighBit")
    if stored and high is not None and int(high) != int(stored) - 1:
        return f"{file}: HighBit is {high} of {stored} BitsStored, not {int(stored) - 1}; correct the header"
    return ""


def _numbers(says: Any, name: str, count: int) -> tuple[float, ...]:
    value = says.get(name)
    if value is None or value == "" or (isinstance(value, Sequence) and not len(value)):
        other = ", which ImagerPixelSpacing (at the detector) does not tell" if says.get("ImagerPixelSpacing") else ""
        raise ValueError(f"lacks {name}{other if name == 'PixelSpacing' else ''}, without which it has no geometry")
    values = [value] if isinstance(value, (str, float, int)) else list(value)
    numbers = tuple(float(number) for number in values)
    if len(numbers) != count or not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"{name} is {values}, not {count} numbers")
    return numbers


def _perpendicular(orientation: tuple[float, ...]) -> tuple[float, ...]:
    """Two directions made perpendicular and of unit length, which rounding has left them not quite."""
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(length - 1) for length in lengths) > PERPENDICULAR or abs(row @ column) > PERPENDICULAR:
        told = ", ".join(f"{value:g}" for value in orientation)
        raise ValueError(f"ImageOrientationPatient ({told}) is not two perpendicular directions of unit length")
    row = row / lengths[0]
    column = column - (row @ column) * row
    return *map(float, row), *map(float, column / np.linalg.norm(column))


def _optional(says: Any, name: str) -> float | None:
    value = says.get(name)
    if value is None or value == "":
        return None
    if not math.isfinite(number := float(value)):
        raise ValueError(f"{name} is {value}")
    return number


def _decimals(value: Any) -> int:
    """Decimals that a number was written with."""
    exponent = Decimal(str(getattr(value, "original_string", value)).strip()).as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def _text(says: Any, name: str) -> str:
    value = says.get(name)
    if value is None:
        return ""
    values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return "\\".join(" ".join(str(part).split()) for part in values)
