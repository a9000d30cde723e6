"""Which files are DICOM, and where they lie. Light: pydicom is imported where a file has no preamble."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_mbir.errors import InputError

FIRST_TAGS = (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")
"""Groups 2 and 8, either byte first, that a file without a preamble begins with."""
DEFLATED, UNPACKED = b"1.2.840.10008.1.2.1.99", 256 << 20
"""The transfer syntax that deflates whole files, and how many bytes are unpacked at a time to count them."""
LEFT_BEHIND = ("dicomdir", "__macosx", "thumbs.db", "desktop.ini")
"""What exports and systems leave in folders, like hidden files: an index of a medium, pictures, settings."""
NAMED_DICOM = (".dcm", ".dicom", ".ima")


@dataclass(frozen=True)
class Found:
    """What lies in a folder: DICOM files, and other files, hidden ones apart."""

    dicom: tuple[Path, ...]
    others: tuple[Path, ...]


def is_dicom(path: Path) -> bool:
    """Whether ``path`` is a DICOM file of an object, image or not.

    Hidden files (macOS's ``._`` too) and a DICOMDIR are not. A file without the preamble is, if pydicom finds the class
    and the series or study of an object in it.

    Raises:
        InputError: it may not be read.
    """
    if path.name.startswith(".") or path.name.upper() == "DICOMDIR" or not path.is_file():
        return False
    try:
        with path.open("rb") as stream:
            start = stream.read(132)
    except OSError as error:
        raise unreadable(path, error) from error
    if start[128:] == b"DICM":
        return True
    return start.startswith(FIRST_TAGS) and _is_bare(path)


def dicom_files(folder: Path) -> Found:
    """The files in ``folder`` and all folders below it, in the order of their names; hidden ones and
    ``LEFT_BEHIND`` are left out.

    Raises:
        InputError: one may not be read, leads nowhere (a link), or is named as DICOM and is not.
    """
    dicom: list[Path] = []
    others: list[Path] = []
    for path in _walk(folder, set()):
        if is_dicom(path):
            dicom.append(path)
        elif not path.exists():
            raise InputError(f"{path}: a link to what is not there; fetch its content, or take it out")
        elif path.name.lower().endswith(NAMED_DICOM):
            raise InputError(f"{path}: {_what(path)}, though it is named as DICOM; copy it again, or take it out")
        else:
            others.append(path)
    return Found(tuple(dicom), tuple(others))


def dicom_header(path: Path, **options: Any) -> Any:
    """The dataset of a file, read by pydicom; ``options`` are those of ``dcmread``.

    Values are not checked against their type's rules here (a number of more than 16 characters is still a number).

    Raises:
        InputError: it cannot be read.
    """
    import pydicom

    with decoding(path):
        _check_deflated(path)
        return pydicom.dcmread(path, force=True, **options)


@contextmanager
def decoding(path: Path, wrong: str = "damaged or cut short") -> Iterator[None]:
    """What pydicom and its decoders raise of a damaged file becomes one line; values are not checked against rules.

    Args:
        path: the file.
        wrong: what is said of it.

    Raises:
        InputError: it is not what it says, or cannot be read.
    """
    import pydicom
    from pydicom.errors import BytesLengthException, InvalidDicomError

    damaged = (
        BytesLengthException, InvalidDicomError, EOFError, ValueError, KeyError, IndexError, AttributeError, TypeError,
        RuntimeError, OverflowError, UnboundLocalError, struct.error, zlib.error,
    )  # fmt: skip
    try:
        with pydicom.config.disable_value_validation():
            yield
    except InputError:
        raise
    except OSError as error:
        raise unreadable(path, error) from error
    except damaged as error:
        line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(f"{path}: {wrong} ({line}); copy it again, or take it out") from error


def _check_deflated(path: Path) -> None:
    """Refuse a deflated file that unpacks to more than the memory that is free, which pydicom would unpack at once."""
    with path.open("rb") as stream:
        start = stream.read(1024)
        if DEFLATED not in start or start[128:140] != b"DICM\2\0\0\0UL\4\0":
            return
        stream.seek(144 + int.from_bytes(start[140:144], "little"))
        packed = stream.read()
    from lightning_mbir.free_memory import check_fits

    unpack, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    while packed and not unpack.eof:
        size += len(unpack.decompress(packed, UNPACKED))
        packed = unpack.unconsumed_tail
        check_fits(f"{path}", float(size), "it is deflated to far less, which no image is; take it out")


def unreadable(path: Path, error: OSError) -> InputError:
    """What is told of a file that the system does not give."""
    return InputError(f"{path}: cannot be read ({error.strerror or error}); give a file that you may read")


def _walk(folder: Path, seen: set[Path]) -> list[Path]:
    real = folder.resolve()
    if real in seen:  # a link to a folder that it lies in
        return []
    seen.add(real)
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise unreadable(folder, error) from error
    found: list[Path] = []
    for entry in entries:
        path = Path(entry.path)
        if entry.name.startswith(".") or entry.name.lower() in LEFT_BEHIND:
            continue
        found += _walk(path, seen) if entry.is_dir() else [path]
    return found


def _is_bare(path: Path) -> bool:
    """Whether a file without a preamble is an object of DICOM."""
    try:
        header = dicom_header(path, specific_tags=["SOPClassUID", "SeriesInstanceUID", "StudyInstanceUID"])
    except InputError:
        return False
    return "SOPClassUID" in header and ("SeriesInstanceUID" in header or "StudyInstanceUID" in header)


def _what(path: Path) -> str:
    return "empty" if path.stat().st_size == 0 else "no DICOM file"
