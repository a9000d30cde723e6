"""Filtered back-projection of fan and cone beams: a disc and a ball come back at their value, from exact chords."""

import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.physics import ConeBeam, FanBeam, FourierSampling, ParallelBeam
from lightning_mbir.solvers import fbp, fdk
from lightning_mbir.solvers.scan import detector_shares, redundancy_weights
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


def offset_beams(n: int, centred: bool) -> dict[str, Any]:
    """A detector that leaves all but an eighth of one side out, and one twice as wide about the axis. The shorter side
    sees 12 mm, the longer one what the image needs."""
    angles, short, long = SCANS["full"], 6, 64
    bins, moved = (2 * long, 0.0) if centred else (long + short, -(long - short))
    common = {"pixel_size": 2.0, "n_detectors": bins}
    fan = {"source_distance": 300.0, "detector_distance": 200.0, **common, "detector_spacing": 10 / 3}
    return {
        "parallel": ParallelBeam(n, angles, detector_spacing=2.0, center_offset=moved, **common),
        "parallel_other_side": ParallelBeam(n, angles, detector_spacing=2.0, center_offset=-moved, **common),
        "flat": FanBeam(n, angles, center_offset=moved * 5 / 3, **fan),
        "flat_other_side": FanBeam(n, angles, center_offset=-moved * 5 / 3, **fan),
        "curved": FanBeam(n, angles, center_offset=moved * 5 / 3, detector="curved", **fan),
    }


@pytest.mark.parametrize("beam", ["parallel", "parallel_other_side", "flat", "flat_other_side", "curved"])
def test_a_detector_moved_aside_sees_as_well_as_a_wide_one(beam: str, monkeypatch: pytest.MonkeyPatch) -> None:
    n, center = 96, (20.0, -12.0)
    images: list[Tensor] = []
    inner, outer = (ellipse_image(n, 2.0, (center, (r, r), 0.0)) for r in (44.0, 58.0))
    around = (outer == 0) & (ellipse_image(n, 2.0, ((0, 0), (90.0, 90.0), 0.0)) == 1)
    for centred in (True, False):
        op = offset_beams(n, centred)[beam]
        y = MU * ellipse_sinogram(op, (center, (50.0, 50.0), 0.0))
        images.append(fbp(y, op))
        check(images[-1], inner == 1, around)
    assert float((images[1] - images[0])[inner == 1].norm() / images[0][inner == 1].norm()) < 1e-3
    monkeypatch.setattr(sys.modules["lightning_mbir.solvers.fbp"], "displaced", lambda *_: False)
    unweighted = fbp(y, op)
    assert abs(float(unweighted[inner == 1].mean()) - MU) > 0.3 * MU


@pytest.mark.parametrize("side", [1, -1])
def test_fdk_with_a_panel_moved_aside(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shape, voxel, center = (24, 48, 48), (2.0, 2.0, 2.0), (12.0, -8.0, 3.0)
    scan = {"source_distance": 300.0, "detector_distance": 200.0, "pixel_size": 2.0}
    inner, outer = (ball_image(shape, voxel, center, r) for r in (14.0, 22.0))
    around = (outer == 0) & (ball_image(shape, voxel, (0.0, 0.0, 0.0), 44.0) == 1)
    for columns, offset in ((64, 0.0), (32 + 5, side * 27 * 5 / 3)):
        op = ConeBeam(
            shape, SCANS["full"][::2], **scan, detector_shape=(40, columns), detector_spacing=(10 / 3, 10 / 3),
            offsets=(0.0, offset),
        )  # fmt: skip
        y = MU * ball_projections(op, center, 18.0)
        check(fdk(y, op), inner == 1, around)
    monkeypatch.setattr(sys.modules["lightning_mbir.solvers.fdk"], "displaced", lambda *_: False)
    assert abs(float(fdk(y, op)[inner == 1].mean()) - MU) > 0.1 * MU


def test_shares_of_a_detector_moved_aside_add_up_to_one() -> None:
    positions = torch.arange(-6.0, 30.0, dtype=torch.float64) + 0.3
    for given in (positions, -positions.flip(0)):
        shares = detector_shares(given)
        alone = given.abs() > 6.2  # beyond the last bin of the shorter side
        assert bool((shares[alone] == 1).all()) and int(alone.sum()) == 24
        assert bool(((shares >= 0) & (shares <= 1)).all())
    positions = torch.arange(-6.0, 30.0, dtype=torch.float64)
    shares = detector_shares(positions)
    torch.testing.assert_close((shares[:13] + shares[:13].flip(0)), torch.ones(13, dtype=torch.float64))


@pytest.mark.filterwarnings("ignore:.*of the height")
def test_a_panel_of_one_row_tells_of_the_slices_that_it_sees_alone() -> None:
    view = {"source_distance": 100.0, "detector_distance": 0.0, "detector_shape": (1, 24)}
    cone = ConeBeam((9, 16, 16), SCANS["full"], **view)  # type: ignore[arg-type]
    found = fdk(cone(torch.ones(9, 16, 16)), cone)[:, 8, 8]
    assert float(found[4]) == pytest.approx(1, abs=0.1)
    assert float(found[[0, 1, 2, 6, 7, 8]].abs().max()) == 0.0


def test_batches_are_their_members() -> None:
    generator = torch.Generator().manual_seed(0)
    fan = FanBeam(12, SCANS["full"][::8], source_distance=30.0, detector_distance=20.0)
    cone = ConeBeam((3, 8, 8), SCANS["full"][::8], source_distance=30.0, detector_distance=20.0)
    y = torch.rand(2, 3, *fan.range_shape, generator=generator)
    torch.testing.assert_close(fbp(y, fan)[1, 2], fbp(y[1, 2], fan))
    torch.testing.assert_close(fbp(torch.complex(y, -2 * y), fan).imag, -2 * fbp(y, fan))
    y = torch.rand(2, *cone.range_shape, generator=generator)
    torch.testing.assert_close(fdk(y, cone)[1], fdk(y[1], cone))
    torch.testing.assert_close(fdk(torch.complex(y, -2 * y), cone).imag, -2 * fdk(y, cone))


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
