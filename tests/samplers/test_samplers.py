"""Samplers with the exact denoiser of a Gaussian prior, for which the truth is known in closed form."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.physics import LinearOperator
from lightning_mbir.samplers import (
    KeyedNoise,
    SamplerState,
    dds,
    diffpir,
    diffusion_mbir,
    dps,
    geometric_sigmas,
    karras_sigmas,
    mcg,
    pula,
    score_slices,
    tpdm,
)
from lightning_mbir.samplers.steps import guidance

N = 16  # small slices would not do: the published Langevin step is exact up to the order of 1 / pixels
SHAPE = (150, N, N)  # 150 slices: as many samples of a 2D prior
MEAN = torch.linspace(0.2, 0.8, N * N).reshape(N, N)
DEVIATION = torch.linspace(0.1, 0.4, N * N).reshape(N, N)


class Pixels(LinearOperator):
    """Measures the pixels where ``mask`` is one (none of them: no data at all)."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)
        self.domain_shape = self.range_shape = (mask.shape[0], mask.shape[1])
        self.range_complex = True  # not line integrals, so that no SIRT step follows

    def forward(self, x: Tensor) -> Tensor:
        return x * self.mask

    def adjoint(self, y: Tensor) -> Tensor:
        return y * self.mask


NOTHING = Pixels(torch.zeros(N, N))
HALF = Pixels((torch.arange(N * N).reshape(N, N) % 2).float())


class Gaussian:
    """Posterior mean for pixels that are independent and Gaussian, with its derivative; in slice batches or not."""

    def __init__(self, slice_batch: int = 1000, coronal: bool = False) -> None:
        self.slice_batch, self.coronal = slice_batch, coronal
        self.calls: list[float] = []

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        self.calls.append(sigma)
        gain, mean = self.gain(sigma)
        return torch.cat([mean + gain * (part - mean) for part in x.split(self.slice_batch)])

    def vjp(self, x: Tensor, sigma: float, cotangent: Tensor) -> Tensor:
        self.calls.append(sigma)
        return torch.cat([self.gain(sigma)[0] * part for part in cotangent.split(self.slice_batch)])

    def gain(self, sigma: float) -> tuple[Tensor, Tensor]:
        gain = DEVIATION**2 / (DEVIATION**2 + sigma**2)
        return (gain[:, None], MEAN[:, None]) if self.coronal else (gain, MEAN)  # (Y, Z, X): the same in every z


denoise = Gaussian()

# What each sampler is tested with: function, schedule, number of levels, options with which it samples the prior, and
# network evaluations for n levels. Langevin steps are small: the error of the corrector is of the order of its step.
FEW: dict[str, Any] = {"schedule": karras_sigmas, "levels": 120}
MANY: dict[str, Any] = {"schedule": geometric_sigmas, "levels": 300}
SAMPLERS: dict[str, dict[str, Any]] = {
    "dds": {"run": dds, **FEW, "options": {"lam": 0.0, "ddim": True}, "nfe": lambda n: n},
    "diffusion_mbir": {"run": diffusion_mbir, **MANY, "options": {"lam": 0.0, "snr": 0.05}, "nfe": lambda n: 2 * n - 1},
    "diffusion_mbir tweedie": {
        "run": diffusion_mbir,
        **MANY,
        "options": {"lam": 0.0, "snr": 0.05, "consistency": "tweedie", "sharing": False},
        "nfe": lambda n: 2 * n - 1,
    },
    "score_slices": {"run": score_slices, **MANY, "options": {"snr": 0.05}, "nfe": lambda n: 2 * n - 1},
    "score_slices noisy": {
        "run": score_slices,
        **MANY,
        "options": {"corrector_steps": 0, "consistency": "noisy"},
        "nfe": lambda n: n,
    },
    "mcg": {"run": mcg, **FEW, "options": {}, "nfe": lambda n: 2 * n},
    "dps": {"run": dps, **FEW, "options": {"zeta": 0.2}, "nfe": lambda n: 2 * n},
    # Fresh noise at every level averages over levels, so only the deterministic one samples the prior.
    "diffpir": {"run": diffpir, **FEW, "options": {"zeta": 0.0, "sigma_n": 1e-5}, "nfe": lambda n: n},
    "pula": {"run": pula, **MANY, "options": {"sigma_y": 1e-4}, "nfe": lambda n: n},
    "tpdm": {
        "run": tpdm,
        **FEW,
        "options": {"second": Gaussian(coronal=True), "ddim": True, "period": 3},
        "nfe": lambda n: n - n // 3,
    },
}
PROJECTING = [name for name in SAMPLERS if name != "dps"]  # which end on the measurement
SEPARATE = ["score_slices", "score_slices noisy", "mcg", "dps", "diffpir"]
DERIVATIVE = ["mcg", "dps"]


