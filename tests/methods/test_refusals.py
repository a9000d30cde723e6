"""What cannot be reconstructed is refused, most of it before any work."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.methods.catalog import METHODS, check_method
from lightning_mbir.methods.method import Method
from lightning_mbir.physics import (
    FourierSampling,
    MultiCoilFourier,
    NonCartesianFourier,
    RealDomain,
    loop_coil_maps,
    make_mask,
    radial_trajectory,
)
from lightning_mbir.prior import Unit
from lightning_mbir.reconstruction import ReconstructionModule, reconstruct, reconstruct_samples
from tests.helpers import gaussian_prior, smooth_volume
from tests.methods.test_reconstruct import problem


@pytest.mark.parametrize(
    ("method", "options", "words"),
    [
        ("unet", {}, ["--method unet", "dds", "fbp"]),
        ("zero_filled", {}, ["not for ct", "fbp"]),
        ("dds", {"rhoo": 1.0}, ["no option rhoo", "rho", "eta"]),
        ("dds", {"rho": "much"}, ["rho", "a number"]),
        ("dds", {"eta": 1.5}, ["eta", "0 to 1"]),
        ("dds", {"cg_iterations": 2.5}, ["cg_iterations", "whole number"]),
        ("dds", {"cg_iterations": 0}, ["cg_iterations", "at least 1"]),
        ("diffusion_mbir", {"final_sirt": 1}, ["final_sirt", "true or false"]),
        ("diffusion_mbir", {"admm_iterations": 0}, ["admm_iterations", "at least 1"]),
        ("dps", {"zeta": -1.0}, ["dps", "zeta", "at least 0"]),
        ("tpdm", {}, ["tpdm", "--second_prior"]),
        ("dds", {"sigma_max": 0.001}, ["sigma_max"]),
        ("mcg", {"sigma_min": 3.0}, ["mcg", "sigma_max > sigma_min"]),
        ("admm_tv", {"rho": 0.0}, ["rho", "positive"]),
        ("admm_tv", {"axes": 5}, ["axes are 5", "z, y, x"]),
        ("diffusion_mbir", {"axes": "zq"}, ["axes", "z, y, x"]),
        ("dds", {"schedule": ["karras"]}, ["schedule", "karras or geometric"]),
        ("score_slices", {"consistency": "both"}, ["consistency", "noisy or tweedie"]),
        ("score_slices", {"relaxation": 1.5}, ["relaxation", "0 to 1"]),
        ("diffpir", {"zeta": 1.5}, ["zeta", "0 to 1"]),
        ("tpdm", {"period": 1}, ["period", "at least 2"]),
        ("dds", {"steps": 0}, ["--steps 0", "at least 1"]),
        ("dds", {"steps": 3.0}, ["--steps 3.0", "whole number"]),
        ("fbp", {"steps": 3}, ["--steps 3", "fbp"]),
        ("fbp", {"filter": "box"}, ["box", "ramp"]),
    ],
)
def test_wrong_methods_and_options_are_refused(method: str, options: dict[str, Any], words: list[str]) -> None:
    operator, truth = problem("sv_ct")
    with pytest.raises(InputError) as caught:
        reconstruct(operator(truth), operator, gaussian_prior("ct"), method, **options)
    assert all(word in str(caught.value) for word in words)
    steps = options.pop("steps", None)
    if "--second_prior" not in words:  # known before any work
        with pytest.raises(InputError):
            check_method(method, "ct", options, steps)


class Callable:
    """Back-projects."""

    def __call__(self, problem: Any) -> Tensor:
        return problem.rhs


@pytest.mark.parametrize("method", [Callable, 5, None, ["dds"], b"dds", object(), dict])
def test_what_is_no_method_is_refused(method: Any) -> None:
    operator, truth = problem("sv_ct")
    with pytest.raises(InputError, match="give a name, a class path or a function of a problem"):
        reconstruct(operator(truth), operator, method=method)
    if method is not None:
        with pytest.raises(InputError, match=r"--method .*: give names or class paths, such as dds"):
            ReconstructionModule(task="sv_ct", method=method)
        with pytest.raises(InputError, match=r"--methods .*: give names or class paths, such as dds"):
            ReconstructionModule(task="sv_ct", methods=[method, "fbp"])


def test_a_method_of_ours_is_its_name_where_results_are_filed_under_it() -> None:
    module = ReconstructionModule(task="sv_ct", method=METHODS["fbp"])  # type: ignore[arg-type]
    assert [plan.method for plan in module.plans] == ["fbp"]
    with pytest.raises(InputError, match=r"functions go into reconstruct\(\)"):
        ReconstructionModule(task="sv_ct", method=Method(Callable()))  # type: ignore[arg-type]


def test_an_object_that_is_called_is_a_method_and_one_without_a_problem_is_none() -> None:
    operator, truth = problem("sv_ct")
    assert reconstruct(operator(truth), operator, method=Callable()).volume.shape == truth.shape

    def nothing(*, steps: int = 3) -> None:
        """Takes options alone."""

    with pytest.raises(InputError, match="method nothing: takes no problem"):
        reconstruct(operator(truth), operator, method=nothing)  # type: ignore[arg-type]


def test_k_space_that_is_not_centred_is_told_where_the_operator_is(caplog: pytest.LogCaptureFixture) -> None:
    """Once for all samples; not of a centred one, nor of an operator off the grid or of a user's own."""
    truth = smooth_volume((2, 32, 32)).to(torch.complex64)
    mask = make_mask("gaussian1d", (32, 32), 2.0)
    maps = loop_coil_maps(3, 32)
    spokes = NonCartesianFourier(radial_trajectory(24, 32), (32, 32))
    operators = [FourierSampling(mask), MultiCoilFourier(mask, maps), RealDomain(FourierSampling(mask)), spokes]
    for operator in operators:
        y = operator(truth if operator.domain_complex else truth.real)
        caplog.clear()
        reconstruct(y, operator, method="cgls", steps=2)
        assert "strongest" not in caplog.text
        reconstruct(torch.fft.ifftshift(y, (-2, -1)), operator, method="cgls", steps=2)
        told = "the measurement: k-space is strongest at both ends of y and x, as numpy.fft.fft2 leaves it"
        assert caplog.text.count(told) == operator.centred and operator.centred == (operator is not spokes)
    caplog.clear()
    y = torch.fft.ifftshift(operators[0](truth), (-2, -1))
    reconstruct_samples(y, RealDomain(operators[0]), gaussian_prior("mri"), "dds", samples=2, steps=2)
    assert caplog.text.count("apply numpy.fft.fftshift to y and x, unless the mask leaves the middle out") == 1


