"""Parts of a measurement that are held out, and what a reconstruction predicts of them."""

import copy
from itertools import pairwise

import pytest
import torch

from lightning_mbir.methods.held_out import GROUPS, TooLittle, held_numbers, hold_out
from lightning_mbir.physics import FourierSampling, MultiCoilFourier, ParallelBeam, RealDomain, make_mask
from lightning_mbir.physics.operator import LinearOperator, Parts
from tests.helpers import smooth_volume
from tests.physics.registry import OPERATORS

VOLUME = smooth_volume((4, 32, 32), scale=0.02)


def parts(places: list[float], needed: tuple[int, ...] = (), open: bool = False) -> Parts:
    mask = torch.zeros(len(places), dtype=torch.bool)
    mask[list(needed)] = True
    return Parts(torch.tensor(places, dtype=torch.float64), mask, "views", open)


def test_each_fold_is_without_other_views_that_are_spread_evenly() -> None:
    folds = [fold.tolist() for fold in held_numbers(parts([i * 22.5 for i in range(8)]))]
    assert folds == [[1], [3], [5], [7]]
    folds = [fold.tolist() for fold in held_numbers(parts([float(i) for i in range(60)]))]
    assert len(folds) == 4
    assert len(held_numbers(parts([float(i) for i in range(90)]))) == 2
    for fold in folds:
        assert len(fold) == 9  # 15 %
        assert max(b - a for a, b in pairwise(fold)) <= 7
    assert not set(folds[0]) & set(folds[2])


def test_places_count_and_not_their_order() -> None:
    shuffled = [90.0, 0.0, 135.0, 45.0, 22.5, 157.5, 67.5, 112.5]
    held = {shuffled[int(n)] for fold in held_numbers(parts(shuffled)) for n in fold}
    assert held == {22.5, 67.5, 112.5, 157.5}


def test_what_is_needed_is_never_held_out() -> None:
    folds = held_numbers(parts([float(abs(i - 8)) for i in range(17)], needed=(6, 7, 8, 9, 10)))
    assert not {6, 7, 8, 9, 10} & {int(n) for fold in folds for n in fold}


@pytest.mark.parametrize("case", [parts([0.0, 90.0]), parts([float(i) for i in range(9)], needed=tuple(range(8)))])
def test_too_little_to_hold_any_out(case: Parts) -> None:
    with pytest.raises(TooLittle, match="too few to choose by; give --method"):
        held_numbers(case)


def test_rays_through_air_tell_nothing() -> None:
    operator = ParallelBeam(16, [i * 22.5 for i in range(8)])
    with pytest.raises(TooLittle, match="zero"):
        hold_out(operator, torch.zeros(2, 8, operator.n_detectors))


CASES: dict[str, LinearOperator] = {
    "ct": ParallelBeam(32, [i * 22.5 for i in range(8)]),
    "mri": RealDomain(FourierSampling(make_mask("gaussian1d", (32, 32), 2))),
    "coils": MultiCoilFourier(make_mask("gaussian2d", (32, 32), 2), torch.ones(2, 32, 32, dtype=torch.complex64)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_truth_predicts_what_was_held_out_and_nothing_predicts_nothing_of_it(name: str) -> None:
    operator = copy.deepcopy(CASES[name]).double()  # lines of high frequency are small beside the rounding of the rest
    x = VOLUME.to(operator.dtype)
    for fold in hold_out(operator, operator(x)):
        assert sum(fold.errors(x)) < 1e-10
        assert sum(fold.errors(torch.zeros_like(x))) == pytest.approx(1, rel=1e-5)
        assert sum(fold.errors(1.1 * x)) == pytest.approx(0.01, rel=1e-3)
        assert len(fold.errors(x)) == min(GROUPS, len(fold.held))
        torch.testing.assert_close(fold.operator(x), fold.y, rtol=1e-4, atol=1e-5)


def test_nothing_that_is_held_out_is_given() -> None:
    operator = CASES["mri"]
    y = operator(VOLUME)
    for fold in hold_out(operator, y):
        assert not bool((operator.parts_of(fold.y, fold.held) != 0).any())
        given, held = float(fold.y.abs().square().sum()), fold.size
        assert given + held == pytest.approx(float(y.abs().square().sum()), rel=1e-5)


def test_errors_are_weighted_as_the_measurement_is() -> None:
    operator = CASES["ct"]
    y = operator(VOLUME)
    weights = torch.ones(8, operator.range_shape[-1])
    weights[3] = 0  # which is all of the second fold
    weights[1, : operator.range_shape[-1] // 2] = 0
    folds = hold_out(operator, y, weights)
    assert [fold.held.tolist() for fold in folds] == [[1], [5], [7]]
    spoilt = y.clone()
    spoilt[:, 1, : operator.range_shape[-1] // 2] = 1e3  # where nothing is believed
    assert sum(hold_out(operator, spoilt, weights)[0].errors(VOLUME)) < 1e-10


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_can_be_held_out_of_or_says_that_it_is_too_small(name: str) -> None:
    operator = OPERATORS[name]()
    lead = (3,) if operator.separable and len(operator.domain_shape) == 2 else ()
    x = torch.rand(*lead, *operator.domain_shape).to(operator.dtype)
    try:
        folds = hold_out(operator, operator(x))
    except TooLittle:
        assert len(operator.parts.place) < 12
        return
    for fold in folds:
        assert sum(fold.errors(x)) < 1e-8
