"""What an ISMRMRD header, as fastMRI's files have it, tells about the grid of k-space."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass

from lightning_mbir.data.measurements.item import Item
from lightning_mbir.errors import InputError

HEADER = "ismrmrd_header"
OFF_THE_GRID = ("radial", "goldenangle", "spiral")


@dataclass(frozen=True)
class Encoding:
    """The first encoding of a header, in the axes of fastMRI's image: rows are read out, columns phase-encoded.

    What ISMRMRD calls x, the readout, are the rows.

    Attributes:
        rows, columns: points that were encoded.
        field_of_view: of these, in mm: of the rows, and of the columns.
        kept_rows: mm along the rows that are to be reconstructed.
        thickness: of a slice in mm.
    """

    rows: int
    columns: int
    field_of_view: tuple[float, float]
    kept_rows: float
    thickness: float


def read_encoding(item: Item) -> Encoding:
    """The encoding that a header tells.

    Raises:
        InputError: no XML, XML with entities of its own (which may unpack to any size), sizes that are missing or not
            positive, samples off the grid or partitions along z.
    """
    text = item.text()
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise InputError(f"{item.path}: {HEADER} has a DOCTYPE, which a header has no use for; leave it out")
    try:
        encoding = ElementTree.fromstring(text.encode()).find("{*}encoding")
        if encoding is None:
            raise ValueError("no encoding")
        sizes = {
            f"{space}/{quantity}/{axis}": float(encoding.findtext(f"{{*}}{space}/{{*}}{quantity}/{{*}}{axis}") or "")
            for space in ("encodedSpace", "reconSpace")
            for quantity in ("matrixSize", "fieldOfView_mm")
            for axis in ("x", "y", "z")
        }
    except (ElementTree.ParseError, ValueError) as error:
        raise InputError(f"{item.path}: {HEADER} cannot be read ({error})") from error
    for name, size in sizes.items():
        if not (math.isfinite(size) and size > 0) or ("matrix" in name and size != round(size)):
            raise InputError(f"{item.path}: {HEADER} says {size:g} for {name}; give a positive size")
    trajectory = (encoding.findtext("{*}trajectory") or "cartesian").strip().lower()
    if trajectory in OFF_THE_GRID:
        raise InputError(f"{item.path}: {HEADER} says the trajectory is {trajectory}; k-space on a grid is read alone")
    if sizes["encodedSpace/matrixSize/z"] > 1:
        raise InputError(
            f"{item.path}: {HEADER} says that {sizes['encodedSpace/matrixSize/z']:g} partitions were encoded along z; "
            "slices are read alone: transform along z first, and set the matrix size to 1"
        )
    return Encoding(
        rows=round(sizes["encodedSpace/matrixSize/x"]),
        columns=round(sizes["encodedSpace/matrixSize/y"]),
        field_of_view=(sizes["encodedSpace/fieldOfView_mm/x"], sizes["encodedSpace/fieldOfView_mm/y"]),
        kept_rows=sizes["reconSpace/fieldOfView_mm/x"],
        thickness=sizes["reconSpace/fieldOfView_mm/z"] / sizes["reconSpace/matrixSize/z"],
    )
