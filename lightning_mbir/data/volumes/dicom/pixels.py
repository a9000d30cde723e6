"""The pixels of DICOM slices, decoded by pydicom and rescaled slice by slice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightning_mbir.data.volumes.dicom.files import decoding, dicom_header
from lightning_mbir.data.volumes.dicom.slices import Slice
from lightning_mbir.errors import InputError
from lightning_mbir.free_memory import check_fits

PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
AIR_HU = -1000.0


def read_pixels(slices: Sequence[Slice]) -> tuple[np.ndarray, list[str]]:
    """The values of slices, rescaled as each says, and what is to be told; of CT, padding above air becomes air.

    Args:
        slices: of one size.

    Returns:
        an array ``(column, row, slice)`` float32, and notes.

    Raises:
        InputError: pixels are cut short, damaged, or compressed in a way that nothing here decodes.
    """
    rows, columns = slices[0].shape
    check_fits(f"{slices[0].file.parent}", 4.0 * rows * columns * len(slices), "give fewer or smaller slices")
    _check_decoders(slices)
    values = np.empty((len(slices), rows, columns), np.float32)
    padding, told = 0, ""
    dataset, file = None, None
    for k, one in enumerate(slices):
        if one.file != file:
            dataset, file = dicom_header(one.file), one.file
        with decoding(one.file, "its pixels cannot be decoded, they may be cut short"):
            stored = _stored(dataset, one)
            rescaled = _rescaled(stored, one, dataset)
            padded = _padding(stored, dataset)
        if one.modality == "CT" and padded is not None:
            padded &= rescaled > AIR_HU
            if count := int(padded.sum()):
                padding, told = padding + count, f"{float(rescaled[padded].max()):g} HU"
                rescaled = np.where(padded, AIR_HU, rescaled)
        values[k] = rescaled
    notes = [f"{padding} voxels of padding (PixelPaddingValue), up to {told}, are taken for air"] if padding else []
    return values.transpose(2, 1, 0), notes


def same_pixels(a: Path, b: Path) -> bool:
    """Whether two files hold the same pixels, byte by byte."""
    first, second = (dicom_header(path, specific_tags=list(PIXELS)) for path in (a, b))
    with decoding(a):
        return all(first.get(name) == second.get(name) for name in PIXELS)


def _check_decoders(slices: Sequence[Slice]) -> None:
    """Refuse what is compressed in a way for which no decoder is installed, before anything is decoded."""
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    for syntax in {one.syntax for one in slices} - {""}:
        file, name = next(one.file for one in slices if one.syntax == syntax), UID(syntax).name
        try:
            decoder = get_decoder(syntax)
        except NotImplementedError as error:
            raise InputError(f"{file}: stored as {name}, which is not read; convert the series first") from error
        if not decoder.is_available:
            raise InputError(
                f"{file}: compressed as {name}, for which no decoder is installed; "
                "install pip install 'lightning-mbir[dicom]'"
            )


def _stored(dataset: Any, one: Slice) -> np.ndarray:
    """The values of one slice ``(rows, columns)`` as they are stored."""
    from pydicom.pixels import get_decoder
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if not any(dataset.get(name) for name in PIXELS):
        raise InputError(f"{one.file}: has no pixels, it may be cut short; copy it again, or take it out")
    if not one.syntax:  # no file meta information: how it was read says how its pixels are stored
        implicit, little = dataset.original_encoding
        plain = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        dataset.file_meta.TransferSyntaxUID = plain if little else ExplicitVRBigEndian
    decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
    stored, _ = decoder.as_array(dataset, index=one.frame or 0, raw=True)
    if stored.shape != one.shape:
        rows, columns = one.shape
        raise InputError(f"{one.file}: holds {stored.shape} pixels, not the {rows} x {columns} of its header")
    return stored


def _rescaled(stored: np.ndarray, one: Slice, dataset: Any) -> np.ndarray:
    if one.lut:
        from pydicom.pixels import apply_modality_lut

        return np.asarray(apply_modality_lut(stored, dataset), np.float64)
    slope, intercept = 1.0 if one.slope is None else one.slope, one.intercept or 0.0
    return stored.astype(np.float64) * slope + intercept


def _padding(stored: np.ndarray, dataset: Any) -> np.ndarray | None:
    """Where the values of a slice are padding, as its header says."""
    value = dataset.get("PixelPaddingValue")
    if not isinstance(value, int):
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    ends = (value, limit) if isinstance(limit, int) else (value, value)
    return (stored >= min(ends)) & (stored <= max(ends))
