"""From a measurement to a volume: units, errors, repeatability, for every method."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_mbir.data import VolumeDataModule
from lightning_mbir.data.phantoms.phase import smooth_phase
from lightning_mbir.data.units import CT_SCALE, Modality
from lightning_mbir.data.volumes.volume import Volume
from lightning_mbir.errors import InputError
from lightning_mbir.methods.priors import load_task_prior
from lightning_mbir.methods.units import mri_scale
from lightning_mbir.physics import (
    ConeBeam,
    FanBeam,
    FourierSampling,
    LinearOperator,
    ParallelBeam,
    RealDomain,
    make_mask,
)
from lightning_mbir.prior import LightUNet, SliceDenoiser, Unit, load_prior
from lightning_mbir.reconstruction import METHODS, TASKS, image_metrics, reconstruct
from lightning_mbir.samplers import SamplerState
from tests.helpers import GaussianPrior, gaussian_prior, needed, smooth_volume

SHORT: dict[str, dict[str, Any]] = {
    "dds": {"steps": 6},
    "diffusion_mbir": {"steps": 8, "sigma_max": 5.0},
    "admm_tv": {"steps": 10},
    "sirt": {"steps": 30},
    "score_slices": {"steps": 8},
    "mcg": {"steps": 6},
    "dps": {"steps": 30},
    "diffpir": {"steps": 8},
    "pula": {"steps": 20},
    "tpdm": {"steps": 6},
}
PAIRS = [(t, m) for t in TASKS for m in METHODS if TASKS[t].modality in METHODS[m].modalities]


def problem(task: str, scale: float | None = None) -> tuple[LinearOperator, Tensor]:
    truth = smooth_volume(scale=scale or (0.02 if TASKS[task].modality == "ct" else 300.0))
    flags = {"views": 24} if task == "sv_ct" else {"acc": 3.0} if task == "cs_mri" else {}
    return TASKS[task].build_operator(32, 1.5, **flags), truth


def cone_problem(shape: tuple[int, int, int] = (12, 20, 20), views: int = 24) -> tuple[LinearOperator, Tensor]:
    angles = [i * 360.0 / views for i in range(views)]
    operator = ConeBeam(shape, angles, source_distance=80.0, detector_distance=40.0)
    return operator, smooth_volume(shape, scale=0.02)


@pytest.mark.parametrize(("task", "method"), PAIRS)
def test_every_method_explains_the_measurement(task: str, method: str, tmp_path: Path) -> None:
    operator, truth = problem(task)
    operator, given = needed(method, operator, tmp_path)
    prior = gaussian_prior(TASKS[task].modality)
    result = reconstruct(operator(truth), operator, prior, method, **given, **SHORT.get(method, {}))
    assert result.volume.shape == truth.shape
    assert result.volume.dtype == torch.float32
    assert (result.nfe > 0) == (METHODS[method].needs_prior or "network" in given)
    # Too few views for the one, untrained for the other, too few steps for the last two.
    few = method in ("fbp", "fbp_unet", "diffusion_mbir", "dps")
    assert result.residual < (0.6 if few else 0.2)
    measured = operator(result.volume) - operator(truth)
    assert result.residual == pytest.approx(float(measured.norm() / operator(truth).norm()), rel=1e-4)
    # Samples without total variation have the noise of this prior where nothing was measured.
    sample = method in ("score_slices", "mcg", "dps", "diffpir", "tpdm", "pula")
    assert few or sample or float((result.volume - truth).norm() / truth.norm()) < 0.5


class Smooth(nn.Module):
    """A denoiser without training: the more noise, the wider the mean."""

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        blurred = nn.functional.avg_pool2d(nn.functional.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        share = (sigma / (sigma + 0.2))[:, None, None, None]
        return x + share * (blurred.clamp(0, 1.2) - x)


def blocks(scale: float = 1.0) -> Tensor:
    x = torch.zeros(6, 32, 32)
    x[:, 8:24, 10:22] = 0.5
    x[2:5, 12:18, 14:18] = 1.0
    return scale * x


@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_runs_in_physical_units(method: str, tmp_path: Path) -> None:
    """The result scales with the measurement, and fits it better than nothing does."""
    prior = SliceDenoiser(Smooth(), Unit(CT_SCALE), "ct")
    steps = {"dds": 8, "diffusion_mbir": 60, "admm_tv": 20, "sirt": 30, "dps": 60}
    chosen = steps.get(method, 20 if METHODS[method].needs_prior else None)
    if "ct" not in METHODS[method].modalities:
        truth = blocks()
        op, given = needed(method, RealDomain(FourierSampling(make_mask("uniform1d", (32, 32), 2))), tmp_path)
        result = reconstruct(op(truth), op, method=method, **given)
        assert result.residual == pytest.approx(0.0, abs=0.5)
    else:
        truth = blocks(CT_SCALE)
        geometry = ParallelBeam(32, [i * 9.0 for i in range(20)], pixel_size=2.0)
        options = needed(method, geometry, tmp_path)[1] | ({"sigma_max": 20.0} if method == "diffusion_mbir" else {})
        result = reconstruct(geometry(truth), geometry, prior, method, steps=chosen, **options)
        most = 0.7 if method == "pula" else 0.5  # a sample, with fresh noise at each level
        assert float((result.volume - truth).norm() / truth.norm()) < most
    assert result.volume.shape == truth.shape and result.seconds > 0
    nfe = {"dds": 8, "diffusion_mbir": 119, "score_slices": 39, "mcg": 40, "dps": 120, "diffpir": 20, "tpdm": 20}
    nfe |= {"pula": 20}
    assert result.nfe == {**nfe, "fbp_unet": 1}.get(method, 0)


@pytest.mark.parametrize(
    ("task", "method", "options"),
    [
        ("cs_mri", "dds", {"steps": 10, "lam": 0.0, "rho": 1e-4}),
        ("cs_mri", "zero_filled", {}),
        ("sv_ct", "admm_tv", {}),
        ("sv_ct", "sirt", {}),
        ("sv_ct", "cgls", {}),
        ("cs_mri", "l1_wavelet", {"lam": 0.0}),
    ],
)
def test_a_full_measurement_gives_the_volume_back(task: str, method: str, options: dict[str, Any]) -> None:
    truth = smooth_volume(scale=0.02 if task == "sv_ct" else 300.0)
    flags = {"views": 90} if task == "sv_ct" else {"acc": 1.0}
    operator = TASKS[task].build_operator(32, **flags)
    prior = gaussian_prior(TASKS[task].modality)
    result = reconstruct(operator(truth), operator, prior, method, **options)
    assert float((result.volume - truth).norm() / truth.norm()) < 0.05


def test_mri_volumes_of_any_unit_come_back_in_it() -> None:
    operator, truth = problem("cs_mri", 1.0)
    one, thousand = (
        reconstruct(operator(truth * factor), operator, gaussian_prior("mri"), "dds", steps=5).volume
        for factor in (1.0, 1000.0)
    )
    torch.testing.assert_close(thousand, 1000 * one, rtol=1e-3, atol=0.1)


def test_the_scale_of_mri_is_estimated_within_the_documented_range() -> None:
    """0.7 to 1.4 of the true one; the correction is for undersampled anatomy, and this smooth blob loses no peaks."""
    operator, truth = problem("cs_mri")
    from lightning_mbir.data.units import magnitude_percentile

    assert 0.7 < mri_scale(operator(truth), operator) / magnitude_percentile(truth) < 1.4


@pytest.mark.parametrize("separable", [True, False])
def test_the_unit_of_a_prior_does_not_matter_to_users(separable: bool) -> None:
    """The same prior stated in another unit: scale and offset, noise levels along."""
    operator, truth = problem("sv_ct") if separable else cone_problem((6, 12, 12), 12)
    scale, offset = 0.0384, 0.004

    class Stated:
        def __init__(self, unit: Unit) -> None:
            self.unit = unit

        def __call__(self, x: Tensor, sigma: float) -> Tensor:
            mean, deviation = (0.01 - self.unit.offset) / self.unit.scale, 0.02 / self.unit.scale
            return mean + deviation**2 / (deviation**2 + sigma**2) * (x - mean)

    levels = {"steps": 5, "lam": 0.0, "rho": 1e-6, "cg_iterations": 20}
    a = reconstruct(operator(truth), operator, Stated(Unit(scale)), "dds", **levels)
    b = reconstruct(operator(truth), operator, Stated(Unit(scale, offset)), "dds", **levels)
    torch.testing.assert_close(a.volume, b.volume, rtol=0, atol=2e-3)


def test_the_norm_of_the_operator_does_not_matter() -> None:
    operator, truth = problem("sv_ct")
    prior = gaussian_prior("ct")
    one = reconstruct(operator(truth), operator, prior, "dds", steps=4).volume
    seven = reconstruct(7 * operator(truth), operator * 7, prior, "dds", steps=4).volume
    torch.testing.assert_close(one, seven, rtol=1e-3, atol=1e-6)


def test_noise_follows_seed_and_volume_and_not_the_slice_batch() -> None:
    operator, truth = problem("sv_ct")
    y = operator(truth)

    def run(batch: int = 16, **key: Any) -> Tensor:
        return reconstruct(y, operator, gaussian_prior("ct", batch), "dds", steps=4, **key).volume

    first = run(seed=1, volume="a")
    torch.testing.assert_close(first, run(5, seed=1, volume="a"), rtol=1e-5, atol=1e-8)
    assert not torch.allclose(first, run(seed=2, volume="a"))
    assert not torch.allclose(first, run(seed=1, volume="b"))


@pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].needs_prior])
def test_no_method_depends_on_the_slice_batch(method: str) -> None:
    """With a network whose convolutions mix pixels, and slices that do not fill the last batch."""
    operator, truth = problem("sv_ct")
    y = operator(truth)
    torch.manual_seed(0)
    net = LightUNet(channels=[8, 16], attention=False)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.05)

    def run(slice_batch: int) -> Tensor:
        prior = SliceDenoiser(net, Unit.of("ct"), "ct", slice_batch)
        second = {"second_prior": prior} if "second_prior" in METHODS[method].needs else {}
        # Conjugate gradients that have converged go on by what is rounded off; so few of them.
        few = {"cg_iterations": 3} if "cg_iterations" in METHODS[method].options else {}
        return reconstruct(y, operator, prior, method, steps=5, **few, **second).volume

    torch.testing.assert_close(run(5), run(12), rtol=1e-3, atol=1e-3 * float(truth.max()))


@pytest.mark.parametrize("schedule", ["karras", "geometric"])
def test_levels_of_dds_are_those_of_its_schedule(schedule: str) -> None:
    operator, truth = problem("sv_ct")
    states: list[SamplerState] = []
    options = {"schedule": schedule, "sigma_max": 3.0, "sigma_min": 0.03, "steps": 5}
    reconstruct(operator(truth), operator, gaussian_prior("ct"), "dds", callback=states.append, **options)
    sigmas = [state.sigma for state in states]
    ratios = [after / before for before, after in pairwise(sigmas)]
    assert sigmas[0] == pytest.approx(3.0) and sigmas[-1] == pytest.approx(0.03)
    if schedule == "geometric":
        assert ratios == pytest.approx([0.01**0.25] * 4)
    else:  # equal steps of the seventh root
        assert sigmas[2] == pytest.approx(((3.0 ** (1 / 7) + 0.03 ** (1 / 7)) / 2) ** 7)


@pytest.mark.parametrize("start", ["direct", "admm_tv"])
def test_dds_starts_from_the_volume_that_it_is_told(start: str) -> None:
    operator, truth = problem("sv_ct")
    y = operator(truth)
    seen: list[Tensor] = []

    class First(SliceDenoiser):
        def __call__(self, x: Tensor, sigma: float) -> Tensor:
            seen.append(x.clone())
            return super().__call__(x, sigma)

    prior = First(GaussianPrior(), Unit.of("ct"), "ct")
    for begin in ("noise", start):
        reconstruct(y, operator, prior, "dds", start=begin, steps=1)
    known = {"direct": ("fbp", {}), "admm_tv": ("admm_tv", {"steps": 50})}[start]
    volume = reconstruct(y, operator, prior, known[0], **known[1]).volume
    torch.testing.assert_close((seen[1] - seen[0]) * CT_SCALE, volume, rtol=1e-3, atol=1e-3 * float(truth.max()))


def test_progress_is_told_after_every_step() -> None:
    operator, truth = problem("sv_ct")
    for method in ("dds", "admm_tv", "sirt", "cgls"):
        states: list[SamplerState] = []
        reconstruct(operator(truth), operator, gaussian_prior("ct"), method, steps=7, callback=states.append)
        assert [s.step for s in states] == list(range(1, 8))
        assert all(s.n_steps == 7 and s.volume.shape == truth.shape for s in states)


def test_sirt_in_parts_is_sirt() -> None:
    operator, truth = problem("sv_ct")
    from lightning_mbir.solvers import sirt

    whole = sirt(operator(truth), operator, iterations=45, nonnegative=True)
    torch.testing.assert_close(reconstruct(operator(truth), operator, method="sirt", steps=45).volume, whole)


def test_complex_volumes_are_rebuilt_with_their_phase() -> None:
    """All of k-space measured: the volume comes back, phase and all; RealDomain would keep its real part."""
    truth = torch.polar(smooth_volume((6, 32, 32)), smooth_phase((6, 32, 32), np.random.RandomState(3)))
    operator = FourierSampling(torch.ones(32, 32))
    for method in ("dds", "diffusion_mbir", "admm_tv", "zero_filled", "l1_wavelet", "score_slices", "mcg", "diffpir"):
        options = {"zero_filled": {}, "diffpir": {"steps": 20, "sigma_n": 1e-4}}.get(method, {"steps": 20})
        prior = gaussian_prior("mri", complex=True)
        result = reconstruct(operator(truth), operator, prior, method, **options)
        assert result.volume.is_complex()
        error = torch.linalg.vector_norm(result.volume - truth) / torch.linalg.vector_norm(truth)
        assert float(error) < 0.05, method
    with pytest.raises(InputError, match="without RealDomain"):
        reconstruct(operator(truth), RealDomain(operator), gaussian_prior("mri", complex=True))


@pytest.mark.parametrize(("name", "modality"), [("mri", "ct"), ("ct", "mri"), ("phantom", "ct"), ("ct", "ct")])
def test_a_prior_works_in_the_unit_of_the_task_whatever_it_was_trained_on(name: str, modality: Modality) -> None:
    assert load_task_prior(name, modality).unit == Unit.of(modality)


def test_a_prior_that_was_loaded_is_the_one_of_that_name() -> None:
    operator, truth = problem("sv_ct")
    given = load_prior("phantom")
    before = given.unit
    by_name, loaded = (reconstruct(operator(truth), operator, prior, steps=2).volume for prior in ("phantom", given))
    assert torch.equal(by_name, loaded) and given.unit == before != Unit.of("ct")


def test_divergence_is_told() -> None:
    operator, truth = problem("sv_ct")

    class Broken:
        unit = Unit()

        def __call__(self, x: Tensor, sigma: float) -> Tensor:
            return x * float("inf")

    with pytest.raises(InputError, match="diverged"):
        reconstruct(operator(truth), operator, Broken(), steps=2)


@pytest.mark.parametrize("method", ["dds", "admm_tv", "sirt", "fbp", "cgls"])
def test_a_volume_is_rebuilt_from_cone_beam_projections(method: str) -> None:
    """An operator on the whole volume: its measurement has no dimension of slices."""
    operator, truth = cone_problem()
    y = operator(truth)
    result = reconstruct(y, operator, gaussian_prior("ct"), method, **SHORT.get(method, {}))
    assert result.volume.shape == truth.shape
    assert result.residual < (0.2 if method == "fbp" else 0.1)
    assert float((result.volume - truth).norm() / truth.norm()) < 0.25
    with pytest.raises(InputError, match=r"give \(24, 15, 29\)"):
        reconstruct(y[None], operator, gaussian_prior("ct"), method)


def test_slices_are_rebuilt_from_fan_beams() -> None:
    truth = smooth_volume(scale=0.02)
    operator = FanBeam(32, [i * 6.0 for i in range(60)], source_distance=80.0, detector_distance=40.0)
    for method in ("fbp", "admm_tv"):
        volume = reconstruct(operator(truth), operator, method=method, **SHORT.get(method, {})).volume
        assert float((volume - truth).norm() / truth.norm()) < 0.1


def test_an_object_beyond_the_detector_is_told() -> None:
    operator = ParallelBeam(16, [0.0, 60.0, 120.0])
    with pytest.warns(UserWarning, match="beyond"):
        reconstruct(torch.ones(2, *operator.range_shape), operator, method="fbp")


@pytest.mark.slow
def test_real_scan_is_reconstructed_better_by_diffusion_than_by_total_variation(shared: Path) -> None:
    """A few slices of the chest that neither prior nor tuning has seen, 8 views; the README has the whole table."""
    path = shared / "data/ct/test/lungfcp0001_chest.nii.gz"
    volume = VolumeDataModule(path, modality="ct", image_size=128, slices="30:36").scan(0)
    assert isinstance(volume, Volume)
    op = TASKS["sv_ct"].build_operator(128, volume.spacing[1])
    y = op(volume.data)
    scores = {}
    for method, steps in (("dds", 12), ("admm_tv", None)):
        options = TASKS["sv_ct"].options.get(method, {})
        result = reconstruct(y, op, method=method, steps=steps, **options)
        scores[method] = image_metrics(result.volume, volume.data, 0.0576)["axial"]["psnr"]
    assert scores["dds"] > scores["admm_tv"] + 0.5


def test_slices_are_mirrored_for_a_prior_that_was_shown_such_alone() -> None:
    operator, truth = problem("sv_ct")
    torch.manual_seed(0)
    prior = SliceDenoiser(LightUNet((8, 16)), Unit.of("ct"), "ct")
    with torch.no_grad():
        for parameter in prior.network.parameters():  # they begin at zero at the end, which has no sides
            parameter.copy_(0.1 * torch.randn_like(parameter))
    y = operator(truth)

    def volume(prior: SliceDenoiser, **options: Any) -> Tensor:
        return reconstruct(y, operator, prior, steps=4, **options).volume

    assert not torch.equal(volume(prior, mirror=True), volume(prior))
    sagittal = prior.but(mirrors=False)
    assert torch.equal(volume(sagittal, mirror=True), volume(prior))
