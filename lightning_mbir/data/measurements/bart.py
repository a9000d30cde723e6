"""Files of BART: ``name.hdr``, the sizes of up to 16 dimensions, and ``name.cfl``, complex64 with the first fastest."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from lightning_mbir.data.measurements.item import Item
from lightning_mbir.errors import InputError
from lightning_mbir.files import whole_file

DIMENSIONS = 16
AXES = {0: "y", 1: "x", 3: "coil", 5: "echo", 10: "repetition", 13: "slice"}
"""What is read: BART's READ, PHS1, COIL, TE, TIME and SLICE. Phase is encoded along ``x``."""
SUFFIXES = (".cfl", ".hdr")


def read_sizes(path: Path) -> tuple[int, ...]:
    """The sizes of the dimensions of ``path``, with either suffix.

    Raises:
        InputError: one of the two files is missing, sizes that are none, values that are more or fewer than these.
    """
    header, data = path.with_suffix(".hdr"), path.with_suffix(".cfl")
    for one in (header, data):
        if not one.is_file():
            raise InputError(f"{one}: no such file; BART writes a .hdr and a .cfl of one name")
    lines = [line.split() for line in header.read_text(errors="replace")[:4096].splitlines()]
    after = next((lines[i + 1] for i in range(len(lines) - 1) if lines[i][:2] == ["#", "Dimensions"]), [])
    if not after or len(after) > DIMENSIONS or not all(size.isdecimal() and 0 < int(size) < 2**31 for size in after):
        raise InputError(f"{header}: has no line of sizes after '# Dimensions'")
    sizes = tuple(int(size) for size in after)
    if (there := data.stat().st_size) != 8 * math.prod(sizes):
        raise InputError(f"{data}: has {there} bytes, its header tells of {8 * math.prod(sizes)}; it may be cut short")
    return sizes


def bart_item(path: Path, select: dict[str, int]) -> tuple[Item, str]:
    """K-space of a file as a dataset that is read in parts, and the names of its dimensions.

    Args:
        path: the file, with either suffix.
        select: which echo and repetition, where there are several.

    Raises:
        InputError: see ``read_sizes``; dimensions that are not read, several echoes or repetitions of which none is
            chosen.
    """
    sizes = read_sizes(path)
    for axis, size in enumerate(sizes):
        if size > 1 and axis not in AXES:
            raise InputError(
                f"{path}: dimension {axis} has {size} points; there may be {', '.join(map(str, AXES))} "
                f"({', '.join(AXES.values())})"
            )
    stored = np.memmap(path.with_suffix(".cfl"), np.dtype("<c8"), "r", shape=sizes, order="F")
    index: list[slice | int] = [slice(None) if axis in AXES else 0 for axis in range(len(sizes))]
    for axis, name in ((5, "echo"), (10, "repetition")):
        count = sizes[axis] if axis < len(sizes) else 1
        if name in select and select[name] >= count:
            raise InputError(f"--data.select {name}={select[name]}: {path} has {name} 0 to {count - 1}")
        if name not in select and count > 1:
            raise InputError(f"{path}: has {name} 0 to {count - 1}; choose one with --data.select {name}=0")
        if axis < len(sizes):
            index[axis] = select.get(name, 0)
    names = [AXES[axis] for axis in range(len(sizes)) if not isinstance(index[axis], int)]
    kept = [k for k, name in enumerate(names) if name in "yx" or np.shape(stored[tuple(index)])[k] > 1]
    array = np.squeeze(stored[tuple(index)], tuple(k for k in range(len(names)) if k not in kept))
    item = Item(path, "k-space", array.shape, array.dtype, array.__getitem__, (1,) * array.ndim)
    return item, " ".join(names[k] for k in kept)


def write_cfl(path: Path, values: np.ndarray, axes: str) -> None:
    """Write an array for BART, whole or not at all.

    Args:
        path: with the suffix ``.cfl`` or ``.hdr``; both are written.
        values: numbers, which become complex64.
        axes: names of its dimensions, of ``slice``, ``repetition``, ``echo``, ``coil``, ``y`` and ``x``, such as
            ``slice coil y x``: ``y`` becomes BART's READ, ``x`` PHS1.

    Raises:
        InputError: other names, or another number of them.
    """
    names = axes.split()
    numbers = {name: axis for axis, name in AXES.items()}
    if len(names) != values.ndim or len(set(names)) != len(names) or not set(names) <= set(numbers):
        raise InputError(f"axes '{axes}': give one of {', '.join(numbers)} for each of {values.ndim} dimensions")
    order = sorted(range(len(names)), key=lambda k: numbers[names[k]])
    sizes = [1] * DIMENSIONS
    for name, size in zip(names, values.shape, strict=True):
        sizes[numbers[name]] = size
    with whole_file(path.with_suffix(".cfl")) as part:
        Path(part).write_bytes(values.transpose(order).astype("<c8").tobytes(order="F"))
    with whole_file(path.with_suffix(".hdr")) as part:
        Path(part).write_text("# Dimensions\n" + " ".join(map(str, sizes)) + " \n")
