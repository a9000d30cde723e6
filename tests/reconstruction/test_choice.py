"""`predict` and `test` where the measurement chooses: files, defaults, what is told, and going on after a kill."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_mbir.data import VolumeDataModule
from lightning_mbir.errors import InputError
from lightning_mbir.methods import tuning
from lightning_mbir.methods.candidates import Budget, Candidate, Choice
from lightning_mbir.methods.trials import Trial
from lightning_mbir.physics import ParallelBeam
from lightning_mbir.reconstruction import ReconstructionModule, module
from lightning_mbir.reconstruction.progress import ChoiceProgress
from tests.helpers import demo, gaussian_prior, smooth_volume
from tests.reconstruction.test_module import predict, trainer

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("bundled")]
GEOMETRY: dict[str, Any] = {"image_size": 24, "angles": [i * 15.0 for i in range(12)], "pixel_size": 6.0}
FEW = {"tune_evaluations": 5}
FILES = ["metrics.json", "montage.png", "recon.nii.gz", "report.html", "tuning.json", "tuning.png"]


def measurement(folder: Path) -> VolumeDataModule:
    y = ParallelBeam(**GEOMETRY)(0.02 * smooth_volume((4, 24, 24)))
    np.savez(folder / "scan.npz", measurement=y.numpy(), **GEOMETRY)
    return VolumeDataModule(measurement=folder / "scan.npz", modality="ct")


def run(folder: Path, data: VolumeDataModule, **options: Any) -> tuple[Path, dict[str, Any]]:
    predict(ReconstructionModule(task="sv_ct", output_dir=folder, **options), data, folder)
    results = folder / "sv_ct" / data.filed_as(0)
    return results, json.loads((results / "metrics.json").read_text())


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The methods that were tried, once for each fold."""
    seen: list[str] = []
    work = tuning.run_method

    def counted(y: Any, operator: Any, prior: Any, method: Any, **rest: Any) -> Any:
        seen.append(method)
        return work(y, operator, prior, method, **rest)

    monkeypatch.setattr("lightning_mbir.methods.tuning.run_method", counted)
    return seen


def test_what_was_measured_chooses_by_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "lightning_mbir")
    folder, metrics = run(tmp_path, measurement(tmp_path), **FEW)
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert metrics["method"] in ("dds", "admm_tv")
    chosen = json.loads((folder / "tuning.json").read_text())
    assert chosen["chosen"]["method"] == metrics["method"]
    assert len(chosen["trials"]) == 5
    assert metrics["options"].items() <= chosen["chosen"]["settings"].items()
    assert metrics["steps"] == chosen["chosen"]["settings"]["steps"]
    assert (metrics["prior"] is None) == (metrics["method"] == "admm_tv")
    told = caplog.text
    assert f"scan: {metrics['chosen_because'][0]}" in told
    assert metrics["chosen_because"][1] in told
    assert set(metrics["files"]) == set(FILES) - {"metrics.json"}


def test_a_prior_that_does_not_know_the_object_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, tried: list[str]
) -> None:
    """The Gaussian prior in place of the bundled one knows nothing; total variation does."""
    data = measurement(tmp_path)
    with caplog.at_level(logging.WARNING):
        _, metrics = run(tmp_path, data, method="dds", steps=8)
    assert metrics["method"] == "dds"
    assert metrics["warning"].startswith("this object is not what prior ct knows: admm_tv predicts views")
    assert f"scan: {metrics['warning']}" in [record.message for record in caplog.records]
    assert set(tried) == {"dds", "admm_tv"}
    tried.clear()
    run(tmp_path, data, method="dds", steps=8, tune=False)
    assert tried == []
    run(tmp_path, data, method="admm_tv", steps=8)
    assert tried == []  # which has no prior to be wrong


def test_what_is_simulated_is_not_chosen_unless_that_is_wanted(tmp_path: Path, tried: list[str]) -> None:
    _, metrics = run(tmp_path, demo("ct"), steps=3)
    assert metrics["method"] == "dds"
    assert tried == []
    folder, metrics = run(tmp_path, demo("ct"), method="admm_tv", steps=3, tune=True, **FEW)
    assert set(tried) == {"admm_tv"}
    assert metrics["steps"] == 3  # as the user has it
    assert "tuning.png" in metrics["files"]
    folder, metrics = run(tmp_path, demo("ct"), method="admm_tv", steps=3)
    assert not (folder / "tuning.json").exists()


def test_it_goes_on_after_a_kill_with_what_was_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tried: list[str]
) -> None:
    data = measurement(tmp_path)
    whole, _ = run(tmp_path / "whole", data, method="auto", **FEW)
    count = len(tried)
    work = tuning.run_method

    def killed(*given: Any, **rest: Any) -> Any:
        if len(tried) >= 2 * count - 3:
            raise KeyboardInterrupt
        return work(*given, **rest)

    monkeypatch.setattr("lightning_mbir.methods.tuning.run_method", killed)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run(tmp_path / "killed", data, method="auto", **FEW)
    monkeypatch.setattr("lightning_mbir.methods.tuning.run_method", work)
    tried.clear()
    folder, _ = run(tmp_path / "killed", data, method="auto", **FEW)
    assert 0 < len(tried) < count
    same = [json.loads((path / "tuning.json").read_text()) for path in (whole, folder)]
    assert same[0]["chosen"] == same[1]["chosen"]
    assert (whole / "recon.nii.gz").read_bytes() == (folder / "recon.nii.gz").read_bytes()
    tried.clear()
    run(tmp_path / "killed", data, method="auto", **FEW)
    assert tried == []  # finished
    run(tmp_path / "killed", data, method="auto", tune_evaluations=4)
    assert tried  # another budget


