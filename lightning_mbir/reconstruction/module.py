"""Reconstruction in Lightning's predict loop: volumes spread over devices, results on the disk and in TensorBoard."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.distributed
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from lightning_mbir.data.measurement import Measurement
from lightning_mbir.data.units import magnitude_percentile
from lightning_mbir.data.volume import Volume
from lightning_mbir.errors import InputError
from lightning_mbir.physics import LinearOperator
from lightning_mbir.prior import SliceDenoiser, load_prior
from lightning_mbir.reconstruction.methods import METHODS, check_method
from lightning_mbir.reconstruction.metrics import PLANES, image_metrics
from lightning_mbir.reconstruction.montage import montage, planes_image
from lightning_mbir.reconstruction.progress import LevelProgress
from lightning_mbir.reconstruction.reconstruct import reconstruct
from lightning_mbir.reconstruction.tasks import get_task, measured_operator
from lightning_mbir.reconstruction.writer import check_writable, write_results


@dataclass(frozen=True)
class Record:
    """What TensorBoard is told of one volume."""

    index: int
    metrics: dict[str, Any]
    picture: Tensor


class ReconstructionModule(L.LightningModule):
    """Reconstructs each volume of a ``VolumeDataModule``.

    ``predict`` writes results into ``<output_dir>/<task>/<volume>``; ``test`` only scores. There is nothing to train
    and nothing of this goes into a checkpoint, so no checkpoint can overrule a flag.

    Args:
        task: ``sv_ct``, ``la_ct`` or ``cs_mri``.
        method: a name in ``METHODS``.
        views: CT views (default 8; limited angle 90).
        angle_range: degrees that the views are spread over (default 180; limited angle 90).
        acc: MRI acceleration (default 8).
        mask: MRI mask (default gaussian1d).
        steps: noise levels or iterations; the method's default otherwise.
        seed: of the noise and the mask.
        prior: bundled name or file; by default the bundled prior of the task's modality.
        output_dir: where results go.
        slice_batch: slices that pass the network at once.
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
        steps: int | None = None,
        seed: int = 0,
        prior: str | None = None,
        output_dir: Path = Path("outputs"),
        slice_batch: int = 16,
        precision: str = "float32",
        method_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.task = get_task(task)
        self.settings = self.task.settings(views=views, angle_range=angle_range, acc=acc, mask=mask)
        self.method, self.steps, self.seed = method, steps, seed
        self.method_options = {**self.task.options.get(method, {}), **(method_options or {})}
        check_method(method, self.task.modality, self.method_options, steps)
        if precision not in ("float32", "bfloat16"):
            raise InputError(f"--model.precision {precision}: give float32 or bfloat16")
        self.output_dir = Path(output_dir)
        check_writable(self.output_dir)
        self.prior: SliceDenoiser | None = None
        if METHODS[method].needs_prior:
            self.prior = load_prior(prior or self.task.modality, slice_batch, precision)
            if self.prior.modality not in (None, self.task.modality):
                # Allowed, since out-of-distribution priors are a subject of research, but never unnoticed.
                print(f"note: the prior was trained on {self.prior.modality}, the task is {self.task.modality}")
        self.config_yaml: str | None = None
        self.records: list[Record] = []

    def setup(self, stage: str) -> None:
        volumes = len(getattr(self.trainer.datamodule, "scans", []))  # type: ignore[attr-defined]
        if 0 < volumes < self.trainer.world_size:
            raise InputError(
                f"{volumes} volumes for {self.trainer.world_size} devices; give --trainer.devices {volumes} or fewer"
            )

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Volumes and measurements are frozen dataclasses, which Lightning does not move by itself."""
        if isinstance(batch, Measurement):
            return replace(batch, y=batch.y.to(device))
        return batch.with_data(batch.data.to(device))

    def predict_step(self, batch: Volume | Measurement, batch_idx: int) -> None:
        self._reconstruct(batch, batch_idx, write=True)

    def test_step(self, batch: Volume | Measurement, batch_idx: int) -> None:
        metrics = self._reconstruct(batch, batch_idx, write=False)
        scores = {"residual": metrics["residual"], "seconds": metrics["seconds"]}
        for plane in PLANES:
            scores.update({f"{plane}/{name}": value for name, value in metrics.get(plane, {}).items()})
        for name in ("volume_psnr", "nrmse"):
            if name in metrics:
                scores[name] = metrics[name]
        self.log_dict({f"{self.task.name}/{k}": v for k, v in scores.items()}, batch_size=1, sync_dist=True)

    def on_predict_epoch_end(self) -> None:
        self._log_gathered()

    def on_test_epoch_end(self) -> None:
        self._log_gathered()

    def _reconstruct(self, scan: Volume | Measurement, batch_idx: int, write: bool) -> dict[str, Any]:
        operator, y, truth = self._measure(scan)
        if self.prior is not None:
            self.prior.to(self.device)
        options = dict(self.method_options)
        with LevelProgress(f"{scan.name} {self.method}", self.trainer.is_global_zero) as progress:
            result = reconstruct(
                y,
                operator,
                self.prior,
                self.method,
                seed=self.seed,
                volume=scan.name,
                steps=self.steps,
                callback=progress,
                **options,
            )
        metrics: dict[str, Any] = {
            "task": self.task.name,
            "method": self.method,
            "volume": scan.name,
            "seed": self.seed,
            "settings": self.settings,
            "seconds": round(result.seconds, 3),
            "nfe": result.nfe,
            "residual": result.residual,
        }
        scores = None
        if truth is not None:
            metrics["data_range"] = self.task.data_range or magnitude_percentile(truth)
            scores = image_metrics(result.volume, truth, metrics["data_range"])
            metrics.update(scores)
        white = self.task.data_range or magnitude_percentile(result.volume if truth is None else truth)
        window = (0.0, white / 1.5 if self.task.modality == "ct" else white)
        record = Record(batch_idx * self.trainer.world_size + self.global_rank, metrics, planes_image(result.volume, window))
        if self.global_rank == 0:
            self._log(record)
        else:
            self.records.append(record)
        if write:
            direct_name = "fbp" if self.task.modality == "ct" else "zero_filled"
            direct = reconstruct(y, operator, method=direct_name).volume
            volume = Volume(result.volume.cpu(), scan.affine, scan.name, self.task.modality)
            titles = ("FBP" if direct_name == "fbp" else "zero-filled", self.method)
            figure = montage(result.volume, direct, truth, volume.spacing, window, titles, scores)
            folder = self.output_dir / self.task.name / scan.name
            write_results(folder, volume, metrics, figure, self.config_yaml)
            print(_summary(metrics, folder), flush=True)
        return metrics

    def _measure(self, scan: Volume | Measurement) -> tuple[LinearOperator, Tensor, Tensor | None]:
        """The operator, the measurement (simulated from a volume, or the given one), and the truth if there is one."""
        if isinstance(scan, Measurement):
            operator = measured_operator(scan).to(scan.y.device)
            return operator, scan.y, None
        _, dy, dx = scan.spacing
        operator = self.task.build_operator(scan.data.shape[-1], (dy + dx) / 2, seed=self.seed, **self.settings)
        operator = operator.to(scan.data.device)
        return operator, operator(scan.data), scan.data

    def _log(self, record: Record) -> None:
        if not isinstance(self.logger, TensorBoardLogger):
            return
        board = self.logger.experiment
        for key, value in record.metrics.items():
            if isinstance(value, dict) and key in PLANES:
                for name, score in value.items():
                    board.add_scalar(f"{self.task.name}/{key}/{name}", score, record.index)
            elif key in ("volume_psnr", "nrmse", "residual", "seconds", "nfe"):
                board.add_scalar(f"{self.task.name}/{key}", value, record.index)
        tag = f"{self.task.name}/{record.metrics['volume']}"
        board.add_image(tag, record.picture, record.index, dataformats="HW")
        board.flush()

    def _log_gathered(self) -> None:
        """The first rank logs its volumes at once, and those of the others here."""
        if self.trainer.world_size == 1:
            return
        gathered: list[list[Record]] = [[] for _ in range(self.trainer.world_size)]
        torch.distributed.all_gather_object(gathered, self.records)
        self.records.clear()
        if self.global_rank == 0:
            for record in sorted((r for rank in gathered for r in rank), key=lambda r: r.index):
                self._log(record)


def _summary(metrics: dict[str, Any], folder: Path) -> str:
    scores = ", ".join(f"{plane} {metrics[plane]['psnr']:.2f}" for plane in PLANES if plane in metrics)
    scores = f"PSNR {scores} dB, " if scores else ""
    return f"{metrics['volume']}: {scores}data residual {metrics['residual']:.2e}, {metrics['seconds']:.0f} s -> {folder}"
