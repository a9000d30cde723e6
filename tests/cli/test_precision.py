"""What ``predict`` and ``fit`` run in, where the device has bfloat16 in hardware and where it has not."""

import json
from pathlib import Path

import pytest
import torch

from lightning_mbir.cli import main
from tests.cli.test_cli import TINY_FIT

CPU = ["--steps", "2", "--trainer.accelerator", "cpu"]

pytestmark = pytest.mark.filterwarnings("ignore")


def machine(has: bool, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("lightning_mbir.prior.networks.precision.has_bfloat16", lambda device: has)


@pytest.mark.parametrize(
    ("has", "flags", "found", "told"),
    [
        (True, [], "bfloat16", "precision bfloat16: this processor has bfloat16 in hardware (auto)"),
        (False, [], "float32", "precision float32: this processor lacks bfloat16 in hardware (auto)"),
        (False, ["--model.precision", "bfloat16"], "float32", "precision bfloat16: this processor lacks it"),
        (True, ["--model.precision", "bfloat16"], "bfloat16", ""),
        (True, ["--model.precision", "float32"], "float32", ""),
    ],
)
def test_predict_says_what_it_takes(
    has: bool,
    flags: list[str],
    found: str,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    machine(has, monkeypatch)
    asked = ["--task", "cs_mri", "--prior", "phantom", "--data.image_size", "32", "--data.slices", "4:6"]
    assert main(["predict", *asked, *flags, *CPU, "--output_dir", str(tmp_path)]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("precision")]
    assert len(lines) == bool(told) and all(line.startswith(told) for line in lines)
    metrics = next((tmp_path / "cs_mri").rglob("metrics.json"))
    assert json.loads(metrics.read_text())["precision"] == found


@pytest.mark.parametrize("asked", ["bf16-mixed", "64-true", "16-true"])
def test_the_precision_of_trainings_is_none_of_reconstructions(
    asked: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would reach into the operators."""
    given = ["--task", "cs_mri", "--trainer.precision", asked, "--trainer.accelerator", "cpu"]
    assert main(["predict", *given, "--output_dir", str(tmp_path / "out")]) == 2
    assert f"--trainer.precision {asked}: of trainings; --model.precision is the prior's" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.nii.gz"))


def test_methods_without_a_prior_have_no_precision(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--task", "cs_mri", "--method", "zero_filled", "--data.image_size", "32", "--data.slices", "4:6"]
    assert main(["predict", *asked, "--output_dir", str(tmp_path)]) == 0
    assert "precision" not in capsys.readouterr().err
    assert not json.loads(next(tmp_path.rglob("metrics.json")).read_text()).get("precision")


@pytest.mark.parametrize(
    ("has", "asked", "found", "told"),
    [
        (False, "null", "32-true", "precision 32-true: this processor lacks bfloat16 in hardware"),
        (False, "bf16-mixed", "32-true", "precision bf16-mixed: this processor lacks bfloat16 in hardware"),
        (True, "null", "bf16-mixed", "precision bf16-mixed: this processor has bfloat16 in hardware"),
        (True, "32-true", "32-true", ""),
    ],
)
def test_fit_says_what_it_takes(
    has: bool,
    asked: str,
    found: str,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    machine(has, monkeypatch)
    assert main([*TINY_FIT, "--trainer.precision", asked, "--output_dir", str(tmp_path)]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("precision")]
    assert len(lines) == bool(told) and all(line.startswith(told) for line in lines)
    card = next(tmp_path.rglob("prior.md")).read_text()
    assert f"precision {found}, seed" in card
    checkpoint = torch.load(next(tmp_path.rglob("last.ckpt")), weights_only=True)
    assert checkpoint["global_step"] > 0
