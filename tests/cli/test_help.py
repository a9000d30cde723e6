"""What help shows: what a subcommand has a use for, and nothing else."""

from pathlib import Path

import pytest

from lightning_mbir.cli import main
from lightning_mbir.flags import SUBCOMMANDS, SWITCHES


def shown(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert main(list(args)) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("subcommand", list(SUBCOMMANDS))
def test_help_has_each_flag_once_and_the_switches(subcommand: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, subcommand, "--help").splitlines()
    for name in (*(flag.name for flag in SUBCOMMANDS[subcommand][1]), *SWITCHES):
        assert sum(line.startswith(f"  {name} ") for line in lines) == 1, name


def test_help_of_validate_is_of_validate(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "validate", "--help")
    assert len(text.splitlines()) < 30 and "PSNR in dB at each noise level" in text
    assert "--model.init" in text and "--data.held_out" in text
    for name in ("--steps", "--model.learning_rate", "--model.objective", "--output_dir", "leaves"):
        assert name not in text and name in shown(capsys, "fit", "--help")


@pytest.mark.parametrize("subcommand", ["predict", "test", "validate"])
def test_all_help_leaves_out_what_means_nothing_there(subcommand: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, subcommand, "--help_all")
    assert text.startswith(f"usage: python -m lightning_mbir {subcommand} [flags]\n")
    assert "--trainer.accelerator" in text and "--data.path" in text
    for name in ("optimizer", "lr_scheduler", "--trainer.max_steps", "--trainer.gradient_clip_val", "--weights_only"):
        assert name not in text


def test_configurations_of_before_that_have_no_optimizer_are_read(tmp_path: Path) -> None:
    """As those beside results that were written before say it."""
    config = tmp_path / "predict_config.yaml"
    config.write_text("optimizer: null\nlr_scheduler: null\nmodel:\n  task: sv_ct\n  method: fbp\n")
    args = ["predict", "--config", str(config), "--data.image_size", "32", "--data.slices", "12:14"]
    assert main([*args, "--output_dir", str(tmp_path / "out")]) == 0
    assert next((tmp_path / "out").rglob("recon.nii.gz")).is_file()
