"""Samples of the posterior: their mean and their spread."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_mbir.data.units import Modality
from lightning_mbir.errors import InputError
from lightning_mbir.files import write_whole
from lightning_mbir.host_slabs import HostSlabs
from lightning_mbir.kinds import check_kinds
from lightning_mbir.methods.catalog import check_method
from lightning_mbir.methods.method import Method
from lightning_mbir.methods.numbers import as_measured, check_given, tell_uncentred
from lightning_mbir.methods.priors import Prior, load_task_prior
from lightning_mbir.methods.run import Reconstruction, modality_of, run_method
from lightning_mbir.methods.tasks import options_of, tuned_for
from lightning_mbir.physics import InSlabs, LinearOperator
from lightning_mbir.prior import SliceDenoiser
from lightning_mbir.slabs import dealt, from_first, gathered, length


@dataclass(frozen=True)
class PosteriorSamples(Reconstruction):
    """The mean of several samples as a reconstruction, and their spread.

    ``volume`` is the mean of the samples, ``residual`` that of the mean; ``nfe`` and ``seconds`` are sums, ``method``
    is that of each.

    Attributes:
        std: standard deviation ``(Z, Y, X)`` of the samples, in physical unit; of their magnitude, where complex.
        samples: how many.
        tuning: as of any reconstruction.
    """

    std: Tensor
    samples: int


@dataclass
class Running:
    """Mean and spread of the samples so far, one at a time (Welford 1962), so that one sample is held at once.

    Attributes:
        count, nfe, seconds: of all samples so far.
        scores: what is to be remembered of each sample, plain data.
        batches: what ``SliceDenoiser.chosen`` was of each prior, as lists; samples that follow take the same.
        mean: of the volumes.
        centre: of the images: the magnitudes of complex volumes, else the volumes themselves.
        spread: sum of squared distances of the images from their mean.
    """

    count: int = 0
    nfe: int = 0
    seconds: float = 0.0
    scores: list[dict[str, Any]] = field(default_factory=list)
    batches: list[list[list[Any]]] = field(default_factory=list)
    mean: Tensor = field(default_factory=lambda: torch.zeros(()))
    centre: Tensor = field(default_factory=lambda: torch.zeros(()))
    spread: Tensor = field(default_factory=lambda: torch.zeros(()))

    def add(self, result: Reconstruction) -> None:
        """Take in one sample."""
        volume = result.volume
        if self.count == 0:
            self.mean = torch.zeros_like(volume)
            self.centre = torch.zeros_like(volume.abs()) if volume.is_complex() else self.mean
            self.spread = torch.zeros_like(self.centre)
        self.count += 1
        self.nfe += result.nfe
        self.seconds += result.seconds
        image = result.image
        before = image - self.centre
        self.mean += (volume - self.mean) / self.count
        if self.centre is not self.mean:
            self.centre += before / self.count
        self.spread += before * (image - self.centre)

    def note_batches(self, priors: Sequence[SliceDenoiser]) -> None:
        """Keep how many slices passed the priors at once."""
        self.batches = [[[*key, size] for key, size in prior.chosen.items()] for prior in priors]

    def take_batches(self, priors: Sequence[SliceDenoiser]) -> None:
        """Give priors the number of slices at once that the samples so far had, where nothing else was asked for."""
        for prior, batches in zip(priors, self.batches, strict=False):
            if prior.slice_batch is None:
                prior.chosen |= {(rows, columns, device, way): size for rows, columns, device, way, size in batches}

    @property
    def std(self) -> Tensor:
        """Unbiased standard deviation; of two samples at least."""
        return (self.spread / (self.count - 1)).clamp_min(0).sqrt()

    def gathered(self) -> Running:
        """The same of all slices, in the first of the processes that share them."""
        return self._each(gathered)

    def dealt(self, device: torch.device) -> Running:
        """What the first of the processes that share the slices has, of the slices of each; on a device."""
        there = self.count > 0
        whole, alike = from_first((self._without_tensors(), self.centre is self.mean))
        if whole.count == 0:
            return self
        whole.mean, whole.spread = self.mean, self.spread
        whole.centre = whole.mean if alike else self.centre if there else torch.zeros(())
        return whole._each(lambda tensor: dealt(tensor if there else None, device))

    def _without_tensors(self) -> Running:
        return Running(self.count, self.nfe, self.seconds, self.scores, self.batches)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Running:
        """With all tensors changed, those that are one and the same once."""
        mean, spread = change(self.mean), change(self.spread)
        centre = mean if self.centre is self.mean else change(self.centre)
        return replace(self, mean=mean, centre=centre, spread=spread)

    def save(self, path: Path, key: str) -> None:
        """Into one whole file, with the key of the settings that it belongs to."""
        arrays = {"mean": self.mean.cpu().numpy(), "spread": self.spread.cpu().numpy()}
        if self.centre is not self.mean:
            arrays["centre"] = self.centre.cpu().numpy()
        plain: dict[str, Any] = {"key": key, "count": self.count, "nfe": self.nfe, "seconds": self.seconds}
        text = json.dumps({**plain, "scores": self.scores, "batches": self.batches})
        buffer = io.BytesIO()
        np.savez(buffer, plain=np.array(text), **arrays)  # type: ignore[arg-type]
        write_whole(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path, key: str, most: int, device: torch.device) -> Running:
        """What ``save`` wrote with this key, of no more than ``most`` samples; else a fresh start."""
        try:
            with np.load(path, allow_pickle=False) as file:
                plain = json.loads(str(file["plain"]))
                if plain.pop("key") != key or plain["count"] > most:
                    return cls()
                arrays = {name: file[name] for name in file.files if name != "plain"}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return cls()
        # Copies, since sums may be rounded by where in memory a tensor begins, which NumPy leaves to chance.
        tensors = {name: torch.from_numpy(array).clone().to(device) for name, array in arrays.items()}
        running = cls(**plain)
        running.mean, running.spread = tensors["mean"], tensors["spread"]
        running.centre = tensors.get("centre", running.mean)
        return running


def reconstruct_samples(
    y: Tensor,
    operator: LinearOperator,
    prior: Prior | str | Path | None = None,
    method: str | Method | Callable[..., Tensor] = "dds",
    *,
    samples: int,
    running: Running | None = None,
    each: Callable[[int, Reconstruction], None] | None = None,
    **arguments: Any,
) -> PosteriorSamples:
    """Several samples of the posterior, their mean and standard deviation; number ``k`` is ``reconstruct(sample=k)``.

    Args:
        y, operator, prior, method: see ``reconstruct``.
        samples: how many; 2 at least.
        running: samples that were taken before, which are gone on from (and into which the new ones go).
        each: called with the number of a sample and its reconstruction, after it went into ``running``.
        **arguments: further ones of ``reconstruct``.

    Raises:
        InputError: as ``reconstruct`` does; fewer than two samples, or a method without randomness.
    """
    check_given(y, operator)
    check_kinds(reconstruct_samples, locals(), but=("method",))
    tell_uncentred(y, operator)
    modality: Modality = arguments.get("modality") or modality_of(operator)
    chosen = check_method(method, modality, {}, None)
    if samples < 2:
        raise InputError(f"{samples} samples have no spread; give at least 2, or take reconstruct()")
    if not chosen.random:
        raise InputError(f"{chosen.name} has no randomness to sample; take reconstruct()")
    noisy = arguments.get("noise_std", 0.0) > 0 or arguments.get("weights") is not None
    tuned = tuned_for(arguments.pop("task", None), operator, modality, noisy)
    arguments = {**options_of(method, tuned), **arguments}
    y = as_measured(y, operator, arguments.get("volume"))
    slabs: HostSlabs | None = arguments.get("host_slabs")
    device = y.device if slabs is None else slabs.device
    if prior is None or isinstance(prior, str | Path):  # read once
        prior = load_task_prior(prior, modality, operator.domain_complex).to(device)
    if isinstance(second := arguments.get("second_prior"), str | Path):
        arguments["second_prior"] = load_task_prior(second, modality, operator.domain_complex).to(device)
    running = Running() if running is None else running
    priors = [own for own in (prior, arguments.get("second_prior")) if isinstance(own, SliceDenoiser)]
    running.take_batches(priors)
    for k in range(running.count, samples):
        result = run_method(y, operator, prior, method, sample=k, **arguments)
        running.add(result)
        running.note_batches(priors)
        if each is not None:
            each(k, result)
    size = length(y)
    passing = operator if slabs is None else InSlabs(operator, slabs)
    residual = length(passing(running.mean) - y) / size if size > 0 else 0.0
    return PosteriorSamples(
        running.mean, chosen.name, running.nfe, running.seconds, residual, running.std, running.count
    )
