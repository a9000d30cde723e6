"""NIfTI files, single ones and pairs: the header is nibabel's to unpack, the voxels are read to the end of the file."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_mbir.data.units import Modality
from lightning_mbir.data.volumes.image import Image
from lightning_mbir.data.volumes.stream import Stream, opened, trailing
from lightning_mbir.data.volumes.values import as_float32, check_room, check_type, three_axes
from lightning_mbir.errors import InputError

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

log = logging.getLogger(__name__)

UNITS = {1: ("m", 1e3), 2: ("mm", 1.0), 3: ("um", 1e-3)}
"""Lengths by their codes, and their mm."""
EXTENSIONS = 64 << 20
"""Bytes that may lie between a header and its voxels."""


class _Told:
    """What is told once in a process, since it is so of most files or of none."""

    unitless_yet = False

    @classmethod
    def unitless(cls, path: Path) -> None:
        """That a header gives no unit of length, as of many programs that mean mm."""
        if not cls.unitless_yet:
            cls.unitless_yet = True
            log.info("%s: its header gives no unit of length (xyzt_units); mm is taken, of all such files", path)


def read_nifti(path: Path, modality: Modality, assumed: bool = False) -> Image:
    """Read a NIfTI file, or the pair of files that a header ``.hdr`` belongs to.

    The affine is the sform as it is, else the qform; units of length other than mm are scaled.

    Args:
        path: ``.nii``, ``.nii.gz`` or ``.hdr``.
        modality: complex voxels become magnitudes for ``"mri"`` alone.
        assumed: of a file of ours, whether it lies where ``write_volume`` has assumed it, though its codes say nowhere.

    Raises:
        InputError: no NIfTI, damaged, more or less than one volume, or a header that contradicts itself.
    """
    pair = path.name.lower().endswith(".hdr")
    with opened(path) as stream:
        header, size = _header(stream)
        single = bytes(header["magic"].item())[:2] == b"n+"
        if pair == single:
            where = "in itself" if single else "in a file .img"
            raise InputError(f"{path}: its header says that its voxels lie {where}, its name says otherwise; rename it")
        if pair:
            stream.rest()
        if assumed and not header["sform_code"] and np.linalg.det(header.get_sform()):
            header["sform_code"] = 1
        affine, placed = _affine(path, header)
        if not (assumed or int(header["xyzt_units"]) & 7):
            _Told.unitless(path)
        shape, dtype, typed = _layout(path, header, modality)
        offset = _offset(path, header, size + 4 if single else 0)
        if single:
            stream.skip(offset - size)
            array, read = _voxels(stream, header, shape, dtype)
    if pair:
        with opened(image_of(path)) as stream:
            stream.skip(offset)
            array, read = _voxels(stream, header, shape, dtype)
    disguised = stream.packed != stream.path.name.lower().endswith(".gz")
    named = (f"{stream.path.name} is {'' if stream.packed else 'not '}packed by gzip, unlike its name",)
    return Image(array, affine, (*placed, *typed, *read, *(named if disguised else ())), space=_space(header))


def image_of(path: Path) -> Path:
    """The voxels of a header ``.hdr``.

    Raises:
        InputError: there is no such file.
    """
    stem = path.name[: -len(".hdr")]
    names = [f"{stem}{suffix}" for suffix in (".img", ".img.gz", ".IMG", ".IMG.GZ")]
    found = [path.with_name(name) for name in names if path.with_name(name).is_file()]
    if not found:
        raise InputError(f"{path}: its voxels, {names[0]} or {names[1]}, do not lie beside it")
    return found[0]


def _header(stream: Stream) -> tuple[Nifti1Header, int]:
    """The header of a file and its bytes, in either byte order; none of its values are looked at."""
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    block = stream.read(4)
    sizes = {"<": int.from_bytes(block, "little"), ">": int.from_bytes(block, "big")}
    for order, size in sizes.items():
        if size not in (348, 540):
            continue
        kind = Nifti1Header if size == 348 else Nifti2Header
        block += stream.read(size - 4)
        if len(block) < size:
            raise InputError(f"{stream.path}: cut short: {len(block)} bytes of its header of {size} are there")
        header = kind(block, endianness=order, check=False)
        if header["magic"].item() in (kind.single_magic, kind.pair_magic):
            return header, size
        if size == 348 and not header["magic"].item():
            raise InputError(f"{stream.path}: Analyze 7.5, which does not tell left from right; convert it to NIfTI")
        break
    raise InputError(f"{stream.path}: not a NIfTI file, whatever its name says; give one")


def _layout(path: Path, header: Nifti1Header, modality: Modality) -> tuple[tuple[int, int, int], Any, tuple[str, ...]]:
    """Shape and type of the voxels, and what is to be said of them."""
    from nibabel.nifti1 import data_type_codes

    dims = [int(n) for n in header["dim"]]
    if not 1 <= dims[0] <= 7:
        raise InputError(f"{path}: {dims[0]} dimensions (dim[0]) cannot be; correct its header")
    code = int(header["datatype"])
    if code not in data_type_codes.value_set():
        raise InputError(f"{path}: voxels of the unknown type {code}; correct its header (datatype)")
    dtype = np.dtype(data_type_codes.dtype[code])
    notes = check_type(path, dtype, modality)
    bits = int(header["bitpix"])
    if bits != 8 * dtype.itemsize:
        notes += (f"its header says {bits} bits a voxel, but {dtype}, which is taken",)
    return three_axes(path, dims[1 : dims[0] + 1]), dtype.newbyteorder(header.endianness), notes


def _offset(path: Path, header: Nifti1Header, least: int) -> int:
    """Where the voxels begin."""
    offset = float(header["vox_offset"])
    if not (math.isfinite(offset) and offset == int(offset) and least <= offset <= least + EXTENSIONS):
        raise InputError(f"{path}: voxels cannot begin at byte {offset:g}; correct its header (vox_offset)")
    return int(offset)


def _voxels(
    stream: Stream, header: Nifti1Header, shape: tuple[int, int, int], dtype: np.dtype[Any]
) -> tuple[np.ndarray, tuple[str, ...]]:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if math.isinf(slope) or (slope and not math.isnan(slope) and not math.isfinite(intercept)):
        raise InputError(
            f"{stream.path}: values scaled by {slope:g} and {intercept:g} cannot be; correct its header (scl_slope)"
        )
    unused: tuple[str, ...] = ()
    if slope == 0 or math.isnan(slope):  # none, by the standard
        if intercept and math.isfinite(intercept):
            unused = (f"scl_inter is {intercept:g}, but scl_slope {slope:g} says that values are not scaled",)
        slope, intercept = 1.0, 0.0
    count = math.prod(shape)
    stream.check_holds(count * dtype.itemsize)
    check_room(stream.path, shape)
    parts = (np.frombuffer(part, dtype) for part in stream.parts(count * dtype.itemsize, dtype.itemsize))
    flat, notes = as_float32(stream.path, parts, count, slope, intercept)
    return flat.reshape(shape, order="F"), (*notes, *unused, *trailing(stream.path, stream.rest()))


def _affine(path: Path, header: Nifti1Header) -> tuple[np.ndarray, tuple[str, ...]]:
    """Where the voxels lie in mm, and what is to be said of it."""
    code = int(header["xyzt_units"]) & 7
    unit, scale = UNITS.get(code, ("", 1.0))
    to_mm = np.array([[scale], [scale], [scale], [1.0]])
    notes: tuple[str, ...] = (f"lengths in {unit} are scaled to mm",) if unit not in ("", "mm") else ()
    if code and not unit:
        notes = (f"the unknown unit of length {code} is taken as mm",)
    sizes = np.array(header["pixdim"][1:4], np.float64) * scale
    shown = " x ".join(f"{size:.4g}" for size in sizes)
    sform = to_mm * header.get_sform() if header["sform_code"] > 0 else None
    if sform is not None:
        with np.errstate(over="ignore"):
            voxel = np.linalg.norm(sform[:3, :3], axis=0)
        if not np.allclose(voxel, sizes, rtol=0.01, atol=0):
            found = " x ".join(f"{size:.4g}" for size in voxel)
            notes += (f"voxels of {found} mm by its sform, which is taken, of {shown} mm by pixdim",)
    elif not (np.isfinite(sizes).all() and (sizes > 0).all()):
        raise InputError(f"{path}: voxels of {shown} mm cannot be; correct its header (pixdim)")
    qform = _qform(path, header, to_mm, sform is not None) if header["qform_code"] > 0 else None
    if sform is not None and qform is not None:
        with np.errstate(invalid="ignore", over="ignore"):
            apart = _apart(sform, qform, header)
        if np.isnan(apart):
            notes += ("its qform has no place in the world; its sform is taken",)
        elif apart > 0.1 * voxel.min():
            notes += (f"its qform lies up to {apart:.3g} mm from its sform, which is taken",)
    if sform is not None:
        return sform, notes
    if qform is not None:
        return qform, notes
    # nibabel takes the first axis of such files from right to left
    said = "no place in the world (sform_code and qform_code are 0): left and right are not known; axes are taken to "
    return to_mm * header.get_base_affine(), (*notes, f"{said}run left, anterior and superior, about the centre")


def _space(header: Nifti1Header) -> int:
    """The code of what is taken, 0 where there is nothing."""
    from nibabel.nifti1 import xform_codes

    code = max(0, int(header["sform_code"])) or max(0, int(header["qform_code"]))
    return code if code in xform_codes.value_set() else 1


def _qform(path: Path, header: Nifti1Header, to_mm: np.ndarray, beside: bool) -> np.ndarray:
    """The affine of the quaternion in mm; where it stands beside an sform, one that cannot be is NaN."""
    header = header.copy()
    header["pixdim"][0] = -1 if header["pixdim"][0] < 0 else 1  # by the standard, 0 counts as 1
    if beside:
        header["pixdim"][1:4] = np.abs(header["pixdim"][1:4])
    try:
        return to_mm * header.get_qform()
    except ValueError as error:
        if beside:
            return np.full((4, 4), np.nan)
        raise InputError(
            f"{path}: its qform is no rotation ({error}); correct its header (quatern_b, quatern_c, quatern_d)"
        ) from error


def _apart(sform: np.ndarray, qform: np.ndarray, header: Nifti1Header) -> float:
    """Largest distance in mm between the corners of two affines."""
    last = np.array(header["dim"][1:4], np.float64) - 1
    corners = np.array([[*(last * bits), 1.0] for bits in np.ndindex(2, 2, 2)])
    return float(np.linalg.norm((corners @ (sform - qform).T)[:, :3], axis=1).max())
