"""Training of the supervised baseline: pairs of direct inversions and truths from volumes, and the Lightning module."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any, Literal, cast, get_args

import lightning as L
import numpy as np
import torch
from monai.transforms import Compose, RandFlip
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_mbir.data import VolumeDataModule
from lightning_mbir.data.phantoms.phase import smooth_phase
from lightning_mbir.data.slices.datamodule import patient
from lightning_mbir.data.slices.sampling import KeyedBatches, KeyedLoader, RandSimilarity, WholeSampler
from lightning_mbir.data.units import CT_SCALE, Modality
from lightning_mbir.data.volumes.listing import list_volumes
from lightning_mbir.data.volumes.volume import Volume
from lightning_mbir.errors import InputError
from lightning_mbir.messages import tracked
from lightning_mbir.methods.fbp_unet import (
    CorrectionUNet,
    as_channels,
    direct_inversion,
    geometry_of,
    with_neighbours,
    write_unet,
)
from lightning_mbir.methods.tasks import get_task
from lightning_mbir.methods.units import mri_scale
from lightning_mbir.prior.checkpoints.weights import read_torch
from lightning_mbir.prior.networks.running import channels_last
from lightning_mbir.prior.training.shared import (
    diverged,
    log_settings,
    set_rates,
    told,
    validate_last_step,
    warmup_cosine,
)
from lightning_mbir.prior.training.watch import key

log = logging.getLogger(__name__)

Loss = Literal["l1", "l2"]
SLICES = 48
"""At most of one variant of a volume; its neighbours look much the same."""


class FBPUNetModule(L.LightningModule):
    """Learns to correct the direct inversion of one task's measurement (Jin et al., IEEE TIP 26(9), 2017).

    Slices are in the prior's unit; that of MRI volumes is estimated from each measurement, as ``reconstruct`` does.
    At the end ``unet.safetensors`` with the weights of the best checkpoint goes into the trainer's root folder.

    Args:
        task: ``sv_ct``, ``la_ct`` or ``cs_mri``.
        views, angle_range, acc, mask, phase, coils, photons, snr: of the task, by default its own, as in
            ``ReconstructionModule``.
        network_options: of ``LightUNet``; ``{slices: 3}`` looks at the neighbours of each slice too.
        loss: ``l2`` or ``l1``.
        learning_rate: of Adam, after ``warmup_steps`` linear steps, then along a cosine to 0.
        seed: of the mask, as in ``ReconstructionModule``; and of the weights, the order and the variation of slices.

    Raises:
        InputError: a flag of another task, values out of range.
    """

    def __init__(
        self,
        task: str = "sv_ct",
        views: int | None = None,
        angle_range: float | None = None,
        acc: float | None = None,
        mask: str | None = None,
        phase: bool | None = None,
        coils: int | None = None,
        photons: float | None = None,
        snr: float | None = None,
        network_options: dict[str, Any] | None = None,
        loss: Loss = "l2",
        learning_rate: float = 1e-3,
        warmup_steps: int = 100,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not learning_rate > 0:
            raise InputError(f"--model.learning_rate {learning_rate}: give a positive number")
        if loss not in get_args(Loss):
            raise InputError(f"--model.loss {loss}: give l1 or l2")
        self.save_hyperparameters(logger=False)
        self.task = get_task(task)
        flags: dict[str, Any] = {"views": views, "angle_range": angle_range, "acc": acc, "mask": mask, "phase": phase}
        self.settings = self.task.settings(**flags, coils=coils, photons=photons, snr=snr)
        self.has_phase = bool(self.settings.get("phase", False))
        self.network_options = {"in_channels": 2 if self.has_phase else 1, **(network_options or {})}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                self.network = CorrectionUNet(**self.network_options)
            except TypeError as error:
                raise InputError(f"--model.network_options: the network does not take these ({error})") from error
        channels_last(self.network)
        self.error = torch.nn.functional.l1_loss if loss == "l1" else torch.nn.functional.mse_loss
        self.learning_rate, self.warmup_steps, self.seed = learning_rate, warmup_steps, seed
        self.batches_seen = 0
        """Batches of this rank since the training began; key of the slices that are drawn."""

    def configure_callbacks(self) -> list[L.Callback]:
        """No callbacks, but the first hook that knows the data.

        Raises:
            InputError: an image size that the network or the mask does not go with.
        """
        size = int(self.trainer.datamodule.image_size)  # type: ignore[attr-defined]
        if size % self.network.stride:
            raise InputError(f"--data.image_size {size}: the network takes multiples of {self.network.stride} pixels")
        self._operator(size)
        return []

    @torch.no_grad()
    def pairs(self, volume: Volume, variant: int = 0) -> Tensor:
        """Direct inversions and truths ``(Z, 2, C, Y, X)`` in half precision, of the measurement of a volume.

        Of a network of three slices they are ``(Z, 2, 3 C, Y, X)``, each between its neighbours.

        Variant 0 is the volume as it is. The others are mirrored, turned, zoomed and shifted before they are measured,
        so that streaks stay where the geometry puts them. Each has at most ``SLICES`` slices, evenly spread or, for
        three at once, side by side; another variant starts at another slice.
        """
        place = key(self.seed, *volume.name.encode(), variant)
        step = math.ceil(len(volume.data) / SLICES)
        data = volume.data[variant % step :: step]
        if self.network.slices > 1:
            first = variant % step * SLICES
            data = volume.data[max(0, min(first, len(volume.data) - SLICES)) :][:SLICES]
        if variant:
            vary = _variation()  # slices as channels: one variation for all
            vary.set_random_state(seed=place % 2**31)
            data = torch.as_tensor(vary(data)).as_subclass(torch.Tensor).clamp_min(0)
        operator = self._operator(data.shape[-1], (volume.spacing[1] + volume.spacing[2]) / 2)
        truth = data
        if self.has_phase:
            truth = torch.polar(data, smooth_phase(data.shape, np.random.RandomState(place % 2**31)))
        y, _ = self.task.add_noise(operator(truth), ("training", place), **self.settings)
        scale = mri_scale(y, operator) if self.task.modality == "mri" else CT_SCALE
        pair, every = (as_channels(x / scale) for x in (direct_inversion(y, operator), truth)), torch.arange(len(data))
        return torch.stack([with_neighbours(x, every, self.network.slices) for x in pair], 1).half()

    def corrected(self, batch: Tensor | list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Of a batch what the network makes of it, the truth, and the direct inversion, ``(B, C, Y, X)`` each."""
        pair, distance = told(batch)
        direct, truth = pair.unbind(1)
        middle = [x.chunk(self.network.slices, 1)[self.network.slices // 2] for x in (truth, direct)]
        return self.network(direct, distance).float(), middle[0], middle[1]

    def training_step(self, batch: Tensor | list[Tensor], batch_idx: int) -> Tensor:
        found, truth, _ = self.corrected(batch)
        loss = self.error(found, truth)
        self.log("train/loss", loss.detach(), prog_bar=True)
        self.log("train/learning_rate", self.optimizers().param_groups[0]["lr"])  # type: ignore[union-attr]
        return loss

    def on_after_backward(self) -> None:
        self.batches_seen += 1

    def on_train_batch_end(self, outputs: Any, batch: Tensor | list[Tensor], batch_idx: int) -> None:
        validate_last_step(self.trainer)

    def validation_step(self, batch: Tensor | list[Tensor], batch_idx: int) -> None:
        found, truth, direct = self.corrected(batch)
        self.log("val/loss", self.error(found, truth), prog_bar=True, sync_dist=True, batch_size=len(truth))
        for name, x in (("network", found), ("direct", direct)):
            mse = (x - truth).square().mean((1, 2, 3)) * truth.shape[1]  # |complex|^2 has both parts
            self.log(f"val/psnr_{name}", -10 * mse.log10().mean(), sync_dist=True, batch_size=len(truth))

    def on_validation_epoch_end(self) -> None:
        if not bool(torch.isfinite(self.trainer.callback_metrics["val/loss"])):
            raise diverged(self.global_step, "the held-out loss", self.learning_rate)  # before a checkpoint is replaced

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.network.parameters(), self.learning_rate)
        factor = warmup_cosine(self.warmup_steps, float(self.trainer.estimated_stepping_batches))
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["training"] = {"batches_seen": self.batches_seen, **self._measurement}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the same measurement only."""
        state = checkpoint.get("training", {})
        measurement = {name: state.get(name) for name in self._measurement}
        if measurement != self._measurement:
            raise InputError(f"--ckpt_path: a training for {measurement}, not for {self._measurement}")
        self.batches_seen = state["batches_seen"]

    def on_fit_start(self) -> None:
        log_settings(self, ["val/loss", "val/psnr_network", "val/psnr_direct"], ["task", "views", "acc", "loss"])

    def on_train_start(self) -> None:
        set_rates(self, [self.learning_rate])

    def on_fit_end(self) -> None:
        """Write the network of the best checkpoint (the last weights where there is none)."""
        if not self.trainer.is_global_zero or self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        network = CorrectionUNet(**self.network_options)
        weights, origin = self.network.state_dict(), f"step {self.trainer.global_step}"
        best = getattr(self.trainer.checkpoint_callback, "best_model_path", "")
        if best and Path(best).is_file():
            state = read_torch(Path(best))["state_dict"]
            weights = {name.removeprefix("network."): tensor for name, tensor in state.items()}
            origin = f"{Path(best).stem.replace('=', ' ')}, the best by held-out loss"
        network.load_state_dict(weights)
        size = self.trainer.datamodule.image_size  # type: ignore[attr-defined]
        config = {
            **self._measurement,
            "geometry": geometry_of(self._operator(size)),
            "network_options": self.network_options,
            "unit": "0.0384 1/mm" if self.task.modality == "ct" else "99.5th percentile, estimated by mri_scale",
        }
        path = Path(self.trainer.default_root_dir) / "unet.safetensors"
        write_unet(path, network, config)
        print(f"network ({origin}) -> {path}", flush=True)

    @property
    def _measurement(self) -> dict[str, Any]:
        return {"task": self.task.name, "settings": self.settings, "seed": self.seed}

    def _operator(self, size: int, pixel: float = 1.0) -> Any:
        return self.task.build_operator(size, pixel, seed=self.seed, complex=self.has_phase, **self.settings)


class PairDataModule(L.LightningDataModule):
    """Pairs ``(2, C, Y, X)`` of axial slices, direct inversion and truth, from the volumes of a folder; of a network of
    three slices ``(2, 3 C, Y, X)`` and the distance of the slices in mm.

    All pairs are made once, by the module's ``pairs``, and kept in memory: 64 KiB each at 128 pixels, at most 48 of
    each variant of a volume. Every patient is drawn equally often; slices of air are left out. MRI pairs are scaled by
    up to a fifth, both alike, since their unit is never exact.

    Args:
        path: a folder of volumes (NIfTI, DICOM series) of two patients or more.
        modality: ``ct`` or ``mri``; follows from the task on the command line.
        image_size: as in ``VolumeDataModule``; what is reconstructed later must have the same.
        batch_size: slices a step and device.
        held_out: patient kept for validation; by default the last by name.
        variants: of each volume: itself, and others that are mirrored, turned, zoomed and shifted.
        slices_per_epoch: slices between validations, by all devices together.
        num_workers: worker processes that hand out pairs.

    Raises:
        InputError: no volumes at ``path``, one patient only, no such patient, values out of range.
    """

    def __init__(
        self,
        path: Path | None = None,
        modality: Modality = "ct",
        image_size: int = 128,
        batch_size: int = 8,
        held_out: str | None = None,
        variants: int = 32,
        slices_per_epoch: int = 1600,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        for flag, value in {"batch_size": batch_size, "variants": variants, "image_size": image_size}.items():
            if value < 1:
                raise InputError(f"--data.{flag} {value}: give a whole number of at least 1")
        if path is None:
            raise InputError("--data.path: give a folder of volumes to learn from")
        patients = sorted({patient(file) for file in list_volumes(path)})
        if len(patients) < 2:
            raise InputError(
                f"--data.path {path}: one patient only ({patients[0]}); one more is held out for validation"
            )
        if held_out is not None and held_out not in patients:
            raise InputError(f"--data.held_out {held_out}: no such patient; there are {', '.join(patients)}")
        self.volumes = VolumeDataModule(path, modality=modality, image_size=image_size)
        self.held_out = held_out or patients[-1]
        self.modality, self.image_size, self.batch_size = modality, image_size, batch_size
        self.variants, self.slices_per_epoch, self.num_workers = variants, slices_per_epoch, num_workers
        self._train: dict[str, list[tuple[Tensor, float]]] = {}
        self._validation: list[tuple[Tensor, float]] = []

    @property
    def _module(self) -> FBPUNetModule:
        assert self.trainer is not None
        return cast(FBPUNetModule, self.trainer.lightning_module)

    def setup(self, stage: str) -> None:
        """Read and measure all volumes once."""
        if self._train:
            return
        scans, first = self.volumes.scans, self._module.global_rank == 0
        if first and self.volumes.passed_over:
            log.warning("%s", self.volumes.passed_over)
        for i in tracked(range(len(scans)), "measuring volumes"):
            volume, name = cast(Volume, self.volumes.scan(i)), patient(cast(Path, scans[i]))
            if first and volume.notes:
                log.info("%s: %s", volume.name, "; ".join(volume.notes))
            for variant in range(1 if name == self.held_out else self.variants):
                pairs = self._module.pairs(volume, variant)
                kept = [(pair, volume.spacing[0]) for pair in pairs[_has_signal(pairs[:, 1])]]
                (self._validation if name == self.held_out else self._train.setdefault(name, [])).extend(kept)
        self._train = {name: slices for name, slices in self._train.items() if slices}
        if not self._train or not self._validation:
            raise InputError(f"--data.path {self.volumes.scans[0]} and others: no slice with signal to learn from")

    def train_dataloader(self) -> DataLoader[Tensor]:
        module = self._module
        slices = [pair for group in self._train.values() for pair in group]
        weights = torch.cat([torch.full((len(group),), 1 / len(group)) for group in self._train.values()])
        rank, world = module.global_rank, module.trainer.world_size
        length = max(1, self.slices_per_epoch // world // self.batch_size)
        groups = [(torch.arange(len(slices)), self.batch_size)]
        batches = KeyedBatches(weights, groups, length, module.seed, rank, world, lambda: module.batches_seen)
        pairs = Pairs(slices, 0.2 if self.modality == "mri" else 0.0, module.network.slices > 1)
        return cast("DataLoader[Tensor]", KeyedLoader(pairs, batches, self.num_workers))

    def val_dataloader(self) -> DataLoader[Tensor]:
        """Slices of the held-out patient, the same ones each time."""
        sampler = WholeSampler(len(self._validation), self._module.global_rank, self._module.trainer.world_size)
        pairs = Pairs(self._validation, with_distance=self._module.network.slices > 1)
        return DataLoader(pairs, batch_size=self.batch_size, sampler=sampler)


class Pairs(Dataset[Any]):
    """Pairs in single precision; with a seed beside the index, scaled at random by up to ``intensity``. Of a network of
    three slices the distance of these comes ``with`` each."""

    def __init__(self, pairs: list[tuple[Tensor, float]], intensity: float = 0.0, with_distance: bool = False) -> None:
        self.pairs, self.intensity, self.with_distance = pairs, intensity, with_distance

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int | tuple[int, int]) -> Any:
        place, seed = index if isinstance(index, tuple) else (index, None)
        pair, distance = self.pairs[place]
        pair = pair.float()
        if seed is not None and self.intensity > 0:  # measurement and inversion are linear, so both scale alike
            pair = pair * float(np.random.default_rng(seed).uniform(1 - self.intensity, 1 + self.intensity))
        return (pair, torch.tensor(distance, dtype=torch.float32)) if self.with_distance else pair


def _variation() -> Compose:
    """Left for right, up to 9 degrees, objects of 0.55 to 1.25 times the size, shifts by up to 8 %.

    Wider than for priors: whoever measures a body in another field of view sees streaks of another width in it.
    """
    return Compose([RandFlip(prob=0.5, spatial_axis=1), RandSimilarity(0.15, (0.55, 1.25), 0.08)])


def _has_signal(truth: Tensor, level: float = 0.1, share: float = 0.05) -> Tensor:
    """Which slices ``(Z, C, Y, X)`` have at least ``share`` of their pixels above ``level``."""
    magnitude = torch.linalg.vector_norm(truth.float(), dim=1)
    return (magnitude > level).float().mean((-2, -1)) >= share
