"""Matrices of geometries, kept on the disk from one run to the next within a limit: least recently used go first."""

from __future__ import annotations

import hashlib
import os
import re
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import scipy.sparse
from platformdirs import user_cache_path

from lightning_mbir.errors import InputError
from lightning_mbir.files import whole_file

# Whatever else lies in a folder that a user chose is not ours to delete.
MATRIX = re.compile(r"[0-9a-f]{32}\.npz")
PARTIAL = re.compile(r"\.partial-.*\.npz")
DAY = 24 * 60 * 60.0
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


def cached_matrix(geometry: dict[str, Any], build: Callable[[], scipy.sparse.csr_matrix]) -> scipy.sparse.csr_matrix:
    """The matrix of a geometry from the disk, or built and put there.

    A file that is damaged is built again; a folder that cannot be written is done without. A matrix over the limit is
    not kept; with a limit of 0 none is, nor read.

    Args:
        geometry: what decides the matrix; its ``repr`` is the key.
        build: makes the matrix.

    Raises:
        InputError: as ``cache_limit``.
    """
    folder, limit = cache_folder(), cache_limit()
    key = hashlib.sha256(repr(sorted(geometry.items())).encode()).hexdigest()[:32]
    path = folder / f"{key}.npz"
    if limit:
        try:
            matrix = scipy.sparse.load_npz(path).tocsr()
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            pass
        else:
            _touch(path)
            return matrix
    matrix = build()
    fits = matrix.data.nbytes + matrix.indices.nbytes + matrix.indptr.nbytes + HEADERS <= limit
    with suppress(OSError):  # no cache, then: the matrix is whole in memory
        if fits:
            folder.mkdir(parents=True, exist_ok=True)
            with whole_file(path, suffix=".npz") as temporary:
                scipy.sparse.save_npz(temporary, matrix, compressed=False)
        _evict(folder, limit, path if fits else None)
    return matrix


def _touch(path: Path) -> None:
    """Note that a file was used. Only the time of access tells so: many disks do not keep it of themselves."""
    with suppress(OSError):  # deleted since by another process, or not ours to change
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))


def _evict(folder: Path, limit: float, written: Path | None) -> None:
    """Delete the least recently used matrices but ``written`` until all take no more than ``limit`` bytes, and what
    killed runs left. Other processes may do the same at the same time."""
    found = []
    for file in folder.iterdir():
        with suppress(OSError):
            status = file.stat()
            if MATRIX.fullmatch(file.name):
                found.append((status.st_atime_ns, status.st_size, file))
            elif PARTIAL.fullmatch(file.name) and time.time() - status.st_mtime > DAY:
                file.unlink()
    total = sum(size for _, size, _ in found)
    for _, size, file in sorted(found):
        if total <= limit:
            break
        if file != written:
            with suppress(OSError):
                file.unlink(missing_ok=True)
                total -= size