def sample(
    name: str,
    operator: LinearOperator,
    y: Tensor,
    seed: int = 0,
    levels: int | None = None,
    prior: Callable[[Tensor, float], Tensor] = denoise,
    **options: object,
) -> Tensor:
    case = SAMPLERS[name]
    sigmas = case["schedule"](levels or case["levels"], 20.0, 0.005)
    settings = {**case["options"], **options}
    x: Tensor = case["run"](prior, operator, y, sigmas, noise=KeyedNoise(seed), **settings)
    return x


@pytest.mark.parametrize("name", SAMPLERS)
def test_without_data_samples_are_the_prior(name: str) -> None:
    x = sample(name, NOTHING, torch.zeros(SHAPE))
    n = SHAPE[0]
    mean_error = (x.mean(0) - MEAN) / (DEVIATION / n**0.5)
    assert float(mean_error.abs().max()) < 4.5  # standard errors
    ratio = x.std(0) / DEVIATION
    # Discrete steps cost some per cent of the deviation; the standard error of one pixel's is 5.8 %.
    assert float((ratio.mean() - 1).abs()) < 0.04 and float((ratio - 1).abs().max()) < 0.3
    correlation = torch.corrcoef(x.reshape(n, -1).T) - torch.eye(N * N)
    assert float(correlation.square().mean().sqrt()) < 1.1 / n**0.5


@pytest.mark.parametrize("name", SAMPLERS)
def test_with_half_the_pixels_samples_are_the_posterior(name: str) -> None:
    """Independent pixels: the posterior is the data where there are any, and the prior elsewhere."""
    truth = MEAN + DEVIATION * torch.randn(SHAPE, generator=torch.Generator().manual_seed(9))
    x = sample(name, HALF, HALF(truth))
    measured = HALF.mask.bool()
    error = x[:, measured] - truth[:, measured]
    if name in PROJECTING:
        assert float(error.abs().max()) < 2e-3
    else:  # a step of fixed length does not end on the data, but near them
        assert float(error.square().mean().sqrt()) < 0.1 * float(DEVIATION.mean())
    rest = x[:, ~measured]
    mean_error = (rest.mean(0) - MEAN[~measured]) / (DEVIATION[~measured] / SHAPE[0] ** 0.5)
    assert float(mean_error.abs().max()) < 4.5
    ratio = rest.std(0) / DEVIATION[~measured]
    assert float((ratio.mean() - 1).abs()) < 0.04 and float((ratio - 1).abs().max()) < 0.3


class Correlated:
    """Posterior mean for 4 x 4 pixels of mean 0 that are correlated, with its derivative."""

    def __init__(self, covariance: Tensor) -> None:
        self.values, self.vectors = torch.linalg.eigh(covariance)
        self.root = self.vectors @ torch.diag(self.values.clamp_min(0).sqrt()) @ self.vectors.T

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        gain = self.vectors @ torch.diag(self.values / (self.values + sigma**2)) @ self.vectors.T
        return (x.reshape(-1, 16) @ gain).reshape(x.shape)

    def vjp(self, x: Tensor, sigma: float, cotangent: Tensor) -> Tensor:
        return self(cotangent, sigma)


