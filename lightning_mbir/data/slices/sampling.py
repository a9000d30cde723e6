"""How training slices are drawn and varied: keyed, so that a resumed training sees what an unbroken one would."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from monai.data import DataLoader
from monai.transforms import (
    Affine,
    CenterSpatialCrop,
    Compose,
    RandFlip,
    RandomizableTransform,
    RandScaleIntensity,
    RandSpatialCrop,
)
from monai.utils import GridSampleMode
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler, default_collate

from lightning_mbir.data.phantoms.phase import rough_phase, smooth_phase

Axis = Literal["axial", "coronal", "sagittal"]


class KeyedBatches(DistributedSampler[Any]):
    """Batches of ``(index, seed)`` pairs that depend on (seed, rank, how many came before) alone.

    The slices of a batch are all of one group, drawn as often as its slices weigh together. A ``DistributedSampler``,
    since Lightning would wrap any other and deal one rank's slices to all.

    Args:
        weights: probability of each slice, up to a common factor.
        groups: for each group the places of its slices, and how many of them are a batch.
        length: batches an epoch of this rank.
        seed: of the whole training.
        rank, world_size: this process and how many there are.
        seen: batches that this rank has drawn in this training so far; asked at the start of each epoch.
    """

    def __init__(
        self,
        weights: Tensor,
        groups: Sequence[tuple[Tensor, int]],
        length: int,
        seed: int,
        rank: int,
        world_size: int,
        seen: Callable[[], int],
    ) -> None:
        super().__init__(range(len(weights)), world_size, rank)  # type: ignore[arg-type]
        self.groups = [
            (places.numpy(), np.cumsum(weights[places].double().numpy()), batch_size) for places, batch_size in groups
        ]
        weight = np.array([cumulative[-1] for _, cumulative, _ in self.groups])
        self.shares = weight / weight.sum()
        self.length, self.key, self.seen = length, (seed, rank), seen

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        first = self.seen()
        for number in range(first, first + self.length):
            rng = np.random.default_rng((*self.key, number))
            places, cumulative, batch_size = self.groups[int(rng.choice(len(self.groups), p=self.shares))]
            drawn = np.searchsorted(cumulative, rng.random(batch_size) * cumulative[-1], side="right")
            seeds = rng.integers(2**31, size=batch_size)
            yield [(int(places[min(i, len(places) - 1)]), int(seed)) for i, seed in zip(drawn, seeds, strict=True)]

    def __len__(self) -> int:
        return self.length


class WholeSampler(DistributedSampler[Any]):
    """Every slice once, dealt to the ranks in turn; none is repeated to make the shares equal.

    A rank beyond the last slice takes one again: with none it would miss what all ranks compute together, and they
    would wait for it for ever.
    """

    def __init__(self, length: int, rank: int, world_size: int) -> None:
        super().__init__(range(length), world_size, rank, shuffle=False)  # type: ignore[arg-type]
        first = rank % length if length else 0
        self.indices = range(first, length, world_size)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


class KeyedLoader(DataLoader):  # type: ignore[misc]
    """The batches of a ``KeyedBatches``, which knows its place by itself: Lightning asks for a state, and gets none.

    Args:
        slices: by ``(index, seed)``; those of a batch are alike in shape.
        batches: what is drawn.
        num_workers: processes that vary slices, each a batch.
    """

    def __init__(self, slices: Dataset[Any], batches: KeyedBatches, num_workers: int) -> None:
        super().__init__(
            _Stacked(slices),
            batch_size=None,  # the sampler gives whole batches
            sampler=batches,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            collate_fn=as_it_is,
        )

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the place is kept with the module."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to do."""


class _Stacked(Dataset[Any]):
    """A batch by the list of what is in it."""

    def __init__(self, slices: Dataset[Any]) -> None:
        self.slices = slices

    def __getitem__(self, drawn: list[tuple[int, int]]) -> Any:
        return default_collate([self.slices[one] for one in drawn])


def as_it_is(item: Any) -> Any:
    """For a loader that has nothing to collate; a function of a module, since worker processes get it by name."""
    return item


class KeyedSlices(Dataset[Any]):
    """Slices ``(1, Y, X)`` that a transform varies, by the seed that comes with the index.

    Args:
        slices: images ``(Y, X)`` of any floating type, or triples of them ``(3, Y, X)``, which are varied alike.
        transforms: a random MONAI transform for each; an index without a seed is its own.
        distances: of triples, mm from slice to slice, which then come with them.
    """

    def __init__(
        self, slices: Sequence[Tensor], transforms: Sequence[Compose], distances: Sequence[float] | None = None
    ) -> None:
        self.slices, self.transforms, self.distances = slices, transforms, distances

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, index: int | tuple[int, int]) -> Any:
        place, seed = index if isinstance(index, tuple) else (index, index)
        transform = self.transforms[place]
        transform.set_random_state(seed=seed)
        image = self.slices[place]
        varied = transform((image[None] if image.ndim == 2 else image).float())
        image = torch.as_tensor(varied).as_subclass(torch.Tensor).contiguous()
        return image if self.distances is None else (image, torch.tensor(self.distances[place]))


