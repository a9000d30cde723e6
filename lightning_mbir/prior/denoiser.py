"""The contract between a prior and everything else: ``denoise(x, sigma) -> x0``."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Num
from torch import Tensor, nn

from lightning_mbir.data.units import CT_SCALE, Modality
from lightning_mbir.errors import InputError
from lightning_mbir.host_slabs import Arriving, sent
from lightning_mbir.kinds import check_kinds
from lightning_mbir.prior.neighbours import own_neighbours
from lightning_mbir.prior.networks.precision import PRECISIONS, settled
from lightning_mbir.prior.networks.running import channels_last, compiled, images_of, is_out_of_memory
from lightning_mbir.prior.slice_batches import Outputs, slices_at_once
from lightning_mbir.slabs import current, window

log = logging.getLogger(__name__)

COARSE_FROM = 3.0
"""Noise of an image, per channel and in the prior's unit, at which half its resolution gets better for the bundled
priors (benchmarks/coarse_size.py)."""


@dataclass(frozen=True)
class Unit:
    """Affine map of a prior's unit: ``physical = scale * unit + offset``."""

    scale: float = 1.0
    offset: float = 0.0

    @classmethod
    def of(cls, modality: Modality) -> Unit:
        """CT priors: 1/mm; MRI priors: 1, since the factor is estimated from each measurement."""
        return cls(CT_SCALE if modality == "ct" else 1.0)


def posterior_mean(
    network: Callable[..., Tensor],
    x: Float[Tensor, "batch channels y x"],
    sigma: Float[Tensor, " batch"],
    distance: Float[Tensor, " batch"] | None = None,
) -> Float[Tensor, "batch channels y x"]:
    """Clean images ``(B, C, Y, X)`` expected from ``x = x0 + sigma n``; ``sigma`` is ``(B,)``.

    A network of several neighbouring slices has those of all in its channels, and their ``distance`` ``(B,)`` in mm.

    A network whose ``predicts`` is ``"score"`` (a ``compiled`` one too) is turned into a denoiser by Tweedie's formula,
    ``x0 = x + sigma^2 score``.
    """
    out = images_of(network, x, network(x, sigma) if distance is None else network(x, sigma, distance))
    if getattr(network, "predicts", "x0") == "score":
        return x + sigma[:, None, None, None] ** 2 * out
    return out


def halvings(network: object, shape: Sequence[int], sigma: float) -> int:
    """How often ``denoised`` halves the resolution of ``(..., Y, X)`` images before the network sees them."""
    least, count = getattr(network, "coarse_size", None), 0
    while least and sigma >= COARSE_FROM * 2**count and min(shape[-2:]) >= 2 * least * 2**count:
        count += 1
    return count


def denoised(
    network: Callable[..., Tensor],
    x: Float[Tensor, "batch channels y x"],
    sigma: float,
    distance: float | Float[Tensor, " batch"] | None = None,
) -> Float[Tensor, "batch channels y x"]:
    """``posterior_mean`` of ``(B, C, Y, X)`` images of any size at one noise level, as priors are used; in float32.

    Noise of 3 and more hides the details of a slice and leaves what belongs where, for which a light network sees too
    small a part of a large one. If the network has a ``coarse_size`` and the image is twice as large or more, it is
    denoised at half the resolution, where white noise has half the deviation, and enlarged (docs/training.md).
    """
    rows, columns = x.shape[-2:]
    factor = 2 ** halvings(network, x.shape, sigma)
    stride = factor * int(getattr(network, "stride", 16))
    if rows % stride or columns % stride:
        bottom, right = -rows % stride, -columns % stride
        mode = "reflect" if bottom < rows and right < columns else "replicate"  # a few slices make a low image
        x = F.pad(x, (0, right, 0, bottom), mode=mode)
    x = F.avg_pool2d(x, factor) if factor > 1 else x
    level = torch.full((1,), sigma / factor, dtype=torch.float32, device=x.device).expand(len(x))
    if isinstance(distance, float):
        distance = torch.full((1,), distance, dtype=torch.float32, device=x.device).expand(len(x))
    clean = posterior_mean(network, x.contiguous(memory_format=torch.channels_last), level, distance).float()
    if factor > 1:
        clean = F.interpolate(clean, scale_factor=factor, mode="bicubic", align_corners=False)
    return clean[..., :rows, :columns]


