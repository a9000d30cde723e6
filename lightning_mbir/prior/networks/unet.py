"""The light denoiser that the bundled priors use: a U-Net at half resolution."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from types import MappingProxyType
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
        in_channels: channels of a slice: 1, or 2 for real and imaginary part.
        sigma_data: standard deviation of clean images about ``mean``.
        mean: subtracted from each channel before scaling, with ``align_phase`` from the real one alone; 0.35 by
            default, and 0 with two channels that are not aligned.
        attention: whether the coarsest level attends over the whole slice.
        preconditioning: ``"edm"`` or ``"ve"``, see ``precondition``.
        skips: how what the way down has found meets the way up. ``"concat"``: every layer's, beside what comes from
            below, with one block more a resolution; ``"add"``: the sum of both, once a resolution, at half the cost.
        slices: neighbouring slices that are denoised together: 1, or 3, whose channels stand one slice after another.
            The finest resolution sees each by itself, all others see them together, and the network is told how far
            apart they are: details take capacity, and what slices have in common is coarse.
        align_phase: two channels only: the network sees the image without its local phase, nearly real, and what it
            makes of it gets that phase again. So a phase costs it nothing, and it commutes with any global one. Each
            slice has its own.

    Raises:
        InputError: no level, or a last width that attention cannot divide among its heads; unknown preconditioning or
            skips; a phase of an image of one channel; another number of slices.
    """

    newest = MappingProxyType({"skips": "add"})
    """What a new training takes where it is told nothing else; a file that does not say has what came before."""

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
        skips: str = "concat",
        slices: int = 1,
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
        if skips not in ("concat", "add"):
            raise InputError(f"network_options.skips {skips!r}: give concat or add")
        if slices not in (1, 3):
            raise InputError(f"network_options.slices {slices}: give 1, or 3 neighbouring ones")
        if slices > 1 and len(channels) < 2:
            raise InputError(
                "network_options.slices 3: give channels of at least two levels; the finest joins no slices"
            )
        self.adds = skips == "add"
        self.widths = (tuple(channels), blocks)
        self.preconditioning = check_preconditioning(preconditioning, sigma_data, mean)
        self.sigma_data = sigma_data
        self.mean = (0.0 if in_channels == 2 and not align_phase else 0.35) if mean is None else mean
        self.align_phase = align_phase
        self.in_channels, self.slices = in_channels, slices
        self.stride = 2 ** len(channels)
        width = 4 * channels[0]
        self.embedding = nn.Sequential(nn.Linear(64, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        if slices > 1:
            self.distance = nn.Linear(64, width)
            nn.init.zeros_(self.distance.weight)
            nn.init.zeros_(self.distance.bias)
        self.first = nn.Conv2d(4 * in_channels, channels[0], 3, padding=1)

        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        previous, widths = channels[0], [channels[0]]
        for level, c in enumerate(channels):
            if level:
                together = slices if level == 1 else 1
                self.down.append(nn.Conv2d(together * previous, c, 3, stride=2, padding=1))
                previous = c
                widths.append(c)
            for _ in range(blocks):
                self.down.append(ResidualBlock(previous, c, width))
                previous = c
                widths.append(c)
        self.middle = ResidualBlock(previous, previous, width)
        self.attention = SelfAttention(previous) if attention else nn.Identity()
        self.middle_out = ResidualBlock(previous, previous, width)
        for level, c in reversed(list(enumerate(channels))):
            for _ in range(blocks if self.adds else blocks + 1):
                self.up.append(ResidualBlock(previous if self.adds else previous + widths.pop(), c, width))
                previous = c
            if level:
                self.up.append(Upsample(c, channels[level - 1] * (slices if level == 1 else 1)))
                previous = channels[level - 1]
        every = len(channels) * (blocks + 1)
        self.kept = range(blocks - 1, every, blocks + 1) if self.adds else range(-1, every)
        """Layers of the way down whose output the way up meets, -1 being what comes before them."""
        self.met = (
            range(0, every, blocks + 1)
            if self.adds
            else [i for i, layer in enumerate(self.up) if isinstance(layer, ResidualBlock)]
        )
        """Layers of the way up before which it does."""
        self.joined, self.split = blocks, len(self.up) - (blocks if self.adds else blocks + 1)
        """The layers of the way down and up before which slices are joined, and parted again."""
        self.last = nn.Sequential(
            nn.GroupNorm(groups(previous), previous),
            nn.SiLU(),
            zeroed(nn.Conv2d(previous, 4 * in_channels, 3, padding=1)),
        )

    def forward(
        self,
        x: Float[Tensor, "batch channels y x"],
        sigma: Float[Tensor, " batch"],
        distance: Float[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch channels y x"]:
        """Posterior mean of the clean images.

        Args:
            x: ``(B, S C, Y, X)`` noisy images in the prior's unit, sides divisible by ``stride``.
            sigma: ``(B,)`` standard deviation of the noise in each channel.
            distance: ``(B,)`` mm between the slices, where there are several.
        """
        sigma, distance = once(sigma), None if distance is None else once(distance)

        def network(x: Tensor, label: Tensor) -> Tensor:
            return self.network(x, label, distance)

        if not self.align_phase:
            return precondition(network, x, sigma, self.preconditioning, self.sigma_data, self.mean)
        slices = x.reshape(-1, 2, *x.shape[-2:])
        phasor = local_phase(slices)
        mean = torch.tensor((self.mean, 0.0), dtype=x.dtype, device=x.device).repeat(self.slices).reshape(-1, 1, 1)
        aligned = rotated(slices, phasor, back=True).reshape(x.shape)
        clean = precondition(network, aligned, sigma, self.preconditioning, self.sigma_data, mean)
        return rotated(clean.reshape(slices.shape), phasor).reshape(x.shape)

    def network(
        self,
        x: Float[Tensor, "batch channels y x"],
        noise_label: Float[Tensor, "#batch"],
        distance: Float[Tensor, "#batch"] | None = None,
    ) -> Float[Tensor, "batch channels y x"]:
        """The bare U-Net: ``(B, S C, Y, X)`` of unit variance and ``(B,)`` or ``(1,)`` labels to ``(B, S C, Y, X)``."""
        emb = self.embedding(fourier_features(noise_label))
        if self.slices > 1:
            assert distance is not None
            emb = emb + self.distance(fourier_features(distance.log() / 4))
        n = self.slices
        each = emb if len(emb) == 1 else emb.repeat_interleave(n, 0)
        x = self.first(F.pixel_unshuffle(parted(x, n), 2))
        skips = [x] if -1 in self.kept else []
        for i, layer in enumerate(self.down):
            x = joined(x, n) if i == self.joined else x
            x = layer(x, each if i < self.joined else emb) if isinstance(layer, ResidualBlock) else layer(x)
            if i in self.kept:
                skips.append(x)
        x = self.middle_out(self.attention(self.middle(x, emb)), emb)
        for i, layer in enumerate(self.up):
            x = parted(x, n) if i == self.split else x
            if i in self.met:
                x = self.met_by(x, skips.pop())
            x = layer(x, emb if i < self.split else each) if isinstance(layer, ResidualBlock) else layer(x)
        norm, _, last = self.last
        return joined(F.pixel_shuffle(last(silu(norm(x))), 2), n)

    def met_by(
        self, x: Float[Tensor, "batch widths y x"], skip: Float[Tensor, "batch skipped y x"]
    ) -> Float[Tensor, "batch both y x"]:
        """What comes from below with what the way down has found, which nobody else needs any more."""
        if not self.adds:
            return torch.cat((x, skip), 1)
        return x + skip if x.requires_grad else skip.add_(x)


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


def three_from_one(one: LightUNet) -> LightUNet:
    """A network of three slices that does to the middle one what that of one slice does, whatever the distance.

    The outer ones are treated alike at the finest resolution, where each is by itself, and take from all others what
    these find in the middle one.
    """
    network = LightUNet(
        *one.widths, one.in_channels, one.sigma_data, one.mean, isinstance(one.attention, SelfAttention),
        one.preconditioning, one.align_phase, "add" if one.adds else "concat", 3,
    )  # fmt: skip
    weights, own = one.state_dict(), network.state_dict()
    for name, w in weights.items():
        if own[name].shape != w.shape:  # where they are joined, and parted again
            axis = next(
                i for i, (ours, theirs) in enumerate(zip(own[name].shape, w.shape, strict=True)) if ours != theirs
            )
            weights[name] = torch.cat((0 * w, w, 0 * w) if axis == 1 else (w, w, w), axis)
    network.load_state_dict(weights | {name: torch.zeros_like(w) for name, w in own.items() if name not in weights})
    network.coarse_size = getattr(one, "coarse_size", None)  # type: ignore[assignment]
    return network


def adding_from_concat(given: LightUNet) -> LightUNet:
    """A network whose skips add, with what it can use of one of the same widths that concatenates them.

    What is lost is the last block of each resolution on the way up, and what the others made of the skips beside them.
    So it is where a training starts from, and no denoiser as yet.
    """
    network = LightUNet(
        *given.widths, given.in_channels, given.sigma_data, given.mean, isinstance(given.attention, SelfAttention),
        given.preconditioning, given.align_phase, "add", given.slices,
    )  # fmt: skip
    theirs, weights, behind = given.state_dict(), network.state_dict(), 0
    places = {}
    for i, layer in enumerate(network.up):
        behind += isinstance(layer, Upsample)
        places[f"up.{i}."] = f"up.{i + behind}."
    for name, own in weights.items():
        start = next((start for start in places if name.startswith(start)), "")
        found = theirs[places.get(start, "") + name.removeprefix(start)]
        weights[name] = found[tuple(slice(n) for n in own.shape)]
    network.load_state_dict(weights)
    network.coarse_size = getattr(given, "coarse_size", None)  # type: ignore[assignment]
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
        self, x: Float[Tensor, "batch channels y x"], emb: Float[Tensor, "#batch features"]
    ) -> Float[Tensor, "batch widths y x"]:
        h = self.conv1(silu(self.norm1(x)))
        scale, shift = self.film(emb).chunk(2, 1)
        norm, half = self.norm2, math.sqrt(0.5)
        if len(emb) == 1:  # the norm scales and shifts in any case: with the level's factors it costs nothing more
            scaled, shifted = norm.weight * (1 + scale[0]), norm.bias * (1 + scale[0]) + shift[0]
            h = F.group_norm(h, norm.num_groups, scaled, shifted, norm.eps)
        else:
            h = (norm(h) * (1 + scale[:, :, None, None])).add_(shift[:, :, None, None])
        bias = cast(Tensor, self.conv2.bias)
        h = F.conv2d(silu(h), self.conv2.weight * half, bias * half, padding=1)
        return h.add_(self.skip(x), alpha=half)


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
    """Nearest-neighbour doubling, then a 3x3 convolution: together four of 2x2 pixels, with 4/9 of the products.

    A transposed convolution of 4x4 pixels would do as well, but torch's crashes on a CPU where memory runs out.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "batch channels y x"]) -> Float[Tensor, "batch widths 2*y 2*x"]:
        bias, (n, _, rows, columns) = cast(Tensor, self.conv.bias), x.shape
        weight = kernels_of_doubled(self.conv.weight).contiguous(memory_format=torch.channels_last)
        found = F.conv2d(F.pad(x, (1, 1, 1, 1)), weight, bias.repeat(4)).permute(0, 2, 3, 1)
        found = found.reshape(n, rows + 1, columns + 1, 2, 2, len(bias)).transpose(2, 3)
        found = found.reshape(n, 2 * rows + 2, 2 * columns + 2, len(bias))
        return found[:, 1:-1, 1:-1].permute(0, 3, 1, 2)


def kernels_of_doubled(weight: Float[Tensor, "widths channels 3 3"]) -> Float[Tensor, "4*widths channels 2 2"]:
    """What 3x3 kernels are to an image before each of its pixels became 2x2.

    Two for odd rows, of odd and of even columns, and two for even rows: so interleaved, from the border of zeros on,
    they make the rows and columns in their order.
    """

    def summed(w: Tensor, axis: int) -> list[Tensor]:
        first, second, third = w.unbind(axis)
        return [torch.stack((first + second, third), axis), torch.stack((first, second + third), axis)]

    return torch.cat([kernel for rows in summed(weight, 2) for kernel in summed(rows, 3)])


def parted(x: Float[Tensor, "batch channels y x"], slices: int) -> Float[Tensor, "separate own y x"]:
    """``(B, S C, Y, X)`` with each slice by itself, ``(B S, C, Y, X)``."""
    if slices == 1:
        return x
    n, channels, rows, columns = x.shape
    pixels = x.permute(0, 2, 3, 1).reshape(n, rows, columns, slices, channels // slices)  # as they lie in memory
    return pixels.permute(0, 3, 1, 2, 4).flatten(0, 1).permute(0, 3, 1, 2)


def joined(x: Float[Tensor, "separate own y x"], slices: int) -> Float[Tensor, "batch channels y x"]:
    """``(B S, C, Y, X)`` with the slices together, ``(B, S C, Y, X)``."""
    if slices == 1:
        return x
    n, channels, rows, columns = x.shape
    pixels = x.permute(0, 2, 3, 1).reshape(n // slices, slices, rows, columns, channels)
    return pixels.permute(0, 2, 3, 1, 4).flatten(-2).permute(0, 3, 1, 2)


def fourier_features(
    label: Float[Tensor, " batch"], n: int = 64, lowest: float = 0.25, highest: float = 16.0
) -> Float[Tensor, "batch {n}"]:
    """``(B,)`` labels to ``(B, n)`` sines and cosines at ``n / 2`` geometric frequencies."""
    ratio = torch.arange(n // 2, device=label.device, dtype=torch.float32) / (n // 2 - 1)
    phase = 2 * math.pi * lowest * (highest / lowest) ** ratio * label.float()[:, None]
    return torch.cat((phase.sin(), phase.cos()), 1)


def once(values: Float[Tensor, " batch"]) -> Float[Tensor, "#batch"]:
    """``(1,)`` of values that are expanded from one: the same for all, known without a look at them."""
    return values[:1] if values.stride(0) == 0 else values


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
