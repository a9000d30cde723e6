"""Statistical weights from end to end: the solution is that of weighted least squares, the noise that of its key."""

from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from lightning_mbir.errors import InputError
from lightning_mbir.physics import FanBeam, FourierSampling, ParallelBeam, RealDomain
from lightning_mbir.reconstruction import METHODS, TASKS, ReconstructionModule, reconstruct
from lightning_mbir.solvers import fbp
from tests.helpers import demo, gaussian_prior, smooth_volume
from tests.physics.test_operators import dense
from tests.reconstruction.test_module import predict

pytestmark = pytest.mark.filterwarnings("ignore")


def noisy(seed: int = 0) -> tuple[ParallelBeam, torch.Tensor, torch.Tensor]:
    operator = ParallelBeam(8, [i * 10.0 for i in range(18)], pixel_size=2.0).to(torch.float64)
    truth = smooth_volume((3, 8, 8), 0.02).double()
    generator = torch.Generator().manual_seed(seed)
    y = operator(truth)
    weights = torch.rand(y.shape, generator=generator, dtype=torch.float64) * 1e4 + 10
    return operator, y + torch.randn(y.shape, generator=generator, dtype=torch.float64) / weights.sqrt(), weights


def test_the_solution_is_that_of_a_dense_weighted_solve() -> None:
    operator, y, weights = noisy()
    result = reconstruct(y, operator, method="admm_tv", weights=weights, lam=0.0, steps=3, cg_iterations=400)
    matrix = dense(operator)
    for x, data, weight in zip(result.volume, y, weights, strict=True):
        w = weight.flatten()
        exact = torch.linalg.solve(matrix.T @ (w[:, None] * matrix), matrix.T @ (w * data.flatten()))
        torch.testing.assert_close(x.flatten(), exact, rtol=1e-4, atol=1e-7)
    plain = float(torch.linalg.vector_norm(operator(result.volume) - y) / torch.linalg.vector_norm(y))
    assert result.residual == pytest.approx(plain, rel=1e-9)


@pytest.mark.parametrize(
    "method", [k for k, method in METHODS.items() if method.weighted and "ct" in method.modalities]
)
def test_equal_weights_are_no_weights(method: str) -> None:
    operator, y, weights = noisy()
    options: dict[str, Any] = {"steps": 6}
    if method == "diffusion_mbir":
        options["sigma_max"] = 5.0
    if method == "tpdm":
        options |= {"second_prior": gaussian_prior("ct"), "cg_iterations": 5}  # more of them blow up the rounding
    plain = reconstruct(y, operator, gaussian_prior("ct"), method, **options)
    for equal in (torch.full_like(weights, 300.0), torch.full_like(weights[0], 0.2)):
        result = reconstruct(y, operator, gaussian_prior("ct"), method, weights=equal, **options)
        torch.testing.assert_close(result.volume, plain.volume, rtol=1e-3, atol=1e-6)


def test_weights_help_where_the_noise_differs() -> None:
    operator, _, _ = noisy()
    truth = smooth_volume((3, 8, 8), 0.02).double()
    y = operator(truth)
    weights = torch.ones_like(y)
    weights[:, ::2] = 1e-4  # every other view is a hundred times noisier
    y = y + 0.005 * torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype) / weights.sqrt()
    options: dict[str, Any] = {"method": "admm_tv", "steps": 30}
    errors = [float((reconstruct(y, operator, weights=w, **options).volume - truth).norm()) for w in (None, weights)]
    assert errors[1] < 0.5 * errors[0]


def test_a_direct_inversion_to_start_from_is_that_of_the_measurement_without_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lightning_mbir.samplers.dds", lambda *args, init, **rest: init)
    parallel, y, _ = noisy()
    fan = FanBeam(8, [i * 20.0 for i in range(18)], source_distance=40.0, detector_distance=20.0, pixel_size=2.0)
    for operator, data in ((parallel, y), (fan, fan(smooth_volume((3, 8, 8), 0.02)))):
        for given in (None, torch.rand(data.shape) + 0.1):
            start = reconstruct(data, operator, gaussian_prior("ct"), weights=given, start="direct").volume
            torch.testing.assert_close(start, fbp(data, operator))


