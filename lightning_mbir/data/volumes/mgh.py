"""Volumes of FreeSurfer."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from lightning_mbir.data.units import Modality
from lightning_mbir.data.volumes.image import Image
from lightning_mbir.data.volumes.stream import opened
from lightning_mbir.data.volumes.values import as_float32, check_room, check_type, three_axes
from lightning_mbir.errors import InputError

HEADER = 284
"""Bytes before the voxels."""


def read_mgh(path: Path, modality: Modality) -> Image:
    """Read a volume of FreeSurfer, whose header nibabel unpacks.

    Args:
        path: ``.mgh``, ``.mgz`` or ``.mgh.gz``.
        modality: of the volume.

    Raises:
        InputError: another file, damaged, or more than one volume.
    """
    from nibabel.freesurfer.mghformat import MGHHeader

    with opened(path) as stream:
        block = stream.read(HEADER)
        if len(block) < HEADER or int.from_bytes(block[:4], "big") != 1:
            raise InputError(f"{path}: not a file of FreeSurfer, whatever its name says; give one")
        placed = int.from_bytes(block[28:30], "big") != 0
        header = MGHHeader(block, check=False)
        if int(header["type"]) not in header._data_type_codes.value_set():
            raise InputError(f"{path}: voxels of the unknown type {int(header['type'])}; correct its header")
        dtype = header.get_data_dtype().newbyteorder(">")
        notes = check_type(path, dtype, modality)
        shape = three_axes(path, [int(n) for n in header["dims"]])
        count = math.prod(shape)
        stream.check_holds(count * dtype.itemsize)
        check_room(path, shape)
        parts = (np.frombuffer(part, dtype) for part in stream.parts(count * dtype.itemsize, dtype.itemsize))
        flat, rounded = as_float32(path, parts, count)
        stream.rest()  # times and tags, which belong there
        packed = stream.packed
    if packed == path.name.lower().endswith(".mgh"):
        notes += (f"{path.name} is {'' if packed else 'not '}packed by gzip, unlike its name",)
    if not placed:
        notes += ("no place in the world (goodRASFlag is 0): voxels of 1 mm, coronal, about the centre",)
    sizes = np.asarray(header["delta"], np.float64)
    if not (np.isfinite(sizes).all() and (sizes > 0).all()):
        shown = " x ".join(f"{size:.4g}" for size in sizes)
        raise InputError(f"{path}: voxels of {shown} mm cannot be; correct its header (delta)")
    with np.errstate(over="ignore", invalid="ignore"):  # an affine that cannot be is refused with all others
        affine = np.asarray(header.get_affine(), np.float64)
    return Image(flat.reshape(shape, order="F"), affine, (*notes, *rounded))