@pytest.mark.parametrize("name", SAMPLERS)
def test_correlated_pixels_are_pulled_along(name: str) -> None:
    """Where pixels are correlated, those that are not measured have their posterior mean and covariance.

    Exact for some samplers alone: the others replace measured pixels by their data whatever the noise of the rest, or
    (diffpir) take what the data change for noise. Samples of the prior would be off by 1 and have 2.4 times the
    deviation.
    """
    half = Pixels((torch.arange(16).reshape(4, 4) % 4 == 0).float())
    distance = (torch.arange(16)[:, None] - torch.arange(16)[None]).abs()
    covariance = 0.09 * torch.exp(-distance / 6.0)
    prior = Correlated(covariance)
    truth = (torch.randn(64, 16, generator=torch.Generator().manual_seed(3)) @ prior.root).reshape(64, 4, 4)
    m = half.mask.flatten().bool()
    weights = torch.linalg.solve(covariance[m][:, m], covariance[m][:, ~m])
    posterior_mean = truth.reshape(64, 16)[:, m] @ weights
    posterior = covariance[~m][:, ~m] - covariance[~m][:, m] @ weights
    options = dict(SAMPLERS[name]["options"])
    if name == "tpdm":
        options["second"] = lambda x, sigma: prior(x.transpose(0, 1).contiguous(), sigma).transpose(0, 1)
    sigmas = SAMPLERS[name]["schedule"](120 if name == "pula" else 60, 5.0, 0.01)  # pula takes one step a level
    runs = torch.stack(
        [SAMPLERS[name]["run"](prior, half, half(truth), sigmas, noise=KeyedNoise(s), **options) for s in range(12)]
    )
    missing = runs.reshape(12, 64, 16)[:, :, ~m]
    error = float((missing.mean(0) - posterior_mean).norm() / posterior_mean.norm())
    spread = float((missing.var(0).mean() / posterior.diagonal().mean()).sqrt())
    rest = (missing - missing.mean(0)).reshape(-1, len(posterior))
    wrong = rest.T @ rest / (11 * 64) - posterior
    mixed = 1 - torch.eye(len(posterior))
    exact = name in ("dds", "tpdm", "dps", "pula", "score_slices", "diffusion_mbir tweedie")
    # The mean of 12 samples alone is off by 0.2, the covariance of 704 by 0.13.
    assert error < (0.35 if exact else 0.85 if name == "diffpir" else 0.65)
    assert 0.9 < spread < (1.15 if exact else 1.65)
    if exact:
        assert float(wrong.norm() / posterior.norm()) < 0.35
        assert float((wrong * mixed).norm() / (posterior * mixed).norm()) < 0.45  # 1 without any correlation


@pytest.mark.parametrize("name", ["dds", "diffusion_mbir", *SEPARATE])
def test_a_slice_does_not_know_its_neighbours_without_tv(name: str) -> None:
    """Steps of each slice's own and keyed noise: the first slices are the same however many follow."""
    operator = HALF if name in SEPARATE else NOTHING  # dds takes the steps of conjugate gradients for the whole volume
    y = operator(torch.rand(8, N, N, generator=torch.Generator().manual_seed(1)))
    many = sample(name, operator, y, levels=60)
    few = sample(name, operator, y[:3], levels=60)
    torch.testing.assert_close(many[:3], few, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SAMPLERS)
def test_slice_batches_and_seeds(name: str) -> None:
    y = HALF(torch.rand(6, N, N, generator=torch.Generator().manual_seed(1)))
    whole, in_batches = Gaussian(), Gaussian(slice_batch=4)
    x = sample(name, HALF, y, levels=20, prior=whole)
    assert torch.equal(sample(name, HALF, y, levels=20, prior=in_batches), x)
    assert not torch.equal(sample(name, HALF, y, levels=20, seed=1), x)
    assert len(whole.calls) == SAMPLERS[name]["nfe"](20)


def test_total_variation_couples_slices() -> None:
    y = torch.zeros(40, N, N)
    free, coupled = (sample("dds", NOTHING, y, rho=0.1, lam=lam) for lam in (0.0, 0.02))
    assert float(coupled.diff(dim=0).abs().mean()) < 0.5 * float(free.diff(dim=0).abs().mean())


@pytest.mark.parametrize("name", SAMPLERS)
def test_states_tell_the_progress(name: str) -> None:
    states: list[SamplerState] = []
    prior, second = Gaussian(), Gaussian(coronal=True)
    options = {"second": second} if name == "tpdm" else {}
    x = sample(name, HALF, torch.zeros(2, N, N), levels=5, prior=prior, callback=states.append, **options)
    assert [s.step for s in states] == [1, 2, 3, 4, 5] and all(s.n_steps == 5 for s in states)
    assert states[-1].nfe == len(prior.calls) + len(second.calls)
    assert states[0].sigma == pytest.approx(20.0)
    assert x.shape == states[-1].volume.shape


