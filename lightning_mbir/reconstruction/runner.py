"""Runs planned methods on a measurement and tells what comes out in plain data."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_mbir.checkpointing import UNKEPT, Checkpoint
from lightning_mbir.data.measurements.measurement import Measurement
from lightning_mbir.data.units import magnitude_percentile
from lightning_mbir.data.volumes.volume import Volume
from lightning_mbir.errors import InputError
from lightning_mbir.host_slabs import HostSlabs
from lightning_mbir.messages import about
from lightning_mbir.methods.fbp_unet import FBPUNet
from lightning_mbir.methods.held_out import TooLittle
from lightning_mbir.methods.method import Method
from lightning_mbir.methods.plans import Plan
from lightning_mbir.methods.run import Reconstruction, run_method
from lightning_mbir.methods.samples import Running, reconstruct_samples
from lightning_mbir.methods.tasks import Task
from lightning_mbir.methods.trials import Trial, Tuning
from lightning_mbir.methods.tuning import tune
from lightning_mbir.physics import LinearOperator
from lightning_mbir.prior import SliceDenoiser
from lightning_mbir.prior.networks.precision import chosen
from lightning_mbir.reconstruction.case import Case, measured, simulate
from lightning_mbir.reconstruction.forecast import Forecast, beyond
from lightning_mbir.reconstruction.measured import part_of, slices_of
from lightning_mbir.reconstruction.placement import Work, placed, told_slabs, told_work
from lightning_mbir.reconstruction.progress import ChoiceProgress, LevelProgress, SampleProgress, both
from lightning_mbir.reconstruction.provenance import file_sha256, prior_identity, volume_identity
from lightning_mbir.report.lpips import lpips
from lightning_mbir.report.metrics import image_metrics
from lightning_mbir.samplers import Callback
from lightning_mbir.slabs import Slab, current
from lightning_mbir.version import __version__

log = logging.getLogger(__name__)


@dataclass
class Runner:
    """What all volumes and methods of a run have in common.

    Attributes:
        task: with its ``settings``, of which ``given`` are those of the user.
        seed: of all noise and the mask.
        has_phase: whether volumes have a phase, so that they are complex.
        prior, second_prior: loaded, where a method needs them; ``sources`` are what they were loaded from.
        network: file of a trained network.
        others: further priors by their names, loaded, that plans may name.
        lpips: whether it is scored too.
        shown: whether progress is shown.
        device: where the work is done.
        host_slices: how many slices pass through it at a time, of volumes that stay in host memory; 0 for volumes that
            go there, None for what the memory says.
    """

    task: Task
    settings: dict[str, Any]
    given: dict[str, Any]
    seed: int
    has_phase: bool
    sources: tuple[str | None, str | None] = (None, None)
    prior: SliceDenoiser | None = None
    second_prior: SliceDenoiser | None = None
    network: Path | None = None
    others: dict[str, SliceDenoiser] = field(default_factory=dict)
    lpips: bool = False
    shown: bool = True
    device: torch.device = field(default_factory=partial(torch.device, "cpu"))
    host_slices: int | None = None

    def __post_init__(self) -> None:
        if self.host_slices is not None and self.host_slices < 0:
            raise InputError(f"--model.host_slices {self.host_slices}: give a whole number of at least 0")

    def precision(self, plan: Plan) -> str | None:
        """In which the prior runs; None of methods without one."""
        if self.prior is None or not plan.chosen.needs_prior:
            return None
        return self.prior.precision_on(self.device)

    def settle_device(self, device: torch.device) -> str:
        """Do the work on a device, by priors in a precision that it does well; returns what to tell where that is not
        what was asked."""
        told, self.device = "", device
        for prior in (*self.others.values(), self.second_prior, self.prior):
            if prior is not None:
                prior.precision, told = chosen(prior.precision, device)
        return told

    def check_operators(self, sizes: Iterable[int], unet: FBPUNet | None, splits: bool) -> None:
        """Raise where a mask cannot be made, or is not that of the network, or an operator of one's own cannot be made.

        Args:
            sizes: pixels along a side of the slices of all volumes.
            unet: the trained network, where one is given.
            splits: whether processes share slices.
        """
        if splits and self.host_slices:
            raise InputError(
                f"--model.host_slices {self.host_slices}: of volumes that one device works on, and processes share "
                "these; leave it out, or give --split volumes"
            )
        if self.task.modality != "mri" and unet is None and self.task.operator is None:
            return
        for size in sorted(sizes):
            operator = self.task.build_operator(size, seed=self.seed, complex=self.has_phase, **self.settings)
            if splits and operator.of_slices(0, 1) is None:
                raise InputError(f"{type(operator).__name__} measures slices together; give --split volumes")
            if unet is not None:
                unet.check_geometry(operator)

    def check_sized(self, scan: Volume) -> None:
        """Raise where a prior needs the distance of slices, and the volume does not tell it."""
        if not scan.sized and any(prior is not None and prior.slices > 1 for prior in (self.prior, self.second_prior)):
            raise InputError(f"{scan.name}: a prior of neighbouring slices needs their distance; give an affine")

    def takes_complex(self, plan: Plan) -> bool:
        """Whether volumes are complex while they are reconstructed: as the prior is; without one, as k-space is."""
        if self.prior is None or not plan.chosen.needs_prior:
            return self.has_phase
        return self.prior.complex

    def case(self, scan: Volume | Measurement, plans: Sequence[Plan]) -> Case:
        """The measurement of a volume, or the part of a measurement that is wanted, for what is to be run on it; on the
        device with the priors or, where there is no room, in host memory, which is told."""
        for prior in (self.prior, self.second_prior, *self.others.values()):
            if prior is not None:
                prior.to(self.device)
        placing = partial(self._placed, scan.name, plans)
        if isinstance(scan, Volume):
            if scan.notes and current().first:
                log.info("%s: %s", scan.name, "; ".join(scan.notes))
            with about(scan.name):
                given = scan, self.task, self.settings, self.seed, self.has_phase
                return simulate(*given, self.device, placing)
        with about(scan.name):
            part = scan if current().split else part_of(scan, self.seed, **self.given)
            case = measured(part, self.device, placing)
        found = (f"noise of {case.noise_std:.3g}, from the data",) if case.noise_std and not scan.noise_std else ()
        if (notes := "; ".join((*case.notes, *found))) and current().first:
            log.info("%s: %s", case.name, notes)
        return case

    def _placed(
        self, name: str, plans: Sequence[Plan], operator: Callable[[bool], LinearOperator], depth: int, weights: bool
    ) -> HostSlabs | None:
        """Where a volume is worked on; see ``placed``."""
        if self.host_slices == 0 or current().split or (self.host_slices is None and self.device.type == "cpu"):
            return None
        works = [work for plan in plans for work in self._works(plan, operator(self.takes_complex(plan)), depth)]
        slabs = placed(works, self.device, weights, self.host_slices)
        if slabs is not None:
            log.info("%s: %s", name, told_slabs(slabs, works[0].depth))
        return slabs

    def _works(self, plan: Plan, operator: LinearOperator, depth: int) -> list[Work]:
        """What may be run of a plan."""
        if plan.choice is None:
            return [Work(plan.chosen, operator, depth, self._priors(plan.chosen, plan.prior), plan.samples)]
        return [Work(c.chosen, operator, depth, self._priors(c.chosen, c.prior)) for c in plan.choice.candidates]

    def part(self, scan: Volume | Measurement, slab: Slab) -> tuple[Volume | Measurement, dict[str, Any]]:
        """What a process takes of a volume, or of the part of a measurement that is wanted; and ``volume_identity`` of
        all of it."""
        volume = volume_identity(scan)
        if isinstance(scan, Volume):
            return scan.with_data(scan.data[slab.start : slab.stop].clone()), volume
        part = slices_of(part_of(scan, self.seed, **self.given), slab.start, slab.stop)
        if slab.first and part.noise_std and not scan.noise_std:
            log.info("%s: noise of %.3g, from the data", scan.name, part.noise_std)
        return part, volume

    def run(
        self,
        case: Case,
        plan: Plan,
        title: str,
        running: Running | None = None,
        each: Callable[[int, Reconstruction], None] | None = None,
        checkpoint: Checkpoint = UNKEPT,
        course: Callback | None = None,
    ) -> Reconstruction:
        """Run one method; of several samples, ``running`` and ``each`` are those of ``reconstruct_samples``. ``course``
        is told of each level, as the progress bar is."""
        arguments = {
            **self._arguments(case),
            "weights": case.weights if plan.chosen.weighted else None,
            "steps": plan.steps,
            "checkpoint": checkpoint,
            **plan.options,
        }
        operator, prior = case.operator(self.takes_complex(plan)), self._prior(plan.prior)
        given = case.y, operator, prior, plan.method
        size, pixel = operator.domain_shape[-1], case.spacing[-1]
        levels = plan.chosen.steps > 0
        forecast = Forecast(size, pixel, resizable=case.truth is not None, levels=levels, runs=plan.samples)
        if plan.chosen.needs_prior and prior is not None and self.shown:
            name = plan.prior or self.sources[0] or self.task.modality
            larger = beyond(size, getattr(prior, "largest", None), name)
            if larger is not None:
                log.warning("%s: %s", title, larger)
        self._tell_memory(case, plan, title)
        log.debug("%s: %s", title, self._told(plan, case))
        with about(case.name):
            if plan.samples == 1:
                with LevelProgress(f"{title} {plan.method}", self.shown, forecast) as bar:
                    result = run_method(*given, callback=both(bar, course), **arguments)
            else:
                running = Running() if running is None else running
                name = f"{title} {plan.method}"
                with SampleProgress(name, self.shown, plan.samples, running.count, forecast) as bars:
                    more = {**arguments, "running": running, "each": each, "callback": both(bars, course)}
                    result = reconstruct_samples(*given, samples=plan.samples, **more)
        log.debug("%s: %s took %.2f s, %d network evaluations", title, plan.method, result.seconds, result.nfe)
        return result

    def _told(self, plan: Plan, case: Case) -> str:
        """What is run, with all that is set, on what."""
        options = {**plan.chosen.options, **plan.options}
        steps = (("steps", plan.steps or plan.chosen.steps),) if plan.chosen.steps else ()
        given = ", ".join(f"{name} {value}" for name, value in (*steps, *options.items()))
        prior = self._prior(plan.prior) if plan.chosen.needs_prior else None
        told = "" if prior is None else f"; prior {plan.prior or self.prior_name} in {prior.precision_on(case.device)}"
        return f"{plan.method} ({given or 'no options'}){told}; on {case.device}"

    def _tell_memory(self, case: Case, plan: Plan, title: str) -> None:
        """A line on the memory that a run will take, a warning where there is less."""
        (work,) = self._works(plan, case.operator(self.takes_complex(plan)), len(case.y))
        told = told_work(work, case.y, case.weights, case.host_slabs)
        if told is not None and told[1] and current().first:
            log.warning("%s: %s", case.name, told[0])
        elif told is not None and self.shown:
            log.info("%s: %s", title, told[0])

    def choose(
        self,
        case: Case,
        plan: Plan,
        title: str,
        known: Sequence[Trial] = (),
        keep: Callable[[list[Trial]], None] | None = None,
    ) -> tuple[Plan, Tuning | None]:
        """What is run of a plan that leaves a choice, as ``tune`` makes it; any other plan is what it is.

        Args:
            case: the measurement.
            plan: with what is chosen among.
            title: what stands before the progress.
            known: trials that were made before.
            keep: told of all trials after each new one.
        """
        if plan.choice is None:
            return plan, None
        made = list(known)
        with ChoiceProgress(f"{title} {plan.name}", self.shown, plan.choice) as bar:
            for trial in known:
                bar(trial)

            def report(trial: Trial) -> None:
                made.append(trial)
                bar(trial)
                if keep is not None:
                    keep(made)

            operator, arguments = case.operator(self.takes_complex(plan)), self._arguments(case)
            given = case.y, operator, plan.choice, self._prior
            try:
                tuning = tune(*given, known=known, report=report, weights=case.weights, **arguments)
            except TooLittle as error:
                if plan.choice.asked:
                    raise InputError(f"{case.name}: {error}") from error
                if current().first:
                    reason = str(error).partition(";")[0]
                    log.info("%s: %s as it is, since %s", title, plan.method, reason)
                return replace(plan, choice=None), None
        if self.shown:
            for line in tuning.lines:
                log.info("%s: %s", title, line)
        if (warning := tuning.warning(self.prior_name)) is not None and current().first:
            log.warning("%s: %s", case.name, warning)
        return plan.resolved(tuning.candidate), tuning

    def _arguments(self, case: Case) -> dict[str, Any]:
        """What all methods are told of a measurement."""
        return {
            "modality": self.task.modality,
            "seed": self.seed,
            "volume": case.name,
            "noise_std": case.noise_std,
            "second_prior": self.second_prior,
            "network": self.network,
            "calibrated": case.calibrated,
            "spacing": case.spacing if case.sized else None,
            "host_slabs": case.host_slabs,
        }

    @property
    def prior_name(self) -> str:
        """What the prior of the run is called."""
        complex = self.prior is not None and self.prior.complex
        return self.sources[0] or (f"{self.task.modality}_complex" if complex else self.task.modality)

    def prior_identity(self, plan: Plan) -> dict[str, str | None] | None:
        """Name and checksum of the prior of a plan; none of methods without one."""
        if self.prior is None or not plan.chosen.needs_prior:
            return None
        if plan.prior is not None:  # another one, that the measurement has chosen
            return prior_identity(plan.prior, self.task.modality, self.others[plan.prior])
        return prior_identity(self.sources[0], self.task.modality, self.prior)

    def _prior(self, name: str | None) -> SliceDenoiser | None:
        """The prior of the run, or another one of a plan."""
        return self.prior if name is None else self.others[name]

    def _priors(self, chosen: Method, name: str | None) -> list[SliceDenoiser]:
        """Those that a method runs, as far as it is known what they take."""
        priors = [self._prior(name)] if chosen.needs_prior else []
        priors += [self.second_prior] if "second_prior" in chosen.needs else []
        return [prior for prior in priors if isinstance(prior, SliceDenoiser)]

    def data_range(self, truth: Tensor) -> float:
        """Peak of the metrics, in physical unit."""
        return self.task.data_range or magnitude_percentile(truth)

    def scores(self, case: Case, image: Tensor) -> dict[str, Any]:
        """``data_range`` and ``image_metrics`` of an image ``(Z, Y, X)``; nothing without truth."""
        if case.truth is None:
            return {}
        data_range = self.data_range(case.truth)
        scores = {"data_range": data_range, **image_metrics(image, case.truth, data_range)}
        if self.lpips:
            scores["lpips"] = lpips(image, case.truth, data_range)
        return scores

    def metrics(self, scan: Volume | Measurement, case: Case, plan: Plan, result: Reconstruction) -> dict[str, Any]:
        """What ``metrics.json`` holds of one volume, beside ``scores``."""
        metrics: dict[str, Any] = {
            "task": self.task.name,
            "method": plan.method,
            "volume": case.name,
            "seed": self.seed,
            "image_size": list(result.image.shape[-2:]),
            "settings": {"measured": case.notes, **self.given} if isinstance(scan, Measurement) else self.settings,
            "seconds": round(result.seconds, 3),
            "nfe": result.nfe,
            "residual": result.residual,
        }
        misfit = case.misfit(result.residual)
        if misfit is not None:
            known = {"noise_std": case.noise_std} if case.noise_std else {}
            metrics |= {**known, "misfit": round(misfit, 4)}
        acceleration = case.acceleration(self.takes_complex(plan))
        if acceleration is not None:
            metrics["acceleration"] = round(acceleration, 4)
        return metrics

    def identity(self, scan: Volume | Measurement, plan: Plan, volume: dict[str, Any] | None = None) -> dict[str, Any]:
        """All that the result of a method depends on, in plain data: numbers, names and checksums.

        What does not change a result (devices, slice batches) is not in it; the version of the package is.

        Args:
            scan: the volume or the measurement.
            plan: what is run.
            volume: ``volume_identity`` where ``scan`` has part of the slices alone.
        """
        modality, chosen = self.task.modality, plan.chosen
        second = None
        if "second_prior" in chosen.needs and self.second_prior is not None:
            second = prior_identity(self.sources[1], modality, self.second_prior)
        network = self.network if "network" in chosen.needs else None
        named = [] if plan.choice is None else [candidate.prior for candidate in plan.choice.candidates]
        others = {name: prior_identity(name, modality, self.others[name]) for name in named if name is not None}
        return {
            "task": self.task.name,
            "settings": self.given if isinstance(scan, Measurement) else self.settings,
            "seed": self.seed,
            "volume": volume_identity(scan) if volume is None else volume,
            **plan.identity,
            "prior": self.prior_identity(plan),
            **({"other_priors": others} if others else {}),
            "second_prior": second,
            "network": None if network is None else {"name": str(network), "sha256": file_sha256(network)},
            "precision": self.precision(plan),
            "lpips_scored": self.lpips,
            "version": __version__,
        }
