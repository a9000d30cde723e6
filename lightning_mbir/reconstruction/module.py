"""Reconstruction in Lightning's loops: volumes spread over devices, results on disk and in TensorBoard."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import lightning as L
import numpy as np
import torch
import torch.distributed
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from lightning_mbir.data.measurement import Measurement
from lightning_mbir.data.phase import smooth_phase
from lightning_mbir.data.units import magnitude_percentile
from lightning_mbir.data.volume import MU_WATER, Volume
from lightning_mbir.data.volume_datamodule import VolumeDataModule
from lightning_mbir.errors import InputError
from lightning_mbir.physics import LinearOperator
from lightning_mbir.prior import SliceDenoiser
from lightning_mbir.reconstruction.fbp_unet import read_unet
from lightning_mbir.reconstruction.measured import measured_operator, part_of
from lightning_mbir.reconstruction.methods import METHODS, check_method, check_needs
from lightning_mbir.reconstruction.metrics import PLANES, image_metrics
from lightning_mbir.reconstruction.montage import montage, planes_image
from lightning_mbir.reconstruction.progress import LevelProgress
from lightning_mbir.reconstruction.reconstruct import load_task_prior, reconstruct
from lightning_mbir.reconstruction.tasks import get_task
from lightning_mbir.reconstruction.writer import check_writable, write_results


@dataclass(frozen=True)
class Record:
    """What TensorBoard is told of one volume."""

    index: int
    metrics: dict[str, Any]
    picture: Tensor


class ReconstructionModule(L.LightningModule):
    """Reconstructs each volume of a ``VolumeDataModule``.

    ``predict`` writes results into ``<output_dir>/<task>/<volume>``; ``test`` only scores. There is
    nothing to train and nothing of this goes into a checkpoint, so no checkpoint can overrule a flag.

    Args:
        task: ``sv_ct``, ``la_ct`` or ``cs_mri``.
        method: a name in ``METHODS``.
        views: CT views (default 8; limited angle 90); of a measurement, how many of its views (default all).
        angle_range: degrees that the views are spread over (default 180; limited angle 90).
        acc: MRI acceleration (default 8; a measurement is by default taken whole).
        mask: MRI mask (default gaussian1d).
        phase: MRI: simulate a smooth image phase, that the method is not told (default false).
        photons: CT: photons a ray, for simulated counts and the weights that belong to them (default no noise).
        snr: MRI: signal to noise of simulated k-space in dB (default no noise).
        steps: noise levels or iterations; the method's default otherwise.
        seed: of all noise and the mask.
        prior: bundled name or file; by default the bundled prior of the task's modality, for k-space with a phase
            that of complex slices.
        second_prior: prior of coronal slices, for methods that need one: a name or a file.
        network: file of a trained network, for methods that need one.
        output_dir: where results go.
        slice_batch: slices that pass the network at once; by the free memory, where not given.
        precision: of the network, ``float32`` or ``bfloat16``.
        method_options: options of the method, over the task's and the method's defaults.
    """

    def __init__(
        self,
        task: str = "cs_mri",
        method: str = "dds",
        views: int | None = None,
        angle_range: float | None = None,
        acc: float | None = None,
        mask: str | None = None,
        phase: bool | None = None,
        photons: float | None = None,
        snr: float | None = None,
        steps: int | None = None,
        seed: int = 0,
        prior: str | None = None,
        second_prior: str | None = None,
        network: Path | None = None,
        output_dir: Path = Path("outputs"),
        slice_batch: int | None = None,
        precision: str = "float32",
        method_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.task = get_task(task)
        flags: dict[str, Any] = {"views": views, "angle_range": angle_range, "acc": acc, "mask": mask, "phase": phase}
        flags |= {"photons": photons, "snr": snr}
        self.given = {name: value for name, value in flags.items() if value is not None}
        self.settings = self.task.settings(**flags)
        self.method, self.steps, self.seed = method, steps, seed
        self.method_options = {**self.task.options.get(method, {}), **(method_options or {})}
        check_method(method, self.task.modality, self.method_options, steps)
        if precision not in ("float32", "bfloat16"):
            raise InputError(f"--model.precision {precision}: give float32 or bfloat16")
        check_needs(method, second_prior=second_prior is not None, network=network is not None)
        if network is not None and not network.is_file():
            raise InputError(f"--network {network}: no such file")
        # What it was trained for is looked at as soon as the size of the slices is known.
        self.unet = read_unet(network) if network is not None and "network" in METHODS[method].needs else None
        self.network = network
        self.output_dir = Path(output_dir)
        check_writable(self.output_dir)
        self.has_phase = bool(self.settings.get("phase", False))
        self.prior: SliceDenoiser | None = None
        self._load = partial(load_task_prior, prior, self.task.modality, slice_batch=slice_batch, precision=precision)
        self._prior_given = prior is not None
        if METHODS[method].needs_prior:
            self.prior = self._load(complex=self.has_phase)
            if self.prior.modality not in (None, self.task.modality):
                # Allowed, since out-of-distribution priors are a subject of research, but never unnoticed.
                print(f"note: a prior of {self.prior.modality} for a task of {self.task.modality}")
        self.second_prior: SliceDenoiser | None = None
        if second_prior is not None:
            self.second_prior = load_task_prior(
                second_prior, self.task.modality, self.has_phase, slice_batch=slice_batch, precision=precision
            )
        self.config_yaml: str | None = None
        self.records: list[Record] = []

    def configure_callbacks(self) -> list[L.Callback]:
        """No callbacks, but the first hook that knows the data: ``setup`` comes after the logger's folder.

        Raises:
            InputError: data of another modality, flags that a measurement rules out, more devices than
                volumes, a volume that cannot be used, a mask that cannot be made.
        """
        data, devices = self.data, self.trainer.world_size
        if data is None:
            return []
        if data.modality != self.task.modality:
            raise InputError(
                f"task {self.task.name} is of {self.task.modality} volumes, the data of {data.modality}; "
                f"give VolumeDataModule(modality={self.task.modality!r})"
            )
        volumes = len(data.scans)
        if volumes < devices:
            raise InputError(f"{volumes} volumes for {devices} devices; give --trainer.devices {volumes} or fewer")
        data.check()
        if not data.measured:
            check_needs(self.method, coil_maps=False)
        if data.measured:
            part_of(cast(Measurement, data.scan(0)), self.seed, **self.given)
        if data.measured and self.task.modality == "mri":
            self.has_phase = True
            if self.prior is not None and not self._prior_given:
                self.prior = self._load(complex=True)
        if (self.task.modality == "mri" or self.unet is not None) and data.image_size and not data.measured:
            # The mask may be impossible, or not that of the network.
            operator = self.task.build_operator(data.image_size, seed=self.seed, complex=self.complex, **self.settings)
            if self.unet is not None:
                self.unet.check_geometry(operator)
        return []

    @property
    def complex(self) -> bool:
        """Whether volumes are complex while they are reconstructed: as the prior is; without one, as k-space is."""
        return self.has_phase if self.prior is None else self.prior.complex

    @property
    def data(self) -> VolumeDataModule | None:
        """The trainer's data, where it is ours (and not the user's own)."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        return data if isinstance(data, VolumeDataModule) else None

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Volumes and measurements are frozen dataclasses, which Lightning does not move by itself."""
        if isinstance(batch, Measurement):
            return replace(batch, y=batch.y.to(device))
        return batch.with_data(batch.data.to(device))

    def predict_step(self, batch: Volume | Measurement, batch_idx: int) -> None:
        self._reconstruct(batch, batch_idx, write=True)

    def test_step(self, batch: Volume | Measurement, batch_idx: int) -> None:
        self._reconstruct(batch, batch_idx, write=False)

    def on_predict_epoch_end(self) -> None:
        self._log_gathered()

    def on_test_epoch_end(self) -> None:
        """The table: means over the volumes, each counted once however they were spread over the ranks."""
        scores: dict[str, list[float]] = {}
        for record in self._log_gathered():
            for name, value in _scalars(record.metrics).items():
                scores.setdefault(f"{self.task.name}/{name}", []).append(value)
        self.log_dict({name: sum(values) / len(values) for name, values in scores.items()}, sync_dist=True)

    def _reconstruct(self, scan: Volume | Measurement, batch_idx: int, write: bool) -> None:
        if isinstance(scan, Measurement):
            scan = part_of(scan, self.seed, **self.given)
            print("; ".join((scan.name, *scan.notes)))
        calibrated = not isinstance(scan, Measurement) or scan.calibrated
        operator, y, weights, truth = self._measure(scan)
        if self.prior is not None:
            self.prior.to(self.device)
        if self.second_prior is not None:
            self.second_prior.to(self.device)
        options = dict(self.method_options)
        loop = self.trainer.num_predict_batches if write else self.trainer.num_test_batches
        count = f"volume {batch_idx + 1} of {loop[0]}: " if loop and loop[0] > 1 else ""
        with LevelProgress(f"{count}{scan.name} {self.method}", self.trainer.is_global_zero) as progress:
            result = reconstruct(
                y,
                operator,
                self.prior,
                self.method,
                seed=self.seed,
                volume=scan.name,
                weights=weights if METHODS[self.method].weighted else None,
                second_prior=self.second_prior,
                network=self.network,
                steps=self.steps,
                callback=progress,
                calibrated=calibrated,
                **options,
            )
        image = result.volume.abs() if self.complex else result.volume
        metrics: dict[str, Any] = {
            "task": self.task.name,
            "method": self.method,
            "volume": scan.name,
            "seed": self.seed,
            "settings": {"measured": scan.notes, **self.given} if isinstance(scan, Measurement) else self.settings,
            "seconds": round(result.seconds, 3),
            "nfe": result.nfe,
            "residual": result.residual,
        }
        if operator.acceleration is not None:
            metrics["acceleration"] = round(operator.acceleration, 4)
        scores = None
        if truth is not None:
            metrics["data_range"] = self.task.data_range or magnitude_percentile(truth)
            scores = image_metrics(image, truth, metrics["data_range"])
            metrics.update(scores)
        window = (0.0, 2 * MU_WATER)
        if self.task.modality == "mri" or not calibrated:
            window = (0.0, magnitude_percentile(image if truth is None else truth))
        index = batch_idx * self.trainer.world_size + self.global_rank
        self.records.append(Record(index, metrics, planes_image(image, window)))
        if self.global_rank == 0:
            self._log(self.records[-1])
        if write:
            direct_name = "fbp" if self.task.modality == "ct" else "zero_filled"
            direct = image
            if self.method != direct_name:
                direct = reconstruct(y, operator, method=direct_name).volume
                direct = direct.abs() if self.complex else direct
            volume = Volume(image.cpu(), scan.affine, scan.name, self.task.modality, calibrated)
            titles = ("FBP" if direct_name == "fbp" else "zero-filled", self.method)
            figure = montage(image, direct, truth, volume.spacing, window, titles, scores)
            folder = self.output_dir / self.task.name / scan.name
            write_results(folder, volume, metrics, figure, self.config_yaml)
            print(_summary(metrics, folder), flush=True)

    def _measure(self, scan: Volume | Measurement) -> tuple[LinearOperator, Tensor, Tensor | None, Tensor | None]:
        """The operator, the measurement (simulated from a volume, or given), its weights, and the truth, if any."""
        if isinstance(scan, Measurement):
            return measured_operator(scan, self.complex), scan.y, None, None
        _, dy, dx = scan.spacing
        size, pixel = scan.data.shape[-1], (dy + dx) / 2
        build = partial(self.task.build_operator, size, pixel, seed=self.seed, **self.settings)
        operator = build(complex=self.complex).to(scan.data.device)
        if not self.has_phase:
            return operator, *self._noisy(operator(scan.data), scan.name), scan.data
        phase = smooth_phase(scan.data.shape, np.random.RandomState(self.seed)).to(scan.data)
        y = build(complex=True).to(scan.data.device)(torch.polar(scan.data, phase))
        return operator, *self._noisy(y, scan.name), scan.data

    def _noisy(self, y: Tensor, name: str) -> tuple[Tensor, Tensor | None]:
        return self.task.add_noise(y, (self.seed, name), **self.settings)

    def _log(self, record: Record) -> None:
        if not isinstance(self.logger, TensorBoardLogger):
            return
        board = self.logger.experiment
        for name, value in _scalars(record.metrics).items():
            board.add_scalar(f"{self.task.name}/{name}", value, record.index)
        tag = f"{self.task.name}/{record.metrics['volume']}"
        board.add_image(tag, record.picture, record.index, dataformats="HW")
        board.flush()

    def _log_gathered(self) -> list[Record]:
        """The records of all ranks; the first rank has logged its own, and logs those of the others here.

        ``test`` makes the ranks even by repeating the first volumes; the repeats are left out.
        """
        devices = self.trainer.world_size
        gathered: list[list[Record]] = [[] for _ in range(devices)]
        if devices > 1:
            torch.distributed.all_gather_object(gathered, self.records)
        else:
            gathered = [list(self.records)]
        self.records.clear()
        records = sorted((record for rank in gathered for record in rank), key=lambda record: record.index)
        if self.data is not None:
            records = [record for record in records if record.index < len(self.data.scans)]
        if self.global_rank == 0:
            for record in records:
                if record.index % devices:
                    self._log(record)
        return records


def _scalars(metrics: dict[str, Any]) -> dict[str, float]:
    """The figures of one volume, ``plane/name`` where they are of a plane."""
    names = ("volume_psnr", "nrmse", "residual", "seconds", "nfe")
    scalars = {f"{plane}/{name}": value for plane in PLANES for name, value in metrics.get(plane, {}).items()}
    return {**scalars, **{name: float(metrics[name]) for name in names if name in metrics}}


def _summary(metrics: dict[str, Any], folder: Path) -> str:
    scores = ", ".join(f"{plane} {metrics[plane]['psnr']:.2f}" for plane in PLANES if plane in metrics)
    scores = f"PSNR {scores} dB, " if scores else ""
    if "acceleration" in metrics:
        scores = f"acceleration {metrics['acceleration']:.2f}, {scores}"
    work = f"data residual {metrics['residual']:.2e}, {metrics['seconds']:.0f} s"
    return f"{metrics['volume']}: {scores}{work} -> {folder}"
