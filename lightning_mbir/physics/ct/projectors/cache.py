"""Matrices of geometries, kept on the disk from one run to the next within a limit: least recently used go first."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from platformdirs import user_cache_path

from lightning_mbir.errors import InputError
from lightning_mbir.files import whole_file

log = logging.getLogger(__name__)

# Whatever else lies in a folder that a user chose is not ours to delete.
MATRIX = re.compile(r"[0-9a-f]{32}\.npz")
UNREADABLE = (
    OSError, ValueError, TypeError, KeyError, EOFError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What reading a file of any content raises; an array that its header claims to be of any size is a MemoryError."""
HEADERS = 4096
"""Bytes of a file beside the arrays of its matrix; more than there are."""


def cache_folder() -> Path:
    """``$LIGHTNING_MBIR_CACHE``, or the user's cache folder."""
    if chosen := os.environ.get("LIGHTNING_MBIR_CACHE"):
        return Path(chosen)
    return user_cache_path("lightning_mbir", appauthor=False, opinion=False)


def cache_limit() -> float:
    """Bytes that the matrices on the disk may take together: ``$LIGHTNING_MBIR_CACHE_GB``, in GiB, or 1 GiB.

    Raises:
        InputError: the variable holds no number, or one below 0.
    """
    given = os.environ.get("LIGHTNING_MBIR_CACHE_GB") or "1"
    try:
        limit = float(given)
    except ValueError:
        limit = -1.0
    if not limit >= 0:  # NaN neither
        raise InputError(f"LIGHTNING_MBIR_CACHE_GB is {given!r}; give the limit in GiB, such as 2.5, or 0 for no cache")
    return limit * 2**30


def cached_matrix(
    geometry: dict[str, Any],
    build: Callable[[], scipy.sparse.csr_matrix],
    shape: tuple[int, int],
    largest: float,
) -> scipy.sparse.csr_matrix:
    """The matrix of a geometry from the disk, or built and put there.

    A file that holds no such matrix is told of, and built again; a folder that cannot be written is done without. A
    matrix over the limit is not kept; with a limit of 0 none is, nor read.

    Args:
        geometry: what decides the matrix; its ``repr`` is the key.
        build: makes the matrix, of float32 values of 0 or more and int32 indices.
        shape: of the matrix, ``(rays, pixels)``.
        largest: that a value can be.

    Raises:
        InputError: as ``cache_limit``.
    """
    folder, limit = cache_folder(), cache_limit()
    key = hashlib.sha256(repr(sorted(geometry.items())).encode()).hexdigest()[:32]
    path = folder / f"{key}.npz"
    if limit and path.exists():
        try:
            matrix = _read(path, shape, largest)
        except UNREADABLE as error:
            log.warning(
                "%s: no matrix of this geometry (%s); it is made again", path, str(error) or type(error).__name__
            )
        else:
            _touch(path)
            return matrix
    matrix = build()
    fits = matrix.data.nbytes + matrix.indices.nbytes + matrix.indptr.nbytes + HEADERS <= limit
    with suppress(OSError):  # no cache, then: the matrix is whole in memory
        if fits:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # nobody else is to put matrices there
            with whole_file(path, suffix=".npz") as temporary:
                scipy.sparse.save_npz(temporary, matrix, compressed=False)
        _evict(folder, limit, path if fits else None)
    return matrix


def _read(path: Path, shape: tuple[int, int], largest: float) -> scipy.sparse.csr_matrix:
    """The matrix in a file, of which nothing is taken on trust: what reads it later goes by its indices, unchecked.

    Raises:
        One of ``UNREADABLE``: it is damaged, or another matrix than one of this shape with such values.
    """
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("compressed, so of any size")
    with np.load(path, allow_pickle=False) as content:
        form, size = content["format"].item(), tuple(content["shape"].tolist())
        if form != b"csr" or size != shape:
            raise ValueError(f"{form!r:.20} of shape {size}"[:80])
        data, indices, starts = (content[name] for name in ("data", "indices", "indptr"))
    if (data.dtype, indices.dtype, starts.dtype) != (np.float32, np.int32, np.int32):
        raise ValueError(f"of {data.dtype}, {indices.dtype} and {starts.dtype}")
    if not data.ndim == indices.ndim == starts.ndim == 1 or len(starts) != shape[0] + 1 or len(data) != len(indices):
        raise ValueError("of arrays that do not belong together")
    if starts[0] != 0 or starts[-1] != len(data) or np.any(starts[1:] < starts[:-1]):
        raise ValueError("of rows that do not follow each other")
    if len(data) and not (
        indices.min() >= 0 and indices.max() < shape[1] and data.min() >= 0 and data.max() <= largest
    ):
        raise ValueError("of columns or values that cannot be")  # NaN neither
    rises = indices[1:] > indices[:-1]
    rises[starts[(starts > 0) & (starts < len(data))] - 1] = True  # from a row to the next one
    if not rises.all():
        raise ValueError("of columns that are not in order")
    return scipy.sparse.csr_matrix((data, indices, starts), shape=shape)


def _touch(path: Path) -> None:
    """Note that a file was used. Only the time of access tells so: many disks do not keep it of themselves."""
    with suppress(OSError):  # deleted since by another process, or not ours to change
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))


def _evict(folder: Path, limit: float, written: Path | None) -> None:
    """Delete the least recently used matrices but ``written`` until all take no more than ``limit`` bytes. Other
    processes may do the same at the same time."""
    found = []
    for file in folder.iterdir():
        with suppress(OSError):
            status = file.stat()
            if MATRIX.fullmatch(file.name):
                found.append((status.st_atime_ns, status.st_size, file))
    total = sum(size for _, size, _ in found)
    for _, size, file in sorted(found):
        if total <= limit:
            break
        if file != written:
            with suppress(OSError):
                file.unlink(missing_ok=True)
                total -= size
