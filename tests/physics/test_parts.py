"""What can be left out of a measurement: parts of every operator."""

import pytest
import torch

from lightning_mbir.physics import (
    CartesianFourier3D,
    ConeBeam,
    FanBeam,
    FourierSampling,
    LinearOperator,
    MultiCoilFourier,
    ParallelBeam,
    RealDomain,
    Weighted,
    make_mask,
)
from tests.physics.registry import INEXACT, OPERATORS, random_maps

EACH = pytest.mark.parametrize("name", OPERATORS)


def random(shape: tuple[int, ...], complex: bool, seed: int) -> torch.Tensor:
    dtype = torch.complex128 if complex else torch.float64
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def halves(operator: LinearOperator) -> tuple[torch.Tensor, torch.Tensor]:
    numbers = torch.arange(len(operator.parts.place))
    return numbers[::2], numbers[1::2]


def test_operators_made_of_others_leave_out_what_those_leave_out() -> None:
    mask = make_mask("gaussian1d", (16, 32), 4)
    whole = MultiCoilFourier(mask, random_maps(2, 16, 32))
    centre = torch.ones(16, 32)
    weights = torch.rand(3, *whole.range_shape) + 0.1
    weighted = Weighted(whole, weights[0]), Weighted(whole, weights)  # of all slices, and by slice
    for made in (whole * 0.3, 0.3 * RealDomain(whole), whole @ FourierSampling(centre), *weighted):
        assert made.parts.what == "lines of k-space"  # not the first dimension of the measurement, which is coils
        assert torch.equal(made.parts.place, whole.parts.place) and torch.equal(made.parts.needed, whole.parts.needed)
        assert made.acceleration == whole.acceleration


@EACH
def test_what_is_kept_is_what_the_part_measures(name: str) -> None:
    operator = OPERATORS[name]().double()
    even, _ = halves(operator)
    part = operator.of_parts(even)
    x = random(operator.domain_shape, operator.domain_complex, 0)
    torch.testing.assert_close(part(x), operator.parts_of(operator(x), even), rtol=1e-5, atol=1e-6)
    assert part.domain_shape == operator.domain_shape
    assert part.separable == operator.separable
    assert part.real_dtype == torch.float64


@EACH
def test_the_part_has_the_adjoint_of_the_whole(name: str) -> None:
    operator = OPERATORS[name]().double()
    part = operator.of_parts(halves(operator)[0])
    x = random(part.domain_shape, part.domain_complex, 1)
    y = random(part.range_shape, part.range_complex, 2)
    left, right = torch.vdot(part(x).flatten(), y.flatten()), torch.vdot(x.flatten(), part.adjoint(y).flatten())
    if not part.domain_complex:  # real vectors: the real part of the inner product
        left, right = left.real, right.real
    scale = float(part(x).norm() * y.norm())
    assert abs(complex(left - right)) < INEXACT.get(name, 1e-5) * scale


@EACH
def test_two_halves_are_the_whole(name: str) -> None:
    operator = OPERATORS[name]().double()
    x = random(operator.domain_shape, operator.domain_complex, 3)
    y = operator(x)
    squares = [float(operator.parts_of(y, half).abs().square().sum()) for half in halves(operator)]
    assert sum(squares) == pytest.approx(float(y.abs().square().sum()), rel=1e-9)
    assert min(squares) > 0


@EACH
def test_some_slices_are_measured_as_among_all(name: str) -> None:
    operator = OPERATORS[name]().double()
    some = operator.of_slices(1, 3)
    if some is None:
        return
    depth = 4 if operator.separable else operator.domain_shape[0]
    shape = operator.domain_shape[-2:] if len(operator.domain_shape) > 1 else operator.domain_shape
    x = random((depth, *shape), operator.domain_complex, 4)
    torch.testing.assert_close(some(x[1:3]), operator(x)[1:3], rtol=1e-5, atol=1e-6)


