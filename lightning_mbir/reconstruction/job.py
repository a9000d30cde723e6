"""What is to become of one volume."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_mbir.data.measurements.measurement import Measurement
from lightning_mbir.data.volumes.volume import ASSUMED, UNSIZED, Volume
from lightning_mbir.methods.plans import Plan
from lightning_mbir.reconstruction.case import Case
from lightning_mbir.reconstruction.course import Course
from lightning_mbir.reconstruction.runner import Runner
from lightning_mbir.slabs import WHOLE, Slab

MINUTES = 5.0
"""Between two states that are kept, unless it is said otherwise."""
UNPLACED = f"a measurement does not tell how it lies: {ASSUMED[0]}, and recon.nii.gz has no place in the world"
UNMEASURED = f"a measurement does not tell all lengths: {UNSIZED}, and recon.nii.gz has no unit of length"


@dataclass(frozen=True)
class Job:
    """What is to become of one volume.

    Attributes:
        runner: what runs the method.
        scan: the volume, or a measurement, in host memory.
        plan: the method.
        folder: of the results.
        title: what stands before the progress bar.
        config: of the run, to be kept with the results.
        source: the file that ``scan`` was read from, where it is one.
        overwrite: whether it is done again where it is finished.
        write: ``nifti``, or ``dicom`` to write a derived series too.
        off_by: of samples: what a voxel may be off by, in HU or shares of the peak; none for no map of that.
        report: whether a page to look at it is written.
        minutes: between two states that are kept, from which a run that is stopped goes on; 0 for none.
        slab: where several processes share the volume, which of its slices ``scan`` has.
        volume: what ``volume_identity`` tells of all slices then.
        course: follows the volume as it forms, for TensorBoard, and has its result drawn.
    """

    runner: Runner
    scan: Volume | Measurement
    plan: Plan
    folder: Path
    title: str
    config: str | None = None
    source: Path | None = None
    overwrite: bool = False
    write: str = "nifti"
    off_by: float | None = None
    report: bool = True
    minutes: float = MINUTES
    slab: Slab = WHOLE
    volume: dict[str, Any] | None = None
    course: Course | None = None


def placed(scan: Volume | Measurement, image: Tensor, case: Case) -> Volume:
    """An image ``(Z, Y, X)`` where the scan lies, on the host."""
    if isinstance(scan, Volume):
        return scan.with_data(image.cpu())
    return Volume(image.cpu(), scan.affine, case.name, scan.modality, case.calibrated, notes=assumed(scan))


def assumed(scan: Volume | Measurement) -> tuple[str, ...]:
    """What a measurement does not tell of the volume to come, a line each; a volume has that in its notes."""
    if isinstance(scan, Volume):
        return ()
    known = {UNPLACED: scan.sided, UNMEASURED: scan.sized and scan.calibrated}
    return tuple(note for note, is_known in known.items() if not is_known)
