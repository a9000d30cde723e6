"""The datasets of an HDF5 or NumPy file by their names."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np

from lightning_mbir.data.measurements.item import Item, told
from lightning_mbir.errors import InputError
from lightning_mbir.free_memory import check_fits


class Content:
    """The datasets of one open file by their paths in it.

    Args:
        path: the file, for messages.
        find: gives a dataset by its name, None where there is none.
        sparse_shape: ``(rows, columns)`` of a sparse matrix by its name, None where there is none.
        sparse: such a matrix.
    """

    def __init__(
        self,
        path: Path,
        find: Callable[[str], Item | None],
        sparse_shape: Callable[[str], tuple[int, int] | None] = lambda name: None,
        sparse: Callable[[str], Any] = lambda name: None,
    ) -> None:
        self.path = path
        self.get = cache(find)
        self.sparse_shape, self.sparse = sparse_shape, sparse

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def __getitem__(self, name: str) -> Item:
        item = self.get(name)
        if item is None:
            raise InputError(f"{self.path}: lacks {name}")
        return item


@contextmanager
def open_content(path: Path) -> Iterator[Content]:
    """An HDF5 file or, by its name, an ``.npz`` archive; it stays open as long as the context.

    Raises:
        InputError: a file that is neither.
    """
    from lightning_mbir.data.measurements.hdf5 import HDF5File  # h5py is imported with the first of its files

    with told(path):
        file = zipfile.ZipFile(path) if path.suffix == ".npz" else HDF5File(path)
    with file:
        if isinstance(file, zipfile.ZipFile):
            yield Content(path, lambda name: _npz_item(path, file, name))
        else:
            yield Content(path, file.item)


def _npz_item(path: Path, archive: zipfile.ZipFile, name: str) -> Item | None:
    """An array of an archive by what its header declares, which is compared with the memory before it is unpacked."""
    if f"{name}.npy" not in archive.namelist():
        return None
    with told(path, name):
        with archive.open(f"{name}.npy") as stream:
            shape, dtype = _npy_header(stream)
        if dtype.hasobject or min(shape, default=0) < 0:
            raise ValueError(f"shape {shape}, type {dtype}")
    size = math.prod(shape) * dtype.itemsize

    @cache
    def whole() -> np.ndarray:
        check_fits(f"{path}: {name}", size, "store fewer slices a file, or HDF5, which is read in parts")
        with archive.open(f"{name}.npy") as stream:
            array: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False)
            if stream.read(1):  # to the end, where the checksum is compared
                raise ValueError("more bytes than its header declares")
        return array

    return Item(path, name, shape, dtype, lambda chosen: whole()[chosen], (1,) * len(shape))


def _npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"version {version} of the .npy format")
    return shape, dtype
