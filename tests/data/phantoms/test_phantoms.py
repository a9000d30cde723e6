"""Phantoms: another person by seed, plausible values, coherent along z."""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_mbir.data.phantoms import CONTRASTS, chest_phantom, head_phantom, leaves_phantom
from lightning_mbir.data.units import MU_WATER, Modality
from lightning_mbir.errors import InputError

Phantom = Callable[..., Tensor]
both = pytest.mark.parametrize("phantom", [chest_phantom, head_phantom])
every = pytest.mark.parametrize("phantom", [chest_phantom, head_phantom, leaves_phantom])
SMALL = (12, 48, 48)


def neighbours(volume: Tensor) -> list[float]:
    """Correlation of each slice with the next."""
    flat = volume.flatten(1).numpy()
    return [float(np.corrcoef(a, b)[0, 1]) for a, b in pairwise(flat)]


def share(hu: Tensor, low: float, high: float) -> float:
    return float(((hu >= low) & (hu < high)).float().mean())


@every
def test_seed_decides(phantom: Phantom) -> None:
    first = phantom(SMALL, seed=3)
    assert torch.equal(first, phantom(SMALL, seed=3))
    for seed in (4, 10_000):
        other = phantom(SMALL, seed=seed)
        assert float((first - other).abs().mean()) > 0.05 * float(first.mean())


@every
@pytest.mark.parametrize("shape", [(1, 64, 64), (5, 33, 47), (2, 16, 24), (90, 20, 20), (1, 1, 1)])
def test_any_shape(phantom: Phantom, shape: tuple[int, int, int]) -> None:
    volume = phantom(shape, seed=1)
    assert volume.shape == shape and volume.dtype == torch.float32 and volume.is_contiguous()
    assert bool(torch.isfinite(volume).all()) and float(volume.min()) >= 0


@both
def test_the_person_does_not_depend_on_the_grid(phantom: Phantom) -> None:
    fine = phantom((12, 96, 96), seed=2)
    coarse = phantom((12, 48, 48), seed=2)
    mean = torch.nn.functional.avg_pool2d(fine[:, None], 2)[:, 0]
    assert np.corrcoef(mean.flatten(), coarse.flatten())[0, 1] > 0.97


@pytest.mark.parametrize("seed", [0, 1, 10_000])
def test_chest_is_made_of_what_chests_are(seed: int) -> None:
    volume = chest_phantom((24, 96, 96), seed=seed)
    hu = (volume / MU_WATER - 1) * 1000
    assert float(volume.min()) == 0 and float(hu.max()) < 2000
    assert 0.25 < share(hu, -1001, -930) < 0.7  # air around
    assert 0.06 < share(hu, -930, -600) < 0.35  # lung
    assert 0.03 < share(hu, -150, -30) < 0.3  # fat
    assert 0.08 < share(hu, -30, 150) < 0.4  # soft tissue
    assert 0.004 < share(hu, 300, 2000) < 0.08  # bone
    assert float(hu[:, 24:72, 40:56].max()) > 150  # the spine is there


def test_chest_faces_the_way_files_do() -> None:
    """x to the patient's right, y to the front: the heart lies at low x, the spine at low y, the table behind."""
    soft = torch.zeros(2)
    for seed in range(4):
        hu = (chest_phantom((24, 64, 64), seed=seed) / MU_WATER - 1) * 1000
        middle = hu[8:14, 24:48]
        soft += torch.stack([(middle[..., 8:32] > 0).sum(), (middle[..., 32:56] > 0).sum()])
        bone = (hu[:, :, 28:36] > 300).sum((0, 2))
        assert int(bone[:32].sum()) > int(bone[32:].sum())
        assert int((hu[:, :16] > -950).sum()) > int((hu[:, -16:] > -950).sum())  # the table
    assert soft[0] > soft[1]


def test_chest_changes_smoothly_along_z() -> None:
    correlations = neighbours(chest_phantom((48, 64, 64), seed=5))
    assert min(correlations) > 0.9 and max(correlations) < 0.99999


