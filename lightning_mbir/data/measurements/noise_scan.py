"""A noise scan in a file of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning_mbir.data.measurements.content import open_content
from lightning_mbir.data.measurements.mrd import is_mrd, open_mrd
from lightning_mbir.data.measurements.readouts import Readouts
from lightning_mbir.data.measurements.twix import read_twix_noise
from lightning_mbir.data.measurements.vendors import check_vendor
from lightning_mbir.errors import InputError


@contextmanager
def open_noise_scan(path: Path) -> Iterator[Readouts]:
    """The readouts of an MRD or TWIX file with a noise scan; they are read as long as the context lasts.

    Raises:
        InputError: no such file, one of another kind, one without a noise scan.
    """
    if not path.is_file():
        raise InputError(f"--data.noise_scan {path}: no such file; give an MRD or TWIX file")
    check_vendor(path)
    if path.suffix.lower() == ".dat":
        yield read_twix_noise(path)
        return
    with open_content(path) as content:
        if not is_mrd(content):
            raise InputError(f"--data.noise_scan {path}: is no MRD file; give the scanner's own file, as MRD or TWIX")
        with open_mrd(content) as readouts:
            if not readouts.noise.any():
                raise InputError(f"{path}: has no noise scan; give another --data.noise_scan, or leave it out")
            yield readouts