def test_views_lie_at_their_angles() -> None:
    parallel = ParallelBeam(8, [0.0, 45.0, 90.0, 315.0]).parts
    assert parallel.what == "views"
    assert parallel.place.tolist() == [0.0, 45.0, 90.0, 135.0]  # the rays of 315 degrees are those of 135
    assert not parallel.open
    fan = FanBeam(8, [i * 40.0 for i in range(9)], source_distance=30.0, detector_distance=10.0).parts
    assert fan.place[-1] == 320.0
    assert not fan.open


def test_a_wedge_that_was_not_measured_is_seen() -> None:
    # 60 degrees about 0: places count from the end of the wedge, so that neighbours stay neighbours.
    angles = [330.0 + i for i in range(30)] + [float(i) for i in range(30)]
    fan = FanBeam(8, angles, source_distance=30.0, detector_distance=10.0).parts
    assert fan.open
    assert fan.place.argsort().tolist() == list(range(60))
    assert ParallelBeam(8, [float(i) for i in range(90)]).parts.open
    assert not ParallelBeam(8, [i * 22.5 for i in range(8)]).parts.open
    assert not ConeBeam((2, 4, 4), [0.0, 120.0, 240.0], source_distance=30.0, detector_distance=10.0).parts.open


@pytest.mark.parametrize("kind", ["gaussian1d", "uniform1d", "equispaced"])
def test_lines_are_columns_and_the_centre_is_needed(kind: str) -> None:
    mask = make_mask(kind, (32, 64), 4)
    parts = FourierSampling(mask).parts
    columns = torch.nonzero(mask.any(0)).flatten() - 32
    assert parts.what == "lines of k-space"
    assert parts.place.tolist() == columns.abs().tolist()
    centre = [int(c) for c in columns[parts.needed]]
    assert centre == list(range(centre[0], centre[-1] + 1))
    assert 0 in centre
    assert 4 <= len(centre) < len(columns) / 2 + 1


def test_rows_and_points() -> None:
    rows = make_mask("gaussian1d", (32, 64), 4).T.contiguous()
    assert len(FourierSampling(rows).parts.place) == 16  # of 64 rows
    points = FourierSampling(make_mask("gaussian2d", (64, 64), 8)).parts
    assert points.what == "points of k-space"
    assert len(points.place) == 64 * 64 // 8
    assert 4 <= int(points.needed.sum()) <= 24**2


def test_the_needed_centre_is_no_larger_than_what_maps_are_estimated_from() -> None:
    full = MultiCoilFourier(torch.ones(20, 64), random_maps(2, 20, 64)).parts
    assert int(full.needed.sum()) == 23
    assert len(full.place) == 64


def test_a_line_is_left_out_of_all_slices() -> None:
    mask = torch.zeros(3, 4, 8)
    mask[0, :, 2:6], mask[1, :, 3:8], mask[2, :, 1:5] = 1, 1, 1
    operator = FourierSampling(mask)
    assert len(operator.parts.place) == 7
    kept = operator.of_parts(torch.arange(6)).mask
    assert float(kept[..., 7].sum()) == 0
    assert torch.equal(kept[..., :7], mask[..., :7])


def test_3d_lines_are_of_the_plane_of_phase_encoding() -> None:
    mask = (torch.rand(8, 10, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    mask[3:6, 4:7] = 1
    operator = CartesianFourier3D(mask, (8, 10, 6))
    assert operator.parts.what == "points of k-space"
    assert len(operator.parts.place) == int(mask.sum())


def test_some_slices_of_weights_by_slice() -> None:
    """Also those with weights of zero, which a slab of a volume may have."""
    weights = torch.rand(5, 3, 9)
    weights[:2] = 0
    x = torch.rand(5, 6, 6)
    beam = ParallelBeam(6, [0.0, 50.0, 100.0], n_detectors=9)
    whole = 2.0 * Weighted(beam, weights)
    for part in (slice(0, 2), slice(1, 4)):
        some = whole.of_slices(part.start, part.stop)
        assert some is not None
        torch.testing.assert_close(some(x[part]), whole(x)[part])
    assert Weighted(beam, weights[2]).of_slices(0, 2) is not None