def test_head_changes_along_z_as_heads_do() -> None:
    """Brain MRI in slices of 3 mm: 0.91 in the median, 0.71 where the base of the skull begins."""
    correlations = neighbours(head_phantom((48, 64, 64), seed=5))
    assert float(np.median(correlations)) > 0.9 and min(correlations) > 0.65 and max(correlations) < 0.9999


@pytest.mark.parametrize("contrast", [*CONTRASTS, None])
def test_head_values(contrast: str | None) -> None:
    volume = head_phantom((24, 96, 96), seed=7, contrast=contrast)
    assert float(np.percentile(volume, 99.5)) == pytest.approx(1, abs=1e-4) and float(volume.max()) < 1.6
    corners = torch.cat([volume[:, :8, :8], volume[:, -8:, -8:]])
    assert float(corners.max()) == 0
    assert 0.3 < share(volume, 0.1, 2) < 0.75  # head, less skull and air


def test_contrast_changes_the_values_not_the_anatomy() -> None:
    t1, t2 = (head_phantom((8, 64, 64), seed=7, contrast=c) for c in ("t1", "t2"))
    outline = (t1 > 0) == (t2 > 0)
    assert float(outline.float().mean()) > 0.999
    brain = slice(2, 6), slice(20, 44), slice(20, 44)
    assert (
        np.corrcoef(t1[brain].flatten(), t2[brain].flatten())[0, 1] < -0.3
    )  # fluid is dark in one, bright in the other
    assert not torch.equal(t1, t2)


def test_noise_is_off_unless_asked_for() -> None:
    clean, noisy = (head_phantom(SMALL, seed=1, noise=n) for n in (0.0, 0.05))
    air = clean == 0
    assert float(air.float().mean()) > 0.2
    assert float(noisy[air].mean()) == pytest.approx(0.05 * math.sqrt(math.pi / 2), rel=0.05)  # Rayleigh


@every
@pytest.mark.parametrize("shape", [(64, 64), (0, 8, 8), (2.5, 8, 8), (1, 2, 3, 4), (8, -1, 8)])
def test_wrong_shapes_are_refused(phantom: Phantom, shape: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="three positive whole numbers"):
        phantom(shape)


def test_other_wrong_input_is_refused() -> None:
    for phantom in (chest_phantom, leaves_phantom):
        with pytest.raises(InputError, match="seed -1"):
            phantom(SMALL, seed=-1)
    with pytest.raises(InputError, match="t1, t2, flair"):
        head_phantom(SMALL, contrast="pd")
    for noise in (-1.0, math.nan):
        with pytest.raises(InputError, match="noise"):
            head_phantom(SMALL, noise=noise)


@pytest.mark.parametrize("modality", ["ct", "mri"])
def test_leaves_are_many_things_and_no_anatomy(modality: Modality) -> None:
    """Of many kinds: some nearly flat, some with edges everywhere; no more than a prior's unit holds; coherent in z."""
    edges, peaks = [], []
    for seed in range(16):
        volume = leaves_phantom((8, 64, 64), seed, modality)
        unit = volume / (2 * MU_WATER if modality == "ct" else 1)
        edges.append(float(((unit[:, 1:] - unit[:, :-1]).abs() > 0.1).float().mean()))
        peaks.append(float(unit.quantile(0.995)))
        assert min(neighbours(volume)) > 0.5
    assert max(edges) > 3 * min(edges)
    assert min(peaks) > 0.3 and max(peaks) < 1.6


def test_leaves_are_the_same_on_any_grid() -> None:
    fine, coarse = (leaves_phantom((8, side, side), 5) for side in (96, 48))
    mean = torch.nn.functional.avg_pool2d(fine[:, None], 2)[:, 0]
    assert np.corrcoef(mean.flatten(), coarse.flatten())[0, 1] > 0.97
