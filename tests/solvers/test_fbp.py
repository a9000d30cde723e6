"""Filtered back-projection of fan and cone beams: a disc and a ball come back at their value, from exact chords."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.physics import ConeBeam, FanBeam, FourierSampling, ParallelBeam
from lightning_mbir.solvers import fbp, fdk
from lightning_mbir.solvers.scan import redundancy_weights
from tests.physics.ct.test_ct import ball_image, ball_projections, ellipse_image, ellipse_sinogram

MU = 0.02
SCANS = {
    "full": [i * 1.5 for i in range(240)],
    "full_clockwise": [-i * 1.5 for i in range(240)],
    "two_turns": [i * 1.5 for i in range(480)],
    "short": [i * 1.0 for i in range(236)],  # 180 degrees and a fan of 54
    "short_elsewhere": [i * 1.0 + 250 for i in range(236)],
    "longer": [i * 1.0 for i in range(290)],
}


def check(image: Tensor, inside: Tensor, outside: Tensor) -> None:
    assert float(image[inside].mean()) == pytest.approx(MU, rel=0.005)
    assert float(image[inside].std()) < 0.01 * MU
    assert abs(float(image[outside].mean())) < 0.005 * MU


@pytest.mark.parametrize("scan", SCANS)
@pytest.mark.parametrize("detector", ["flat", "curved"])
def test_fan_fbp_of_a_disc_is_its_attenuation(detector: Any, scan: str) -> None:
    n, pixel, center = 96, 2.0, (20.0, -12.0)
    op = FanBeam(
        n,
        SCANS[scan],
        source_distance=300.0,
        detector_distance=200.0,
        pixel_size=pixel,
        detector=detector,
        center_offset=1.7,
    )
    image = fbp(MU * ellipse_sinogram(op, (center, (50.0, 50.0), 0.0)), op)
    inner, outer = (ellipse_image(n, pixel, (center, (r, r), 0.0)) for r in (44.0, 58.0))
    check(image, inner == 1, (outer == 0) & (ellipse_image(n, pixel, ((0, 0), (90.0, 90.0), 0.0)) == 1))


@pytest.mark.parametrize("scan", ["full", "short"])
def test_fdk_of_a_ball_is_its_attenuation(scan: str) -> None:
    shape, voxel, center = (40, 64, 64), (1.5, 2.0, 2.0), (12.0, -8.0, 5.0)
    op = ConeBeam(
        shape,
        SCANS[scan][::2],
        source_distance=300.0,
        detector_distance=200.0,
        pixel_size=2.0,
        slice_thickness=1.5,
        offsets=(3.0, 2.0),
    )
    volume = fdk(MU * ball_projections(op, center, 22.0), op)
    inner, outer = (ball_image(shape, voxel, center, r) for r in (18.0, 27.0))
    check(volume, inner == 1, (outer == 0) & (ball_image(shape, voxel, center, 32.0) == 1))


def test_batches_are_their_members() -> None:
    generator = torch.Generator().manual_seed(0)
    fan = FanBeam(12, SCANS["full"][::8], source_distance=30.0, detector_distance=20.0)
    cone = ConeBeam((3, 8, 8), SCANS["full"][::8], source_distance=30.0, detector_distance=20.0)
    y = torch.rand(2, 3, *fan.range_shape, generator=generator)
    torch.testing.assert_close(fbp(y, fan)[1, 2], fbp(y[1, 2], fan))
    y = torch.rand(2, *cone.range_shape, generator=generator)
    torch.testing.assert_close(fdk(y, cone)[1], fdk(y[1], cone))


def test_two_half_turns_of_parallel_rays_count_once() -> None:
    """Views at theta and theta + 180 see the same lines."""
    op = ParallelBeam(64, [i * 2.0 for i in range(180)], pixel_size=2.0)
    image = fbp(MU * ellipse_sinogram(op, ((10.0, -6.0), (40.0, 40.0), 0.0)), op)
    inside = ellipse_image(64, 2.0, ((10.0, -6.0), (32.0, 32.0), 0.0)) == 1
    assert float(image[inside].mean()) == pytest.approx(MU, rel=0.01)


@pytest.mark.parametrize("scan", ["short", "longer"])
def test_shares_of_a_line_add_up_to_one(scan: str) -> None:
    """The bin at -gamma of the view at theta + 180 - 2 gamma has the rest of the weight; views are a degree apart."""
    gamma = torch.deg2rad(torch.arange(-25.0, 26.0, dtype=torch.float64))
    angles = SCANS[scan]
    assert bool((redundancy_weights(SCANS["full"], gamma) == 0.5).all())
    weights = redundancy_weights(angles, gamma)
    assert bool(((weights >= 0) & (weights <= 1)).all())
    where = {angle % 360: view for view, angle in enumerate(angles)}
    met_twice = 0
    for view, angle in enumerate(angles):
        for i in range(51):
            other = where.get((angle + 180 - 2 * (i - 25)) % 360)
            total = float(weights[view, i]) + (float(weights[other, 50 - i]) if other is not None else 0)
            met_twice += other is not None
            assert total == pytest.approx(1, abs=1e-9)
    assert met_twice > 1000


def test_wrong_operators_and_filters_are_refused() -> None:
    fan = FanBeam(8, [0.0, 90.0], source_distance=30.0, detector_distance=20.0)
    cone = ConeBeam((2, 8, 8), [0.0, 90.0], source_distance=30.0, detector_distance=20.0)
    with pytest.raises(InputError, match="fdk is for ConeBeam"):
        fbp(torch.zeros(cone.range_shape), cone)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="not FourierSampling"):
        fbp(torch.zeros(8, 8), FourierSampling(torch.ones(8, 8)))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="fbp is for"):
        fdk(torch.zeros(fan.range_shape), fan)  # type: ignore[arg-type]
    for solve, op in ((fbp, fan), (fbp, ParallelBeam(8, [0.0])), (fdk, cone)):
        with pytest.raises(InputError, match="box"):
            solve(torch.zeros(op.range_shape), op, "box")  # type: ignore[operator]
        with pytest.raises(InputError, match="measures"):
            solve(torch.zeros(3, 3, 3), op)  # type: ignore[operator]
