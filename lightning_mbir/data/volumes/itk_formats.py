"""NRRD and MetaImage: ITK reads them, after what it would take without a word has been looked at here.

ITK reads packed voxels whose checksum is wrong, takes sizes that it does not know as 1, and opens whatever file a
header names; its messages go to the terminal past Python.
"""

from __future__ import annotations

import os
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from lightning_mbir.data.units import Modality
from lightning_mbir.data.volumes.image import Image
from lightning_mbir.data.volumes.stream import PART, damage, trailing
from lightning_mbir.data.volumes.text_headers import TextHeader, text_header
from lightning_mbir.data.volumes.values import as_float32, check_room, check_type, flat_parts, three_axes
from lightning_mbir.errors import InputError

TYPES = ("UInt8", "Int8", "UInt16", "Int16", "UInt32", "Int32", "UInt64", "Int64", "Float32", "Float64")
RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""From the axes of ITK (left, posterior, superior) to ours."""


def read_itk(path: Path, modality: Modality) -> Image:
    """Read an NRRD or MetaImage file, or the header of one whose voxels lie in a file beside it.

    Args:
        path: ``.nrrd``, ``.nhdr``, ``.mha`` or ``.mhd``.
        modality: of the volume.

    Raises:
        InputError: another file, damaged, no voxel size, more than one value a voxel or one volume, or voxels in a file
            outside the folder.
    """
    import SimpleITK as sitk

    header = text_header(path)
    reader = sitk.ImageFileReader()
    reader.SetImageIO("NrrdImageIO" if header.nrrd else "MetaImageIO")
    reader.SetFileName(str(path))
    with _itk(path) as said:
        reader.ReadImageInformation()
    types = {getattr(sitk, f"sitk{name}"): np.dtype(name.lower()) for name in TYPES}
    types |= {sitk.sitkComplexFloat32: np.dtype(np.complex64), sitk.sitkComplexFloat64: np.dtype(np.complex128)}
    dtype = types.get(reader.GetPixelIDValue())
    if dtype is None:
        kind = sitk.GetPixelIDValueAsString(reader.GetPixelIDValue())
        raise InputError(f"{path}: several values a voxel, or none ({kind}); save one number a voxel")
    notes = check_type(path, dtype, modality)
    size = [int(n) for n in reader.GetSize()]
    shape = three_axes(path, size)
    check_room(path, shape)
    notes += _check_voxels(header, int(np.prod(size)) * dtype.itemsize)
    affine = _affine(header, reader)
    with _itk(path) as more:
        image = reader.Execute()
    if more:
        raise InputError(f"{path}: ITK has read it, but says: {more[0]}; the file may be damaged")
    raw = sitk.GetArrayViewFromImage(image)  # slices first
    flat, rounded = as_float32(path, flat_parts(raw), raw.size)
    del raw, image
    array = flat.reshape(shape, order="F")
    warned = tuple(f"ITK says: {line}" for line in dict.fromkeys(said))
    return Image(array, affine, (*header.notes(affine), *notes, *rounded, *warned))


def _affine(header: TextHeader, reader: Any) -> np.ndarray:
    count = reader.GetDimension()
    direction = np.array(reader.GetDirection(), np.float64).reshape(count, count)[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = direction * np.array(reader.GetSpacing(), np.float64)[:3]
    affine[:3, 3] = reader.GetOrigin()[:3]
    to_mm = np.diag([header.millimetres] * 3 + [1.0])
    return to_mm @ RAS @ affine


def _check_voxels(header: TextHeader, count: int) -> tuple[str, ...]:
    """Refuse voxels that are fewer than declared or damaged, which are then read by ITK."""
    path = header.voxels
    with damage(path), path.open("rb") as file:
        file.seek(header.start)
        left = path.stat().st_size - header.start
        found = _unpacked(path, file, count, header.packed_bytes or left) if header.packed else left
    if found < count:
        raise InputError(
            f"{path}: cut short: {count:,} bytes of voxels are declared, {max(0, found):,} are there; "
            "get the whole file"
        )
    return () if header.skips else trailing(path, found - count)


def _unpacked(path: Path, file: IO[bytes], most: int, left: int) -> int:
    """What ``left`` bytes of zlib or gzip unpack to, in bytes; the checksum is compared."""
    unpack, found, packed = zlib.decompressobj(zlib.MAX_WBITS | 32), 0, b""
    while not unpack.eof:
        packed = unpack.unconsumed_tail
        if not packed:
            packed = file.read(min(PART, left))
            left -= len(packed)
        part = unpack.decompress(packed, PART)
        found += len(part)
        trailing(path, found - most)
        if not packed and not part:
            raise InputError(f"{path}: cut short: the end of its packed voxels is missing; get the whole file again")
    return found


@contextmanager
def _itk(path: Path) -> Iterator[list[str]]:
    """Calls of ITK: what it raises becomes one line; what it prints is kept from the terminal, and given when done."""
    said: list[str] = []
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as printed:
        os.dup2(printed.fileno(), 2)
        try:
            yield said
        except RuntimeError as error:
            printed.seek(0)
            lines = [*_lines(printed.read().decode(errors="replace"))[:1], *reversed(_lines(str(error)))]
            raise InputError(
                f"{path}: ITK cannot read it ({lines[0] if lines else 'it does not say why'}); the file may be damaged"
            ) from error
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
        printed.seek(0)
        said += _lines(printed.read().decode(errors="replace"))


def _lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]
