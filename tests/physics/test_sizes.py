"""Sizes that no memory holds, and lengths that no number does, are refused before anything is made."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from lightning_mbir.errors import InputError
from lightning_mbir.methods.tasks import TASKS
from lightning_mbir.physics import (
    CartesianFourier3D,
    ConeBeam,
    FanBeam,
    FourierSampling,
    MultiCoilFourier,
    NonCartesianFourier,
    OffResonance,
    ParallelBeam,
    RealDomain,
    Weighted,
    estimate_coil_maps,
    loop_coil_maps,
    make_mask,
    radial_trajectory,
    spiral_trajectory,
)

FAR: dict[str, Any] = {"source_distance": 1e8, "detector_distance": 1.0}


def huge() -> torch.Tensor:
    """10^12 ones that take four bytes."""
    return torch.ones(1, 1).expand(10**6, 10**6)


@pytest.fixture(autouse=True)
def small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_mbir.free_memory.free_memory", lambda device: 4 << 30)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ParallelBeam(128, range(10**9)), r"ParallelBeam: 1,000,000,000 angles: takes 238.4 GiB"),
        (lambda: ParallelBeam(128, range(10**20)), "angles: takes inf GiB"),
        (lambda: ParallelBeam(10**7, [0.0]), "a slice of 10,000,000 x 10,000,000 pixels"),
        (lambda: ParallelBeam(64, [0.0], n_detectors=10**12), "1 views of 1,000,000,000,000 bins"),
        (lambda: ParallelBeam(64, [0.0], pixel_size=1e8, detector_spacing=1e-8), "fewer views or detectors"),
        (lambda: FanBeam(128, range(10**9), **FAR), "FanBeam: 1,000,000,000 angles"),
        (lambda: FanBeam(10**6, [0.0], **FAR), "FanBeam: a slice"),
        (lambda: ConeBeam((10**5, 10**5, 10**5), [0.0], **FAR), "ConeBeam: a volume"),
        (lambda: ConeBeam((8, 8, 8), range(10**9), **FAR), "ConeBeam: 1,000,000,000 angles"),
        (lambda: ConeBeam((8, 8, 8), [0.0], detector_shape=(10**6, 10**6), **FAR), "1,000,000 x 1,000,000 bins"),
        (lambda: make_mask("gaussian1d", (10**6, 10**6), 8.0), "a mask of 1,000,000 x 1,000,000"),
        (lambda: make_mask("poisson2d", (10**6, 10**6), 8.0), "a mask of"),
        (lambda: FourierSampling(huge()), "FourierSampling: a mask"),
        (lambda: MultiCoilFourier(huge(), torch.ones(1, 1, 1).expand(1, 10**6, 10**6)), "MultiCoilFourier: a mask"),
        (lambda: CartesianFourier3D(torch.ones(64, 64), (64, 64, 10**9)), "CartesianFourier3D: a volume"),
        (lambda: NonCartesianFourier(radial_trajectory(4, 16), 10**6), "NonCartesianFourier: images"),
        (lambda: loop_coil_maps(10**6, 128), "1,000,000 coils of 128 x 128 pixels"),
        (lambda: radial_trajectory(10**6, 10**6), "a trajectory of 1,000,000 x 1,000,000"),
        (lambda: spiral_trajectory(10**6, 10**6, 3.0), "a trajectory of"),
        (lambda: TASKS["cs_mri"].build_operator(10**6), "a mask of"),
        (lambda: TASKS["sv_ct"].build_operator(10**6), "a slice of"),
    ],
)
def test_what_no_memory_holds_is_refused_before_it_is_made(make: Callable[[], object], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        make()
    assert "of memory, of which 4.0 are free; " in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: ParallelBeam(64, [0.0], pixel_size=1e30),
            r"pixel_size is 1e\+30; give a positive number, up to 1e\+09",
        ),
        (lambda: ParallelBeam(64, [0.0], center_offset=1e30), "center_offset is 1e"),
        (lambda: ParallelBeam(64, [1e20]), r"an angle of 1e\+20 degrees"),
        (lambda: ParallelBeam(10**18, [0.0]), "image_size is 1000000000000000000"),
        (lambda: FanBeam(64, [0.0], source_distance=1e30, detector_distance=1.0), "source_distance is 1e"),
        (lambda: FanBeam(64, [0.0], source_distance=1e3, detector_distance=1e30), "detector_distance is 1e"),
        (lambda: TASKS["sv_ct"].settings(photons=1e300), "--photons 1e"),
        (lambda: TASKS["cs_mri"].settings(snr=1e300), "--snr 1e"),
    ],
)
def test_lengths_beyond_all_measure_are_refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        make()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: FourierSampling(np.ones((8, 8))), "the mask of FourierSampling is a ndarray; give a tensor"),
        (lambda: MultiCoilFourier([[1.0]], torch.ones(2, 1, 1)), "the mask of MultiCoilFourier is a list"),
        (lambda: MultiCoilFourier(torch.ones(8, 8), np.ones((2, 8, 8))), "coil_maps is a ndarray"),
        (lambda: CartesianFourier3D(np.ones((8, 8)), (8, 8, 8)), "the mask of CartesianFourier3D is a ndarray"),
        (lambda: NonCartesianFourier(np.ones((8, 2)), (8, 8)), "trajectory is a ndarray"),
        (lambda: OffResonance(FourierSampling(torch.ones(8, 8)), np.ones((8, 8)), torch.ones(8)), "field_map is a"),
        (lambda: Weighted(ParallelBeam(8, [0.0, 90.0]), np.ones(3)), "weights is a ndarray"),
        (
            lambda: inspect.unwrap(estimate_coil_maps)(np.ones((2, 8, 8))),
            "k-space is a ndarray",
        ),
        (lambda: RealDomain(5), "RealDomain: 5 is no LinearOperator"),
        (lambda: ParallelBeam(8, [0.0]) @ 5, "Composition: 5 is no LinearOperator"),
        (lambda: ParallelBeam(8, [0.0]) * 1j, "scaled by real finite numbers, not by 1j"),
        (lambda: ParallelBeam(8, [0.0]) * math.nan, "scaled by real finite numbers, not by nan"),
        (lambda: ParallelBeam(8, [0.0]) / 0, "ParallelBeam / 0"),
        (lambda: ParallelBeam(8, 60), "angles are 60; give a list of degrees, one a view"),
        (lambda: ParallelBeam(8, torch.tensor(60.0)), "give a list of degrees, one a view"),
        (lambda: ParallelBeam(8, "0,1"), "angles are '0,1'; give a list of degrees"),
        (lambda: ParallelBeam(8, [0.0], pixel_size="1"), "pixel_size is '1'; give a number"),
    ],
)
def test_what_is_no_tensor_no_operator_and_no_number_is_refused(make: Any, words: str) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert words in str(caught.value) and "\n" not in str(caught.value)
