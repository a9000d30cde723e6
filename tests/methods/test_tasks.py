"""Tasks refuse what does not belong to them, and build the operators that their flags say."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_mbir.errors import InputError
from lightning_mbir.methods.catalog import check_method
from lightning_mbir.methods.tasks import get_task
from lightning_mbir.physics import MASKS, ParallelBeam, RealDomain
from lightning_mbir.reconstruction import TASKS, ReconstructionModule, reconstruct
from tests.helpers import demo
from tests.reconstruction.test_module import predict


@pytest.mark.parametrize(
    ("task", "flags", "words"),
    [
        ("sv_ct", {"acc": 8.0}, ["--acc", "sv_ct", "--views"]),
        ("la_ct", {"mask": "gaussian1d"}, ["--mask", "--angle_range"]),
        ("cs_mri", {"views": 8}, ["--views", "--acc"]),
        ("cs_mri", {"acc": 0.5}, ["--acc 0.5", "at least 1"]),
        ("cs_mri", {"acc": float("nan")}, ["--acc"]),
        ("cs_mri", {"mask": "spiral"}, ["--mask spiral", *MASKS]),
        ("cs_mri", {"coils": 0}, ["--coils 0", "at least 1"]),
        ("sv_ct", {"coils": 8}, ["--coils 8", "--views"]),
        ("sv_ct", {"views": 0}, ["--views 0", "at least 1"]),
        ("sv_ct", {"views": 8.0}, ["--views 8.0", "whole number"]),
        ("sv_ct", {"views": "8"}, ["--views '8'", "whole number"]),
        ("cs_mri", {"acc": "4"}, ["--acc '4'", "a number"]),
        ("la_ct", {"angle_range": 0.0}, ["--angle_range 0", "180"]),
        ("la_ct", {"angle_range": 361.0}, ["--angle_range 361"]),
    ],
)
def test_wrong_flags_are_refused_in_one_line(task: str, flags: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        TASKS[task].settings(**flags)
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


def test_unknown_tasks_are_refused() -> None:
    with pytest.raises(InputError, match="--task mri: unknown; there are sv_ct, la_ct, cs_mri"):
        get_task("mri")


def test_an_arc_beyond_half_a_turn_is_for_measurements_alone(tmp_path: Path) -> None:
    module = ReconstructionModule(task="la_ct", method="fbp", angle_range=220.0, output_dir=tmp_path)  # of a fan, say
    with pytest.raises(InputError, match="--angle_range 220: parallel views repeat after 180 degrees"):
        predict(module, demo("ct"), tmp_path)
    assert not (tmp_path / "la_ct").exists()


def test_ct_operators() -> None:
    few = TASKS["sv_ct"].build_operator(16, 2.0)
    assert isinstance(few, ParallelBeam)
    assert few.angles == tuple(22.5 * i for i in range(8))
    assert few.pixel_size == 2.0
    fewer = TASKS["sv_ct"].build_operator(16, views=4)
    assert isinstance(fewer, ParallelBeam) and fewer.angles == (0.0, 45.0, 90.0, 135.0)
    limited = TASKS["la_ct"].build_operator(16)
    assert isinstance(limited, ParallelBeam)
    assert limited.angles == tuple(float(i) for i in range(90))


def test_mri_operator_is_real_has_the_acceleration_and_follows_the_seed() -> None:
    task = TASKS["cs_mri"]
    operator = task.build_operator(64, acc=4.0, seed=1)
    assert isinstance(operator, RealDomain)
    lines = task.build_operator(64, acc=4, mask="uniform1d").acceleration
    assert lines == pytest.approx(4)
    x = torch.rand(2, 64, 64)
    assert int((operator(torch.rand(64, 64)) != 0).sum()) == 64 * 16
    torch.testing.assert_close(operator(x), task.build_operator(64, acc=4.0, seed=1)(x))
    assert not torch.equal(operator(x), task.build_operator(64, acc=4.0, seed=2)(x))


def test_coils_measure_what_one_coil_cannot() -> None:
    operator = TASKS["cs_mri"].build_operator(48, acc=4.0, mask="uniform1d", coils=6)
    x = torch.rand(2, 48, 48)
    y = operator(x)
    assert y.shape == (2, 6, 48, 48)
    found = reconstruct(y, operator, method="sense", lam=0.0, tolerance=0.0, steps=60).volume
    single = TASKS["cs_mri"].build_operator(48, acc=4.0, mask="uniform1d")
    alone = reconstruct(single(x), single, method="cgls", steps=60).volume
    assert float((found - x).norm()) < 0.6 * float((alone - x).norm())  # 0.51


def test_data_ranges_are_explicit() -> None:
    assert TASKS["sv_ct"].data_range == TASKS["la_ct"].data_range == pytest.approx(0.0576)  # -1000 .. 2000 HU
    assert TASKS["cs_mri"].data_range is None


def test_measurements_with_noise_have_options_of_their_own(tmp_path: Path) -> None:
    task = TASKS["la_ct"]
    assert task.noisy["dds"]["rho"] > 5 * task.options["dds"]["rho"]  # noise is not fitted
    for photons, rho in ((None, task.options["dds"]["rho"]), (1e5, task.noisy["dds"]["rho"])):
        module = ReconstructionModule(task="la_ct", photons=photons, output_dir=tmp_path)
        assert module.plans[0].options == {**task.options["dds"], **({} if photons is None else task.noisy["dds"])}
        assert module.plans[0].options["rho"] == rho
    given = {"dds": {"rho": 0.5}}
    module = ReconstructionModule(
        task="la_ct", photons=1e5, methods="dds,admm_tv", method_options=given, output_dir=tmp_path
    )
    assert module.plans[0].options["rho"] == 0.5 and module.plans[0].options["lam"] == task.noisy["dds"]["lam"]
    assert module.plans[1].options == {**task.options["admm_tv"], **task.noisy["admm_tv"]}
    few = TASKS["sv_ct"].few["dds"]
    assert few.items() <= ReconstructionModule(task="sv_ct", views=4, output_dir=tmp_path).plans[0].options.items()
    assert not few.items() <= ReconstructionModule(task="sv_ct", views=8, output_dir=tmp_path).plans[0].options.items()
    many = TASKS["sv_ct"].many["dds"]
    for photons, views, told in ((1e4, 60, True), (1e4, 16, True), (1e4, 8, False), (1e4, 4, False), (None, 60, False)):
        module = ReconstructionModule(task="sv_ct", views=views, photons=photons, output_dir=tmp_path)
        assert (many.items() <= module.plans[0].options.items()) == told  # dds is told the noise
    for name, task in TASKS.items():
        for method, options in task.many.items():
            if method != "views":
                check_method(method, task.modality, task.tuned(method, noisy=True, views=999), None)
                assert options.items() <= task.tuned(method, noisy=True, views=task.many["views"]).items(), name
        for method, options in task.few.items():
            if method != "views":
                check_method(method, task.modality, task.tuned(method, views=1), None)
                assert options.items() <= task.tuned(method, noisy=True, views=task.few["views"]).items(), name
        for method, options in task.noisy.items():
            check_method(method, task.modality, task.tuned(method, noisy=True), None)
            assert options.items() <= task.tuned(method, noisy=True).items(), name
