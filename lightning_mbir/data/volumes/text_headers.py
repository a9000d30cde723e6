"""The headers of NRRD and MetaImage, which are text: where the voxels lie, and what a volume needs to say of itself."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from lightning_mbir.data.units import LENGTHS, factor
from lightning_mbir.data.volumes.stream import damage
from lightning_mbir.errors import InputError

DETACHED = (".nhdr", ".mhd")
LONGEST = 1 << 20
"""Bytes that a header may have."""
SPACES = ("leftposteriorsuperior", "lps", "rightanteriorsuperior", "ras", "leftanteriorsuperior", "las")
"""Those that ITK turns rightly."""
AXES = ("TransformMatrix", "Rotation", "Orientation")
NUMBERS = ("spacedirections", "spaceorigin", "spacings", "ElementSpacing", "Offset", "Position", "Origin", *AXES)
TRUE = ("T", "t", "1")


@dataclass(frozen=True)
class TextHeader:
    """What stands in a header.

    Attributes:
        path: its file.
        fields: by their names; those of NRRD in small letters, without blanks.
        nrrd: whether it is of an NRRD file, not of a MetaImage.
        voxels: the file that they lie in, and ``start``, the byte that they, or those to be skipped, begin at.
    """

    path: Path
    fields: dict[str, str]
    nrrd: bool
    voxels: Path
    start: int

    @property
    def packed(self) -> bool:
        """Whether the voxels are packed by zlib or gzip."""
        if self.nrrd:
            return self.fields["encoding"].lower() in ("gzip", "gz")
        return self.fields.get("CompressedData", "").startswith(TRUE)

    @property
    def packed_bytes(self) -> int:
        """How many bytes they are packed to; 0 where it is not told."""
        return int(self.fields.get("CompressedDataSize", "0"))

    @property
    def skips(self) -> bool:
        """Whether something that is no voxel may lie before or behind them."""
        return any(self.fields.get(name, "0") != "0" for name in ("lineskip", "byteskip", "HeaderSize"))

    @property
    def unit(self) -> str:
        """In which lengths are given."""
        if not self.nrrd:
            return self.fields.get("DistanceUnits", "")
        units = re.findall(r'"([^"]*)"', self.fields.get("spaceunits", self.fields.get("units", "")))
        if len(set(units)) > 1:
            raise InputError(f"{self.path}: its axes have different units ({', '.join(units)}); give all in mm")
        return units[0] if units else ""

    @property
    def millimetres(self) -> float:
        """What a unit of length is."""
        known = factor(self.unit, LENGTHS)
        if known is None:
            raise InputError(f"{self.path}: lengths in {self.unit!r}, which is no unit known here; give mm or um")
        return known

    def notes(self, affine: np.ndarray) -> tuple[str, ...]:
        """What is to be said of the place of the volume, whose affine is given."""
        from nibabel.orientations import aff2axcodes

        notes: tuple[str, ...] = ()
        if self.millimetres != 1:
            notes += (f"lengths in {self.unit} are scaled to mm",)
        turned = ("spacedirections",) if self.nrrd else AXES
        if not any(name in self.fields for name in turned) or (self.nrrd and "space" not in self.fields):
            notes += ("its header does not say how it lies: axes are taken as left, posterior and superior",)
        said = self.fields.get("AnatomicalOrientation", "???").upper()
        if len(said) == 3 and set(said) <= set("RLAPIS") and said != _from(aff2axcodes(affine)):
            notes += (f"AnatomicalOrientation {said} contradicts its axes, which are taken",)
        return notes


def text_header(path: Path) -> TextHeader:
    """Read and check a header.

    Raises:
        InputError: no such header, without a voxel size, or with voxels that lie elsewhere than in the same folder.
    """
    nrrd = path.name.lower().endswith((".nrrd", ".nhdr"))
    fields, end = _fields(path, nrrd)
    _check_nrrd(path, fields) if nrrd else _check_meta(path, fields)
    beside = fields.get("datafile") if nrrd else fields.get("ElementDataFile")
    if beside is None or (not nrrd and beside.upper() == "LOCAL"):
        if path.name.lower().endswith(".nhdr"):
            raise InputError(f"{path}: does not name the file of its voxels; give that too, or an .nrrd")
        return TextHeader(path, fields, nrrd, path, end)
    voxels = _beside(path, beside)
    if not voxels.is_file():
        raise InputError(f"{path}: its voxels, {beside}, are not there; put them beside it")
    return TextHeader(path, fields, nrrd, voxels, 0)


def voxels_beside(path: Path) -> Path | None:
    """The file of the voxels of a header, where it names another in the same folder; nothing is refused."""
    try:
        header = text_header(path)
    except InputError:
        return None
    return header.voxels if header.voxels != path else None


def _check_nrrd(path: Path, fields: dict[str, str]) -> None:
    space = re.sub(r"[-\s]", "", fields.get("space", "LPS")).lower()
    if space not in SPACES:
        raise InputError(f"{path}: space {fields['space']} is not known here; give RAS, LAS or LPS")
    if fields.get("dimension") != "3" or not re.fullmatch(r"\d+\s+\d+\s+\d+", fields.get("sizes", ""), re.ASCII):
        raise InputError(
            f"{path}: not one 3D volume but {fields.get('dimension', 'no')} dimensions ({fields.get('sizes', '')}); "
            "save one number a voxel, with three axes"
        )
    _check_numbers(path, fields)
    if "spacedirections" not in fields and "spacings" not in fields:
        raise InputError(f"{path}: its header has no voxel size; add space directions or spacings, in mm")
    encoding = fields.get("encoding", "").lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise InputError(f"{path}: voxels stored as {encoding or 'not told'} are not read; save them as raw or gzip")


def _check_meta(path: Path, fields: dict[str, str]) -> None:
    if fields.get("ObjectType", "Image") != "Image" or "ElementDataFile" not in fields:
        raise InputError(f"{path}: not a MetaImage, whatever its name says; give one")
    dims, sizes = fields.get("NDims", ""), fields.get("DimSize", "").split()
    if dims not in ("3", "4") or len(sizes) != int(dims) or not all(n.isascii() and n.isdigit() for n in sizes):
        raise InputError(f"{path}: not one 3D volume but {dims or 'no'} dimensions ({' x '.join(sizes)}); give three")
    _check_numbers(path, fields)
    spacing = fields.get("ElementSpacing", "").split()
    if len(spacing) != len(sizes) or any(float(size) <= 0 for size in spacing):
        raise InputError(f"{path}: its header has no voxel size in mm; give ElementSpacing, a positive number an axis")
    for name in ("CompressedDataSize", "HeaderSize"):
        if not re.fullmatch(r"-1|[0-9]{1,15}", fields.get(name, "0")):
            raise InputError(f"{path}: {name} {fields[name]} is no number of bytes; correct its header")
    if not fields.get("BinaryData", "").startswith(TRUE):
        raise InputError(f"{path}: voxels stored as text are not read; save them with BinaryData = True")
    if fields.get("ElementNumberOfChannels", "1") != "1":
        raise InputError(f"{path}: several values a voxel; save one number a voxel")


def _check_numbers(path: Path, fields: dict[str, str]) -> None:
    """Refuse what ITK would take for 0 or 1."""
    for name in NUMBERS:
        if name in fields and not _finite(fields[name]):
            raise InputError(f"{path}: '{name}' is no list of finite numbers ({fields[name]}); correct its header")


def _fields(path: Path, nrrd: bool) -> tuple[dict[str, str], int]:
    """The fields of a header, and the byte that follows it."""
    fields: dict[str, str] = {}
    with damage(path), path.open("rb") as file:
        if nrrd and not re.fullmatch(rb"NRRD000[1-5]\r?\n", file.readline(16)):
            raise InputError(f"{path}: not an NRRD file, whatever its name says; give one")
        while line := file.readline(LONGEST):
            text = _decoded(line).strip()
            if nrrd and not text:
                break
            if not text or (nrrd and (text.startswith("#") or ":=" in text)):
                continue
            name, separator, value = text.partition(":" if nrrd else "=")
            key = "".join(name.lower().split()) if nrrd else name.strip()
            if not separator or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", key) or file.tell() > LONGEST:
                raise InputError(f"{path}: a line of its header is no field ({text[:40]!r}); the file may be damaged")
            if key in fields:
                raise InputError(f"{path}: its header has {name.strip()} twice; take one out")
            fields[key] = value.strip()
            if key == "ElementDataFile" or (key == "datafile" and value.split()[:1] == ["LIST"]):
                break
        return fields, file.tell()


def _beside(path: Path, name: str) -> Path:
    """A file in the folder of a header, or below; whatever else a header may name is left alone."""
    given = PurePosixPath(name)
    outside = given.is_absolute() or PureWindowsPath(name).is_absolute() or ".." in given.parts or "\\" in name
    if outside:
        raise InputError(f"{path}: its voxels would lie outside its folder ({name}), which is not read; put them there")
    if name.split()[:1] == ["LIST"] or "%" in name:
        raise InputError(f"{path}: its voxels lie in several files ({name}); save them in one")
    return path.parent / name


def _finite(text: str) -> bool:
    """Whether a text is numbers, or vectors of numbers in parentheses, that are all finite."""
    vectors = re.fullmatch(r"(\s*\([^()]*\))+\s*", text)
    try:
        return all(math.isfinite(float(word)) for word in (re.sub(r"[(),]", " ", text) if vectors else text).split())
    except ValueError:
        return False


def _decoded(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return line.decode("latin-1")


def _from(codes: tuple[str, ...]) -> str:
    """Where axes come from, as MetaImage writes them, of where they go to."""
    return "".join({"R": "L", "L": "R", "A": "P", "P": "A", "S": "I", "I": "S"}[code] for code in codes)
