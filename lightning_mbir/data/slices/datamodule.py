"""Slices to train a prior on: real volumes and phantoms, weighted by patient, with a held-out patient."""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

import lightning as L
import torch
from monai.data import DataLoader
from monai.transforms import Compose
from torch import Tensor

from lightning_mbir.data.slices.reading import READING, CachedSlices, ReadSlices
from lightning_mbir.data.slices.sampling import (
    Axis,
    KeyedBatches,
    KeyedLoader,
    KeyedSlices,
    RandPhase,
    WholeSampler,
    as_it_is,
    augmentation,
    triples,
)
from lightning_mbir.data.units import Modality
from lightning_mbir.data.volumes.listing import list_volumes, passed_over, volume_name
from lightning_mbir.errors import InputError
from lightning_mbir.kinds import check_kinds
from lightning_mbir.messages import tracked

log = logging.getLogger(__name__)

Group = list[tuple[Tensor, float]]
"""Slices, or triples of them, that are drawn alike, and how many mm lie between those of a triple."""

UNSEEN = 1000
"""Seed of the phantoms that are validated on."""


class SliceDataModule(L.LightningDataModule):
    """Slices ``(1, Y, X)`` in the prior's unit; complex ones ``(2, Y, X)``. With ``slices=3`` three neighbouring ones,
    in as many channels each, and their distance in mm.

    Every patient is drawn equally often, counted in pixels, however many slices there are of him; a patient is what
    stands before the last underscore of the file name (``p01_T1W`` and ``p01_T2W`` are one), or its BIDS ``sub-LABEL``.
    Without ``path`` all is phantoms.

    Slices larger than ``image_size`` are averaged down to it, smaller ones are padded with zeros: nothing is enlarged,
    since that would teach blur. With several shapes each batch is of one of them, by chance, and has as many pixels as
    ``batch_size`` slices of the smallest size: whole slices, since a prior that has only seen crops of the larger ones
    does not know how their parts belong together. With ``crop_size`` they are cropped at random to that, all or, with
    ``whole_fraction``, some.

    What is drawn, and how it is varied, depends on the training's seed, the rank and how much was drawn before, and not
    on the number of workers.

    Args:
        path: a volume or a folder of volumes (see ``read_volume``); none trains on phantoms alone.
        modality: ``ct`` or ``mri``; none, for phantoms alone, draws chests and heads.
        axis: ``axial``, ``coronal`` or ``sagittal`` slices. The latter two are those of a volume whose axial slices
            have ``image_size``, as reconstructions meet them: z keeps its spacing and its length, and is mirrored up to
            a multiple of what the network takes, as ``SliceDenoiser`` does.
        image_size: size of axial slices, or several.
        crop_size: cut the training images to this size, where they are larger; by default they stay whole.
        whole_fraction: share, in pixels, of those that would be cropped which stay whole all the same; they teach how
            parts belong together, from the noise level ``whole_sigma_min`` of the module on.
        slices: 1, or 3 for a prior of neighbouring slices: three that lie side by side or, as often, three apart.
        complex: give each slice a random phase, half of them rough, for a prior of complex MRI; held-out slices a
            smooth one.
        batch_size: slices per step and device, at the smallest size; of other shapes as many as have those pixels.
        held_out: patient kept for validation, or several; by default the last by name, where there are two or more.
        phantom_fraction: share of the drawn slices that are phantoms of chests or heads, where there are real ones.
        phantom_volumes: number of different phantoms.
        leaves_fraction: share of the drawn slices that are dead leaves: objects that are no anatomy at all. Without
            ``path`` what remains are phantoms.
        leaves_volumes: number of different volumes of them.
        max_noise: volumes with more noise of their own at one of the sizes (see ``own_noise``; in the prior's unit, of
            CT 0.01 for 20 HU) are left out at that size, since it would be learned as if it were anatomy.
        slices_per_epoch: slices drawn an epoch, by all devices together; counted as if all were of the smallest size.
        min_signal: slices with less than this share of pixels above a tenth of the unit are left out.
        cache_dir: keeps what was read for the next training, see ``monai.data.PersistentDataset``.
        cache_gib: memory that slices may take in a process; what goes beyond is read from a temporary file when drawn.
        num_workers: worker processes that read volumes, and later vary slices.

    Raises:
        InputError: no volumes at ``path``, no such patient, values out of range; in ``setup``: no slice with signal.
    """

    def __init__(
        self,
        path: Path | None = None,
        modality: Modality | None = "ct",
        axis: Axis = "axial",
        image_size: int | list[int] = 128,
        crop_size: int | None = None,
        whole_fraction: float = 0.0,
        slices: int = 1,
        complex: bool = False,
        batch_size: int = 8,
        held_out: list[str] | str | None = None,
        phantom_fraction: float = 0.15,
        phantom_volumes: int = 6,
        leaves_fraction: float = 0.0,
        leaves_volumes: int = 48,
        max_noise: float | None = None,
        slices_per_epoch: int = 4000,
        min_signal: float = 0.05,
        cache_dir: Path | None = None,
        cache_gib: float = 4.0,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        check_kinds(SliceDataModule.__init__, locals())
        sizes = [image_size] if isinstance(image_size, int) else list(image_size)
        counts = {"image_size": min(sizes, default=0), "batch_size": batch_size, "phantom_volumes": phantom_volumes}
        counts["leaves_volumes"] = leaves_volumes
        for flag, value in {**counts, "crop_size": 1 if crop_size is None else crop_size}.items():
            if value < 1:
                raise InputError(f"--data.{flag} {value}: give a whole number of at least 1")
        for flag, share in {"phantom_fraction": phantom_fraction, "leaves_fraction": leaves_fraction}.items():
            if not 0 <= share <= 1:
                raise InputError(f"--data.{flag} {share}: give a share from 0 to 1")
        if phantom_fraction + leaves_fraction > 1 and path is not None:
            raise InputError(
                f"--data.phantom_fraction {phantom_fraction} and --data.leaves_fraction {leaves_fraction}: more than "
                "all slices; give shares that sum to 1 at most"
            )
        if max_noise is not None and not max_noise > 0:
            raise InputError(f"--data.max_noise {max_noise}: give a positive number, in the prior's unit")
        if not 0 <= whole_fraction < 1 or (whole_fraction > 0 and crop_size is None):
            raise InputError(
                f"--data.whole_fraction {whole_fraction}: give a share from 0 to below 1, beside a --data.crop_size "
                "(without one all slices are whole)"
            )
        if slices not in (1, 3):
            raise InputError(f"--data.slices {slices}: give 1, or 3 neighbouring ones")
        if axis not in get_args(Axis):
            raise InputError(f"--data.axis {axis}: give {', '.join(get_args(Axis))}")
        if modality is None and path is not None:
            raise InputError("--data.path needs a --data.modality, ct or mri; without one there are only phantoms")
        if complex and modality != "mri":
            raise InputError("--data.complex: only MRI has a phase; give --data.modality mri")
        if crop_size is not None and crop_size > min(sizes):
            raise InputError(f"--data.crop_size {crop_size}: larger than --data.image_size {min(sizes)}")
        if whole_fraction and axis == "axial" and crop_size is not None and crop_size >= max(sizes):
            raise InputError(
                f"--data.whole_fraction {whole_fraction}: no slice of --data.image_size {max(sizes)} is larger than "
                f"crops of {crop_size}; give --data.whole_fraction 0 too"
            )
        # Looked at here, so that a wrong folder is told before anything is written.
        self.files = [] if path is None else list_volumes(path)
        self._passed_over = "" if path is None else passed_over(path)
        patients = sorted({patient(file) for file in self.files})
        kept = [held_out] if isinstance(held_out, str) else list(held_out or patients[-1:] * (len(patients) > 1))
        if unknown := [name for name in kept if name not in patients]:
            raise InputError(
                f"--data.held_out {unknown[0]}: no such patient; there are {', '.join(patients) or 'none'}"
            )
        if kept and set(kept) == set(patients):
            raise InputError("--data.held_out: all patients, so that nobody is left to train on; give fewer")
        self.held_out = kept
        settings = {
            "path": None if path is None else str(path),
            "modality": modality,
            "axis": axis,
            "image_size": sizes,
            "crop_size": crop_size,
            "whole_fraction": whole_fraction,
            "slices": slices,
            "complex": complex,
            "batch_size": batch_size,
            "held_out": self.held_out,
            "phantom_fraction": phantom_fraction,
            "phantom_volumes": phantom_volumes,
            "leaves_fraction": leaves_fraction,
            "leaves_volumes": leaves_volumes,
            "max_noise": max_noise,
            "slices_per_epoch": slices_per_epoch,
            "min_signal": min_signal,
        }
        # For TensorBoard: plain types, by names that cannot clash with those of a module.
        self.save_hyperparameters({f"data/{name}": value for name, value in settings.items()}, logger=False)
        self.path, self.modality, self.axis, self.complex, self.slices = path, modality, axis, complex, slices
        self.sizes = sorted(set(sizes))
        self.crop_size, self.whole_fraction = crop_size, whole_fraction
        self.batch_size, self.slices_per_epoch, self.num_workers = batch_size, slices_per_epoch, num_workers
        self.phantom_fraction = phantom_fraction if self.files else 1 - leaves_fraction
        self.leaves_fraction = leaves_fraction
        self.phantom_volumes, self.leaves_volumes, self.max_noise = phantom_volumes, leaves_volumes, max_noise
        self.min_signal = min_signal
        self.cache_dir, self.cache_gib = cache_dir, cache_gib
        self.summary = ""
        self._train: tuple[list[Tensor], Tensor] | None = None
        self._distances: list[float] = []
        """Of the triples to train on."""
        self._validation: dict[tuple[int, ...], list[tuple[Tensor, float]]] = {}
        self._bytes = 0
        self._overflow: tempfile.TemporaryDirectory[str] | None = None

    def setup(self, stage: str) -> None:
        """Read all volumes once."""
        if self._train is not None:
            return
        if self._passed_over and not (self.trainer and self.trainer.global_rank):
            log.warning("%s", self._passed_over)
        if len(self.files) > 1 and not self.held_out and not (self.trainer and self.trainer.global_rank):
            log.warning(
                "%s: all %d volumes are of one patient (%s, what stands before the last underscore of a name), so that "
                "nobody is held out and validation is on phantoms; name them PATIENT_SCAN to hold one out "
                "(--data.held_out)",
                self.path,
                len(self.files),
                patient(self.files[0]),
            )
        items = [self._item(volume_name(file), file=str(file), stamp=file.stat().st_mtime) for file in self.files]
        items += list(self._drawn())

        patients: dict[str, list[Group]] = {}
        phantoms: list[Group] = []
        leaves: list[Group] = []
        silent: list[str] = []
        for item, (stacks, notes) in zip(items, self._read(items), strict=True):
            for note in [] if self.trainer and self.trainer.global_rank else notes:
                log.warning("%s", note)
            found = [group for stack, distance in stacks for group in self._groups(self._keep(stack), distance)]
            if "file" in item and not found:
                silent.append(item["file"])
            for group in found:
                if item.get("seed") == UNSEEN or ("file" in item and patient(Path(item["file"])) in self.held_out):
                    self._validation.setdefault(group[0][0].shape[-2:], []).extend(group)
                elif "seed" in item:
                    (leaves if item["phantom"] == "leaves" else phantoms).append(group)
                else:
                    patients.setdefault(patient(Path(item["file"])), []).append(group)
        if (self.files and not patients) or not (patients or phantoms or leaves):
            raise InputError(f"{self.path or 'phantoms'}: no slice with signal to train on (see --data.min_signal)")
        if not self._validation:
            people = ", ".join(self.held_out)
            who = f"{self.path}: {people}, held out (--data.held_out)," if people else "phantoms"
            raise InputError(f"{who} without a slice with signal to validate on (see --data.min_signal)")
        if silent and not (self.trainer and self.trainer.global_rank):
            noisy = " or with little enough noise (--data.max_noise)" if self.max_noise is not None else ""
            what = f"no {self.slices} slices" if self.slices > 1 else "no slice"
            log.warning("%s: %s with signal (see --data.min_signal)%s; left out", ", ".join(silent), what, noisy)
        self._train = self._weighted(patients, phantoms, leaves)
        if self.whole_fraction and all(self._crop(image.shape) == tuple(image.shape[-2:]) for image in self._train[0]):
            raise InputError(
                f"--data.whole_fraction {self.whole_fraction}: no slice is larger than the crops; leave it out"
            )
        used = [file for file in self.files if str(file) not in silent]
        held_out = " and ".join(self.held_out) or "nobody"
        mixture = [f"{len(used)} volumes of {len({patient(file) for file in used})} patients ({held_out} held out)"]
        drawn = {"phantoms": (self.phantom_volumes, self.phantom_fraction)}
        drawn["volumes of dead leaves"] = self.leaves_volumes, self.leaves_fraction
        mixture = mixture * bool(self.files) + [
            f"{n} {what} ({share:.0%})" for what, (n, share) in drawn.items() if share
        ]
        shown = f"crops of {self.crop_size}" if self.crop_size else "whole"
        shown += f" ({self.whole_fraction:.0%} of the larger ones whole)" if self.whole_fraction else ""
        self.summary = (
            f"{', '.join(mixture)}; {len(self._train[0])} {'triples of ' * (self.slices > 1)}{self.axis} slices at "
            f"{' and '.join(map(str, self.sizes))} pixels, {shown}"
        )

    def train_dataloader(self) -> DataLoader:
        assert self._train is not None
        images, weights = self._train
        module = self.trainer.lightning_module if self.trainer else None
        seed = int(getattr(module, "seed", torch.initial_seed() % 2**62))
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        length = max(1, self.slices_per_epoch // world // self.batch_size)

        def seen() -> int:
            return int(getattr(module, "batches_seen", 0))

        distances = self._distances
        shown = [self._crop(image.shape) for image in images]
        if self.whole_fraction:
            larger = [place for place, image in enumerate(images) if shown[place] != tuple(image.shape[-2:])]
            images = images + [images[place] for place in larger]
            distances = distances + [distances[place] for place in larger]
            shown += [(images[place].shape[-2], images[place].shape[-1]) for place in larger]
            chosen = torch.tensor(larger, dtype=torch.long)
            whole = weights[chosen] * self.whole_fraction
            weights = torch.cat((weights.index_add(0, chosen, -whole), whole))
        places: dict[tuple[int, int], list[int]] = {}
        for place, shape in enumerate(shown):
            places.setdefault(shape, []).append(place)
        groups = [(torch.tensor(group), self._per_batch(shape)) for shape, group in sorted(places.items())]
        intensity = 0.2 if self.modality == "mri" else 0.0  # the unit is estimated from the measurement, never exact
        turned = self.slices > 1
        varied = {shape: augmentation(shape, self.axis, intensity, self.complex, turned) for shape in places}
        batches = KeyedBatches(weights, groups, length, seed, rank, world, seen)
        slices = KeyedSlices(images, [varied[shape] for shape in shown], distances if self.slices > 1 else None)
        return KeyedLoader(slices, batches, self.num_workers)

    def val_dataloader(self) -> list[DataLoader]:
        """A loader for each shape: about 32 whole slices, the same ones each time."""
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        transform = Compose([RandPhase()] if self.complex else [])
        loaders = []
        for shape, slices in sorted(self._validation.items()):
            kept, distances = zip(*slices[:: max(1, len(slices) // 32)], strict=True)
            chosen = KeyedSlices(kept, [transform] * len(kept), distances if self.slices > 1 else None)
            sampler = WholeSampler(len(chosen), rank, world)
            loaders.append(DataLoader(chosen, batch_size=self._per_batch(shape), sampler=sampler))
        return loaders

    def _crop(self, shape: tuple[int, ...]) -> tuple[int, int]:
        rows, columns = shape[-2:]
        crop = self.crop_size or max(shape)
        return min(crop, rows), min(crop, columns)

    def _per_batch(self, shape: tuple[int, ...]) -> int:
        """Slices that have the pixels of ``batch_size`` ones of the smallest size."""
        smallest = self.crop_size or self.sizes[0]
        return max(1, self.batch_size * smallest**2 // math.prod(shape))

    def _item(self, name: str, **source: Any) -> dict[str, Any]:
        """What a volume's slices depend on; the cache goes by it."""
        network = getattr(self.trainer.lightning_module if self.trainer else None, "network", None)
        settings = {
            "modality": self.modality,
            "axis": self.axis,
            "sizes": self.sizes,
            "min_signal": self.min_signal,
            "max_noise": self.max_noise,
            "neighbours": self.slices > 1,
            "stride": 1 if self.axis == "axial" else int(getattr(network, "stride", 16)),
        }
        return {"name": name, "reading": READING, **settings, **source}

    def _drawn(self) -> Iterator[dict[str, Any]]:
        """The phantoms and leaves to train on and, where nobody is held out, to validate on."""
        kinds: tuple[tuple[str, Modality], ...] = (("chest", "ct"), ("head", "mri"))
        kinds = tuple(kind for kind in kinds if self.modality in (None, kind[1]))
        n = self.phantom_volumes if self.phantom_fraction > 0 else 0
        drawn = [(*kinds[i % len(kinds)], i) for i in range(n)]
        units = [modality for _, modality in kinds]
        n = self.leaves_volumes if self.leaves_fraction > 0 else 0
        drawn += [("leaves", units[i % len(units)], i) for i in range(n)]
        if not self.held_out:
            unseen = kinds if self.phantom_fraction > 0 else tuple(("leaves", unit) for unit in units)
            drawn += [(*kind, UNSEEN) for kind in unseen]
        for kind, unit, seed in drawn:
            yield self._item(f"{kind}_phantom_{seed}", phantom=kind, seed=seed, modality=unit)

    def _groups(self, stack: Tensor, distance: float) -> list[Group]:
        """The slices of a stack, or its triples: those side by side, and those three apart."""
        if self.slices == 1:
            return [[(image, distance) for image in stack]] if len(stack) else []
        return [[(image, step * distance) for image in found] for step, found in triples(stack).items()]

    def _read(self, items: list[dict[str, Any]]) -> Iterator[tuple[list[tuple[Tensor, float]], list[str]]]:
        loader: Iterable[Any] = torch.utils.data.DataLoader(
            CachedSlices(items, transform=Compose([ReadSlices()]), cache_dir=self.cache_dir),
            batch_size=None,
            num_workers=self.num_workers,
            collate_fn=as_it_is,
        )
        for read in tracked(loader, "reading slices", len(items)):
            if isinstance(read, InputError):
                raise read
            yield read

    def _keep(self, stack: Tensor) -> Tensor:
        """The slices in memory while there is room, else in a file that is read when they are drawn."""
        self._bytes += stack.nbytes
        if self._bytes <= self.cache_gib * 2**30 or not len(stack):
            return stack
        if self._overflow is None:
            self._overflow = tempfile.TemporaryDirectory(prefix="slices-", dir=self.cache_dir)
        file = Path(self._overflow.name) / f"{self._bytes}.pt"
        torch.save(stack, file)
        mapped: Tensor = torch.load(file, mmap=True, weights_only=True)
        return mapped

    def _weighted(
        self, patients: dict[str, list[Group]], phantoms: list[Group], leaves: list[Group]
    ) -> tuple[list[Tensor], Tensor]:
        """All slices with their weights: patients alike, the scans of a patient by their slices, phantoms alike."""
        rest = 1 - self.phantom_fraction - self.leaves_fraction
        groups = [([image for scan in scans for image in scan], rest / len(patients)) for scans in patients.values()]
        groups += [(slices, self.phantom_fraction / len(phantoms)) for slices in phantoms]
        groups += [(slices, self.leaves_fraction / len(leaves)) for slices in leaves]
        weights = torch.cat([torch.full((len(slices),), weight / len(slices)) for slices, weight in groups])
        self._distances = [distance for slices, _ in groups for _, distance in slices]
        return [image for slices, _ in groups for image, _ in slices], weights


def patient(file: Path) -> str:
    """What stands before the last underscore of the file's name, or before the first of ``sub-01_ses-2_T1w`` (BIDS)."""
    name = volume_name(file)
    return name.partition("_")[0] if name.startswith("sub-") else name.rpartition("_")[0] or name
