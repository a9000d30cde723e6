"""What sampling masks promise: bytes that stay, counts, steps, distances."""

import hashlib

import numpy as np
import pytest
import torch

from lightning_mbir.physics import FourierSampling, make_mask

# Published tables were made with these; their bytes must never change.
DIGESTS = {
    "uniform1d": "dc00a38fd5bc6487",
    "gaussian1d": "a4c13bdf43ac8428",
    "gaussian2d": "4c1b4219ced0ee4f",
    "poisson2d": "f6521991fb85b2d9",
}


@pytest.mark.parametrize("kind", DIGESTS)
def test_masks_of_published_tables_keep_their_bytes(kind: str) -> None:
    found = hashlib.sha256()
    for shape, acc, seed in (((128, 128), 8, 0), ((50, 75), 4, 3), ((64, 32), 2.5, 1)):
        found.update(make_mask(kind, shape, acc, seed=seed).numpy().astype(np.uint8).tobytes())
    assert found.hexdigest()[:16] == DIGESTS[kind]


@pytest.mark.parametrize(("acc", "expected"), [(4, 4.0), (6, 192 / 32), (7, 192 / 27), (1, 1.0)])
@pytest.mark.parametrize("kind", ["uniform1d", "equispaced"])
def test_the_operator_tells_the_acceleration_that_there_is(kind: str, acc: float, expected: float) -> None:
    assert FourierSampling(make_mask(kind, (64, 192), acc)).acceleration == pytest.approx(expected)


@pytest.mark.parametrize("acc", [3, 4, 8])
def test_equispaced_columns_are_a_step_apart_on_both_sides_of_the_centre(acc: int) -> None:
    mask = make_mask("equispaced", (4, 192), acc, center_fraction=0.08)[0]
    centre = slice(96 - 7, 96 - 7 + 15)
    assert bool(mask[centre].all())
    for side in (mask[: centre.start], mask[centre.stop :]):
        steps = torch.diff(torch.nonzero(side).flatten())
        assert int(steps.max() - steps.min()) <= 1
    starts = {tuple(make_mask("equispaced", (4, 192), acc, 0.08, seed)[0].tolist()) for seed in range(20)}
    assert len(starts) > 2


def test_radial_spokes_go_through_the_centre_to_the_border_at_golden_angles() -> None:
    n = 129
    mask = make_mask("radial", (n, n), 16, center_fraction=0.0, seed=2)
    points = torch.nonzero(mask) - n // 2
    angles = torch.rad2deg(torch.atan2(points[:, 0].double(), points[:, 1].double()))[points.abs().amax(1) > 55] % 180
    spokes = angles.sort().values
    groups = 1 + int((torch.diff(spokes) > 3).sum())
    assert groups == pytest.approx(n * n / 16 / n, abs=2)
    gaps = torch.diff(spokes)[torch.diff(spokes) > 3]
    assert float(gaps.max() / gaps.min()) < 3.5  # golden angles leave gaps of three lengths at most
    assert mask[n // 2, n // 2] == 1


@pytest.mark.parametrize("acc", [4, 8, 16])
@pytest.mark.parametrize("shape", [(96, 96), (70, 101)])
def test_poisson_darts_keep_their_distance(shape: tuple[int, int], acc: float) -> None:
    """Two darts are further apart than ``scale (0.5 + 2 radius)`` at the inner one, for one scale."""

    def scale(mask: torch.Tensor) -> float:
        """The largest scale at which that holds, among points outside the fully sampled centre."""
        half = [round(n * (0.32 / acc) ** 0.5) // 2 + 1 for n in shape]
        points = torch.nonzero(mask).double() - torch.tensor([n // 2 for n in shape])
        points = points[(points.abs() > torch.tensor(half)).any(1)]
        radius = (points / torch.tensor(shape)).norm(dim=1)
        ratio = torch.cdist(points, points) / (0.5 + 2 * torch.minimum(radius[:, None], radius))
        return float(ratio.fill_diagonal_(float("inf")).min())

    poisson = scale(make_mask("poisson2d", shape, acc))
    assert poisson > 0.5 * acc**0.5
    assert poisson > 1.5 * scale(make_mask("gaussian2d", shape, acc))
