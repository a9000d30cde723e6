"""``reconstruct(task=)``: the options that were tuned for such a measurement."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.methods.samples import reconstruct_samples
from lightning_mbir.physics import LinearOperator
from lightning_mbir.reconstruction import TASKS, reconstruct
from tests.helpers import gaussian_prior, smooth_volume


def problem(views: int = 24) -> tuple[LinearOperator, Tensor]:
    return TASKS["sv_ct"].build_operator(32, 1.5, views=views), smooth_volume(scale=0.02)


def test_a_task_gives_its_tuned_options():
    operator, truth = problem()
    y = operator(truth)
    shared: dict[str, Any] = {"prior": gaussian_prior("ct"), "modality": "ct", "steps": 4}
    tuned = TASKS["sv_ct"].options["dds"]
    found = reconstruct(y, operator, task="sv_ct", **shared).volume
    assert torch.equal(found, reconstruct(y, operator, **shared, **tuned).volume)
    assert not torch.equal(found, reconstruct(y, operator, **shared).volume)
    given = reconstruct(y, operator, task=TASKS["sv_ct"], eta=0.9, **shared).volume  # what is given comes first
    assert torch.equal(given, reconstruct(y, operator, **shared, **{**tuned, "eta": 0.9}).volume)


@pytest.mark.parametrize("how", [{"noise_std": 1e-3}, {"weights": torch.ones(())}])
def test_a_task_goes_by_noise_and_by_the_number_of_views(how):
    operator, truth = problem()
    y = operator(truth)
    if "weights" in how:
        how = {"weights": torch.ones(y.shape)}
    shared: dict[str, Any] = {"prior": gaussian_prior("ct"), "modality": "ct", "steps": 4, **how}
    tuned = TASKS["sv_ct"].tuned("dds", noisy=True, views=24)
    assert tuned["sigma_y"] > 0 == TASKS["sv_ct"].tuned("dds").get("sigma_y", 0.0)
    found = reconstruct(y, operator, task="sv_ct", **shared).volume
    assert torch.equal(found, reconstruct(y, operator, **shared, **tuned).volume)


def test_samples_take_the_options_of_a_task():
    operator, truth = problem()
    shared: dict[str, Any] = {"prior": gaussian_prior("ct"), "modality": "ct", "steps": 4}
    several = reconstruct_samples(operator(truth), operator, samples=2, task="sv_ct", **shared)
    own = [reconstruct(operator(truth), operator, task="sv_ct", sample=k, **shared).volume for k in range(2)]
    torch.testing.assert_close(several.volume, (own[0] + own[1]) / 2)


def test_a_method_of_ones_own_has_no_options_of_a_task():
    operator, truth = problem()

    def dds(p, *, eta: float = 0.5) -> Tensor:
        """Shares a name."""
        return eta * p.rhs

    found = reconstruct(operator(truth), operator, method=dds, task="sv_ct", modality="ct").volume
    assert torch.equal(found, reconstruct(operator(truth), operator, method=dds, modality="ct").volume)


def test_a_task_of_the_other_modality_is_refused():
    operator, truth = problem()
    with pytest.raises(InputError, match="task cs_mri: is of mri, the measurement of ct; give one of sv_ct, la_ct"):
        reconstruct(operator(truth), operator, method="fbp", task="cs_mri")
    with pytest.raises(InputError, match="--task ct"):
        reconstruct(operator(truth), operator, method="fbp", task="ct")
