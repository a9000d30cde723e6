"""Raw data of scanners that are not read: what they are, and what turns them into a file that is."""

from __future__ import annotations

import re
from pathlib import Path

from lightning_mbir.errors import InputError

OWN = "export its projections, and give them with their geometry in our own layout (docs/measurements.md)"
CONVERT = "convert it to MRD (ISMRMRD), with"
OTHERS = (
    (r"P\d{5}\.7|.*\.7|ScanArchive_.*\.h5", "a P-file or ScanArchive of GE", f"{CONVERT} ge_to_ismrmrd"),
    (r".*\.(raw|lab|sin|list|data)", "raw data of Philips", f"{CONVERT} philips_to_ismrmrd"),
    (r".*\.(txrm|xrm|txm)", "projections of a Zeiss Xradia scanner", OWN),
    (r".*\.(hnd|hnc|xim)", "projections of a Varian imager", OWN),
    (r".*\.(his|pca|rek)", "projections of an Elekta imager or another scanner with files of its own", OWN),
    (r".*\.(dcm|ima)", "one view or slice in DICOM", "give the folder of all views (DICOM-CT-PD)"),
    (r"fid|ser|rawdata\.job\d|.*\.job\d", "raw data of Bruker", f"{CONVERT} bruker_to_ismrmrd"),
)
"""Patterns of file names, what they are, and what would be right."""


def check_vendor(path: Path) -> None:
    """Raise an ``InputError`` where a file is, by its name, of a scanner that is not read."""
    for pattern, what, right in OTHERS:
        if re.fullmatch(pattern, path.name, re.IGNORECASE):
            raise InputError(f"{path}: is {what}, which is not read; {right}")