def test_weights_of_k_space() -> None:
    operator = RealDomain(FourierSampling(torch.ones(16, 16)))
    truth = smooth_volume((4, 16, 16), 300.0)
    result = reconstruct(operator(truth), operator, method="admm_tv", weights=torch.full((16, 16), 2.0), lam=0.0)
    torch.testing.assert_close(result.volume, truth, rtol=1e-3, atol=0.1)


def test_weights_that_do_not_fit_are_refused() -> None:
    operator, y, weights = noisy()
    for wrong, words in (
        (weights[:, 1:], "as measured"),
        (weights[:2], "measures \\(..., 2, 18"),
        (-weights, "negative"),
        (weights * 0, "all zero"),
    ):
        with pytest.raises(InputError, match=words):
            reconstruct(y, operator, method="admm_tv", weights=wrong)
    with pytest.raises(InputError, match="fbp fits no data term"):
        reconstruct(y, operator, method="fbp", weights=weights)


@pytest.mark.parametrize(
    ("task", "flags", "words"),
    [
        ("sv_ct", {"photons": 0.0}, "--photons 0: give a positive number"),
        ("la_ct", {"photons": float("inf")}, "--photons inf"),
        ("cs_mri", {"snr": float("nan")}, "--snr nan: give decibels"),
        ("cs_mri", {"photons": 1e5}, "takes --acc, --mask, --phase, --coils, --snr"),
        ("sv_ct", {"snr": 20.0}, "not for task sv_ct"),
    ],
)
def test_noise_flags_are_checked(task: str, flags: dict[str, float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        TASKS[task].settings(**flags)


def test_settings_tell_of_noise_where_there_is_some() -> None:
    assert TASKS["sv_ct"].settings() == {"views": 8, "angle_range": 180.0}
    assert TASKS["sv_ct"].settings(photons=1e4)["photons"] == 1e4
    assert "snr" not in TASKS["cs_mri"].settings(acc=4.0)


def test_noise_of_a_task_follows_its_key_alone() -> None:
    y = torch.rand(3, 8, 46)
    task = TASKS["sv_ct"]
    one, weights = task.add_noise(y, (0, "a"), photons=1e4)
    assert weights is not None and weights.shape == y.shape
    torch.manual_seed(99)
    assert torch.equal(one, task.add_noise(y, (0, "a"), photons=1e4)[0])
    assert not torch.equal(one, task.add_noise(y, (1, "a"), photons=1e4)[0])
    assert not torch.equal(one, task.add_noise(y, (0, "b"), photons=1e4)[0])
    clean, none = task.add_noise(y, (0, "a"))
    assert clean is y and none is None


@pytest.mark.parametrize(
    ("task", "method", "flags"),
    [
        ("sv_ct", "admm_tv", {"photons": 1e3}),
        ("sv_ct", "fbp", {"photons": 1e3}),
        ("cs_mri", "zero_filled", {"snr": 5.0}),
    ],
)
def test_runs_with_noise_repeat_themselves(
    task: str, method: str, flags: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for phantom, size in (("chest", 0.02), ("head", 1.0)):  # balls: drawing the phantoms takes seconds
        ball = partial(lambda shape, seed, scale: smooth_volume(shape, scale), scale=size)
        monkeypatch.setattr(f"lightning_mbir.data.volumes.datamodule.{phantom}_phantom", ball)

    def run(folder: str, **settings: Any) -> np.ndarray:
        data = demo("ct" if task == "sv_ct" else "mri")
        steps = 4 if method == "admm_tv" else None
        module = ReconstructionModule(task=task, method=method, steps=steps, output_dir=tmp_path / folder, **settings)
        predict(module, data, tmp_path)
        file = tmp_path / folder / task / data.scan(0).name / "recon.nii.gz"
        return np.asarray(nib.load(file).dataobj)  # type: ignore[attr-defined]

    one, again, other, clean = (
        run("one", **flags), run("again", **flags), run("other", seed=1, **flags), run("clean")
    )  # fmt: skip
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
    assert not np.array_equal(one, clean)
