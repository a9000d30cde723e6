"""HDF5 files that are not trusted: links are followed by hand, and nothing outside of the file is opened."""

from __future__ import annotations

import math
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
import scipy.sparse

from lightning_mbir.data.measurements.item import Item, told
from lightning_mbir.errors import InputError
from lightning_mbir.free_memory import check_fits

MOST_LINKS = 32
"""Soft links on the way to a dataset; more are a circle."""


class HDF5File:
    """An open HDF5 file; a context that closes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = h5py.File(path, "r")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def item(self, name: str) -> Item | None:
        """A dataset by its path; None where there is nothing of that name.

        Raises:
            InputError: links out of the file or in circles or to nothing, datasets whose values are stored elsewhere
                (a file could show those of any file of the machine), a group in its place, no values.
        """
        with told(self.path, name):
            found = self._follow(name)
            if found is None:
                return None
            if not isinstance(found, h5py.Dataset):
                raise InputError(f"{self.path}: {name} is a {type(found).__name__.lower()}; give a dataset")
            # Before its shape is asked for, for which HDF5 may open the other file.
            if found.is_virtual or found.external:
                kind = "virtual" if found.is_virtual else "stored in another file"
                raise InputError(
                    f"{self.path}: {name} is {kind}, and files that are not named are not read; copy its values into it"
                )
            shape, dtype = found.shape, found.dtype
            if shape is None:
                raise InputError(f"{self.path}: {name} is empty")
            if _overlaps(dtype):
                raise InputError(f"{self.path}: {name} is a compound whose members overlap; the file may be damaged")
            texts = {key: _text(found.attrs[key]) for key in ("units", "axes") if key in found.attrs}
            chunks = found.chunks or (1,) * len(shape)
            return Item(self.path, name, shape, dtype, found.__getitem__, chunks, texts)

    def sparse_shape(self, name: str) -> tuple[int, int] | None:
        """``(rows, columns)`` of a sparse matrix as MATLAB 7.3 stores it: a group with its columns; None where there is
        none of that name."""
        with told(self.path, name):
            group = self._follow(name)
            if not isinstance(group, h5py.Group) or "MATLAB_sparse" not in group.attrs:
                return None
            columns = self.item(f"{name}/jc")
            return int(np.ravel(group.attrs["MATLAB_sparse"])[0]), (
                0 if columns is None else math.prod(columns.shape) - 1
            )

    def sparse(self, name: str) -> scipy.sparse.csc_matrix:
        """That matrix.

        Raises:
            InputError: columns that do not go together with their entries, too little memory.
        """
        shape, values, rows, ends = (
            self.sparse_shape(name),
            *(self.item(f"{name}/{key}") for key in ("data", "ir", "jc")),
        )
        if shape is None or values is None or rows is None or ends is None:  # no entry is stored where there is none
            raise InputError(f"{self.path}: the sparse matrix {name} has no entries")
        # Values, places, a copy by rows and its transpose.
        size = 32 * math.prod(values.shape) + 16 * math.prod(ends.shape)
        check_fits(f"{self.path}: {name}", size, "give a smaller matrix")
        with told(self.path, name):
            parts = (values.read().ravel(), rows.read().ravel(), ends.read().ravel())
            matrix = scipy.sparse.csc_matrix(parts, shape)
            matrix.check_format(full_check=True)  # that all places lie within it
            return matrix

    def _follow(self, name: str) -> h5py.Group | h5py.Dataset | h5py.Datatype | None:
        here: h5py.Group | h5py.Dataset | h5py.Datatype = self._file
        parts, links = name.split("/"), 0
        while parts:
            part = parts.pop(0)
            if part in ("", "."):
                continue
            link = here.get(part, getlink=True) if isinstance(here, h5py.Group) else None
            if link is None and links:
                raise InputError(f"{self.path}: {name} is a link to what is not in the file; give the values")
            if link is None:
                return None
            if isinstance(link, h5py.ExternalLink):
                raise InputError(
                    f"{self.path}: {name} is a link into {link.filename}, and files that are not named are not read; "
                    "copy its values into it"
                )
            if isinstance(link, h5py.SoftLink):
                links += 1
                if links > MOST_LINKS:
                    raise InputError(f"{self.path}: the links of {name} run in a circle; give the values")
                parts = [*link.path.split("/"), *parts]
                here = self._file if link.path.startswith("/") else here
            else:
                here = here[part]
        return here


def _overlaps(dtype: np.dtype[Any]) -> bool:
    """Whether members of a compound lie over each other or its end, on which HDF5 writes beyond its memory."""
    ends = 0
    for kind, offset, *_ in sorted((dtype.fields or {}).values(), key=lambda member: member[1]):
        if offset < ends:
            return True
        ends = offset + kind.itemsize
    return ends > dtype.itemsize


def _text(value: object) -> str:
    one = np.ravel(np.asarray(value))
    text = one[0] if one.size == 1 else value
    return text.decode() if isinstance(text, bytes) else str(text)
