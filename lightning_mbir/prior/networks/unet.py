"""The light denoiser that the bundled priors use: a U-Net at half resolution."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lightning_mbir.errors import InputError
from lightning_mbir.prior.networks.local_phase import local_phase, rotated
from lightning_mbir.prior.networks.preconditioning import check_preconditioning, precondition

HEADS = 4
"""Of attention."""


class LightUNet(nn.Module):
    """Denoiser ``(x, sigma) -> x0`` that works on 2x2 blocks of pixels, so that a CPU can run it.

    The image is folded by 2 into four channels per input channel (pixel unshuffle), passes a U-Net of residual
    blocks with attention at the coarsest level, and is unfolded again. Inputs and outputs are scaled with the noise
    level, by default as in Karras et al. 2022 (EDM), which keeps them of unit variance.

    Args:
        channels: width at each resolution, from half the image's resolution down.
        blocks: residual blocks at each resolution, on either side of the U.
        in_channels: channels of the image: 1, or 2 for real and imaginary part.
        sigma_data: standard deviation of clean images about ``mean``.
        mean: subtracted from each channel before scaling, with ``align_phase`` from the real one alone; 0.35 by
            default, and 0 with two channels that are not aligned.
        attention: whether the coarsest level attends over the whole slice.
        preconditioning: ``"edm"`` or ``"ve"``, see ``precondition``.
        align_phase: two channels only: the network sees the image without its local phase, nearly real, and what it
            makes of it gets that phase again. So a phase costs it nothing, and it commutes with any global one.

    Raises:
        InputError: no level, or a last width that attention cannot divide among its heads; unknown preconditioning; a
            phase of an image of one channel.
    """

    def __init__(
        self,
        channels: Sequence[int] = (48, 80, 96, 112),
        blocks: int = 1,
        in_channels: int = 1,
        sigma_data: float = 0.35,
        mean: float | None = None,
        attention: bool = True,
        preconditioning: str = "edm",
        align_phase: bool = False,
    ) -> None:
        super().__init__()
        if not channels or min(channels) < 1 or blocks < 1:
            raise InputError("network_options: give channels of at least one level, and at least one block a level")
        if attention and channels[-1] % HEADS:
            raise InputError(
                f"network_options.channels {channels[-1]}: the last is no multiple of {HEADS}, of attention"
            )
        if align_phase and in_channels != 2:
            raise InputError("network_options.align_phase: needs two channels, real and imaginary part (complex)")
        self.preconditioning = check_preconditioning(preconditioning, sigma_data, mean)
        self.sigma_data = sigma_data
        self.mean = (0.0 if in_channels == 2 and not align_phase else 0.35) if mean is None else mean
        self.align_phase = align_phase
        self.in_channels = in_channels
        self.stride = 2 ** len(channels)
        width = 4 * channels[0]
        self.embedding = nn.Sequential(nn.Linear(64, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.first = nn.Conv2d(4 * in_channels, channels[0], 3, padding=1)

        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        previous, skips = channels[0], [channels[0]]
        for level, c in enumerate(channels):
            if level:
                self.down.append(nn.Conv2d(previous, c, 3, stride=2, padding=1))
                previous = c
                skips.append(c)
            for _ in range(blocks):
                self.down.append(ResidualBlock(previous, c, width))
                previous = c
                skips.append(c)
        self.middle = ResidualBlock(previous, previous, width)
        self.attention = SelfAttention(previous) if attention else nn.Identity()
        self.middle_out = ResidualBlock(previous, previous, width)
        for level, c in reversed(list(enumerate(channels))):
            for _ in range(blocks + 1):
                self.up.append(ResidualBlock(previous + skips.pop(), c, width))
                previous = c
            if level:
                self.up.append(Upsample(c, channels[level - 1]))
                previous = channels[level - 1]
        self.last = nn.Sequential(
            nn.GroupNorm(groups(previous), previous),
            nn.SiLU(),
            zeroed(nn.Conv2d(previous, 4 * in_channels, 3, padding=1)),
        )

    def forward(
        self, x: Float[Tensor, "batch channels y x"], sigma: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch channels y x"]:
        """Posterior mean of the clean images.

        Args:
            x: ``(B, C, Y, X)`` noisy images in the prior's unit, sides divisible by ``stride``.
            sigma: ``(B,)`` standard deviation of the noise in each channel.
        """
        if not self.align_phase:
            return precondition(self.network, x, sigma, self.preconditioning, self.sigma_data, self.mean)
        phasor = local_phase(x)
        mean = torch.tensor((self.mean, 0.0), dtype=x.dtype, device=x.device).reshape(2, 1, 1)
        aligned = rotated(x, phasor, back=True)
        return rotated(precondition(self.network, aligned, sigma, self.preconditioning, self.sigma_data, mean), phasor)

    def network(
        self, x: Float[Tensor, "batch channels y x"], noise_label: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch channels y x"]:
        """The bare U-Net: ``(B, C, Y, X)`` of unit variance and ``(B,)`` labels to ``(B, C, Y, X)``."""
        emb = self.embedding(fourier_features(noise_label))
        x = self.first(F.pixel_unshuffle(x, 2))
        skips = [x]
        for layer in self.down:
            x = layer(x, emb) if isinstance(layer, ResidualBlock) else layer(x)
            skips.append(x)
        x = self.middle_out(self.attention(self.middle(x, emb)), emb)
        for layer in self.up:
            x = layer(torch.cat((x, skips.pop()), 1), emb) if isinstance(layer, ResidualBlock) else layer(x)
        return F.pixel_shuffle(self.last(x), 2)


def complex_from_real(real: LightUNet) -> LightUNet:
    """A network of two channels with ``align_phase`` that does to the aligned real part what that of one channel does.

    The imaginary part has no influence as yet, and is what ``precondition`` makes of it without a network.
    """
    network = copy.deepcopy(real)
    network.in_channels, network.align_phase = 2, True
    first, last = real.first, cast(nn.Conv2d, real.last[2])
    assert first.bias is not None and last.bias is not None
    network.first = nn.Conv2d(2 * first.in_channels, first.out_channels, 3, padding=1)
    network.last[2] = nn.Conv2d(last.in_channels, 2 * last.out_channels, 3, padding=1)
    pairs = (("first.weight", first.weight, 1), ("last.2.weight", last.weight, 0), ("last.2.bias", last.bias, 0))
    weights = {name: torch.cat((w, torch.zeros_like(w)), axis) for name, w, axis in pairs}
    network.load_state_dict(real.state_dict() | weights)
    return network


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with group norm; the noise level scales and shifts between them."""

    def __init__(self, in_channels: int, out_channels: int, embedding: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups(in_channels), in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.film = nn.Linear(embedding, 2 * out_channels)
        self.norm2 = nn.GroupNorm(groups(out_channels), out_channels)
        self.conv2 = zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(
        self, x: Float[Tensor, "batch channels y x"], emb: Float[Tensor, "batch features"]
    ) -> Float[Tensor, "batch widths y x"]:
        h = self.conv1(silu(self.norm1(x)))
        scale, shift = self.film(emb)[:, :, None, None].chunk(2, 1)
        h = self.conv2(silu((self.norm2(h) * (1 + scale)).add_(shift)))
        return h.add_(self.skip(x)).mul_(math.sqrt(0.5))


class SelfAttention(nn.Module):
    """Residual self-attention over all positions."""

    def __init__(self, channels: int, heads: int = HEADS) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(groups(channels), channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Float[Tensor, "batch channels y x"]) -> Float[Tensor, "batch channels y x"]:
        b, c, height, width = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, -1).transpose(-1, -2).unbind(1)
        h = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2).reshape(b, c, height, width)
        return x + self.out(h)


