"""A dataset of a file that is looked at without being read, and read in parts."""

from __future__ import annotations

import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from lightning_mbir.data.units import LENGTHS, factor
from lightning_mbir.errors import InputError
from lightning_mbir.free_memory import check_fits

PART = 1 << 18
"""Values that are read and converted at once."""

DAMAGED = (
    *(OSError, ValueError, TypeError, KeyError, IndexError, RuntimeError, EOFError, SyntaxError, OverflowError),
    *(MemoryError, struct.error, zipfile.BadZipFile, zlib.error, lzma.LZMAError, tokenize.TokenError),
)
"""What h5py, zipfile and NumPy raise at files that are damaged, encrypted or hostile."""


@contextmanager
def told(path: Path, name: str = "the file") -> Iterator[None]:
    """Errors of the libraries that read ``path`` as one line; to be put around calls of these alone."""
    try:
        yield
    except InputError:
        raise
    except DAMAGED as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: {name} cannot be read ({why}); the file may be damaged or cut short") from error


@dataclass(frozen=True)
class Item:
    """A dataset that has not been read.

    Attributes:
        path: its file, and ``name``, what it was asked for as; both for messages.
        shape: of its values, and ``dtype``, their type.
        load: reads a part, one slice an axis.
        chunks: what can be read at once where it is stored in chunks; ones where it is not.
        attributes: those that are text.
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    load: Callable[[tuple[slice, ...]], Any]
    chunks: tuple[int, ...]
    attributes: dict[str, str] = field(default_factory=dict)

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def read(self, *chosen: slice) -> np.ndarray:
        """The values, of the chosen part of the first axes.

        Raises:
            InputError: more than the memory holds, counting whole chunks; a file that cannot be read.
        """
        sizes = [stop - start for start, stop in self._bounds(chosen)]
        values = math.prod(sizes) + math.prod(self.chunks)
        check_fits(f"{self.path}: {self.name}", values * self.dtype.itemsize, "take fewer slices (--data.slices)")
        with told(self.path, self.name):
            return np.asarray(self.load(chosen))

    def parts(self, *chosen: slice) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
        """The chosen part in pieces of about ``PART`` values, chunk by chunk, the last axis whole.

        Yields:
            where a piece lies in what is chosen, one slice an axis, and its values.
        """
        bounds = self._bounds(chosen)
        sizes = [stop - start for start, stop in bounds]
        block = [min(chunk, size) for chunk, size in zip(self.chunks, sizes, strict=True)]
        block[-1] = sizes[-1]
        for axis in reversed(range(len(sizes))):
            more = max(1, PART // max(1, math.prod(block)))
            block[axis] = min(sizes[axis], block[axis] * more)
        starts = (range(0, size, step or 1) for size, step in zip(sizes, block, strict=True))
        for corner in product(*starts):
            ends = [min(a + step, size) for a, step, size in zip(corner, block, sizes, strict=True)]
            place = tuple(slice(a, b) for a, b in zip(corner, ends, strict=True))
            offset = (slice(s + p.start, s + p.stop) for (s, _), p in zip(bounds, place, strict=True))
            yield place, self.read(*offset)

    def numbers(self, count: int | None = None, whole: bool = False) -> list[Any]:
        """``count`` finite real numbers, in a list, whatever the shape; ``whole`` ones as integers.

        Raises:
            InputError: another number of them, no numbers, NaN or infinite values, fractions.
        """
        size = math.prod(self.shape)
        if count is not None and size != count:
            raise InputError(f"{self.path}: {self.name} has {size} values; give {count}")
        if self.dtype.kind not in "iuf":
            raise InputError(f"{self.path}: {self.name} is of type {self.dtype}; give real numbers")
        values = self.read().astype(float).ravel()
        if not np.isfinite(values).all():
            raise InputError(f"{self.path}: {self.name} has NaN or infinite values; give finite numbers")
        if whole and not (values == np.round(values)).all():
            raise InputError(f"{self.path}: {self.name} is {values.tolist()}; give whole numbers")
        return [int(value) for value in values] if whole else list(values.tolist())

    def unit(self, known: Mapping[str, float], right: str) -> float:
        """What the ``units`` of the dataset are in that of a table, 1 where it has none.

        Raises:
            InputError: another unit.
        """
        unit = self.attributes.get("units", "")
        if (found := factor(unit, known)) is None:
            raise InputError(f"{self.path}: the units of {self.name} are '{unit.strip()}'; give {right}")
        return found

    def lengths(self, count: int | None = None) -> list[float]:
        """Numbers in mm, of whatever length the ``units`` of the dataset are; see ``numbers`` and ``unit``."""
        scale = self.unit(LENGTHS, "mm, um, cm or m")
        return [scale * value for value in self.numbers(count)]

    def text(self) -> str:
        """One piece of text.

        Raises:
            InputError: numbers, or several pieces.
        """
        if self.dtype.kind not in "SUO" or math.prod(self.shape) != 1:
            raise InputError(f"{self.path}: {self.name} is {self.shape} of type {self.dtype}; give one piece of text")
        with told(self.path, self.name):
            value = self.read().ravel()[0]
            return value.decode() if isinstance(value, bytes) else str(value)

    def _bounds(self, chosen: Sequence[slice]) -> list[tuple[int, int]]:
        given = [*chosen, *[slice(None)] * (self.ndim - len(chosen))]
        return [part.indices(size)[:2] for part, size in zip(given, self.shape, strict=True)]
