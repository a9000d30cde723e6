"""How training slices are drawn and varied: keyed, so that a resumed training sees what an unbroken one would."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import DataLoader
from monai.transforms import (
    CenterSpatialCrop,
    Compose,
    RandAffine,
    RandFlip,
    RandomizableTransform,
    RandScaleIntensity,
    RandSpatialCrop,
)
from monai.utils import GridSampleMode
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler

from lightning_mbir.data.phase import smooth_phase


class KeyedSampler(DistributedSampler[Any]):
    """``(index, seed)`` pairs that depend on (seed, rank, how many were drawn before) alone.

    A ``DistributedSampler``, since Lightning would wrap any other and deal one rank's slices to all.

    Args:
        weights: probability of each slice, up to a common factor.
        length: draws an epoch of this rank.
        seed: of the whole training.
        rank, world_size: this process and how many there are.
        drawn: how many this rank has drawn in this training so far; asked at the start of each epoch.
    """

    def __init__(
        self, weights: Tensor, length: int, seed: int, rank: int, world_size: int, drawn: Callable[[], int]
    ) -> None:
        super().__init__(range(len(weights)), world_size, rank)  # type: ignore[arg-type]
        self.cumulative = np.cumsum(weights.double().numpy())
        self.length, self.key, self.drawn = length, (seed, rank), drawn

    def __iter__(self) -> Iterator[tuple[int, int]]:
        first = self.drawn()
        for position in range(first, first + self.length):
            rng = np.random.default_rng((*self.key, position))
            index = int(np.searchsorted(self.cumulative, rng.random() * self.cumulative[-1], side="right"))
            yield min(index, len(self.cumulative) - 1), int(rng.integers(2**31))

    def __len__(self) -> int:
        return self.length


class WholeSampler(DistributedSampler[Any]):
    """Every slice once, dealt to the ranks in turn; none is repeated to make the shares equal."""

    def __init__(self, length: int, rank: int, world_size: int) -> None:
        super().__init__(range(length), world_size, rank, shuffle=False)  # type: ignore[arg-type]
        self.indices = range(rank, length, world_size)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


class KeyedLoader(DataLoader):  # type: ignore[misc]
    """A loader whose sampler knows its place by itself; it says so to Lightning, which asks for a state."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the place is kept with the module."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to do."""


class KeyedSlices(Dataset[Tensor]):
    """Slices ``(1, Y, X)`` that a transform varies, by the seed that comes with the index.

    Args:
        slices: images ``(Y, X)`` of any floating type.
        transform: random MONAI transforms.
        key: seed of the slices that are asked for without one.
    """

    def __init__(self, slices: Sequence[Tensor], transform: Compose, key: int = 0) -> None:
        self.slices, self.transform, self.key = slices, transform, key

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, index: int | tuple[int, int]) -> Tensor:
        place, seed = index if isinstance(index, tuple) else (index, self.key + index)
        self.transform.set_random_state(seed=seed)
        varied = self.transform(self.slices[place][None].float())
        return torch.as_tensor(varied).as_subclass(torch.Tensor).contiguous()


def augmentation(crop_size: int, intensity: float, with_phase: bool) -> Compose:
    """Variations that respect anatomy, and crops of ``crop_size``.

    Left for right, rotation by up to 9 degrees, zoom by up to 20 %, a shift by up to 8 %; the intensity by up to
    ``intensity``, and a smooth phase.
    """
    margin = math.ceil(0.3 * crop_size)  # so that a turned crop has no empty corners
    steps: list[Any] = [
        RandFlip(prob=0.5, spatial_axis=1),
        AtMost(crop_size + margin),
        RandAffine(
            prob=0.8,
            rotate_range=0.15,
            scale_range=0.2,
            translate_range=0.08 * crop_size,
            mode=GridSampleMode.BICUBIC,  # bilinear would teach the prior blurred slices
            padding_mode="zeros",
        ),
        CenterSpatialCrop((crop_size, crop_size)),
        nonnegative,
    ]
    if intensity > 0:
        steps.append(RandScaleIntensity(factors=intensity, prob=0.8))
    if with_phase:
        steps.append(RandSmoothPhase())
    return Compose(steps)


class AtMost(RandSpatialCrop):  # type: ignore[misc]
    """A random crop of ``size`` of images that are larger; the others stay whole."""

    def __init__(self, size: int) -> None:
        super().__init__((size, size), random_center=True, random_size=False)
        self.size = size

    def __call__(self, img: Tensor, randomize: bool = True, lazy: bool | None = None) -> Tensor:
        if max(img.shape[-2:]) <= self.size:
            return img
        out: Tensor = super().__call__(img, randomize, lazy)
        return out


def nonnegative(image: Tensor) -> Tensor:
    """Without the undershoot of bicubic interpolation."""
    return image.clamp_min(0)


class RandSmoothPhase(RandomizableTransform):  # type: ignore[misc]
    """A magnitude ``(1, Y, X)`` with a random ``smooth_phase``, as real and imaginary part ``(2, Y, X)``."""

    def __init__(self) -> None:
        super().__init__(prob=1.0)

    def __call__(self, image: Tensor) -> Tensor:
        phase = smooth_phase(image.shape[-2:], self.R)
        return torch.cat((image * phase.cos(), image * phase.sin()))
