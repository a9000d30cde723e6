"""Reconstruction in Lightning's loops: volumes spread over devices, results on disk and in TensorBoard."""

from __future__ import annotations

import logging
import math
from functools import partial
from pathlib import Path
from typing import Any, cast

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn

from lightning_mbir.data.measurements.measurement import Measurement
from lightning_mbir.data.volumes.batches import volume_of_batch
from lightning_mbir.data.volumes.datamodule import VolumeDataModule
from lightning_mbir.data.volumes.dicom_writing import check_dicom
from lightning_mbir.data.volumes.volume import Volume
from lightning_mbir.errors import InputError, whole_number
from lightning_mbir.files import check_free, check_writable, settle_folders
from lightning_mbir.flags import FORMATS, SPLITS
from lightning_mbir.kinds import check_kinds
from lightning_mbir.methods.candidates import GENERIC, Budget
from lightning_mbir.methods.fbp_unet import read_unet
from lightning_mbir.methods.limits import plain
from lightning_mbir.methods.plans import Setting, Wanted, check_files
from lightning_mbir.methods.priors import check_pair, load_task_prior
from lightning_mbir.methods.tasks import get_task
from lightning_mbir.prior.networks.precision import PRECISIONS
from lightning_mbir.reconstruction.comparison import COMPARISON, compare_volume
from lightning_mbir.reconstruction.job import MINUTES, Job, assumed
from lightning_mbir.reconstruction.logged import VolumeBoard, mean_scalars
from lightning_mbir.reconstruction.measured import part_of
from lightning_mbir.reconstruction.prediction import predict_volume
from lightning_mbir.reconstruction.record import VolumeRecord, record_of, summary
from lightning_mbir.reconstruction.runner import Runner
from lightning_mbir.reconstruction.scoring import SCORES, gathered_rows, score_volume
from lightning_mbir.reconstruction.split import Sharing, check_split, processes_a_volume, share
from lightning_mbir.reconstruction.spread import check_off_by
from lightning_mbir.reconstruction.writer import STATES
from lightning_mbir.report.lpips import check_lpips
from lightning_mbir.report.tables import Row, write_tables
from lightning_mbir.slabs import WHOLE, Slab

log = logging.getLogger(__name__)


