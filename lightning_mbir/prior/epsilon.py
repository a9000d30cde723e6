"""Networks of other frameworks, which predict the noise of a variance-preserving diffusion, as denoisers of ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from lightning_mbir.errors import InputError
from lightning_mbir.kinds import check_kinds

Predicts = Literal["epsilon", "v", "x0"]


class EpsilonNetwork(nn.Module):
    """A network ``(x_t, t) -> noise`` of DDPM as one ``(x, sigma) -> x0`` that ``SliceDenoiser`` takes.

    A variance-preserving diffusion has ``x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) n`` (Ho et al., NeurIPS 2020,
    equation 4), which is ``sqrt(abar_t)`` times ``x0 + sigma_t n`` with ``sigma_t^2 = (1 - abar_t) / abar_t`` (Song et
    al., ICLR 2021, appendix B). So noisy slices are scaled to the step whose noise they have, and what the network says
    of them is brought back. Between two steps ``t`` is interpolated; beyond the last it stays there, and is less exact.

    Args:
        network: takes ``(B, C, Y, X)`` and steps ``(B,)``, as MONAI's ``DiffusionModelUNet`` and those of diffusers do;
            a result with an attribute ``sample`` is taken for that.
        alphas_cumprod: ``(T,)`` ``abar`` of each step, falling, as schedulers have it.
        predicts: ``epsilon`` (the noise), ``v`` (Salimans and Ho, ICLR 2022) or ``x0``.
        value_range: numbers that the network was trained with for 0 and 1 of the prior's unit.
        in_channels: 1, or 2 for real and imaginary part.
        stride: what the sides of its images must be multiples of.
        whole_steps: round ``t`` to whole steps, for networks with a table of them.

    Raises:
        InputError: ``alphas_cumprod`` that do not fall from at most 1 to above 0, or an unknown ``predicts``.
    """

    levels: Tensor

    def __init__(
        self,
        network: nn.Module,
        alphas_cumprod: Sequence[float] | Tensor,
        predicts: Predicts = "epsilon",
        value_range: tuple[float, float] = (-1.0, 1.0),
        in_channels: int = 1,
        stride: int = 16,
        whole_steps: bool = False,
    ) -> None:
        super().__init__()
        check_kinds(EpsilonNetwork.__init__, locals())
        try:
            abar = torch.as_tensor(alphas_cumprod, dtype=torch.float64).flatten().cpu()
        except (TypeError, ValueError):
            abar = torch.empty(0)
        if len(abar) < 2 or not bool((abar > 0).all() and (abar <= 1).all() and (abar.diff() < 0).all()):
            raise InputError("alphas_cumprod must fall from at most 1 to above 0, a number a step")
        if predicts not in get_args(Predicts):
            raise InputError(f"predicts is {predicts!r}; give {' or '.join(get_args(Predicts))}")
        self.network, self.predicts_of, self.value_range = network, predicts, value_range
        self.in_channels, self.stride, self.whole_steps = in_channels, stride, whole_steps
        self.register_buffer("levels", ((1 - abar) / abar).sqrt().clamp_min(1e-8).log().float(), persistent=False)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Denoised slices: ``(B, C, Y, X)`` with noise ``(B,)``, both in the prior's unit."""
        low, high = self.value_range
        noise = (sigma * (high - low))[:, None, None, None].to(x.dtype)
        image = low + x * (high - low)
        kept = (1 + noise.square()).rsqrt()  # sqrt(abar) at this very noise
        out: Any = self.network(image * kept, self.step(sigma * (high - low)))
        out = getattr(out, "sample", out)
        if self.predicts_of == "epsilon":
            clean = image - noise * out
        elif self.predicts_of == "v":
            clean = kept.square() * image - noise * kept * out
        else:
            clean = out
        return (clean - low) / (high - low)

    def step(self, sigma: Tensor) -> Tensor:
        """The step ``(B,)`` whose noise relative to the image is ``sigma``, with fractions."""
        levels = self.levels
        wanted = sigma.to(levels).clamp_min(1e-8).log().clamp(float(levels[0]), float(levels[-1]))
        above = torch.searchsorted(levels, wanted).clamp(1, len(levels) - 1)
        below = levels[above - 1]
        t = above - 1 + (wanted - below) / (levels[above] - below)
        return t.round().long() if self.whole_steps else t
