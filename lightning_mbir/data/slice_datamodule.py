"""Slices to train a prior on: real volumes and phantoms, weighted by patient, with a held-out patient."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path

import lightning as L
import torch
from monai.data import CacheDataset, DataLoader, Dataset
from monai.transforms import Compose, RandAffine, RandFlip, RandScaleIntensity
from monai.utils import GridSampleMode
from torch import Tensor
from torch.utils.data import WeightedRandomSampler

from lightning_mbir.data.phantoms import chest_phantom, head_phantom
from lightning_mbir.data.resample import resize_in_plane
from lightning_mbir.data.units import training_scale
from lightning_mbir.data.volume import Modality, list_volumes, read_volume, volume_name
from lightning_mbir.errors import InputError


class SliceDataModule(L.LightningDataModule):
    """Axial slices ``(1, Y, X)`` in the prior's unit.

    Every patient is drawn equally often, however many slices there are of him; a patient is what stands before the
    last underscore of the file name (``p01_T1W`` and ``p01_T2W`` are one). Without ``path`` all is phantoms.

    Args:
        path: a volume or a folder of volumes (NIfTI, DICOM series); none trains on phantoms alone.
        modality: ``ct`` or ``mri``.
        image_size: slices are padded to a square and area-resized to this.
        batch_size: slices per optimiser step and device.
        held_out: patient kept for validation; by default the last by name, where there are two or more.
        phantom_fraction: share of the drawn slices that are phantoms, where there are real ones.
        phantom_volumes: number of different phantoms.
        slices_per_epoch: slices drawn an epoch.
        min_signal: slices with less than this share of pixels above a tenth of the unit are left out.
        num_workers: worker processes of the loader.
    """

    def __init__(
        self,
        path: Path | None = None,
        modality: Modality = "ct",
        image_size: int = 128,
        batch_size: int = 8,
        held_out: str | None = None,
        phantom_fraction: float = 0.15,
        phantom_volumes: int = 6,
        slices_per_epoch: int = 4000,
        min_signal: float = 0.05,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= phantom_fraction <= 1:
            raise InputError(f"--data.phantom_fraction {phantom_fraction}: give a share from 0 to 1")
        counts = {"image_size": image_size, "batch_size": batch_size, "phantom_volumes": phantom_volumes}
        for flag, value in counts.items():
            if value < 1:
                raise InputError(f"--data.{flag} {value}: give a whole number of at least 1")
        # Looked at here, so that a wrong folder is told before anything is written.
        self.files = [] if path is None else list_volumes(path)
        patients = sorted({patient(file) for file in self.files})
        if held_out is not None and held_out not in patients:
            raise InputError(f"--data.held_out {held_out}: no such patient; there are {', '.join(patients) or 'none'}")
        self.held_out = held_out or (patients[-1] if len(patients) > 1 else None)
        self.path = path
        self.modality: Modality = modality
        self.image_size = image_size
        self.batch_size = batch_size
        self.phantom_fraction = phantom_fraction
        self.phantom_volumes = phantom_volumes
        self.slices_per_epoch = slices_per_epoch
        self.min_signal = min_signal
        self.num_workers = num_workers
        self.summary = ""
        self._train: tuple[list[Tensor], Tensor] | None = None
        self._validation: list[Tensor] = []

    def setup(self, stage: str) -> None:
        """Read all volumes once; the slices stay in memory."""
        if self._train is not None:
            return
        phantoms = [slices for i in range(self.phantom_volumes) if (slices := self._phantom(seed=i))]
        train: dict[Hashable, list[Tensor]] = {}
        if self.files:
            loaded = CacheDataset(self.files, transform=self._load, progress=False, num_workers=None)
            for file, slices in zip(self.files, loaded, strict=True):
                if patient(file) == self.held_out:
                    self._validation += slices
                else:
                    train.setdefault(patient(file), []).extend(slices)
            train = {name: slices for name, slices in train.items() if slices}
            if not train:
                raise InputError(f"{self.path}: no slice with signal to train on (see --data.min_signal)")
            patients = len({patient(file) for file in self.files})
            self.summary = f"{len(self.files)} volumes of {patients} patients ({self.held_out} held out) and "
        self.summary += f"{len(phantoms)} phantoms"
        if not self._validation:  # phantoms that training does not see
            self._validation = self._phantom(seed=1000)
        share = self.phantom_fraction if train else 1.0
        groups = [(slices, (1 - share) / len(train)) for slices in train.values()]
        groups += [(slices, share / len(phantoms)) for slices in phantoms if share > 0]
        weights = torch.cat([torch.full((len(slices),), weight / len(slices)) for slices, weight in groups])
        self._train = [image for slices, _ in groups for image in slices], weights

    def train_dataloader(self) -> DataLoader:
        assert self._train is not None
        images, weights = self._train
        # The seed comes from Lightning's seed_everything, which draws differently on each rank below.
        rank = self.trainer.global_rank if self.trainer else 0
        world = self.trainer.world_size if self.trainer else 1
        generator = torch.Generator().manual_seed(torch.initial_seed() % 2**62 + rank)
        sampler = WeightedRandomSampler(weights.tolist(), max(1, self.slices_per_epoch // world), generator=generator)
        return DataLoader(
            Dataset(images, transform=self._augmentation()),
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            drop_last=True,
        )

    def val_dataloader(self) -> DataLoader:
        # Every n-th slice: enough to judge by, and the same ones each time.
        every = max(1, len(self._validation) // 32)
        return DataLoader(Dataset(self._validation[::every]), batch_size=self.batch_size)

    def _load(self, file: Path) -> list[Tensor]:
        volume = resize_in_plane(read_volume(file, self.modality), self.image_size)
        return self._slices(volume.data)

    def _phantom(self, seed: int) -> list[Tensor]:
        phantom = chest_phantom if self.modality == "ct" else head_phantom
        return self._slices(phantom((32, self.image_size, self.image_size), seed=seed))

    def _slices(self, data: Tensor) -> list[Tensor]:
        scale = training_scale(data, self.modality)
        if scale <= 0:
            return []
        data = data / scale
        signal = (data > 0.1).float().mean((-2, -1)) >= self.min_signal
        return list(data[signal][:, None])

    def _augmentation(self) -> Compose:
        steps = [
            RandFlip(prob=0.5, spatial_axis=1),
            RandAffine(
                prob=0.7,
                rotate_range=0.15,
                scale_range=0.12,
                translate_range=0.05 * self.image_size,
                mode=GridSampleMode.BICUBIC,  # bilinear would teach the prior blurred slices
                padding_mode="zeros",
            ),
        ]
        if self.modality == "mri":  # the unit is estimated from the measurement, hence never exact
            steps.append(RandScaleIntensity(factors=0.2, prob=0.8))
        return Compose([*steps, _clean])


def _clean(image: Tensor) -> Tensor:
    """A plain tensor without the undershoot of bicubic interpolation."""
    return torch.as_tensor(image).as_subclass(torch.Tensor).clamp_min(0)


def patient(file: Path) -> str:
    """What stands before the last underscore of the file's name."""
    return volume_name(file).rpartition("_")[0] or volume_name(file)