def test_progress_goes_on_from_what_was_tried_before(capsys: pytest.CaptureFixture[str]) -> None:
    """The first new trial may have fallen behind, so that the best one is of the earlier run."""
    choice = Choice((Candidate("admm_tv"),), Budget(evaluations=3))
    known, behind = Trial(0, {}, ((0.01,), (0.01,)), 1.0), Trial(0, {"rho": 1.0}, ((0.04,),), 1.0, whole=False)
    with ChoiceProgress("v", True, choice) as bar:
        for trial in (known, behind):
            bar(trial)
        bar(known)
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first == "v: 1/3 settings tried, best admm_tv 0.1000 (at most 2.0 s left)"
    assert last == "v: 3/3 settings tried, best admm_tv 0.1000"  # and nothing is left


def test_two_views_are_reconstructed_as_they_are_unless_a_choice_is_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "lightning_mbir")
    data = measurement(tmp_path)
    _, metrics = run(tmp_path, data, views=2)
    assert metrics["method"] == "dds"
    assert "dds as it is, since 2 views, of which 2 could be held out, are too few to choose by" in caplog.text
    with pytest.raises(InputError, match="scan: 2 views, of which 2 could be held out, are too few"):
        run(tmp_path, data, views=2, method="auto")


def test_samples_are_of_what_was_chosen(tmp_path: Path) -> None:
    folder, metrics = run(tmp_path, measurement(tmp_path), samples=2, **FEW)
    assert metrics["method"] == "dds"  # what has randomness
    assert (folder / "std.nii.gz").is_file()
    assert (folder / "tuning.json").is_file()


def test_it_is_compared_like_any_method(tmp_path: Path) -> None:
    module = ReconstructionModule(task="sv_ct", methods="auto,fbp", output_dir=tmp_path, **FEW)
    trainer(tmp_path, False).test(module, datamodule=demo("ct"), verbose=False)
    rows = json.loads((tmp_path / "sv_ct/comparison/results.json").read_text())
    assert [row["method"] for row in rows] == ["auto", "fbp"]
    assert rows[0]["chosen_because"][0].startswith("chosen: ")
    assert "error" not in rows[0]


def test_scores_alone(tmp_path: Path, tried: list[str]) -> None:
    module = ReconstructionModule(task="sv_ct", method="auto", output_dir=tmp_path, **FEW)
    trainer(tmp_path, False).test(module, datamodule=demo("ct"), verbose=False)
    assert set(tried) == {"dds", "admm_tv"}


def test_the_prior_of_no_anatomy_is_tried_beside_that_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one of the run sees stripes in everything, so that the other one is found out to be better."""
    load = module.load_task_prior

    def stripes(x: Tensor, sigma: Tensor) -> Tensor:
        return (torch.arange(x.shape[-1]) % 2).to(x).expand(x.shape)

    def loaded(source: Any, modality: Any, **rest: Any) -> Any:
        prior = load(source, modality, **rest)
        return prior if source == "generic" else prior.but(_run=stripes)

    monkeypatch.setattr("lightning_mbir.reconstruction.module.load_task_prior", loaded)
    folder, metrics = run(tmp_path, measurement(tmp_path), samples=2, **FEW)
    tried = json.loads((folder / "tuning.json").read_text())
    assert [candidate["prior"] for candidate in tried["candidates"]] == [None, "generic"]
    assert metrics["prior"]["name"] == tried["chosen"]["prior"] == "generic"
    assert metrics["chosen_because"][0].startswith("chosen: dds with prior generic")
    folder, _ = run(tmp_path / "it", measurement(tmp_path), samples=2, prior="generic", **FEW)
    tried = json.loads((folder / "tuning.json").read_text())
    assert [candidate["prior"] for candidate in tried["candidates"]] == [None]  # it is that of the run


def test_a_complex_prior_is_not_beside_one_of_magnitudes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "load_task_prior", lambda *_, **__: gaussian_prior("mri", 16, True))
    given = ReconstructionModule(task="cs_mri", method="auto", prior="mri_complex", output_dir=tmp_path)
    assert given.plans[0].choice is not None
    assert [candidate.prior for candidate in given.plans[0].choice.candidates] == [None] * 3


def test_a_budget_of_a_search_that_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--tune_evaluations, --tune_minutes: of a search; add --tune true"):
        run(tmp_path, demo("ct"), steps=3, tune_evaluations=5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "auto", "tune_evaluations": 0}, "--tune_evaluations 0: give at least 1"),
        ({"method": "auto", "tune_evaluations": 1}, "take one each; give 3 or more"),
        ({"method": "auto", "tune_minutes": 0.0}, "--tune_minutes 0: give more than 0"),
        ({"method": "fbp", "tune": True}, "--tune true: fbp has no option to search; worth it are none"),
        (
            {"method": "sirt", "tune": True, "steps": 9},
            "sirt has no option to search; worth it are steps, unless given",
        ),
        ({"method": "auto", "steps": 3}, "--steps 3: not with --method auto"),
        ({"method": "auto", "method_options": {"rho": 1}}, "key options by one of dds, admm_tv"),
        ({"method": "auto", "method_options": {"dds": {"rhoo": 1}}}, "dds has no option rhoo"),
        ({"method": "auto", "method_options": {"l1_wavelet": {"lam": 1}}}, "key options by one of dds, admm_tv"),
    ],
    ids=str,
)
def test_what_cannot_be_is_told_before_the_work(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        ReconstructionModule(task="sv_ct", output_dir=tmp_path, **options)
