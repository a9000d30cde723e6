"""Undersampling masks of Cartesian k-space, with a fully sampled centre and an exact acceleration."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from lightning_mbir.errors import InputError

MASKS = ("uniform1d", "gaussian1d", "gaussian2d", "poisson2d")


def make_mask(
    kind: str, shape: tuple[int, int], acc: float, center_fraction: float | None = None, seed: int = 0
) -> Tensor:
    """A mask ``(Y, X)`` of zeros and ones, zero frequency at ``(Y // 2, X // 2)``.

    ``uniform1d`` and ``gaussian1d`` sample whole columns (phase encoding along x), equally often everywhere or denser
    towards the centre; ``gaussian2d`` and ``poisson2d`` sample points, the latter no two of them close together (a
    Poisson disc whose radius grows away from the centre).

    Args:
        kind: one of ``MASKS``.
        shape: ``(Y, X)`` of k-space.
        acc: columns (points) over sampled ones, at least 1; their number is ``round(total / acc)``, exactly.
        center_fraction: share of the width (2D: of each side) that is fully sampled; by default 0.32 / acc, as in
            fastMRI (8 % at 4, 4 % at 8), yet at least 8 columns or half of the sampled ones, so that small images
            keep a centre; for 2D masks the square root of 0.32 / acc.
        seed: other seeds give other masks.

    Raises:
        InputError: unknown kind, ``acc`` below 1 or too high to sample anything, a centre beyond the budget.
    """
    if kind not in MASKS:
        raise InputError(f"--mask {kind}: unknown; there are {', '.join(MASKS)}")
    if not acc >= 1 or not np.isfinite(acc):
        raise InputError(f"--acc {acc:g}: an acceleration is at least 1 (8 means one sample in eight)")
    if center_fraction is not None and not 0 <= center_fraction <= 1:
        raise InputError(f"center_fraction {center_fraction:g}: give a share from 0 to 1")
    rng = np.random.default_rng([seed, MASKS.index(kind)])
    if kind.endswith("1d"):
        least = min(8, round(shape[1] / acc) // 2) / shape[1]
        fraction = max(0.32 / acc, least) if center_fraction is None else center_fraction
        columns = _columns(kind, shape[1], acc, fraction, rng)
        return torch.from_numpy(columns).float().expand(shape).clone()
    fraction = (0.32 / acc) ** 0.5 if center_fraction is None else center_fraction
    return torch.from_numpy(_points(kind, shape, acc, fraction, rng)).float()


def check_mask(mask: Tensor, operator: str, axes: str) -> None:
    """Raise where ``mask`` is none of the two ``axes``, has values other than 0 and 1, or samples nothing."""
    if mask.ndim != 2:
        raise InputError(f"{operator} takes a mask of {axes}, not {tuple(mask.shape)}")
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise InputError(f"{operator} takes a mask of zeros and ones")
    if not bool(mask.any()):
        raise InputError("the mask samples nothing; at least one point of k-space must be 1")


def _columns(kind: str, n: int, acc: float, fraction: float, rng: np.random.Generator) -> np.ndarray:
    budget = _budget(n, acc)
    center = _centre(n, fraction)
    _check_centre(int(center.sum()), budget, acc)
    distance = (np.arange(n) - n // 2) / n
    density = np.exp(-0.5 * (distance / 0.18) ** 2) if kind == "gaussian1d" else np.ones(n)
    return _fill(center, density, budget, rng)


def _points(kind: str, shape: tuple[int, int], acc: float, fraction: float, rng: np.random.Generator) -> np.ndarray:
    budget = _budget(shape[0] * shape[1], acc)
    center = _centre(shape[0], fraction)[:, None] & _centre(shape[1], fraction)[None, :]
    _check_centre(int(center.sum()), budget, acc)
    y, x = ((np.arange(n) - n // 2) / n for n in shape)
    radius = np.hypot(y[:, None], x[None, :])
    if kind == "gaussian2d":
        return _fill(center, np.exp(-0.5 * (radius / 0.18) ** 2), budget, rng)
    return _poisson_disc(center, radius, budget, rng)


def _budget(total: int, acc: float) -> int:
    budget = round(total / acc)
    if budget < 1:
        raise InputError(f"--acc {acc:g}: leaves none of {total} samples; give a lower acceleration")
    return budget


def _centre(n: int, fraction: float) -> np.ndarray:
    width = round(n * fraction)
    start = n // 2 - width // 2
    index = np.arange(n)
    return (index >= start) & (index < start + width)


def _check_centre(size: int, budget: int, acc: float) -> None:
    if size > budget:
        raise InputError(
            f"the fully sampled centre takes {size} samples, but acceleration {acc:g} leaves {budget}; "
            "give a smaller center_fraction or a lower acceleration"
        )


def _fill(center: np.ndarray, density: np.ndarray, budget: int, rng: np.random.Generator) -> np.ndarray:
    """The centre and, outside it, draws by density without repetition, until the budget is spent."""
    mask = center.copy()
    outside = np.flatnonzero(~center.ravel())
    weight = density.ravel()[outside]
    # The largest of u^(1/w): weighted draws without replacement (Efraimidis and Spirakis 2006).
    keys = np.log(rng.random(len(outside))) / weight
    chosen = outside[np.argsort(-keys, kind="stable")[: budget - int(center.sum())]]
    mask.ravel()[chosen] = True
    return mask


def _poisson_disc(center: np.ndarray, radius: np.ndarray, budget: int, rng: np.random.Generator) -> np.ndarray:
    """Darts thrown in random order, each kept if none is within its disc; discs as large as the budget allows."""
    order = np.flatnonzero(~center.ravel())
    order = order[rng.permutation(len(order))]
    throw = _thrower(center, radius, order)
    low, high = 0.0, 2.0 * np.sqrt(center.size / budget)  # disc radii at which the budget is met, and is not
    while high - low > 0.01:
        middle = (low + high) / 2
        low, high = (middle, high) if throw(middle).sum() >= budget else (low, middle)
    mask = throw(low)
    # A few darts too many, since radii are stepwise on a grid: drop the last thrown.
    surplus = int(mask.sum()) - budget
    thrown = order[mask.ravel()[order]]
    if surplus > 0:
        mask.ravel()[thrown[-surplus:]] = False
    return mask


def _thrower(center: np.ndarray, radius: np.ndarray, order: np.ndarray) -> Callable[[float], np.ndarray]:
    rows, columns = center.shape

    def throw(scale: float) -> np.ndarray:
        mask = center.copy()
        taken = center.copy()
        for index in order:
            i, j = divmod(int(index), columns)
            if taken[i, j]:
                continue
            mask[i, j] = True
            disc = scale * (0.5 + 2.0 * radius[i, j])  # denser towards the centre
            reach = int(disc)
            top, left = max(0, i - reach), max(0, j - reach)
            y, x = np.ogrid[top : min(rows, i + reach + 1), left : min(columns, j + reach + 1)]
            taken[top : i + reach + 1, left : j + reach + 1] |= (y - i) ** 2 + (x - j) ** 2 <= disc**2
        return mask

    return throw
