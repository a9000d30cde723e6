"""The contract between a prior and everything else: ``denoise(x, sigma) -> x0``."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_mbir.data.units import CT_SCALE
from lightning_mbir.data.volume import Modality
from lightning_mbir.errors import InputError
from lightning_mbir.prior.ncsnpp import NCSNpp


@dataclass(frozen=True)
class Unit:
    """Affine map of a prior's unit: ``physical = scale * unit + offset``."""

    scale: float = 1.0
    offset: float = 0.0

    @classmethod
    def of(cls, modality: Modality) -> Unit:
        """CT priors: 1/mm; MRI priors: 1, since the factor is estimated from each measurement."""
        return cls(CT_SCALE if modality == "ct" else 1.0)


def channels_last(network: nn.Module) -> nn.Module:
    """The network with its weights in the layout that convolutions are fastest in."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def posterior_mean(network: nn.Module, x: Tensor, sigma: Tensor) -> Tensor:
    """Clean images ``(B, C, Y, X)`` expected from ``x = x0 + sigma n``; ``sigma`` is ``(B,)``.

    A score network is turned into a denoiser by Tweedie's formula, ``x0 = x + sigma^2 score``.
    """
    out: Tensor = network(x, sigma)
    if isinstance(network, NCSNpp):
        return x + sigma[:, None, None, None] ** 2 * out
    return out


class SliceDenoiser:
    """A 2D prior applied to stacks of slices, in slice batches.

    Args:
        network: maps ``(B, 1, Y, X)`` and ``(B,)`` to denoised images, or to a score (``NCSNpp``).
        unit: the affine map between the prior's and the physical unit.
        modality: what the prior was trained on.
        slice_batch: slices that pass the network at once; does not change the result.
        precision: ``"float32"``, or ``"bfloat16"`` for autocast.
    """

    def __init__(
        self,
        network: nn.Module,
        unit: Unit,
        modality: Modality | None = None,
        slice_batch: int = 16,
        precision: str = "float32",
    ) -> None:
        if slice_batch < 1:
            raise InputError(f"--slice_batch {slice_batch}: give a whole number of at least 1")
        self.network = channels_last(network.eval().requires_grad_(False))
        self.unit = unit
        self.modality = modality
        self.slice_batch = slice_batch
        self.precision = precision
        self.stride = int(getattr(network, "stride", 16))

    def to(self, device: torch.device | str) -> SliceDenoiser:
        """Move the network; returns itself."""
        self.network.to(device)
        return self

    @torch.no_grad()
    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """Posterior mean of the clean slices.

        Args:
            x: real ``(..., Y, X)`` in the prior's unit, with noise of standard deviation ``sigma``.
            sigma: one noise level for all slices, in the prior's unit.
        """
        if x.is_complex():
            raise InputError("this prior was trained on real slices; give magnitude data, or a two-channel prior")
        slices = x.reshape(-1, 1, *x.shape[-2:])
        rows, columns = x.shape[-2:]
        padding = (0, -columns % self.stride, 0, -rows % self.stride)
        out = torch.empty_like(slices)
        for start in range(0, len(slices), self.slice_batch):
            part = slices[start : start + self.slice_batch].float()
            if any(padding):
                part = F.pad(part, padding, mode="reflect")
            part = part.contiguous(memory_format=torch.channels_last)
            level = torch.full((len(part),), sigma, dtype=torch.float32, device=x.device)
            with torch.autocast(x.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
                clean = posterior_mean(self.network, part, level)
            out[start : start + self.slice_batch] = clean[..., :rows, :columns].to(x.dtype)
        return out.reshape(x.shape)