def triples(stack: Tensor) -> dict[int, list[Tensor]]:
    """Three slices each, ``(3, Y, X)``, of a stack ``(n, Y, X)`` without copying, by how many slices apart they are.

    One and three: a prior of three slices is used on both (``lightning_mbir.prior.neighbours``).
    """
    spans = {step: 2 * step + 1 for step in (1, 3) if len(stack) > 2 * step}
    return {step: list(stack.unfold(0, span, 1)[..., ::step].movedim(-1, 1)) for step, span in spans.items()}


def augmentation(
    size: tuple[int, int], axis: Axis, intensity: float, with_phase: bool, turned: bool = False
) -> Compose:
    """Variations that respect anatomy, and crops of ``size`` (rows, columns) of images that are larger.

    Left for right (not in sagittal slices, where it would be front for back), rotation by up to 9 degrees, another size
    by up to 20 %, a shift by up to 8 %; the intensity by up to ``intensity``, and a phase, in half
    of the images a rough one. Where ``turned``, the order of the channels, half of the time.
    """
    steps: list[Any] = [] if axis == "sagittal" else [RandFlip(prob=0.5, spatial_axis=1)]
    steps += [
        RandSpatialCrop([math.ceil(1.3 * side) for side in size]),  # room, so that few turned crops have empty corners
        # Around axial slices is air; a stack ends where the scan did, and the body goes on.
        RandSimilarity(0.15, (0.8, 1.2), 0.08, "zeros" if axis == "axial" else "reflection", prob=0.8),
        CenterSpatialCrop(size),
        nonnegative,
    ]
    if turned:
        steps.append(RandReversed(prob=0.5))
    if intensity > 0:
        steps.append(RandScaleIntensity(factors=intensity, prob=0.8))
    if with_phase:
        steps.append(RandPhase(rough=0.5))
    return Compose(steps)


class RandSimilarity(RandomizableTransform):  # type: ignore[misc]
    """Turns, resizes and shifts images ``(C, Y, X)``, all channels alike.

    MONAI's ``RandAffine`` draws a size for each axis, and stretches anatomy.

    Args:
        angle: radians, to either side.
        sizes: smallest and largest factor of what is in the image, along y and x alike.
        shift: share of each side of the image, to either side.
        padding_mode: of ``torch.nn.functional.grid_sample``, for what lies outside.
        prob: of any change.
    """

    def __init__(
        self,
        angle: float,
        sizes: tuple[float, float],
        shift: float,
        padding_mode: str = "zeros",
        prob: float = 1.0,
    ) -> None:
        super().__init__(prob)
        self.angle, self.sizes, self.shift, self.padding_mode = angle, sizes, shift, padding_mode

    def __call__(self, image: Tensor) -> Tensor:
        self.randomize(None)
        if not self._do_transform:
            return image
        angle, size = self.R.uniform(-self.angle, self.angle), self.R.uniform(*self.sizes)
        shift = [side * self.R.uniform(-self.shift, self.shift) for side in image.shape[-2:]]
        turned: Tensor = Affine(  # of the sampling grid, hence the inverse
            rotate_params=angle,
            translate_params=[-step / size for step in shift],
            scale_params=(1 / size, 1 / size),
            mode=GridSampleMode.BICUBIC,  # bilinear would teach the prior blurred slices
            padding_mode=self.padding_mode,
            image_only=True,
        )(image)
        return turned


def nonnegative(image: Tensor) -> Tensor:
    """Without the undershoot of bicubic interpolation."""
    return image.clamp_min(0)


class RandReversed(RandomizableTransform):  # type: ignore[misc]
    """Images ``(C, Y, X)`` with the last channel first."""

    def __call__(self, image: Tensor) -> Tensor:
        self.randomize(None)
        return image.flip(0) if self._do_transform else image


class RandPhase(RandomizableTransform):  # type: ignore[misc]
    """Magnitudes ``(S, Y, X)`` with a random phase, as real and imaginary parts ``(2 S, Y, X)``, slice after slice.

    Several slices have one smooth phase, up to a constant, as neighbours do.

    Args:
        rough: share of the images that have a ``rough_phase`` over the ``smooth_phase`` of all.
    """

    def __init__(self, rough: float = 0.0) -> None:
        super().__init__(prob=1.0)
        self.rough = rough

    def __call__(self, image: Tensor) -> Tensor:
        smooth, rough = smooth_phase(image.shape[-2:], self.R), self.R.uniform() < self.rough
        parts = []
        for i, one in enumerate(image):
            phase = smooth + (self.R.uniform(-0.5, 0.5) if i else 0.0)
            if rough:
                phase = phase + rough_phase(one, self.R)
            parts += [one * phase.cos(), one * phase.sin()]
        return torch.stack(parts)