class SliceDenoiser:
    """A 2D prior applied to stacks of slices, in slice batches.

    A network of two channels makes a complex prior: the channels are the real and the imaginary part. ``sigma`` is then
    the standard deviation of complex noise as ``KeyedNoise`` draws it, ``E |n|^2 = sigma^2``, of which each part has
    half the variance: the network is given ``sigma / sqrt(2)``, the deviation in each of its channels.

    A network of three ``slices`` makes a prior of neighbouring slices: which of a stack go together is keyed by the
    noise level (see ``neighbours``), and it has to be told how far apart they are (``spacing``). Samplers call it as
    they call any other.

    **Which bits come out** depends on the slice, the machine, its threads, the precision and how many slices pass the
    network at once, and on nothing else: all slices of a call do so in batches of one size, the most even one of at
    most ``slice_batch``, and what else is in a batch does not matter. Batches of another size change the rounding of
    the network (float32: by 2e-6 of the prior's unit a call; bfloat16: by up to 6e-3), and so whole reconstructions,
    see docs/priors.md.

    Args:
        network: maps ``(B, C, Y, X)`` and ``(B,)`` to denoised images, or to a score (see ``posterior_mean``), with its
            ``in_channels`` 1 (also if it does not say) or 2, and its ``slices`` 1 (likewise) or 3.
        unit: the affine map between the prior's and the physical unit.
        modality: what the prior was trained on.
        slice_batch: slices, or triples of them, that pass the network at once, at most; None to choose by the memory,
            see ``slice_batch_for``. Halved when memory runs out.
        precision: ``"float32"``, ``"bfloat16"`` for autocast, or ``"auto"``: the faster of them on the device.
        compile: run the network through ``torch.compile``, where that works.

    Attributes:
        largest: side of the largest slices of its training, where that is known.
        mirrors: whether its training mirrored slices left to right.
        slices, spacing: how many neighbouring ones are denoised together, and mm between them where that is known.
        chosen: slices at once, by rows, columns, device and whether for ``vjp``, as far as they were settled here.

    Raises:
        InputError: a slice batch below 1, an unknown precision, a network of three or more channels.
    """

    def __init__(
        self,
        network: nn.Module,
        unit: Unit,
        modality: Modality | None = None,
        slice_batch: int | None = None,
        precision: str = "float32",
        compile: bool = False,
    ) -> None:
        check_kinds(SliceDenoiser.__init__, locals())
        if slice_batch is not None and slice_batch < 1:
            raise InputError(f"--slice_batch {slice_batch}: give a whole number of at least 1")
        if precision not in PRECISIONS:
            raise InputError(f"precision {precision}: give one of {', '.join(PRECISIONS)}")
        channels = int(getattr(network, "in_channels", 1))
        if channels not in (1, 2):
            raise InputError(f"a network of {channels} channels is no prior; give 1, or 2 (real and imaginary part)")
        self.network = channels_last(network.float().eval().requires_grad_(False))
        self.unit, self.modality = unit, modality
        self.slice_batch, self.precision = slice_batch, precision
        self.complex = channels == 2
        self.slices = int(getattr(network, "slices", 1))
        self.spacing: float | None = None
        self.largest: int | None = None
        self.mirrors = True
        self._run: Callable[..., Tensor] = compiled(self.network) if compile else self.network
        self.chosen: dict[tuple[int, int, str, bool], int] = {}

    def to(self, device: torch.device | str) -> SliceDenoiser:
        """Move the network; returns itself."""
        self.network.to(device)
        return self

    def device_for(self, x: Tensor) -> torch.device:
        """Where slices are denoised: those in host memory where the network is, to which batches go and come back."""
        values = chain(self.network.parameters(), self.network.buffers())
        return next((own.device for own in values), x.device) if x.device.type == "cpu" else x.device

    def precision_on(self, device: torch.device) -> str:
        """``"float32"`` or ``"bfloat16"``: what ``precision`` means on a device."""
        return settled(self.precision, device)

    @torch.no_grad()
    def __call__(self, x: Num[Tensor, "*batch y x"], sigma: float) -> Num[Tensor, "*batch y x"]:
        """Posterior mean of the clean slices.

        Args:
            x: ``(..., Y, X)`` in the prior's unit, real, or complex for a complex prior; of one of neighbouring slices
                ``(..., Z, Y, X)``.
            sigma: standard deviation of the noise, for all slices; of complex noise ``E |n|^2 = sigma^2``.

        Raises:
            InputError: complex slices and a real prior, or the reverse; not enough memory for a single slice; of a
                prior of neighbouring slices, too few of them or no ``spacing``.
        """
        return self._in_batches(x, sigma)

    def vjp(self, x: Num[Tensor, "*batch y x"], sigma: float, cotangent: Tensor) -> Num[Tensor, "*batch y x"]:
        """``J(x)^H v`` with ``J`` the derivative of ``self(x, sigma)``: its adjoint under ``Re <u, v>``, in float32.

        It runs the network forward once more, and back; under ``no_grad`` and ``inference_mode`` too.

        Args:
            x, sigma: as for a call.
            cotangent: ``v``, of the shape of ``x``.

        Raises:
            InputError: a cotangent of another shape, and as for a call.
        """
        if cotangent.shape != x.shape or cotangent.is_complex() != x.is_complex():
            raise InputError(f"vjp: the cotangent is {tuple(cotangent.shape)}; give one like x, {tuple(x.shape)}")
        with torch.inference_mode(False), torch.no_grad():
            _leave_inference(self.network)
            return self._in_batches(x.clone(), sigma, cotangent.clone())

    def slice_batch_for(self, shape: Sequence[int], device: torch.device | str, gradients: bool = False) -> int:
        """How many slices ``(..., Y, X)`` pass the network at once, at most, on a device that the network is on.

        Settled at the first call for a size of slices, in a run before its first noise level, by what a slice of zeros
        costs without the shortcuts of high noise: a power of two that depends on the machine's memory, not on what of
        it happens to be free (where too little is, that is told). So other processes choose alike.

        Args:
            shape: the last two are the slice's.
            device: what they are on.
            gradients: for ``vjp``, which takes more.

        Raises:
            InputError: not enough memory for a single slice.
        """
        rows, columns = shape[-2:]
        device = torch.device(device)
        key = (rows, columns, str(device), gradients)
        if self.slice_batch is None and key not in self.chosen:
            self.chosen[key] = slices_at_once(self._cost(rows, columns, device, gradients), device)
        return self.chosen.get(key) or self.slice_batch or 1

    def bytes_for(self, shape: Sequence[int], device: torch.device | str, gradients: bool = False) -> int:
        """Memory that the network takes while a batch of slices passes it, of a stack ``(Z, Y, X)``; as
        ``slice_batch_for``, whose batch it is."""
        groups, most = math.ceil(shape[-3] / self.slices), self.slice_batch_for(shape, device, gradients)
        return math.ceil(groups / math.ceil(groups / most)) * self._cost(
            shape[-2], shape[-1], torch.device(device), gradients
        )

    def check_stack(self, depth: int) -> None:
        """Raise ``InputError`` where a stack of ``depth`` slices is too low for a prior of neighbouring ones, or where
        it was not told their distance."""
        if depth < self.slices:
            raise InputError(
                f"--prior: it is of {self.slices} neighbouring slices and the volume has {depth}; "
                "take one of single slices"
            )
        if self.slices > 1 and self.spacing is None:
            raise InputError(
                "--prior: it is of neighbouring slices and has to know how far apart they are; give spacing=(z, y, x) "
                "in mm (`spacing` in the file of a measurement), or take one of single slices"
            )

    def but(self, **changes: Any) -> SliceDenoiser:
        """The same network with other attributes, such as ``unit`` or ``slice_batch``; this one stays as it is."""
        other = copy.copy(self)
        other.chosen = {}
        for name, value in changes.items():
            setattr(other, name, value)
        return other

    def _cost(self, rows: int, columns: int, device: torch.device, gradients: bool) -> int:
        """Bytes that a slice takes, or a group of neighbouring ones."""
        with torch.inference_mode(False) if gradients else nullcontext():  # as ``vjp`` has it
            if gradients:
                _leave_inference(self.network)
            return self._outputs(rows, columns, device, gradients)

    def _outputs(self, rows: int, columns: int, device: torch.device, gradients: bool) -> int:
        kind = torch.complex64 if self.complex else torch.float32
        one = torch.zeros(1, self.slices, rows, columns, dtype=kind, device=device)
        with torch.no_grad(), Outputs(self.network) as outputs:
            self._one_batch(self.network, one, 1.0, 1.0 if self.slices > 1 else None, one if gradients else None)
        return 2 * outputs.bytes if gradients else outputs.bytes // 2  # what is kept to go back takes more

    def _in_batches(self, x: Tensor, sigma: float, cotangent: Tensor | None = None) -> Tensor:
        """The posterior mean or, with a cotangent, the product with it, in slice batches."""
        if x.is_complex() and not self.complex:
            raise InputError("this prior was trained on real slices; give magnitude data, or a two-channel prior")
        if self.complex and not x.is_complex():
            raise InputError("this prior was trained on complex slices; give complex data, or a one-channel prior")
        x = x.resolve_conj().resolve_neg()
        if self.slices == 1:  # each by itself, without a copy of the volume
            alone = None if cotangent is None else cotangent.reshape(-1, 1, *x.shape[-2:])
            return self._by_groups(x.reshape(-1, 1, *x.shape[-2:]), sigma, 1, alone).reshape(x.shape)
        slab = current()
        depth = slab.depth if slab.split else x.shape[-3] if x.ndim > 2 else 1
        self.check_stack(depth)
        places, counts, step, spans, own = own_neighbours(depth, sigma, back=cotangent is not None)
        stack = window(x.movedim(-3, 0), spans).movedim(0, -3)
        slices = stack.reshape(-1, *x.shape[-2:])
        firsts = torch.arange(0, len(slices), stack.shape[-3])[:, None, None]
        places, counts = (firsts + places).flatten(0, 1).to(x.device), counts.repeat(len(firsts), 1).to(x.device)
        if cotangent is None:
            out = torch.empty_like(slices)
            out[places[counts]] = self._by_groups(slices[places], sigma, step, None)[counts]
        else:
            cotangents = window(cotangent.movedim(-3, 0), spans).movedim(0, -3).reshape(slices.shape)
            done = self._by_groups(slices[places], sigma, step, cotangents[places] * counts[..., None, None])
            out = torch.zeros_like(slices).index_add_(0, places.flatten(), done.flatten(0, 1))
        return out.reshape(stack.shape)[..., own, :, :].reshape(x.shape)

    def _by_groups(self, groups: Tensor, sigma: float, step: int, cotangents: Tensor | None) -> Tensor:
        """What ``_in_batches`` gives of ``(G, S, Y, X)`` slices that pass the network together, ``step`` apart."""
        done = torch.empty_like(groups)
        level = sigma / math.sqrt(2) if self.complex else sigma
        distance = None if self.spacing is None or self.slices == 1 else self.spacing * step
        run = self._run if cotangents is None else self.network
        while len(groups) and not self._fill(done, run, groups, level, distance, cotangents):
            pass
        return done

    def _fill(
        self,
        out: Tensor,
        run: Callable[..., Tensor],
        groups: Tensor,
        level: float,
        distance: float | None,
        cotangents: Tensor | None,
    ) -> bool:
        """All groups of slices in batches of one size; false if memory ran out, and smaller ones are chosen now."""
        n, gradients, device = len(groups), cotangents is not None, self.device_for(groups)
        most, arriving = self.slice_batch_for(groups.shape, device, gradients), Arriving(out)
        size = math.ceil(n / math.ceil(n / most))
        for start in range(0, n, size):
            batch = slice(min(start, n - size), min(start, n - size) + size)  # the last one goes back a little
            cotangent = None if cotangents is None else sent(cotangents[batch], device)
            done = self._one_batch(run, sent(groups[batch], device), level, distance, cotangent)
            if done is None:
                key = (*groups.shape[-2:], str(device), gradients)
                self.chosen[key] = size // 2
                log.warning(
                    "out of memory with %d slices at once; going on with %d, which changes rounding", size, size // 2
                )
                return False
            arriving.put(batch, done)
        arriving.settle()
        return True

    def _one_batch(
        self,
        network: Callable[..., Tensor],
        groups: Tensor,
        level: float,
        distance: float | None,
        cotangent: Tensor | None,
    ) -> Tensor | None:
        """None if memory ran out for several slices, with what was allocated given back."""
        try:
            if cotangent is None:
                return self._denoise(network, groups, level, distance, self.precision_on(groups.device))
            with torch.enable_grad():
                groups = groups.detach().requires_grad_()
                clean = self._denoise(network, groups, level, distance, "float32")
                return torch.autograd.grad(clean, groups, cotangent.to(clean.dtype))[0]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(groups) == 1:
                raise InputError(
                    f"out of memory with one slice of {groups.shape[-2]} x {groups.shape[-1]} on {groups.device}; "
                    "give a smaller --data.image_size, --model.precision bfloat16, or another device"
                ) from error
        if groups.is_cuda:
            torch.cuda.empty_cache()  # freed blocks of the wrong size are of no use to a smaller batch
        return None

    def _denoise(
        self, network: Callable[..., Tensor], groups: Tensor, level: float, distance: float | None, precision: str
    ) -> Tensor:
        """Posterior mean of ``(B, S, Y, X)`` groups of slices, with ``level`` the deviation in each channel."""
        part = groups
        if self.complex:  # of one slice: reals and imaginaries lie side by side in memory, so this is channels-last
            part = torch.view_as_real(groups).permute(0, 1, 4, 2, 3).flatten(1, 2)
        with torch.autocast(part.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            clean = denoised(network, part.float(), level, distance)
        if self.complex:
            return torch.view_as_complex(
                clean.reshape(len(clean), -1, 2, *clean.shape[-2:]).permute(0, 1, 3, 4, 2).contiguous()
            )
        return clean


def _leave_inference(network: nn.Module) -> None:
    """Copy weights that were loaded under ``inference_mode``, which autograd refuses to keep for the way back."""
    for module in network.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.is_inference():
                module._parameters[name] = nn.Parameter(parameter.clone(), requires_grad=False)
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.is_inference():
                module._buffers[name] = buffer.clone()
