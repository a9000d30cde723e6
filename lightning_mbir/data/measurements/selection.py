"""Which slices of a measurement are read."""

from __future__ import annotations

from pathlib import Path

from lightning_mbir.errors import InputError


def chosen_slices(path: Path, slices: tuple[int, int] | None, count: int) -> tuple[slice, tuple[str, ...]]:
    """``slices`` of ``count``, all where there are none given, with a note.

    Raises:
        InputError: slices that the file has not.
    """
    if slices is None:
        return slice(0, count), ()
    start, stop = slices
    if not 0 <= start < stop <= count:
        raise InputError(f"--data.slices {start}:{stop}: {path} has slices 0:{count}")
    return slice(start, stop), (f"slices {start}:{stop} of {count}",)