class Upsample(nn.Module):
    """Nearest-neighbour doubling, then a 3x3 convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "batch channels y x"]) -> Float[Tensor, "batch widths 2*y 2*x"]:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


def fourier_features(
    label: Float[Tensor, " batch"], n: int = 64, lowest: float = 0.25, highest: float = 16.0
) -> Float[Tensor, "batch {n}"]:
    """``(B,)`` labels to ``(B, n)`` sines and cosines at ``n / 2`` geometric frequencies."""
    ratio = torch.arange(n // 2, device=label.device, dtype=torch.float32) / (n // 2 - 1)
    phase = 2 * math.pi * lowest * (highest / lowest) ** ratio * label.float()[:, None]
    return torch.cat((phase.sin(), phase.cos()), 1)


def silu(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """``x sigmoid(x)`` of a tensor that nobody else needs; in place where no gradient has to come back."""
    return F.silu(x, inplace=not x.requires_grad)


def groups(channels: int) -> int:
    """Number of group-norm groups: at most 16, and a divisor of the channels."""
    return math.gcd(channels, 16)


def zeroed(module: nn.Conv2d) -> nn.Conv2d:
    """The convolution with weights and bias zero, so that a residual branch starts silent."""
    nn.init.zeros_(module.weight)
    assert module.bias is not None
    nn.init.zeros_(module.bias)
    return module
