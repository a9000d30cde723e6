"""DICOM series: slices in their places along the normal, whole or refused."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from lightning_mbir.data.units import Modality
from lightning_mbir.data.volumes.dicom.files import dicom_files
from lightning_mbir.data.volumes.dicom.pixels import read_pixels
from lightning_mbir.data.volumes.dicom.series import Part, chosen, parts_of
from lightning_mbir.data.volumes.dicom.slices import Slice, read_slices
from lightning_mbir.data.volumes.dicom.stack import Stack, stacked
from lightning_mbir.data.volumes.image import Image
from lightning_mbir.errors import InputError

MODALITIES: dict[str, Modality] = {"CT": "ct", "MR": "mri"}


COMPONENTS = {
    **dict.fromkeys(("P", "PHASE", "PHASE MAP", "P_FFE", "P_SE"), "phase"),
    **dict.fromkeys(("R", "REAL", "R_FFE", "R_SE", "R_IR"), "real part"),
    **dict.fromkeys(("I", "IMAGINARY", "I_FFE", "I_SE"), "imaginary part"),
}
"""What of complex values MR slices have that are no magnitudes, by the third and later values of their ImageType."""


def read_dicom(path: Path, series: str | None = None, modality: Modality | None = None) -> Image:
    """Read a DICOM series, or an enhanced multi-frame object.

    Slices lie where ImagePositionPatient says, by increasing place along the normal; neither their order in the
    folder nor InstanceNumber counts. What of the folder is not part of the series is told in the notes.

    Args:
        path: its folder, with whatever folders below, or the file of a multi-frame object.
        series: which one, where there are several: its number, its UID or how that begins, or a label as the message
            lists them.
        modality: ``"ct"`` or ``"mri"``, which the files must be of; None takes either.

    Returns:
        the image ``(column, row, slice)``, of CT in HU. Of a tilted stack the affine is sheared, and ``written`` is a
        grid with perpendicular axes.

    Raises:
        InputError: several series, slices that are missing, at unequal distances or at the same place twice, no
            geometry, another modality, or pixels that cannot be decoded.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        stack, notes = _read_stack(path, series, modality)
        array, told = read_pixels(stack.slices)
    notes += told + sorted({f"pydicom: {' '.join(str(warning.message).split())}" for warning in caught})
    return Image(array, stack.grid.affine, tuple(notes), stack.straight, stack)


def _read_stack(path: Path, series: str | None, modality: Modality | None) -> tuple[Stack, list[str]]:
    """The slices of a series from their headers, and what is to be told; arguments and errors as of ``read_dicom``."""
    others: Sequence[Path] = ()
    if path.is_dir():
        found = dicom_files(path)
        files, others = found.dicom, found.others
    else:
        files = (path,)
    slices: list[Slice] = []
    kinds: Counter[str] = Counter()
    for file in files:
        read = read_slices(file)
        if isinstance(read, str):
            kinds[read] += 1
        else:
            slices += read
    if not slices:
        what = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items())) or "no DICOM files"
        raise InputError(f"{path}: no slices of CT or MR but {what}; give a CT or MR series")
    if not path.is_dir() and len(slices) == 1 and not slices[0].problem:
        raise InputError(f"{path}: a single slice of a series; give the folder that holds all of its slices")
    parts = parts_of(slices)
    part = chosen(parts, series, path)
    if part.problem:
        raise InputError(part.problem)
    _check_modality(path, part.slices, modality)
    stack = stacked(part.slices, str(path))
    notes = [*_passed_over(parts, part, kinds, others), *part.notes, *stack.notes, *_values(part.slices, modality)]
    return stack, notes


def _passed_over(parts: Sequence[Part], taken: Part, kinds: Counter[str], others: Sequence[Path]) -> Iterator[str]:
    """What of a folder is not part of the volume."""
    rest = [part for part in parts if part is not taken]
    if rest:
        told = ", ".join(_short(part) for part in rest[:6]) + (f" and {len(rest) - 6} more" if len(rest) > 6 else "")
        yield f"series {taken.shown} is read; passed over: {told}"
    if kinds:
        told = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))
        yield f"{_files(kinds.total())} passed over: {told}"
    if others:
        names = ", ".join(file.name for file in others[:3]) + (" and others" if len(others) > 3 else "")
        yield f"{_files(len(others))} passed over, not DICOM: {names}"


def _short(part: Part) -> str:
    first = part.slices[0]
    why = "localizer, " if first.localizer else "" if first.position else "no geometry, "
    noun = "image" if len(part.slices) == 1 else "images"
    return f"{part.shown} ({why}{len(part.slices)} {noun})"


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"


def _check_modality(path: Path, slices: Sequence[Slice], modality: Modality | None) -> None:
    """Refuse CT for a task of MRI and the other way round, and CT without what makes Hounsfield units of it."""
    told = slices[0].modality
    if modality is not None and MODALITIES.get(told) != modality:
        right = "sv_ct or la_ct, or --data.modality ct" if told == "CT" else "cs_mri, or --data.modality mri"
        right = f"give --task {right}" if told in MODALITIES else "give a series of CT or MR"
        raise InputError(f"{path}: its Modality is {told}, which is not that of {modality} volumes; {right}")
    if told != "CT":
        return
    for one in slices:
        if not one.lut and (one.slope is None or one.intercept is None):
            lacking = "RescaleSlope" if one.slope is None else "RescaleIntercept"
            raise InputError(f"{one.file}: lacks {lacking}, so its HU are not known; add what the scanner used")


def _values(slices: Sequence[Slice], modality: Modality | None) -> Iterator[str]:
    """What is to be told of the values."""
    types = sorted({one.rescale_type for one in slices} - {"", "HU"})
    if slices[0].modality == "CT" and types:
        yield f"RescaleType is {', '.join(types)}: values are taken for HU all the same"
    if any(one.inverse for one in slices):
        yield "MONOCHROME1: shown with bright and dark exchanged; values are read as they are stored"
    kinds = [one.marks.get("ImageType", one.marks.get("FrameType", "")).upper().split("\\")[2:] for one in slices]
    found = sorted({COMPONENTS[word] for words in kinds for word in words if word in COMPONENTS})
    if slices[0].modality == "MR" and found:
        yield f"ImageType says {' and '.join(found)}: values are read as they are, and are no magnitudes"
    if modality == "mri" and len({(one.slope, one.intercept) for one in slices}) > 1:
        yield "RescaleSlope differs from slice to slice: each slice has its own"
