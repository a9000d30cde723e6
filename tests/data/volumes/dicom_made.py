"""DICOM series whose values are a linear function of the place, so that every voxel can be checked."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

from lightning_mbir.data.volumes.image import Image

Edit = Callable[[int, Any], None]
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SIZE = (10, 12)  # rows and columns


def value_at(place: np.ndarray) -> np.ndarray:
    """The value at LPS places ``(3, ...)`` in mm."""
    return np.round(2.0 * place[0] - 3.0 * place[1] + 4.0 * place[2] + 100)


def write_series(
    folder: Path,
    n: int = 5,
    orientation: Sequence[float] = AXIAL,
    spacing: tuple[float, float] = (1.5, 1.25),
    first: Sequence[float] = (-8.0, -9.0, -30.0),
    step: Sequence[float] | None = None,
    modality: str = "CT",
    edit: Edit | None = None,
    prefix: str = "s",
    save: dict[str, Any] | None = None,
    drop: Sequence[int] = (),
) -> list[Path]:
    """Write ``n`` slices; ``edit(k, dataset)`` changes one before it is written. Steps follow the normal by default."""
    folder.mkdir(parents=True, exist_ok=True)
    files, series, study = [], generate_uid(), generate_uid()
    for k in range(n):
        if k in drop:
            continue
        one = slice_of(k, orientation, spacing, first, step, modality)
        one.SeriesInstanceUID, one.StudyInstanceUID = series, study
        if edit is not None:
            edit(k, one)
        files.append(folder / f"{prefix}{k:03d}.dcm")
        one.save_as(files[-1], **({"enforce_file_format": True} if save is None else save))
    return files


def slice_of(
    k: int,
    orientation: Sequence[float] = AXIAL,
    spacing: tuple[float, float] = (1.5, 1.25),
    first: Sequence[float] = (-8.0, -9.0, -30.0),
    step: Sequence[float] | None = None,
    modality: str = "CT",
) -> Any:
    """Slice ``k`` of a series."""
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    move = 3.0 * np.cross(row, column) if step is None else np.array(step)
    position = np.array(first) + k * move
    r, c = np.meshgrid(*map(np.arange, SIZE), indexing="ij")
    place = position[:, None, None] + row[:, None, None] * c * spacing[1] + column[:, None, None] * r * spacing[0]
    one: Any = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.SOPClassUID = CTImageStorage if modality == "CT" else MRImageStorage
    one.SOPInstanceUID = generate_uid()
    one.file_meta.MediaStorageSOPClassUID, one.file_meta.MediaStorageSOPInstanceUID = (
        one.SOPClassUID,
        one.SOPInstanceUID,
    )
    one.Modality, one.PatientName, one.PatientID, one.InstanceNumber = modality, "Secret^Name", "SECRET-ID", k + 1
    one.ImagePositionPatient = [round(float(value), 6) for value in position]
    one.ImageOrientationPatient = [round(float(value), 9) for value in orientation]
    one.PixelSpacing, one.SliceThickness = list(spacing), 3.0
    one.Rows, one.Columns, one.SamplesPerPixel, one.PhotometricInterpretation = *SIZE, 1, "MONOCHROME2"
    one.BitsAllocated = one.BitsStored = 16
    one.HighBit, one.PixelRepresentation = 15, 1
    one.RescaleSlope, one.RescaleIntercept = 1.0, -1024.0
    one.PixelData = (value_at(place) + 1024).astype("<i2").tobytes()
    return one


def enhanced(slices: Sequence[Any]) -> Any:
    """Slices as one enhanced multi-frame object, whose frames are in the order of the slices."""
    whole = slices[0]
    whole.SOPClassUID = f"{whole.SOPClassUID}.1"
    whole.file_meta.MediaStorageSOPClassUID = whole.SOPClassUID
    whole.NumberOfFrames, whole.PixelData = len(slices), b"".join(one.PixelData for one in slices)
    places = [item(ImagePositionPatient=one.ImagePositionPatient) for one in slices]
    whole.PerFrameFunctionalGroupsSequence = Items([item(PlanePositionSequence=Items([place])) for place in places])
    measures = item(PixelSpacing=whole.PixelSpacing, SliceThickness=3.0)
    plane = item(ImageOrientationPatient=whole.ImageOrientationPatient)
    rescale = item(RescaleSlope=1.0, RescaleIntercept=-1024.0, RescaleType="HU")
    whole.SharedFunctionalGroupsSequence = Items([
        item(
            PixelMeasuresSequence=Items([measures]),
            PlaneOrientationSequence=Items([plane]),
            PixelValueTransformationSequence=Items([rescale]),
        )
    ])  # fmt: skip
    for gone in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(whole, gone)
    del whole.RescaleSlope, whole.RescaleIntercept
    return whole


def item(**values: Any) -> Any:
    """A dataset with these attributes."""
    made: Any = Dataset()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def worst(image: Image) -> float:
    """The largest difference of a voxel from the value at its place."""
    index = np.indices(image.array.shape).reshape(3, -1)
    ras = image.affine[:3, :3] @ index + image.affine[:3, 3:]
    lps = ras * np.array([-1, -1, 1])[:, None]
    return float(np.abs(image.array.reshape(-1) - value_at(lps)).max())
