"""Undersampling masks of Cartesian k-space, with a fully sampled centre and an exact acceleration."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.flags import MASKS
from lightning_mbir.free_memory import check_fits
from lightning_mbir.kinds import check_kinds
from lightning_mbir.physics.operator import check_tensor

COLUMNS = ("uniform1d", "gaussian1d", "equispaced")
"""Those that sample whole columns."""


def make_mask(
    kind: str, shape: tuple[int, int], acc: float, center_fraction: float | None = None, seed: int = 0
) -> Float[Tensor, "y x"]:
    """A mask ``(Y, X)`` of zeros and ones, zero frequency at ``(Y // 2, X // 2)``.

    ``uniform1d``, ``gaussian1d`` and ``equispaced`` sample whole columns (phase encoding along x): drawn with equal
    odds everywhere, drawn denser towards the centre, or at equal steps over all columns outside the centre from a
    random start (as scanners do, and fastMRI). ``gaussian2d``, ``poisson2d`` and ``radial`` sample points: drawn denser
    towards the centre, no two of them close together (a Poisson disc whose radius grows away from the centre), or on
    spokes through the centre that turn by the golden angle.

    Args:
        kind: one of ``MASKS``.
        shape: ``(Y, X)`` of k-space.
        acc: columns (points) over sampled ones, at least 1; their number is ``round(total / acc)``, exactly.
        center_fraction: share of the width (2D: of each side) that is fully sampled; by default 0.32 / acc, as in
            fastMRI (8 % at 4, 4 % at 8), yet at least 8 columns or half of the sampled ones, so that small images
            keep a centre; for 2D masks the square root of 0.32 / acc, but 0.05 for ``radial``, dense there by itself.
        seed: other seeds give other masks.

    Raises:
        InputError: unknown kind, ``acc`` below 1 or too high to sample anything, a centre beyond the budget, a shape
            without points, a negative seed.
    """
    check_kinds(make_mask, locals())
    acc, seed = float(acc), int(seed)
    if kind not in MASKS:
        raise InputError(f"--mask {kind}: unknown; there are {', '.join(MASKS)}")
    if not acc >= 1 or not np.isfinite(acc):
        raise InputError(f"--acc {acc:g}: an acceleration is at least 1 (8 means one sample in eight)")
    if center_fraction is not None and not 0 <= center_fraction <= 1:
        raise InputError(f"center_fraction {center_fraction:g}: give a share from 0 to 1")
    if seed < 0:
        raise InputError(f"make_mask: seed is {seed}; give a whole number from 0 up")
    if min(shape) < 1:
        raise InputError(f"make_mask: shape is {tuple(shape)}; give (Y, X), each at least 1")
    check_fits(f"a mask of {shape[0]:,.0f} x {shape[1]:,.0f}", 64 * shape[0] * shape[1], "give a smaller k-space")
    rng = np.random.default_rng([seed, MASKS.index(kind)])
    if kind in COLUMNS:
        least = min(8, round(shape[1] / acc) // 2) / shape[1]
        fraction = max(0.32 / acc, least) if center_fraction is None else center_fraction
        columns = _columns(kind, shape[1], acc, fraction, rng)
        return torch.from_numpy(columns).float().expand(shape).clone()
    default = 0.05 if kind == "radial" else (0.32 / acc) ** 0.5
    fraction = default if center_fraction is None else center_fraction
    return torch.from_numpy(_points(kind, shape, acc, fraction, rng)).float()


def check_mask(mask: Tensor, operator: str, axes: str, by_slice: bool = False) -> None:
    """Raise where ``mask`` is none of the two ``axes``, or ``by_slice`` of three, has values other than 0 and 1, or
    samples nothing, of any slice."""
    check_tensor(f"the mask of {operator}", mask)
    if mask.ndim not in ((2, 3) if by_slice else (2,)):
        raise InputError(f"{operator} takes a mask of {axes}, not {tuple(mask.shape)}")
    check_fits(f"{operator}: a mask of {tuple(mask.shape)}", 16 * mask.numel(), "give a smaller k-space")
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise InputError(f"{operator} takes a mask of zeros and ones")
    if not mask.numel() or not bool(mask.flatten(-2).any(-1).all()):
        of_slice = " of a slice" if mask.ndim == 3 else ""
        raise InputError(f"the mask samples nothing{of_slice}; at least one point of k-space must be 1")


def _columns(kind: str, n: int, acc: float, fraction: float, rng: np.random.Generator) -> np.ndarray:
    budget = _budget(n, acc)
    center = _centre(n, fraction)
    _check_centre(int(center.sum()), budget, acc)
    if kind == "equispaced":
        return _equispaced(center, budget, rng)
    distance = (np.arange(n) - n // 2) / n
    density = np.exp(-0.5 * (distance / 0.18) ** 2) if kind == "gaussian1d" else np.ones(n)
    return _fill(center, density, budget, rng)


def _points(kind: str, shape: tuple[int, int], acc: float, fraction: float, rng: np.random.Generator) -> np.ndarray:
    budget = _budget(shape[0] * shape[1], acc)
    center = _centre(shape[0], fraction)[:, None] & _centre(shape[1], fraction)[None, :]
    _check_centre(int(center.sum()), budget, acc)
    if kind == "radial":
        return _spokes(center, budget, rng)
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
    """Darts thrown in random order, each kept if it is in no disc of an earlier one; discs as large as the budget
    allows. Their radius, in pixels, is ``scale (0.5 + 2 radius)``: denser towards the centre. So two darts are further
    apart than the smaller one's radius."""
    order = np.flatnonzero(~center.ravel())
    order = order[rng.permutation(len(order))]
    discs = 0.5 + 2.0 * radius
    low, high = 0.0, 2.0 * np.sqrt(center.size / budget)  # scales at which the budget is met, and is not
    mask = np.ones_like(center)
    while high - low > 0.01:
        middle = (low + high) / 2
        thrown = _throw(center, discs * middle, order)
        if thrown.sum() >= budget:
            low, mask = middle, thrown
        else:
            high = middle
    # A few darts too many, since radii are stepwise on a grid: drop the last thrown.
    surplus = int(mask.sum()) - budget
    kept = order[mask.ravel()[order]]
    if surplus > 0:
        mask.ravel()[kept[-surplus:]] = False
    return mask


def _throw(center: np.ndarray, discs: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The centre and the darts that are kept; one after the other, so every step is a look-up in flat arrays."""
    border = int(discs.max()) + 1  # spares every disc the check for the border
    width = center.shape[1] + 2 * border
    taken = bytearray(np.pad(center, border).tobytes())
    marks = np.frombuffer(taken, dtype=np.bool_)
    rows, columns = np.divmod(order, center.shape[1])
    places = ((rows + border) * width + columns + border).tolist()
    squares = np.floor(discs.ravel()[order] ** 2).astype(int).tolist()  # distances on a grid have whole squares
    stencils: dict[int, np.ndarray] = {}
    kept = np.zeros(center.size, dtype=bool)
    chosen = []
    for number, (place, square) in enumerate(zip(places, squares, strict=True)):
        if taken[place]:
            continue
        if square not in stencils:
            reach = int(np.sqrt(square))
            y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1]
            inside = np.nonzero(y**2 + x**2 <= square)
            stencils[square] = (inside[0] - reach) * width + inside[1] - reach
        marks[stencils[square] + place] = True
        chosen.append(number)
    kept[order[chosen]] = True
    return kept.reshape(center.shape) | center


def _equispaced(center: np.ndarray, budget: int, rng: np.random.Generator) -> np.ndarray:
    """The centre, and columns at equal steps over all the others, from a random start."""
    outside = np.flatnonzero(~center)
    count = budget - int(center.sum())
    mask = center.copy()
    if count:
        mask[outside[((np.arange(count) + rng.random()) * (len(outside) / count)).astype(int)]] = True
    return mask


def _spokes(center: np.ndarray, budget: int, rng: np.random.Generator) -> np.ndarray:
    """The centre and spokes through it at golden angles, on the nearest grid points; the last one cut short."""
    shape = np.array(center.shape)
    start = rng.random() * np.pi
    steps = np.arange(2 * int(shape.max()))
    along = np.where(steps % 2, -1, 1) * ((steps + 1) // 2) / shape.max()  # from the centre out: 0, -1, 1, ...
    mask = center.copy()
    spokes = 2 * (1 + budget // int(shape.max()))
    while True:
        angle = start + np.pi * 2 / (1 + np.sqrt(5)) * np.arange(spokes)
        direction = np.stack((np.sin(angle), np.cos(angle)))
        direction /= np.abs(direction).max(0)  # to the border of k-space, not to an ellipse in it
        points = np.rint(direction[:, :, None] * along * shape[:, None, None]).astype(int) + shape[:, None, None] // 2
        points = points.reshape(2, -1)
        points = points[:, ((points >= 0) & (points < shape[:, None])).all(0)]
        flat = points[0] * shape[1] + points[1]
        _, first = np.unique(flat, return_index=True)
        ordered = flat[np.sort(first)]
        fresh = ordered[~center.ravel()[ordered]]
        missing = budget - int(center.sum())
        if len(fresh) >= missing:
            mask.ravel()[fresh[:missing]] = True
            return mask
        spokes *= 2