def test_what_is_no_measurement_no_operator_and_no_seed_is_refused_in_one_line() -> None:
    operator, truth = problem("sv_ct")
    y, kind = operator(truth), type(operator)
    for given, words in [
        ((y.numpy(), operator), "ndarray; give a tensor"),
        ((None, operator), "NoneType; give a tensor"),
        ((y, kind), "give a LinearOperator"),
        ((y, operator, 3), "prior"),
    ]:
        for run in (reconstruct, partial(reconstruct_samples, samples=2), partial(reconstruct, method="auto")):
            with pytest.raises(InputError, match=words):
                run(*given)
    for wrong in ({"seed": 0.5}, {"seed": None}, {"sample": "first"}):
        with pytest.raises(InputError, match="give a whole number"):
            reconstruct(y, operator, method="fbp", **wrong)
    with pytest.raises(InputError, match="weights are a ndarray; give a tensor"):
        reconstruct(y, operator, method="admm_tv", weights=torch.ones_like(y).numpy())


def test_numbers_of_numpy_are_those_of_python() -> None:
    operator, truth = problem("sv_ct")
    run = partial(reconstruct, operator(truth), operator, gaussian_prior("ct"), "dds")
    plain = run(steps=3, seed=2, sample=1, rho=0.125, cg_iterations=4)
    numpy = run(
        steps=np.int64(3), seed=np.int64(2), sample=np.int32(1), rho=np.float32(0.125), cg_iterations=np.uint8(4)
    )
    assert torch.equal(plain.volume, numpy.volume)


def test_wrong_wavelets_are_refused_before_any_work() -> None:
    for wrong in ("bior2.2", "magic", 4):
        with pytest.raises(InputError, match="wavelet"):
            check_method("l1_wavelet", "mri", {"wavelet": wrong}, None)


def test_two_priors_must_be_in_one_unit() -> None:
    operator, truth = problem("sv_ct")
    second = gaussian_prior("ct")
    second.unit = Unit(scale=3.0)
    with pytest.raises(InputError, match="one unit"):
        reconstruct(operator(truth), operator, gaussian_prior("ct"), "tpdm", second_prior=second)


def test_wavelets_are_split_some_thirty_times_at_most() -> None:
    with pytest.raises(InputError, match="levels is 99; give 1 to 30"):
        check_method("l1_wavelet", "mri", {"levels": 99}, None)


def test_wrong_measurements_are_refused() -> None:
    operator, truth = problem("sv_ct")
    y = operator(truth)
    for wrong, words in [
        (y[..., :-1], "measures"),
        (y[0], "give \\(Z, 24, 46\\)"),
        (torch.full_like(y, float("nan")), "NaN"),
        (y + 0j, "complex"),
    ]:
        with pytest.raises(InputError, match=words):
            reconstruct(wrong, operator, gaussian_prior("ct"))


def test_wrong_priors_are_refused() -> None:
    operator, truth = problem("sv_ct")
    with pytest.raises(InputError, match="no such file"):
        reconstruct(operator(truth), operator, "nowhere.safetensors")
    with pytest.raises(InputError, match="unit"):
        reconstruct(operator(truth), operator, lambda x, sigma: x)  # type: ignore[arg-type]
    complex_operator = FourierSampling(torch.ones(32, 32))
    with pytest.raises(InputError, match="RealDomain"):
        reconstruct(complex_operator(truth), complex_operator, gaussian_prior("mri"))


@pytest.mark.parametrize("method", ["mcg", "dps"])
def test_a_prior_without_a_derivative_is_refused(method: str) -> None:
    operator, truth = problem("sv_ct")
    prior = gaussian_prior("ct")

    class Plain:
        unit = prior.unit

        def __call__(self, x: Tensor, sigma: float) -> Tensor:
            return prior(x, sigma)

    with pytest.raises(InputError, match=f"{method} needs a prior with gradients"):
        reconstruct(operator(truth), operator, Plain(), method, steps=2)
    with torch.inference_mode():  # as Lightning predicts
        inside = reconstruct(operator(truth), operator, prior, method, steps=2).volume
    torch.testing.assert_close(inside, reconstruct(operator(truth), operator, prior, method, steps=2).volume)
