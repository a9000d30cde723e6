"""Measurements in all types and of all sizes: the right values, or refused in one line before the work."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_mbir.data.units import Modality
from lightning_mbir.errors import InputError
from lightning_mbir.methods.catalog import check_method
from lightning_mbir.physics import LinearOperator, ParallelBeam
from lightning_mbir.prior import SliceDenoiser, load_prior
from lightning_mbir.reconstruction import METHODS, reconstruct, reconstruct_samples
from lightning_mbir.samplers.noise import KeyedNoise
from tests.helpers import gaussian_prior, needed
from tests.methods.test_reconstruct import problem

TASKS = ("sv_ct", "cs_mri")


def measured(task: str) -> tuple[LinearOperator, Tensor]:
    operator, truth = problem(task)
    return operator, operator(truth)


def dds(y: Tensor, operator: LinearOperator, **options: Any) -> Tensor:
    modality = "mri" if operator.range_complex else "ct"
    return reconstruct(y, operator, gaussian_prior(modality), steps=3, **options).volume


@pytest.mark.parametrize("kind", ["double", "conjugated", "negated", "strided", "graph", "read-only"])
@pytest.mark.parametrize("task", TASKS)
def test_views_and_types_of_the_same_values_give_the_same_volume(task: str, kind: str) -> None:
    operator, y = measured(task)
    expected = dds(y, operator)
    if kind == "double":
        given = y.to(torch.complex128 if y.is_complex() else torch.float64)
    elif kind == "conjugated":
        given = y.conj().resolve_conj().conj() if y.is_complex() else torch.complex(y, y).conj().real
        assert given.is_conj() == y.is_complex()
    elif kind == "negated":
        given = torch.complex(torch.zeros_like(y.real), -y.real).conj().imag
        assert given.is_neg()
        if y.is_complex():
            expected = dds(y.real.contiguous(), operator)
    elif kind == "strided":
        given = torch.stack((y, y), -1)[..., 1]
        assert not given.is_contiguous()
    elif kind == "graph":
        given = y.clone().requires_grad_()
    else:
        given = torch.from_numpy(y.numpy().copy())
    assert torch.equal(dds(given, operator), expected)
    if kind == "graph":
        assert given.grad is None and not dds(given, operator).requires_grad


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int16, torch.int64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("task", TASKS)
def test_other_types_are_taken_by_their_values(task: str, dtype: torch.dtype) -> None:
    operator, y = measured(task)
    rough = (y.real / y.real.abs().max() * 100).abs().to(dtype)
    assert torch.equal(dds(rough, operator), dds(rough.to(operator.range_dtype), operator))


@pytest.mark.parametrize(
    ("scale", "words"),
    [
        (1e30, "the largest value of the measurement is .*; it must be between 1e-15 and 1e"),
        (1e16, "the largest value of the measurement"),
        (1e-30, "the largest value of the measurement"),
        (0.0, "the measurement is zero; there is nothing to reconstruct"),
        (float("nan"), "NaN or infinite"),
        (float("inf"), "NaN or infinite"),
    ],
)
@pytest.mark.parametrize("task", TASKS)
def test_sizes_whose_squares_do_not_fit_are_refused(task: str, scale: float, words: str) -> None:
    operator, y = measured(task)
    unit = y / y.abs().max()
    for method in METHODS:
        if ("mri" if task == "cs_mri" else "ct") in METHODS[method].modalities:
            with pytest.raises(InputError, match=words):
                reconstruct(unit * scale, operator, method=method)


def test_double_precision_beyond_single_is_refused() -> None:
    operator, y = measured("sv_ct")
    for scale in (1e300, 1e-300):
        with pytest.raises(InputError, match="the largest value of the measurement"):
            dds(y.double() * scale, operator)


@pytest.mark.parametrize("scale", [1e10, 1e-12])
@pytest.mark.parametrize("method", ["dds", "cgls", "admm_tv", "zero_filled"])
def test_k_space_in_any_unit_gives_the_volume_in_that_unit(method: str, scale: float) -> None:
    operator, y = measured("cs_mri")
    steps = {"steps": 3} if METHODS[method].steps else {}
    one, other = (reconstruct(v, operator, gaussian_prior("mri"), method, **steps).volume for v in (y, y * scale))
    torch.testing.assert_close(other / scale, one, rtol=1e-3, atol=1e-4 * float(one.abs().max()))


def test_weights_and_noise_beyond_all_measure_are_refused() -> None:
    operator, y = measured("sv_ct")
    ones = torch.ones_like(y)
    for weights, words in [
        (ones * 1e30, "the largest value of the weights"),
        (ones * 1e-30, "the largest value of the weights"),
        (ones.double() * 1e300, "more than fits"),
        (ones * 0, "all zero"),
    ]:
        with pytest.raises(InputError, match=words):
            dds(y, operator, weights=weights)
    torch.testing.assert_close(dds(y, operator, weights=ones.bool()), dds(y, operator, weights=ones))
    with pytest.raises(InputError, match="noise_std is 1e"):
        dds(y, operator, noise_std=1e30)


def test_options_beyond_all_measure_are_refused_before_any_work() -> None:
    for wrong in (1e300, 1e-300):
        with pytest.raises(InputError, match="dds: rho is 1e"):
            check_method("dds", "ct", {"rho": wrong}, None)


@pytest.mark.parametrize("task", TASKS)
def test_no_slices_are_refused_and_one_works(task: str) -> None:
    operator, y = measured(task)
    with pytest.raises(InputError, match=r"the measurement is empty, \(0, .*; give at least one slice"):
        dds(y[:0], operator)
    assert dds(y[6:7], operator).shape == (1, *operator.domain_shape)


def test_an_operator_that_measures_next_to_nothing_is_refused() -> None:
    operator = ParallelBeam(16, [0.0, 90.0])
    y = operator(torch.ones(2, 16, 16))
    for factor in (1e-20, 1e20):
        with pytest.raises(InputError, match=r"has a norm of .*; check its geometry"):
            dds(y, factor * operator)


@pytest.fixture
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def modality_of(task: str) -> Modality:
    return "mri" if task == "cs_mri" else "ct"


@pytest.mark.parametrize(
    ("task", "method"),
    [(task, name) for task in TASKS for name in sorted(METHODS) if modality_of(task) in METHODS[name].modalities],
)
def test_double_precision_by_default_breaks_nothing(task: str, method: str, tmp_path: Path) -> None:
    """Operators then work in it, networks as ever; and nothing else is reconstructed."""
    modality = modality_of(task)
    found = []
    for dtype in (torch.float32, torch.float64):
        torch.set_default_dtype(dtype)
        try:
            operator, truth = problem(task)
            operator, given = needed(method, operator, tmp_path)
            steps = {"steps": 3} if METHODS[method].steps else {}
            y = operator(truth.to(operator.dtype))
            found.append(reconstruct(y, operator, gaussian_prior(modality), method, **given, **steps).volume)
            assert found[-1].dtype == dtype
        finally:
            torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(found[1].float(), found[0], rtol=0, atol=0.05 * float(found[0].abs().max()))


@pytest.mark.usefixtures("double")
def test_bundled_priors_are_the_same_with_double_precision_by_default() -> None:
    x = torch.rand(2, 32, 32, dtype=torch.float32)
    found: SliceDenoiser = load_prior("phantom")
    torch.set_default_dtype(torch.float32)
    assert torch.equal(found(x, 0.5), load_prior("phantom")(x, 0.5))
    assert found(x.double(), 0.5).dtype == torch.float64
    torch.testing.assert_close(found(x.double(), 0.5).float(), found(x, 0.5))


def test_noise_is_the_same_in_double_precision() -> None:
    noise = KeyedNoise(3, correlation=0.5)
    one, two = (noise(1, (2, 4, 4), dtype=dtype) for dtype in (torch.float32, torch.float64))
    assert two.dtype == torch.float64 and torch.equal(two.float(), one)


@pytest.mark.parametrize("slices", [1, 2])
def test_samples_of_few_slices(slices: int) -> None:
    operator, y = measured("sv_ct")
    result = reconstruct_samples(y[:slices], operator, gaussian_prior("ct"), samples=2, steps=2)
    assert result.std.shape == (slices, *operator.domain_shape) and bool(torch.isfinite(result.std).all())


@pytest.mark.parametrize("dtype", [torch.bool, torch.int16, torch.float64])
def test_samples_of_other_types(dtype: torch.dtype) -> None:
    operator, y = measured("sv_ct")
    given = (y / y.max() * 100).to(dtype)
    results = [
        reconstruct_samples(one, operator, gaussian_prior("ct"), samples=2, steps=2)
        for one in (given, given.float().contiguous())
    ]
    assert torch.equal(results[0].volume, results[1].volume) and results[0].residual == results[1].residual


def test_what_is_refused_has_the_name_of_its_volume() -> None:
    operator, y = measured("sv_ct")
    with pytest.raises(InputError, match="the measurement of chest is zero"):
        dds(y * 0, operator, volume="chest")
