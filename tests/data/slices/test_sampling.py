"""How slices are drawn, dealt and varied."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_mbir.data.phantoms.phase import rough_phase
from lightning_mbir.data.slices.sampling import KeyedBatches, RandPhase, RandSimilarity, WholeSampler, augmentation
from lightning_mbir.reconstruction.unet_training import _variation


def test_draws_depend_on_seed_rank_and_position_alone() -> None:
    weights = torch.tensor([0.1, 0.0, 0.7, 0.2])
    groups = [(torch.arange(4), 2)]
    whole = list(KeyedBatches(weights, groups, 40, 5, 0, 1, lambda: 0))
    assert list(KeyedBatches(weights, groups, 25, 5, 0, 1, lambda: 15)) == whole[15:]
    assert list(KeyedBatches(weights, groups, 40, 5, 1, 2, lambda: 0)) != whole
    assert list(KeyedBatches(weights, groups, 40, 6, 0, 1, lambda: 0)) != whole
    many = [index for batch in KeyedBatches(weights, groups, 2000, 5, 0, 1, lambda: 0) for index, _ in batch]
    shares = torch.bincount(torch.tensor(many), minlength=4) / 4000
    torch.testing.assert_close(shares, weights, rtol=0, atol=0.03)


def test_batches_are_of_one_group_as_often_as_it_weighs() -> None:
    weights = torch.tensor([0.3, 0.1, 0.1, 0.5])
    groups = [(torch.tensor([0, 2]), 8), (torch.tensor([1, 3]), 2)]
    batches = [[index for index, _ in batch] for batch in KeyedBatches(weights, groups, 1000, 5, 0, 1, lambda: 0)]
    small = [batch for batch in batches if len(batch) == 8]
    large = [batch for batch in batches if len(batch) == 2]
    assert abs(len(small) - 400) < 60 and len(small) + len(large) == 1000
    assert {i for batch in small for i in batch} == {0, 2} and {i for batch in large for i in batch} == {1, 3}
    assert np.mean([i == 0 for batch in small for i in batch]) == pytest.approx(0.75, abs=0.03)
    assert np.mean([i == 3 for batch in large for i in batch]) == pytest.approx(5 / 6, abs=0.05)


def test_validation_slices_are_dealt_once() -> None:
    dealt = [list(WholeSampler(7, rank, 3)) for rank in range(3)]
    assert sorted(index for share in dealt for index in share) == list(range(7))
    assert [len(WholeSampler(7, rank, 3)) for rank in range(3)] == [3, 2, 2]
    assert [list(WholeSampler(2, rank, 3)) for rank in range(3)] == [[0], [1], [0]]  # all have something to reduce
    assert list(WholeSampler(0, 1, 3)) == []


def disc(rows: int, columns: int) -> Tensor:
    """A disc in the middle whose radius is a sixth of the shorter side, with a soft edge."""
    y, x = torch.meshgrid(torch.arange(rows) - (rows - 1) / 2, torch.arange(columns) - (columns - 1) / 2, indexing="ij")
    return (min(rows, columns) / 6 + 0.5 - torch.hypot(y, x)).clamp(0, 1)[None]


def moments(image: Tensor) -> tuple[Tensor, Tensor]:
    """Centre (y, x) from the middle of the image, and the covariance about it."""
    places = [torch.arange(n) - (n - 1) / 2 for n in image.shape[-2:]]
    where = torch.stack(torch.meshgrid(*places, indexing="ij")).flatten(1)
    weight = image.flatten() / image.sum()
    centre = where @ weight
    away = where - centre[:, None]
    return centre, away * weight @ away.T


@pytest.mark.parametrize("sizes", [(0.8, 1.2), (0.55, 1.25)])
def test_a_disc_stays_a_disc_wherever_it_goes(sizes: tuple[float, float]) -> None:
    vary = RandSimilarity(0.15, sizes, 0.08) if sizes[0] == 0.8 else _variation()
    start = disc(96, 128)
    _, before = moments(start)
    found, centres = [], []
    for seed in range(200):
        vary.set_random_state(seed=seed)
        centre, after = moments(vary(start))
        torch.testing.assert_close(after[0, 0], after[1, 1], rtol=0.03, atol=0)
        assert abs(float(after[0, 1])) < 0.03 * float(after[0, 0])
        found.append(float((after[0, 0] / before[0, 0]).sqrt()))
        centres.append(centre / torch.tensor([96, 128]))
    low, high = sizes
    assert low - 0.02 < min(found) < low + 0.03 and high - 0.03 < max(found) < high + 0.02
    reach = torch.stack(centres).abs().amax(0)
    assert bool((reach > 0.07).all()) and bool((reach < 0.081).all())
    vary.set_random_state(seed=7)
    again = vary(start)
    vary.set_random_state(seed=7)
    torch.testing.assert_close(torch.as_tensor(vary(start)), torch.as_tensor(again), rtol=0, atol=0)


def test_slices_are_turned_and_left_alone_as_often_as_said() -> None:
    vary = augmentation((64, 64), "axial", 0.0, False)
    bar = torch.zeros(1, 64, 64)
    bar[:, 8:56, 30:34] = 1.0
    angles = []
    for seed in range(200):
        vary.set_random_state(seed=seed)
        _, spread = moments(vary(bar))
        angles.append(float(0.5 * torch.atan2(2 * spread[0, 1], spread[0, 0] - spread[1, 1])))
    still = np.isclose(angles, 0, atol=1e-6)
    assert still.mean() == pytest.approx(0.2, abs=0.08)
    assert 0.14 < np.max(angles) < 0.16 and -0.16 < np.min(angles) < -0.14


def test_sizes_places_and_intensities_vary_as_far_as_said() -> None:
    v = torch.linspace(-1, 1, 128)
    disc = (v[:, None].square() + v.square() < 0.16).float()[None]
    vary = augmentation((128, 128), "axial", 0.2, False)
    areas, intensities, places = [], [], []
    for seed in range(300):
        vary.set_random_state(seed=seed)
        image = torch.as_tensor(vary(disc))[0]
        intensities.append(float(image[image > 0.4].median()))
        areas.append(float((image > 0.5).sum() / disc.sum()))
        places.append([float((image.sum(1 - i) * v).sum() / image.sum()) / 2 for i in range(2)])
    assert min(areas) == pytest.approx(0.64, abs=0.04) and max(areas) == pytest.approx(1.44, abs=0.04)
    assert min(intensities) == pytest.approx(0.8, abs=0.03) and max(intensities) == pytest.approx(1.2, abs=0.03)
    assert np.abs(places).max(0) == pytest.approx((0.08, 0.08), abs=0.01)


def test_only_the_sides_are_mirrored() -> None:
    """Left and right are much alike, front and back are not."""
    ramp = torch.arange(64.0).expand(1, 64, 64)
    for axis, share in (("axial", 0.5), ("coronal", 0.5), ("sagittal", 0.0)):
        vary, flips = augmentation((64, 64), axis, 0.0, False), 0  # type: ignore[arg-type]
        for seed in range(100):
            vary.set_random_state(seed=seed)
            image = vary(ramp)[0, 24:40]
            flips += int(image[:, 24:32].mean() > image[:, 32:40].mean())
        assert flips / 100 == pytest.approx(share, abs=0.15 * (share > 0))


def test_what_lies_outside_is_air_in_axial_slices_alone() -> None:
    full = torch.ones(1, 32, 64)
    for axis, least in (("axial", 0.0), ("coronal", 1.0), ("sagittal", 1.0)):
        vary, lowest = augmentation((32, 64), axis, 0.0, False), 1.0  # type: ignore[arg-type]
        for seed in range(20):
            vary.set_random_state(seed=seed)
            lowest = min(lowest, float(vary(full).min()))
        assert lowest == pytest.approx(least, abs=1e-5)


def test_phase_is_smooth_and_keeps_the_magnitude() -> None:
    phase = RandPhase()
    phase.set_random_state(seed=1)
    image = torch.rand(1, 64, 64) + 0.1
    first, second = phase(image), phase(image)
    assert first.shape == (2, 64, 64)
    for out in (first, second):
        torch.testing.assert_close(out.square().sum(0, keepdim=True).sqrt(), image, rtol=1e-5, atol=1e-6)
    unit = torch.complex(*(first / image))
    step = (unit[:, 1:] * unit[:, :-1].conj()).angle().abs().max()
    assert float(step) < 1.0  # radians from pixel to pixel
    assert not torch.allclose(first, second)
    phase.set_random_state(seed=1)
    torch.testing.assert_close(phase(image), first, rtol=0, atol=0)


def test_phases_are_as_often_rough_as_asked() -> None:
    """And a rough one is beside, not instead of, the smooth one that the same seed has."""
    image = torch.ones(1, 32, 32)
    differ = 0
    for seed in range(200):
        smooth, rough = RandPhase(), RandPhase(rough=0.5)
        for phase in (smooth, rough):
            phase.set_random_state(seed=seed)
        ours, theirs = rough(image), smooth(image)
        torch.testing.assert_close(ours.square().sum(0), image[0])
        differ += int(not torch.equal(ours, theirs))
    assert 60 < differ < 100  # where nothing has a rim, one in five rough phases adds nothing


def test_rough_phases_wind_about_points() -> None:
    """Of half of the images, half about one point, half about two: around the border it is a turn, or none or two."""
    turns = torch.tensor([winding(rough_phase(torch.ones(64, 64), np.random.RandomState(seed))) for seed in range(400)])
    assert set(turns.tolist()) == {-2, -1, 0, 1, 2}
    assert 75 < int((turns.abs() == 1).sum()) < 125
    assert 30 < int((turns.abs() == 2).sum()) < 72


def winding(phase: Tensor) -> int:
    """Turns of a phase along the border of its image."""
    border = torch.cat((phase[0, :-1], phase[:-1, -1], phase[-1].flip(0)[:-1], phase[:, 0].flip(0)))
    steps = border.diff()
    return round(float(torch.atan2(steps.sin(), steps.cos()).sum()) / (2 * math.pi))


def test_rough_phases_change_at_the_rim_of_half_of_the_images() -> None:
    """By about half a turn, within a twentieth of the side."""
    v = torch.linspace(-1, 1, 128)
    disc = (v[:, None].square() + v.square() < 0.64).float()
    jumps, places = [], []
    for seed in range(300):
        phase = rough_phase(disc, np.random.RandomState(seed))[64, 64:115]  # from the middle to the edge
        step = phase.diff()
        jump, place = torch.atan2(step.sin(), step.cos()).abs().max(0)
        jumps.append(float(jump))
        places.append(int(place))
    seen = torch.tensor(jumps) > 1.5
    assert 110 < int(seen.sum()) < 190
    assert float(torch.tensor(jumps)[seen].median()) > 2.2
    assert int(torch.tensor(places)[seen].median()) >= len(step) - 128 // 20


def test_where_a_crop_cuts_through_the_body_is_no_rim() -> None:
    """Body to the left border, air at the right one: only the edge between them has a rim."""
    half = torch.zeros(64, 64)
    half[:, :40] = 1
    changed = 0
    for seed in range(60):
        rng = np.random.RandomState(seed)
        if rng.uniform() < 0.6 or rng.uniform() < 0.5:  # a field, or points that it winds about
            continue
        phase = rough_phase(half, np.random.RandomState(seed))
        assert not phase[:, :20].any()
        changed += int(phase[:, 39].any())
    assert changed > 0
