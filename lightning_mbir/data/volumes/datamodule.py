"""Volumes to reconstruct: files, demo phantoms, or a measurement that was really made."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import lightning as L
import numpy as np
import torch
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSampler
from torch.utils.data import DataLoader, Dataset

from lightning_mbir.data.measurements.measurement import Measurement, read_measurement
from lightning_mbir.data.measurements.options import MeasurementOptions
from lightning_mbir.data.phantoms import chest_phantom, head_phantom
from lightning_mbir.data.units import Modality
from lightning_mbir.data.volumes.fitting import fitted
from lightning_mbir.data.volumes.listing import list_volumes, passed_over, volume_name
from lightning_mbir.data.volumes.reading import read_volume
from lightning_mbir.data.volumes.resample import cut_slices
from lightning_mbir.data.volumes.volume import Volume
from lightning_mbir.errors import InputError
from lightning_mbir.flag_values import faults, scatter_share, slice_range, voxel_size
from lightning_mbir.kinds import check_kinds

log = logging.getLogger(__name__)

T = TypeVar("T")

DEMO_SLICES, DEMO_SIZE, MOST_DEMOS = 32, 128, 1000
DEMO_SEED = 10_000
"""Demo phantoms are drawn from here on; priors are trained on phantoms with low seeds."""


class VolumeDataModule(L.LightningDataModule):
    """Hands out one volume at a time; Lightning spreads them over the ranks.

    Args:
        path: a volume (see ``read_volume``), a folder with a DICOM series, or a folder of those; none gives demo
            phantoms.
        measurement: instead of ``path``, a file with a measurement (see ``read_measurement``).
        detector_spacing, rotation_center, axes, select, noise_scan, oversampling: what that file leaves open, see
            ``MeasurementOptions``.
        whiten, partial_fourier, coil_energy: what is done to k-space, likewise.
        field_map, readout_time, echo_spacing: the field that k-space was measured in, likewise.
        correct, scatter, beam_hardening: what is done to projections, likewise, as ``"rings,zingers"`` and ``0.02`` or,
            smoothed over 20 bins, ``"0.02,20"``.
        angles, flat_field, dark_field: what goes with projections in TIFF files, likewise.
        modality: ``ct`` or ``mri``; follows from the task on the command line.
        image_size: slices are padded to a square and resized to this, by averages over areas; by default, and at 0,
            they keep their size. Measured projections are reconstructed at this size (by default that of the
            detector), k-space at its own.
        slices: part of each volume, as ``"20:44"``; of a measurement no other rows of the detector, or slices of
            k-space, are read.
        series: of a DICOM folder with several series, which one: its number or UID.
        spacing: of a NumPy array, its voxel size in mm, slices first, as ``"3,0.8,0.8"``.
        demo_volumes: how many phantoms, where there is no path.

    Attributes:
        sizes: pixels along the side of the slices to reconstruct, of all volumes; known after ``check``.
        depths: slices of each of them, likewise.
        passed_over: what in the folder is no volume, in a line.
        groups: where several processes share a volume: how many volumes are worked on at a time, and the number of this
            process's own. Then numbers are handed out, of which ``taken`` gives the volumes.
    """

    def __init__(
        self,
        path: Path | None = None,
        measurement: Path | None = None,
        modality: Modality = "mri",
        image_size: int | None = None,
        slices: str | None = None,
        series: str | int | None = None,
        spacing: str | None = None,
        demo_volumes: int = 1,
        detector_spacing: float | None = None,
        rotation_center: float | Literal["search"] | None = None,
        axes: str | None = None,
        select: str | None = None,
        noise_scan: Path | None = None,
        oversampling: float | None = None,
        whiten: bool | Literal["corners"] = True,
        partial_fourier: Literal["zero", "pocs", "homodyne"] = "zero",
        coil_energy: float | None = None,
        field_map: Path | None = None,
        readout_time: float | None = None,
        echo_spacing: float | None = None,
        correct: str | None = None,
        scatter: str | float | None = None,
        beam_hardening: str | None = None,
        angles: Path | None = None,
        flat_field: str | None = None,
        dark_field: Path | None = None,
    ) -> None:
        super().__init__()
        check_kinds(VolumeDataModule.__init__, locals())
        if path is not None and measurement is not None:
            raise InputError("--data.path and --data.measurement: give one of them, not both")
        image_size = image_size or 0
        if image_size < 0 or 0 < image_size < 16:
            raise InputError(f"--data.image_size {image_size}: give at least 16, or 0 to keep the size")
        if not 1 <= demo_volumes <= MOST_DEMOS:
            raise InputError(f"--data.demo_volumes {demo_volumes}: give from 1 to {MOST_DEMOS}")
        told: dict[str, object] = {
            "detector_spacing": detector_spacing,
            "rotation_center": rotation_center,
            "axes": axes,
        }
        told |= {"select": select, "noise_scan": noise_scan, "oversampling": oversampling, "coil_energy": coil_energy}
        told |= {"field_map": field_map, "readout_time": readout_time, "echo_spacing": echo_spacing}
        told |= {"correct": correct, "scatter": scatter, "beam_hardening": beam_hardening}
        told |= {"angles": angles, "flat_field": flat_field, "dark_field": dark_field}
        told |= {"whiten": None if whiten is True else whiten or "false"}
        told |= {"partial_fourier": None if partial_fourier == "zero" else partial_fourier}
        for name, value in told.items():
            if measurement is None and value is not None:
                raise InputError(f"--data.{name} {value}: tells about the file of --data.measurement; give that too")
        for name, value, what in (("spacing", spacing, "an array"), ("series", series, "a DICOM folder")):
            if value is not None and path is None:
                raise InputError(f"--data.{name} {value}: tells about {what} of --data.path; give that too")
        if detector_spacing is not None and not detector_spacing > 0:
            raise InputError(f"--data.detector_spacing {detector_spacing}: give the distance of bins in mm")
        self.modality: Modality = modality
        self.image_size = image_size
        self.series = None if series is None else str(series)
        self.spacing = parsed("spacing", spacing, voxel_size)
        self.slices = parsed("slices", slices, slice_range)
        self.options = MeasurementOptions(
            image_size,
            detector_spacing,
            rotation_center,
            axes,
            self.slices,
            select,
            noise_scan,
            whiten,
            oversampling,
            partial_fourier,
            coil_energy,
            field_map,
            readout_time,
            echo_spacing,
            parsed("correct", correct, faults) or (),
            parsed("scatter", scatter, scatter_share),
            beam_hardening,
            angles,
            flat_field,
            dark_field,
        )
        self.scans: list[Path | int]
        self.passed_over = ""
        if measurement is not None:
            self._measurement = read_measurement(measurement, modality, self.options)  # a wrong file is told at once
            self.scans = [measurement]
        elif path is not None:
            paths = list_volumes(path)
            self.passed_over = passed_over(path)
            _check_names(paths)
            self.scans = list(paths)
        else:
            self.scans = list(range(demo_volumes))
            if self.slices is not None and self.slices[1] > DEMO_SLICES:
                raise InputError(f"--data.slices {slices}: demo volumes have slices 0:{DEMO_SLICES}")
        self.measured = measurement is not None
        self.checked = False
        self.sizes: set[int] = set()
        self.depths: list[int] = []
        self.groups: tuple[int, int] | None = None

    def setup(self, stage: str) -> None:
        self.check()

    def check(self) -> None:
        """Read every volume once, so that a bad one is told before hours of work on the others.

        Raises:
            InputError: the first volume that cannot be used, and why.
        """
        if not self.checked:
            if self.passed_over and not (self.trainer and self.trainer.global_rank):
                log.warning("%s", self.passed_over)
            for i, source in enumerate(self.scans):
                if isinstance(source, int):  # phantoms take seconds, and are what they should be
                    self.sizes.add(self.image_size or DEMO_SIZE)
                    self.depths.append(DEMO_SLICES if self.slices is None else self.slices[1] - self.slices[0])
                elif isinstance(scan := self.scan(i), Volume):
                    self.sizes.add(scan.data.shape[-1])
                    self.depths.append(len(scan.data))
                else:
                    self.depths.append(len(scan.y))
        self.checked = True

    def scan(self, index: int) -> Volume | Measurement:
        """The volume or measurement number ``index``."""
        source = self.scans[index]
        if isinstance(source, int):
            demo = demo_volume(self.modality, source, self.image_size or DEMO_SIZE)
            return self._cut(demo, demo.name)
        if self.measured:
            return self._measurement
        volume = self._cut(read_volume(source, self.modality, self.series, self.spacing), source)
        return fitted(volume, source, self.image_size)

    def taken(self, index: int) -> Volume | Measurement:
        """The same, for who shares it out: it is not kept here."""
        scan = self.scan(index)
        if self.measured:
            self._measurement = replace(self._measurement, y=self._measurement.y[:0].clone())
        return scan

    def filed_as(self, index: int) -> str:
        """What the results of volume or measurement number ``index`` are filed under; nothing is read for it."""
        source = self.scans[index]
        if isinstance(source, int):
            return demo_name(self.modality, source)
        return self._measurement.name if self.measured else volume_name(source)

    def predict_dataloader(self) -> DataLoader[Any]:
        if self.groups is None:
            return self.test_dataloader()
        numbers: Any = range(len(self.scans))
        replicas, own = self.groups
        sampler = UnrepeatedDistributedSampler(numbers, num_replicas=replicas, rank=own, shuffle=False)
        return DataLoader(numbers, batch_size=1, collate_fn=_first, sampler=sampler)

    def test_dataloader(self) -> DataLoader[Volume | Measurement]:
        return DataLoader(_Scans(self), batch_size=1, collate_fn=_first)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """A volume is in host memory until it is known whether there is room for it on the device."""
        return batch

    def _cut(self, volume: Volume, source: Path | str) -> Volume:
        if self.slices is None:
            return volume
        start, stop = self.slices
        if stop > volume.data.shape[0]:
            raise InputError(f"--data.slices {start}:{stop}: {source} has slices 0:{volume.data.shape[0]}")
        return cut_slices(volume, start, stop)


class _Scans(Dataset[Volume | Measurement]):
    def __init__(self, data: VolumeDataModule) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data.scans)

    def __getitem__(self, index: int) -> Volume | Measurement:
        return self.data.scan(index)


def _first(batch: list[T]) -> T:
    return batch[0]


def demo_volume(modality: Modality, number: int, image_size: int) -> Volume:
    """A chest-like (CT) or head-like (MRI) phantom that no training has seen."""
    phantom, field_of_view = (chest_phantom, 350.0) if modality == "ct" else (head_phantom, 240.0)
    thickness = 3.0
    data = phantom((DEMO_SLICES, image_size, image_size), seed=DEMO_SEED + number)
    pixel = field_of_view / image_size
    affine = np.diag([pixel, pixel, thickness, 1.0])
    corner = -(field_of_view - pixel) / 2
    affine[:3, 3] = [corner, corner, -(DEMO_SLICES - 1) / 2 * thickness]
    name = demo_name(modality, number)
    return Volume(data, affine, name, modality)


def demo_name(modality: Modality, number: int) -> str:
    """What a phantom of ``demo_volume`` is called."""
    return f"demo_{'chest' if modality == 'ct' else 'head'}_{number}"


def _check_names(paths: list[Path]) -> None:
    """Raise where two volumes would write their results into the same folder."""
    seen: dict[str, Path] = {}
    for path in paths:
        other = seen.setdefault(volume_name(path), path)
        if other is not path:
            raise InputError(f"{other} and {path}: results are filed under the name, so rename one of them")


def parsed(name: str, value: object, kind: Callable[[str], T]) -> T | None:
    """What a value of ``--data.NAME`` stands for, as a text or as the number that YAML makes of one; none of none.

    Raises:
        InputError: a text that stands for none.
    """
    try:
        return None if value is None else kind(str(value))
    except InputError as error:
        raise InputError(f"--data.{name} {value}: {error}") from error
