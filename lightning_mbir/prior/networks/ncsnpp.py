"""NCSN++, the score network of the paper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lightning_mbir.errors import InputError
from lightning_mbir.prior.networks.unet import silu

FIR = (1.0, 3.0, 3.0, 1.0)
"""Separable low-pass of all resampling."""


class NCSNpp(nn.Module):
    """Score of noisy slices, ``(x, sigma) -> score``.

    Song et al. 2021, "Score-based generative modeling through stochastic differential equations", appendix H, in the
    continuous variance-exploding form: BigGAN residual blocks, FIR resampling, a residual pyramid of the input,
    Fourier features of ``log sigma``, and an output divided by sigma. The defaults are the released network, 61.43 M
    parameters.

    Args:
        in_channels: channels of the image.
        nf: width of the first level.
        channel_multipliers: width of each level over ``nf``; each level has half the resolution of the one before.
        num_res_blocks: residual blocks a level.
        attention_levels: levels with self-attention after each block, counted from 0; the middle always has it.
        fourier_scale: standard deviation of the frequencies.

    Raises:
        InputError: a width that is not a multiple of 4, no level, no block.
    """

    predicts = "score"

    def __init__(
        self,
        in_channels: int = 1,
        nf: int = 128,
        channel_multipliers: Sequence[int] = (1, 2, 2, 2),
        num_res_blocks: int = 4,
        attention_levels: Sequence[int] = (),
        fourier_scale: float = 16.0,
    ) -> None:
        super().__init__()
        if nf < 4 or nf % 4 or num_res_blocks < 1 or not channel_multipliers:
            raise InputError("NCSNpp: nf must be a multiple of 4, with at least one level and one block a level")
        levels = len(channel_multipliers)
        widths = [nf * multiplier for multiplier in channel_multipliers]
        emb = 4 * nf
        self.in_channels = in_channels
        self.stride = 2 ** (levels - 1)
        self.frequencies = nn.Parameter(fourier_scale * torch.randn(nf), requires_grad=False)
        self.dense1 = nn.Linear(2 * nf, emb)
        self.dense2 = nn.Linear(emb, emb)
        self.conv_in = nn.Conv2d(in_channels, nf, 3, padding=1)

        self.down = nn.ModuleList()
        skips, width, pyramid = [nf], nf, in_channels
        for level, out in enumerate(widths):
            attends = level in attention_levels
            stage = DownLevel(width, out, emb, num_res_blocks, attends, pyramid if level < levels - 1 else None)
            self.down.append(stage)
            skips += [out] * (num_res_blocks + (level < levels - 1))
            width = pyramid = out
        self.middle1 = ResidualBlock(width, width, emb)
        self.middle_attention = Attention(width)
        self.middle2 = ResidualBlock(width, width, emb)
        self.up = nn.ModuleList()
        for level, out in reversed(list(enumerate(widths))):
            inputs = []
            for _ in range(num_res_blocks + 1):
                inputs.append(width + skips.pop())
                width = out
            self.up.append(UpLevel(inputs, out, emb, level in attention_levels, level > 0))
        self.norm_out = group_norm(width)
        self.conv_out = nn.Conv2d(width, in_channels, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)  # type: ignore[arg-type]

    def forward(
        self, x: Float[Tensor, "batch channels y x"], sigma: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch channels y x"]:
        """Score of the noisy density.

        Args:
            x: ``(B, C, Y, X)`` noisy images whose clean values are about 0 .. 1, sides divisible by ``stride``.
            sigma: ``(B,)`` standard deviation of the noise.
        """
        # In this order: phases reach hundreds of radians, where float32 rounds visibly.
        phase = sigma.log()[:, None] * self.frequencies * 2 * math.pi
        emb = self.dense1(torch.cat((phase.sin(), phase.cos()), 1))
        emb = F.silu(self.dense2(F.silu(emb)))
        x = 2 * x - 1
        h = self.conv_in(x)
        pyramid = x
        skips = [h]
        for stage in self.down:
            h, pyramid, kept = stage(h, pyramid, emb)
            skips += kept
        h = self.middle2(self.middle_attention(self.middle1(h, emb)), emb)
        for stage in self.up:
            h = stage(h, skips, emb)
        h = silu(self.norm_out(h)).to(self.conv_out.weight.dtype)
        with torch.autocast(x.device.type, enabled=False):  # x0 = x + sigma^2 score would magnify bfloat16's rounding
            out: Tensor = self.conv_out(h)
        return out / sigma[:, None, None, None]


class DownLevel(nn.Module):
    """Residual blocks of one resolution, then the way down; the input's pyramid joins the features there."""

    def __init__(self, width: int, out: int, emb: int, n_blocks: int, attends: bool, pyramid: int | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResidualBlock(width if i == 0 else out, out, emb) for i in range(n_blocks))
        self.attentions = nn.ModuleList(Attention(out) for _ in range(n_blocks if attends else 0))
        self.reduce = None if pyramid is None else ResidualBlock(out, out, emb, resample="down")
        self.pyramid = None if pyramid is None else PyramidDown(pyramid, out)

    def forward(
        self,
        h: Float[Tensor, "batch channels y x"],
        pyramid: Float[Tensor, "batch inputs y x"],
        emb: Float[Tensor, "batch features"],
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        kept = []
        for i, block in enumerate(self.blocks):
            h = block(h, emb)
            if len(self.attentions):
                h = self.attentions[i](h)
            kept.append(h)
        if self.reduce is not None and self.pyramid is not None:
            h = self.reduce(h, emb)
            pyramid = h = (self.pyramid(pyramid) + h) * math.sqrt(0.5)
            kept.append(h)
        return h, pyramid, kept


class UpLevel(nn.Module):
    """Residual blocks of one resolution, each with a skip of the way down, then the way up."""

    def __init__(self, inputs: Sequence[int], out: int, emb: int, attends: bool, rises: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResidualBlock(width, out, emb) for width in inputs)
        self.attention = Attention(out) if attends else None
        self.enlarge = ResidualBlock(out, out, emb, resample="up") if rises else None

    def forward(
        self, h: Float[Tensor, "batch channels y x"], skips: list[Tensor], emb: Float[Tensor, "batch features"]
    ) -> Float[Tensor, "batch widths rows columns"]:
        for block in self.blocks:
            h = block(torch.cat((h, skips.pop()), 1), emb)
        if self.attention is not None:
            h = self.attention(h)
        return h if self.enlarge is None else self.enlarge(h, emb)


class ResidualBlock(nn.Module):
    """BigGAN residual block: resampling between the first norm and the first convolution."""

    def __init__(self, width: int, out: int, emb: int, resample: str | None = None) -> None:
        super().__init__()
        self.resample = resample
        self.norm1 = group_norm(width)
        self.conv1 = nn.Conv2d(width, out, 3, padding=1)
        self.embed = nn.Linear(emb, out)
        self.norm2 = group_norm(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.skip = nn.Conv2d(width, out, 1) if width != out or resample else None

    def forward(
        self, x: Float[Tensor, "batch channels y x"], emb: Float[Tensor, "batch features"]
    ) -> Float[Tensor, "batch widths rows columns"]:
        h = silu(self.norm1(x))
        if self.resample == "down":
            h, x = fir_down(h), fir_down(x)
        elif self.resample == "up":
            h, x = fir_up(h), fir_up(x)
        h = self.conv1(h).add_(self.embed(emb)[:, :, None, None])
        h = self.conv2(silu(self.norm2(h)))
        return h.add_(x if self.skip is None else self.skip(x)).mul_(math.sqrt(0.5))


class Attention(nn.Module):
    """Single-head self-attention over all positions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = group_norm(width)
        self.q, self.k, self.v, self.out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x: Float[Tensor, "batch channels y x"]) -> Float[Tensor, "batch channels y x"]:
        h = self.norm(x)
        q, k, v = (layer(h).flatten(2).transpose(1, 2) for layer in (self.q, self.k, self.v))
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        return (x + self.out(h)) * math.sqrt(0.5)


class PyramidDown(nn.Module):
    """Low-pass, then a convolution of stride 2: one step of the input's pyramid."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, out, 3, stride=2)

    def forward(self, x: Float[Tensor, "batch channels y x"]) -> Float[Tensor, "batch widths rows columns"]:
        out: Tensor = self.conv(fir(x, padding=2))
        return out


def fir(
    x: Float[Tensor, "batch channels y x"], stride: int = 1, padding: int = 0
) -> Float[Tensor, "batch channels rows columns"]:
    """The low-pass of unit gain on each channel, with zeros around the image."""
    taps = torch.tensor(FIR, dtype=x.dtype, device=x.device)
    kernel = torch.outer(taps, taps) / taps.sum() ** 2
    return F.conv2d(x, kernel.expand(x.shape[1], 1, 4, 4), stride=stride, padding=padding, groups=x.shape[1])


def fir_down(x: Float[Tensor, "batch channels y x"]) -> Float[Tensor, "batch channels y//2 x//2"]:
    """Half the resolution: low-pass, every second pixel."""
    return fir(x, stride=2, padding=1)


def fir_up(x: Float[Tensor, "batch channels y x"]) -> Float[Tensor, "batch channels 2*y 2*x"]:
    """Twice the resolution: zeros between the pixels, then the low-pass with gain 4."""
    out: Tensor = _Up.apply(x)  # type: ignore[no-untyped-call]
    return out


class _Up(torch.autograd.Function):
    """``fir_up`` without the zeros: each output is a mean of two neighbours a direction, with weights 3/4 and 1/4.

    That is bilinear interpolation, but for the border, where the neighbour outside is 0 and not a copy of the pixel
    within. The backward of ``interpolate`` is slow in channels-last; the adjoint is four times ``fir_down``.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        out = F.interpolate(x, scale_factor=2, mode="bilinear")
        for border in (out[:, :, 0], out[:, :, -1], out[..., 0], out[..., -1]):
            border.mul_(0.75)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return 4 * fir_down(grads[0])


def group_norm(width: int) -> nn.GroupNorm:
    """At most 32 groups, of at least 4 channels; where that does not divide the width, the most that do."""
    most = min(width // 4, 32)
    return nn.GroupNorm(next(n for n in range(most, 0, -1) if width % n == 0), width, eps=1e-6)
