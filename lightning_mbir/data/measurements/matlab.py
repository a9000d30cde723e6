"""MATLAB files: version 5 by SciPy, 7.3 as the HDF5 that it is, structs by paths such as ``CtDataFull/sinogram``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from lightning_mbir.data.measurements.content import Content
from lightning_mbir.data.measurements.item import Item, told
from lightning_mbir.errors import InputError
from lightning_mbir.free_memory import check_fits


@contextmanager
def open_matlab(path: Path) -> Iterator[Content]:
    """The arrays of a MATLAB file as MATLAB shows them, by their names and those of the fields of structs.

    Args:
        path: a ``.mat`` file. Of one before 7.3 a variable is read whole, when the first of its fields is asked for.

    Raises:
        InputError: a file that is none, or is damaged.
    """
    import h5py

    from lightning_mbir.data.measurements.hdf5 import HDF5File

    if h5py.is_hdf5(path):
        with told(path):
            file = HDF5File(path)
        with file:
            yield Content(path, lambda name: _turned(file.item(name)), file.sparse_shape, file.sparse)
    else:
        yield _version_5(path)


def _turned(item: Item | None) -> Item | None:
    """MATLAB stores columns first, HDF5 rows, so axes are the other way round."""
    if item is None:
        return None

    def load(chosen: tuple[slice, ...]) -> Any:
        given = (*chosen, *(slice(None),) * (item.ndim - len(chosen)))
        return np.asarray(item.load(given[::-1])).T

    return Item(item.path, item.name, item.shape[::-1], item.dtype, load, item.chunks[::-1], item.attributes)


def _version_5(path: Path) -> Content:
    import scipy.sparse
    from scipy.io import loadmat, whosmat
    from scipy.io.matlab import MatReadError, mat_struct

    with told(path), _unread(path, MatReadError):
        variables = {name: (shape, kind) for name, shape, kind in whosmat(path)}

    @cache
    def variable(name: str) -> Any:
        shape, kind = variables[name]
        # What a sparse matrix has of entries is not told before it is read: as many as a file of this size holds where
        # its numbers are packed to a quarter, with a copy by rows and its transpose.
        size = 8 * path.stat().st_size if kind == "sparse" else 8 * math.prod(shape)
        check_fits(f"{path}: {name}", size, "give a smaller file")
        with told(path, name), _unread(path, MatReadError):
            return loadmat(path, variable_names=[name], struct_as_record=False, squeeze_me=False)[name]

    def find(name: str) -> Item | None:
        first, *rest = name.split("/")
        if first not in variables:
            return None
        value = variable(first)
        for field in rest:
            one = value.ravel()[0] if isinstance(value, np.ndarray) and value.size == 1 else value
            if not isinstance(one, mat_struct) or field not in one._fieldnames:
                return None
            value = getattr(one, field)
        if not isinstance(value, np.ndarray) or value.dtype.hasobject:
            raise InputError(f"{path}: {name} is a struct or a cell; give an array")
        array = value
        return Item(path, name, array.shape, array.dtype, lambda chosen: array[chosen], (1,) * array.ndim)

    def sparse_shape(name: str) -> tuple[int, int] | None:
        shape, kind = variables.get(name, ((), ""))
        return (shape[0], shape[1]) if kind == "sparse" else None

    def sparse(name: str) -> Any:
        with told(path, name):
            matrix = scipy.sparse.csc_matrix(variable(name))
            matrix.check_format(full_check=True)
            return matrix

    return Content(path, find, sparse_shape, sparse)


@contextmanager
def _unread(path: Path, error: type[Exception]) -> Iterator[None]:
    try:
        yield
    except error as why:
        raise InputError(f"{path}: is no MATLAB file that can be read ({' '.join(str(why).split())})") from why