class ReconstructionModule(L.LightningModule):
    """Reconstructs each volume of a ``VolumeDataModule``, or of a loader with batches ``{"image": MetaTensor}``, as
    MONAI's are, of one volume each.

    ``predict`` writes results into ``<output_dir>/<task>/<volume>``, leaves those that are finished with the same
    settings as they are, and gives a ``VolumeRecord`` of each. ``test`` scores one method, into
    ``<output_dir>/<task>/scores``, or compares several and writes tables and figures into
    ``<output_dir>/<task>/comparison``. There is nothing to train and nothing of this goes into a checkpoint, so no
    checkpoint can overrule a flag.

    Args:
        task: ``sv_ct``, ``la_ct`` or ``cs_mri``.
        method: a name in ``METHODS``, a class path (``package.module.name``), or ``auto``: what predicts best what is
            held out of the measurement. By default ``dds`` for what is simulated, ``auto`` for what was measured.
        views: CT views (default 8; limited angle 90); of a measurement, how many of its views (default all).
        angle_range: degrees that the views are spread over (default 180; limited angle 90).
        acc: MRI acceleration (default 8; a measurement is by default taken whole).
        mask: MRI mask (default gaussian1d).
        phase: MRI: simulate a smooth image phase, that the method is not told (default false).
        coils: MRI: receive coils around the head, whose maps are known (default one that sees all alike).
        photons: CT: photons a ray, for simulated counts and the weights that belong to them (default no noise).
        snr: MRI: signal to noise of simulated k-space in dB (default no noise).
        steps: noise levels or iterations; the method's default otherwise.
        seed: of all noise and the mask.
        prior: bundled name or file; by default the bundled prior of the task's modality, for k-space with a phase
            that of complex slices.
        second_prior: prior of coronal slices, for methods that need one: a name (``ct_coronal``) or a file.
        network: file of a trained network, for methods that need one.
        output_dir: where results go.
        slice_batch: slices that pass the network at once, at most; by the machine's memory, where not given.
        precision: of the prior, ``float32``, ``bfloat16``, or ``auto``: bfloat16 where the device has it in hardware,
            else float32. Where it has it not, ``bfloat16`` becomes float32 too, which is told.
        compile: run the prior's network through ``torch.compile``, where that works.
        method_options: options of the method, over the task's and the method's defaults; with ``methods``, keyed by
            method, and with ``steps`` in there.
        methods: several methods for ``test`` to compare, as a list or with commas, instead of ``method``.
        samples: of the posterior, of methods with randomness; the result is their mean, with a standard deviation.
        off_by: with ``samples``, ``predict`` maps how likely a voxel is off by more: HU, of MRI a share of the peak.
        lpips: also score by LPIPS, which needs torchvision and its weights.
        operator: class path of an operator of your own (``package.module.name``), which simulates the measurement
            instead of the task's; ``operator_options`` are its further arguments. The task still says the modality.
        prior_network: class path of the network of ``prior`` and ``second_prior``, where it is another package's.
        overwrite: do again what is finished in ``output_dir`` with the same settings: volumes of ``predict``, rows of
            a comparison.
        tune: whether options of the method are searched by the measurement itself; ``auto`` does, unless it is false.
        tune_evaluations: settings that are tried at most (default 30); ``tune_minutes`` bounds the time.
        write: ``nifti``, or ``dicom``: with DICOM data, a derived series beside it; ``report``: a page of each result.
        split: what devices share in ``predict``: ``volumes``, ``slices`` of each volume, or ``auto``: slices where
            volumes are fewer than devices.
        checkpoint_minutes: between two states of a volume that are kept, from which the same command goes on; 0: none.
        keep_volumes: in Python, whether the records of ``predict`` have the volumes too.
        host_slices: slices that pass through the device at a time, of volumes that stay in host memory, which those do
            that have no room on the device; 0: none does, and any other number: all do.

    Attributes:
        failures: after a comparison, what failed and why; the other rows are written.
    """

    def __init__(
        self,
        task: str = "cs_mri",
        method: str | None = None,
        views: int | None = None,
        angle_range: float | None = None,
        acc: float | None = None,
        mask: str | None = None,
        phase: bool | None = None,
        coils: int | None = None,
        photons: float | None = None,
        snr: float | None = None,
        steps: int | None = None,
        seed: int = 0,
        prior: str | None = None,
        second_prior: str | None = None,
        network: Path | None = None,
        output_dir: Path = Path("outputs"),
        slice_batch: int | None = None,
        precision: str = "auto",
        compile: bool = False,
        method_options: dict[str, Any] | None = None,
        methods: list[str] | str | None = None,
        samples: int = 1,
        off_by: float | None = None,
        lpips: bool = False,
        operator: str | None = None,
        operator_options: dict[str, Any] | None = None,
        prior_network: str | None = None,
        overwrite: bool = False,
        tune: bool | None = None,
        tune_evaluations: int | None = None,
        tune_minutes: float | None = None,
        write: str = "nifti",
        report: bool = True,
        split: str = "auto",
        checkpoint_minutes: float = MINUTES,
        keep_volumes: bool = False,
        host_slices: int | None = None,
    ) -> None:
        super().__init__()
        given = {"method_options": method_options, "checkpoint_minutes": checkpoint_minutes}
        check_kinds(ReconstructionModule.__init__, given)
        self.task = get_task(task, operator, operator_options)
        flags: dict[str, Any] = {"views": views, "angle_range": angle_range, "acc": acc, "mask": mask, "phase": phase}
        flags = plain(flags | {"coils": coils, "photons": photons, "snr": snr})
        seed, samples = whole_number("--seed", seed), whole_number("--samples", samples)
        steps = None if steps is None else whole_number("--steps", steps)
        given = {name: value for name, value in flags.items() if value is not None}
        settings = self.task.settings(**flags)
        self.compares = methods is not None
        if self.compares and method is not None:
            raise InputError(f"--method {method} and --methods: give one of them")
        budget = Budget.of(tune_evaluations, tune_minutes)
        self._wanted = Wanted(self.task, method, plain(method_options or {}), steps, samples, methods, tune, budget)
        has_phase = bool(settings.get("phase", False))
        noisy, generic = "photons" in settings or "snr" in settings, not has_phase and prior != GENERIC
        self.plans = self._wanted.plans(Setting(noisy, generic=generic, views=settings.get("views")))
        if precision not in PRECISIONS:
            raise InputError(f"--model.precision {precision}: give one of {', '.join(PRECISIONS)}")
        check_files(self.plans, second_prior, network)
        # What it was trained for is looked at as soon as the size of the slices is known.
        self.unet = read_unet(network) if network is not None else None
        check_off_by(off_by, self.task.modality, samples)
        if write not in FORMATS:
            raise InputError(f"--model.write {write}: give {' or '.join(FORMATS)}")
        if split not in SPLITS:
            raise InputError(f"--split {split}: give {', '.join(SPLITS)}")
        if not 0 <= checkpoint_minutes < float("inf"):
            raise InputError(f"--checkpoint_minutes {checkpoint_minutes:g}: give a number of at least 0")
        self.split, self.sharing, self.off_by, self.keep_volumes = split, Sharing(), off_by, keep_volumes
        self.checkpoint_minutes = checkpoint_minutes
        self.output_dir, self.overwrite, self.write, self.report = Path(output_dir), overwrite, write, report
        check_writable(self.output_dir)
        if lpips:
            check_lpips()
        self.runner = Runner(
            self.task, settings, given, seed, has_phase, (prior, second_prior),
            network=network, lpips=lpips, host_slices=host_slices,
        )  # fmt: skip
        self._load = partial(
            load_task_prior,
            modality=self.task.modality,
            slice_batch=slice_batch,
            precision=precision,
            compile=compile,
            network=prior_network,
        )
        if any(plan.chosen.needs_prior for plan in self.plans):
            self.runner.prior = own = self._load(prior, complex=self.runner.has_phase)
            if own.complex and generic:  # of volumes that `generic` does not know
                self.plans = self._wanted.plans(Setting(noisy, views=settings.get("views")))
            for plan in self.plans:
                plan.chosen.check_needs(gradients=hasattr(own, "vjp"))
            if own.modality not in (None, self.task.modality):
                # Allowed, since out-of-distribution priors are a subject of research, but never unnoticed.
                log.warning("--prior %s: of %s, for a task of %s", prior, own.modality, self.task.modality)
        if second_prior is not None:
            try:
                self.runner.second_prior = self._load(second_prior, complex=self.runner.has_phase)
            except InputError as error:
                raise InputError(str(error).replace("--prior", "--second_prior")) from error
        self.config_yaml: str | None = None
        self.board = VolumeBoard()
        self.rows: list[tuple[int, Row]] = []
        self._named: dict[str, int] = {}
        self.failures: list[str] = []

    def configure_callbacks(self) -> list[L.Callback]:
        """No callbacks, but the first hook that knows the data: ``setup`` comes after the logger's folder.

        Raises:
            InputError: data of another modality, flags that a measurement rules out, more devices than
                volumes, a volume that cannot be used, a mask that cannot be made, methods to compare without a truth.
        """
        data, devices = self.data, self.trainer.world_size
        if self.compares and self.trainer.state.fn != TrainerFn.TESTING:
            raise InputError("--methods: compared by `test`; `predict` takes one --method")
        given = {"write": self.write == "dicom", "split": self.split == "slices", "off_by": self.off_by is not None}
        given["checkpoint_minutes"] = self.checkpoint_minutes != MINUTES
        for flag in given:
            if given[flag] and self.trainer.state.fn != TrainerFn.PREDICTING:
                raise InputError(f"--{flag} {getattr(self, flag)}: of use to `predict` alone; leave it out")
        if (precision := self.trainer.precision) != "32-true":
            raise InputError(f"--trainer.precision {precision}: of trainings; --model.precision is the prior's")
        if data is not None:
            self._check_data(data, devices)
        elif self.write == "dicom" or self.split == "slices":
            raise InputError("--write dicom, --split slices: of a VolumeDataModule; leave them out with another loader")
        if self._wanted.budget is not None and all(plan.choice is None for plan in self.plans):
            raise InputError("--tune_evaluations, --tune_minutes: of a search; add --tune true, or leave them out")
        for plan in self.plans:
            for name in () if plan.choice is None else plan.choice.priors:
                self.runner.others[name] = self._load(name)
        if (told := self.runner.settle_device(self.trainer.strategy.root_device)) and self.trainer.is_global_zero:
            log.info("%s", told)
        if self.trainer.is_global_zero and self.trainer.state.fn == TrainerFn.PREDICTING:
            settle_folders(self._results, *STATES)
            for name in [] if data is None else map(data.filed_as, range(len(data.scans))):
                check_free(self._results / name)
        return []

    def setup(self, stage: str) -> None:
        """Bring the processes together that share volumes."""
        self.board = VolumeBoard(self.loggers, self.task.name, stage, self.global_rank, self.trainer.world_size)
        self._named.clear()
        self.sharing = Sharing(self.sharing.each, self.trainer.world_size, self.global_rank)
        if stage != "predict" or self.data is None or self.trainer.world_size == 1:
            return
        self.sharing = share(self.sharing.each, [self.data.filed_as(k) for k in range(len(self.data.scans))])
        if self.sharing.each > 1:
            self.data.groups = self.sharing.groups, self.sharing.number

    def _check_data(self, data: VolumeDataModule, devices: int) -> None:
        """Raise where these volumes or this measurement cannot be reconstructed as the flags say."""
        if data.modality != self.task.modality:
            raise InputError(
                f"task {self.task.name} is of {self.task.modality} volumes, the data of {data.modality}; "
                f"give VolumeDataModule(modality={self.task.modality!r})"
            )
        volumes, each = len(data.scans), 1
        if self.trainer.state.fn == TrainerFn.PREDICTING:
            each = processes_a_volume(self.split, volumes, devices)
        if volumes < devices and each == 1:
            raise InputError(f"{volumes} volumes for {devices} devices; give --trainer.devices {volumes} or fewer")
        if self.write == "dicom":
            check_dicom(data.scans, data.measured)
        data.check()
        if data.measured and self.compares:
            raise InputError("--methods: a measurement has no ground truth to score against; give --data.path")
        if data.measured and self.task.operator is not None:
            raise InputError(f"--operator {self.task.operator.path}: simulates; a measurement has its own geometry")
        runner = self.runner
        coil_maps = "coils" in runner.settings
        if data.measured:
            measurement = part_of(cast(Measurement, data.scan(0)), runner.seed, **runner.given)
            if self.off_by is not None and self.task.modality == "ct" and not measurement.calibrated:
                raise InputError(f"--off_by {self.off_by:g}: in HU, which lengths that are not in mm do not give")
            coil_maps = measurement.modality == "mri" and measurement.y.ndim == 4
            generic = self.task.modality == "ct" and runner.sources[0] != GENERIC
            self.plans = self._wanted.plans(Setting(True, True, generic, measurement.views))
        for plan in self.plans:
            plan.chosen.check_needs(coil_maps=coil_maps)
        if data.measured and self.task.modality == "mri":
            runner.has_phase = True
            if runner.prior is not None and runner.sources[0] is None:
                runner.prior = self._load(None, complex=True)
        if runner.prior is not None and runner.second_prior is not None:
            check_pair(runner.prior, runner.second_prior)
        if not data.measured:
            self.task.check_simulated(runner.settings)
        if each > 1:
            check_split(each, data.depths, data.scan(0) if data.measured else None, self.plans, runner.second_prior)
        self.sharing = Sharing(each)
        runner.check_operators(data.sizes, self.unet, splits=each > 1)

    @property
    def data(self) -> VolumeDataModule | None:
        """The trainer's data, where it is ours (and not the user's own)."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        return data if isinstance(data, VolumeDataModule) else None

    def predict_step(self, batch: Any, batch_idx: int) -> VolumeRecord | None:
        if isinstance(batch, int):  # the number of a volume of which only some slices are for this process
            slab, scan, volume = self._part(batch)
        else:
            slab, scan, volume = WHOLE, self._scan(batch, batch_idx), None
        source = None if self.data is None else self.data.scans[self._index(batch_idx)]
        job = Job(
            self.runner, scan, self.plans[0], self._results / scan.name,
            title=self._title(scan.name, batch_idx, self.trainer.num_predict_batches),
            config=self.config_yaml,
            source=source if isinstance(source, Path) and source.is_file() else None,
            overwrite=self.overwrite,
            write=self.write,
            off_by=self.off_by,
            report=self.report, minutes=self.checkpoint_minutes,
            slab=slab, volume=volume,
            course=self.board.course(),
        )  # fmt: skip
        metrics, new = predict_volume(job)
        if new:
            print(summary(metrics, job.folder), flush=True)
        if not slab.first:
            return None
        self.board.add(self._index(batch_idx), metrics, job.course)
        return record_of(job.folder, self.keep_volumes, self.task.modality, (*scan.notes, *assumed(scan)))

    def _scan(self, batch: Any, batch_idx: int) -> Volume | Measurement:
        """What is reconstructed: a batch of ours, or one of another loader turned to that."""
        if isinstance(batch, Volume | Measurement):
            return batch
        scan = volume_of_batch(batch, self.task.modality)
        if self._named.setdefault(scan.name, batch_idx) != batch_idx:
            raise InputError(f"{scan.name}: two volumes of the loader are called so, which results are filed under")
        self.runner.check_sized(scan)
        return scan

    def _part(self, number: int) -> tuple[Slab, Volume | Measurement, dict[str, Any]]:
        """What this process has of a volume that it shares; the rest is read, and let go."""
        scan = cast(VolumeDataModule, self.data).taken(number)
        slab = self.sharing.slab(scan)
        return slab, *self.runner.part(scan, slab)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        index = self._index(batch_idx)
        if index >= self._volumes:  # further ones are repeated to make the ranks even
            return
        scan = self._scan(batch, batch_idx)
        title = self._title(scan.name, batch_idx, self.trainer.num_test_batches)
        if self.compares:
            given = self.runner, cast(Volume, scan), self.plans, self._results / COMPARISON, title
            rows = compare_volume(*given, overwrite=self.overwrite, report=self.report, config=self.config_yaml)
            self.rows += [(index, row) for row in rows]
            return
        course = self.board.course()
        self.rows.append((index, score_volume(self.runner, scan, self.plans[0], title, course)))
        self.board.add(index, self.rows[-1][1], course)

    def on_predict_epoch_end(self) -> None:
        self.board.write_gathered()

    def on_test_epoch_end(self) -> None:
        """The tables: means over the volumes, each counted once however they were spread over the ranks."""
        self.board.write_gathered()
        rows = gathered_rows(self.rows, self.trainer.world_size)
        self.rows.clear()
        self.failures = [f"{r['method']} on {r['volume']['name']}: {r['error']}" for r in rows if "error" in r]
        if self.global_rank == 0 and rows:
            folder = self._results / (COMPARISON if self.compares else f"{SCORES}/{self.plans[0].name}")
            self.board.tell_table(rows, write_tables(folder, rows), folder, self.compares)
        for method, means in mean_scalars(rows).items():
            prefix = f"{self.task.name}/{method}" if self.compares else self.task.name
            named = {f"{prefix}/{name}": value for name, value in means.items()}
            self.log_dict(named, sync_dist=True)

    @property
    def _results(self) -> Path:
        return self.output_dir / self.task.name

    def _title(self, name: str, batch_idx: int, loop: Any) -> str:
        """What stands before a progress bar."""
        self.runner.shown = self.trainer.is_global_zero
        count = f"volume {batch_idx + 1} of {loop[0]}: " if loop and loop[0] > 1 else ""
        return f"{count}{name}"

    def _index(self, batch_idx: int) -> int:
        """The number of a volume among all."""
        return batch_idx * self.sharing.groups + self.sharing.number

    @property
    def _volumes(self) -> float:
        """How many there are to score; further ones are repeats."""
        loader = self.trainer.test_dataloaders
        return len(self.data.scans) if self.data is not None else len(getattr(loader, "dataset", ())) or math.inf