@pytest.mark.parametrize("name", SAMPLERS)
def test_complex_volumes(name: str) -> None:
    n = torch.randn(5, N, N, dtype=torch.complex64, generator=torch.Generator().manual_seed(2))
    x = sample(name, HALF, HALF(MEAN + DEVIATION * n))
    assert x.dtype == torch.complex64
    error = HALF(x - MEAN - DEVIATION * n).abs()
    assert float(error.max()) < (2e-3 if name in PROJECTING else 0.2)
    assert float(error.square().mean().sqrt()) < 0.1 * float(DEVIATION.mean())


@pytest.mark.parametrize("separable", [True, False])
@pytest.mark.parametrize("complex", [False, True])
def test_guidance_is_the_gradient_of_the_residual(separable: bool, complex: bool) -> None:
    """Against autograd; one that couples slices takes the root mean square over them."""
    generator = torch.Generator().manual_seed(4)
    dtype = torch.complex64 if complex else torch.float32
    x, y = (torch.randn(3, N, N, dtype=dtype, generator=generator) for _ in range(2))
    operator = Pixels(HALF.mask)
    if not separable:
        operator.separable, operator.domain_shape, operator.range_shape = False, (3, N, N), (3, N, N)
    with torch.enable_grad():
        x.requires_grad_()
        gain, mean = denoise.gain(0.5)
        residual = HALF.mask * (mean + gain * (x - mean)) - y
        squares = residual.abs().square().sum((1, 2))
        (squares.sqrt().sum() if separable else (3 * squares.sum()).sqrt()).backward()
    ours = guidance(denoise, operator, y, x.detach(), 0.5, denoise(x.detach(), 0.5))
    torch.testing.assert_close(ours, x.grad)


@pytest.mark.parametrize("name", DERIVATIVE)
def test_the_gradient_step_goes_to_the_posterior_mean(name: str) -> None:
    """One level: Tweedie's estimate moves along the gain times the residual, by as much as zeta tells."""
    y = HALF(torch.rand(4, N, N, generator=torch.Generator().manual_seed(1)) + 1)
    options = {"cg_iterations": 0} if name == "mcg" else {}
    without, along = (sample(name, HALF, y, levels=1, zeta=zeta, **options) for zeta in (0.0, 0.1))
    residual = y - HALF(without)
    moved = along - without
    gain = denoise.gain(20.0)[0]
    length = 0.1 * (1 + 20.0**2) ** 0.5 if name == "dps" else 0.1  # of the VP-SDE, or the VE-SDE
    norm = residual.square().sum((1, 2), keepdim=True).sqrt()
    torch.testing.assert_close(moved, length * gain * residual / norm, rtol=1e-3, atol=1e-6)


def test_the_second_prior_sees_coronal_slices() -> None:
    shapes: list[tuple[int, ...]] = []
    coronal = Gaussian(coronal=True)

    def second(x: Tensor, sigma: float) -> Tensor:
        shapes.append(tuple(x.shape))
        return coronal(x, sigma)

    sample("tpdm", HALF, torch.zeros(3, N, N), levels=7, second=second, period=2)
    assert shapes == [(N, 3, N)] * 3 and coronal.calls[-1] > 0.005  # the last level is of the first prior


def test_the_slow_variant_solves_the_problem_at_every_level() -> None:
    """Many ADMM steps from zero: what comes out minimises 1/2 ||A x - y||^2 + lam ||D_z x||_1, whatever went in."""
    generator = torch.Generator().manual_seed(6)
    diagonal = Pixels(0.5 + 0.5 * torch.rand(4, 4, generator=generator))
    y, lam = torch.rand(6, 4, 4, generator=generator), 0.05

    def blank(x: Tensor, sigma: float) -> Tensor:
        return 0.5 + 0 * x

    slow = {"rho": 0.1, "lam": lam, "sharing": False, "admm_iterations": 400, "cg_iterations": 5}
    x = diffusion_mbir(blank, diagonal, y, geometric_sigmas(3, 1.0, 0.01), noise=KeyedNoise(), **slow)  # type: ignore[arg-type]
    # The dual problem by projected gradients in float64: x = (A^H A)^-1 (A^H y - D^T u), |u| <= lam.
    weight, rhs = diagonal.mask.double() ** 2, (diagonal.mask * y).double()
    d = (torch.eye(6)[1:] - torch.eye(6)[:-1]).double()
    u = torch.zeros(5, 4, 4, dtype=torch.float64)
    for _ in range(3000):
        primal = (rhs - torch.einsum("kz,kyx->zyx", d, u)) / weight
        u = (u + 0.06 * torch.einsum("kz,zyx->kyx", d, primal)).clamp(-lam, lam)
    torch.testing.assert_close(x.double(), primal, rtol=0, atol=1e-4)
    once = diffusion_mbir(
        blank, diagonal, y, geometric_sigmas(3, 1.0, 0.01), noise=KeyedNoise(), **{**slow, "admm_iterations": 1}
    )  # type: ignore[arg-type]
    assert float((once.double() - primal).abs().max()) > 1e-2


