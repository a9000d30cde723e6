"""Projections as a stack of TIFF pages, or a folder of TIFF files, with a text file of their angles."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lightning_mbir.data.measurements.content import Content
from lightning_mbir.data.measurements.data_exchange import DARK, DATA, THETA, WHITE
from lightning_mbir.data.measurements.item import Item, told
from lightning_mbir.errors import InputError

SUFFIXES = (".tif", ".tiff")
NO_FIELD = "none"
MOST_TEXT = 1 << 24
"""Bytes of a file of angles."""


def is_tiff(path: Path) -> bool:
    """Whether this is a TIFF file, or a folder with some."""
    if path.is_dir():
        return any(one.suffix.lower() in SUFFIXES for one in path.iterdir())
    return path.suffix.lower() in SUFFIXES


@contextmanager
def open_tiff(path: Path, angles: Path | None, flat_field: str | None, dark_field: Path | None) -> Iterator[Content]:
    """TIFF files as the datasets that the Data Exchange layout has; the files stay open as long as the context.

    Args:
        path: a file of ``(rows, bins)`` pages, a view each, or a folder of such files in the order of the numbers in
            their names.
        angles: text file of an angle in degrees for each view.
        flat_field: another file or folder of flat fields; the counts of the open beam as a number; or ``none`` where
            the projections are line integrals.
        dark_field: another file or folder of dark fields.

    Raises:
        InputError: something of this that is missing, pages of different shapes or of colours, a file that cannot be
            read, angles that are no numbers, tifffile that is not installed.
    """
    if angles is None:
        raise InputError(f"--data.measurement {path}: give --data.angles, a text file with an angle in degrees a view")
    if flat_field is None:
        raise InputError(
            f"--data.measurement {path}: give --data.flat_field: TIFF of flat fields, the counts of the open beam as a "
            "number, or none where its values are line integrals"
        )
    with tiff_pages(path, DATA) as data:
        fields: dict[str, Item] = {DATA: data, THETA: _array(angles, THETA, read_angle_text(angles))}
        if flat_field == NO_FIELD and dark_field is not None:
            raise InputError(f"--data.dark_field {dark_field}: line integrals are corrected already; leave it out")
        with _field(dark_field, DARK) as dark:
            if dark is not None:
                fields[DARK] = dark
            open_beam = _number(flat_field)
            if flat_field == NO_FIELD:
                fields[DATA] = _transmission(data)
                open_beam = 1.0
            if open_beam is not None:
                if not 0 < open_beam < float("inf"):
                    raise InputError(f"--data.flat_field {flat_field}: give more than 0 counts")
                fields[WHITE] = _array(path, WHITE, np.full(data.shape[1:], open_beam, np.float32))
                yield Content(path, fields.get)
                return
            with _field(Path(flat_field), WHITE) as white:
                if white is not None:
                    fields[WHITE] = white
                yield Content(path, fields.get)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _transmission(item: Item) -> Item:
    """Of line integrals, so that the way from counts leads back to them."""

    def load(chosen: tuple[slice, ...]) -> Any:
        return np.exp(-np.asarray(item.load(chosen), dtype=np.float64))

    return Item(item.path, item.name, item.shape, np.dtype(np.float64), load, item.chunks)


@contextmanager
def _field(path: Path | None, name: str) -> Iterator[Item | None]:
    if path is None:
        yield None
        return
    if not path.exists():
        flag = "flat_field" if name == WHITE else "dark_field"
        raise InputError(f"--data.{flag} {path}: no such file; give a TIFF file or a folder of them")
    with tiff_pages(path, name) as item:
        yield item


@contextmanager
def tiff_pages(path: Path, name: str, files: Sequence[Path] | None = None) -> Iterator[Item]:
    """All pages of a file or folder as one array ``(pages, rows, bins)``, read page by page.

    Args:
        path: the file or folder, and ``name``, what the pages are; both for messages.
        files: the files, in their order; by default that of the numbers in their names.

    Raises:
        InputError: files that cannot be read, pages of several shapes or of colours, tifffile that is not installed.
    """
    try:
        import tifffile
    except ImportError as error:
        raise InputError(
            f"{path}: TIFF needs the package tifffile, which is not installed; pip install 'lightning-mbir[tiff]'"
        ) from error
    files = (tiff_files(path) if path.is_dir() else [path]) if files is None else files
    opened: list[tuple[Path, Any]] = []
    try:
        pages: list[tuple[Path, Any]] = []
        for one in files:
            with _told(one, tifffile.TiffFileError):
                file = tifffile.TiffFile(one)
                opened.append((one, file))
                pages += [(one, page) for page in file.pages]
        if not pages:
            raise InputError(f"{path}: has no TIFF pages; give projections, one a page")
        first = pages[0][1]
        for one, page in pages:
            if len(page.shape) != 2 or page.shape != first.shape or page.dtype != first.dtype or page.dtype is None:
                raise InputError(
                    f"{one}: has a page {page.shape} of {page.dtype}, the first is {first.shape} of {first.dtype}; "
                    "give pages of one shape (rows, bins) without colours"
                )

        def load(chosen: tuple[slice, ...]) -> Any:
            rest, read = chosen[1:], []
            for one, page in pages[chosen[0]]:
                with _told(one, tifffile.TiffFileError):
                    read.append(page.asarray()[rest])
            return np.stack(read)

        shape = (len(pages), *first.shape)
        yield Item(path, name, shape, np.dtype(first.dtype), load, (1, *first.shape))
    finally:
        for _, file in opened:
            file.close()


def tiff_files(folder: Path) -> list[Path]:
    """The TIFF files of a folder, in the order of the numbers in their names."""
    return sorted((one for one in folder.iterdir() if one.suffix.lower() in SUFFIXES), key=_order)


@contextmanager
def _told(path: Path, error: type[Exception]) -> Iterator[None]:
    try:
        with told(path):
            try:
                yield
            except (KeyError, ValueError) as why:
                if "imagecodecs" not in str(why):
                    raise
                raise InputError(
                    f"{path}: is compressed in a way that the package imagecodecs reads; pip install imagecodecs, or "
                    "give it without compression"
                ) from why
    except error as why:
        raise InputError(f"{path}: cannot be read as TIFF ({' '.join(str(why).split())})") from why


def _order(path: Path) -> list[tuple[int, str]]:
    """Names by the numbers in them: 2 before 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def read_angle_text(path: Path) -> np.ndarray:
    """Numbers of a text file, between blanks, commas or semicolons; what follows ``#`` is left out."""
    if not path.is_file():
        raise InputError(f"--data.angles {path}: no such file; give a text file with an angle in degrees a view")
    if path.stat().st_size > MOST_TEXT:
        raise InputError(f"--data.angles {path}: is of more than 16 MB; give a text file with an angle a view")
    try:
        text = path.read_text(encoding="utf-8-sig")
        words = [word for line in text.splitlines() for word in re.split(r"[\s,;]+", line.partition("#")[0]) if word]
        return np.array([float(word) for word in words])
    except ValueError as error:
        raise InputError(f"--data.angles {path}: {error}; give numbers alone, an angle in degrees a view") from error


def _array(path: Path, name: str, values: np.ndarray) -> Item:
    item: Callable[[tuple[slice, ...]], Any] = values.__getitem__
    return Item(path, name, values.shape, values.dtype, item, (1,) * values.ndim)