def test_total_variation_in_every_direction_smooths_slices_too() -> None:
    y = torch.zeros(6, N, N)
    options = {"rho": 0.1, "lam": 0.05, "consistency": "tweedie"}
    z, zyx = (sample("diffusion_mbir", NOTHING, y, levels=40, axes=axes, **options) for axes in ("z", "zyx"))
    assert float(zyx.diff(dim=-1).abs().mean()) < 0.8 * float(z.diff(dim=-1).abs().mean())


def test_diffpir_trusts_the_prior_as_far_as_told() -> None:
    """At one level: the closed form for pixels, y and denoised weighted by 1 and rho_t."""
    y = HALF(torch.rand(2, N, N, generator=torch.Generator().manual_seed(1)))
    free = sample("diffpir", NOTHING, y, levels=1)
    x = sample("diffpir", HALF, y, levels=1, lam=3.0, sigma_n=10.0)
    pull = 3.0 * 10.0**2 / 20.0**2
    torch.testing.assert_close(x, torch.where(HALF.mask.bool(), (y + pull * free) / (1 + pull), free))


def test_diffpir_with_total_variation_couples_slices() -> None:
    y = torch.zeros(20, N, N)
    free, coupled = (sample("diffpir", NOTHING, y, levels=40, tv=tv, tv_rho=0.1) for tv in (0.0, 0.05))
    assert float(coupled.diff(dim=0).abs().mean()) < 0.5 * float(free.diff(dim=0).abs().mean())


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("score_slices", {"consistency": "both"}, "noisy or tweedie"),
        ("score_slices", {"relaxation": 1.5}, "relaxation"),
        ("diffusion_mbir", {"consistency": "both"}, "noisy or tweedie"),
        ("diffusion_mbir", {"axes": "q"}, "axes"),
        ("diffpir", {"zeta": 1.5}, "zeta"),
        ("tpdm", {"period": 1}, "period"),
    ],
)
def test_wrong_options_are_refused(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        sample(name, HALF, torch.zeros(2, N, N), levels=2, **options)


def test_noise_is_keyed_by_slice() -> None:
    noise = KeyedNoise(seed=5, volume="v", sample=1)
    whole = noise(3, (6, 8, 8))
    assert torch.equal(noise(3, (2, 8, 8), slices=[4, 1]), whole[[4, 1]])
    assert torch.equal(whole, KeyedNoise(5, "v", 1)(3, (6, 8, 8)))
    others = [noise(4, (6, 8, 8)), noise(3, (6, 8, 8), stream=1), KeyedNoise(6, "v", 1)(3, (6, 8, 8))]
    others += [KeyedNoise(5, "w", 1)(3, (6, 8, 8)), KeyedNoise(5, "v", 2)(3, (6, 8, 8)), whole.roll(1, 0)]
    for other in others:
        assert abs(float(torch.corrcoef(torch.stack((whole.flatten(), other.flatten())))[0, 1])) < 0.25
    big = noise(0, (50, 32, 32))
    assert abs(float(big.mean())) < 0.02 and float(big.std()) == pytest.approx(1, abs=0.02)


def test_schedules_fall_from_end_to_end() -> None:
    for sigmas in (geometric_sigmas(9, 10.0, 0.1), karras_sigmas(9, 10.0, 0.1)):
        assert float(sigmas[0]) == pytest.approx(10.0) and float(sigmas[-1]) == pytest.approx(0.1)
        assert bool((sigmas.diff() < 0).all())
    ratios = geometric_sigmas(9, 10.0, 0.1)[1:] / geometric_sigmas(9, 10.0, 0.1)[:-1]
    torch.testing.assert_close(ratios, ratios[:1].expand(8))
    with pytest.raises(InputError, match="steps"):
        karras_sigmas(0, 1.0, 0.1)
    with pytest.raises(InputError, match="sigma_max"):
        geometric_sigmas(3, 0.1, 1.0)
