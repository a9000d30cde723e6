"""What help shows: what a subcommand has a use for, and nothing else."""

import re
from pathlib import Path

import pytest
import torch

from lightning_mbir.cli import main
from lightning_mbir.errors import InputError
from lightning_mbir.flag_values import LARGEST_WHOLE, Numbers
from lightning_mbir.flags import DEFAULT_TASKS, SUBCOMMANDS, SWITCHES, Flag
from lightning_mbir.methods.settings import SETTINGS, checked_settings
from lightning_mbir.physics.mri.coil_compression import coil_compression


def shown(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert main(list(args)) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("subcommand", list(SUBCOMMANDS))
def test_help_has_each_flag_once_and_the_switches(subcommand: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, subcommand, "--help").splitlines()
    for name in (*(flag.name for flag in SUBCOMMANDS[subcommand][1]), *SWITCHES):
        assert sum(line.startswith(f"  {name} ") for line in lines) == 1, name


NUMBERS = {flag for _, flags in SUBCOMMANDS.values() for flag in flags if isinstance(flag.kind, Numbers)}


@pytest.mark.parametrize("flag", sorted(NUMBERS, key=lambda flag: flag.text), ids=lambda flag: flag.name)
def test_a_number_has_its_default_and_its_range_which_is_the_one_that_is_held(flag: Flag) -> None:
    kind = flag.kind
    assert isinstance(kind, Numbers) and "[" in flag.help
    found = re.fullmatch(r"(above )?(-?[\d.e]+)( or more|,? to ([\d.e]+))?", flag.text.rpartition("; ")[2])
    if found is None:  # of few values, which the line names
        assert flag.name == "--data.oversampling"
        return
    above, least, _, most = found.groups()
    beyond = [float(least) - 1, *([float(least)] if above else []), *([2 * float(most) + 1] if most else [])]
    task = next((task for task, (_, own) in SETTINGS.items() if flag.name.removeprefix("--") in own), None)
    for value in beyond:
        with pytest.raises(InputError, match=r"give|is at"):
            number = flag.value(f"{value:.0f}" if kind.whole else str(value))
            if task is not None:
                checked_settings(task, **{flag.name.removeprefix("--"): number})
            if flag.name == "--data.coil_energy":
                coil_compression(torch.ones(1, 2, 4, 4, dtype=torch.complex64), number)


def test_numbers_are_refused_by_their_bounds() -> None:
    assert Numbers(1, 3, whole=True)("3") == 3 and Numbers(positive=True)("1e-9") == 1e-9 and Numbers()("-2.5") == -2.5
    for kind, text, right in (
        (Numbers(1, 3, whole=True), "4", "whole number of at most 3"),
        (Numbers(1, 3, whole=True), "1.5", "a whole number"),
        (Numbers(whole=True), str(LARGEST_WHOLE + 1), f"at most {LARGEST_WHOLE}"),
        (Numbers(least=0), ".nan", "at least 0"),
        (Numbers(least=0), ".inf", "at least 0"),
        (Numbers(0, 1), "1.01", "number of at most 1"),
        (Numbers(positive=True), "0", "positive"),
        (Numbers(positive=True), ".inf", "positive"),
        (Numbers(), "one", "give a number"),
    ):
        with pytest.raises(InputError, match=right):
            kind(text)


@pytest.mark.parametrize(("columns", "widest"), [("40", 60), ("72", 72), ("300", 120)])
def test_help_is_as_wide_as_the_terminal(
    columns: str, widest: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    for args in (["predict", "--help"], ["predict", "--method", "dds", "--help"]):
        lines = [line for line in shown(capsys, *args).splitlines() if line.startswith("  ")]
        assert widest - 12 < max(map(len, lines)) <= widest
    assert "".join(shown(capsys, "predict", "--help").split()).count("share of the peak: 0.05".replace(" ", "")) == 1


def test_help_of_a_method_says_how_to_give_what_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    assert "as --steps" in shown(capsys, "predict", "--method", "sirt", "--help")
    assert "as --steps" not in shown(capsys, "predict", "--method", "fbp", "--help")  # it takes none
    told = shown(capsys, "predict", "--method", "zero_filled", "--help")
    assert told.endswith("\n\nFor mri. It has no options.\n") and "\n\n\n" not in told


@pytest.mark.parametrize(("subcommand", "task"), DEFAULT_TASKS.items())
def test_help_says_which_task_is_taken(subcommand: str, task: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = " ".join(shown(capsys, subcommand, "--help").partition("  --task ")[2].split())
    assert told.startswith(f"sv_ct (sparse views), la_ct (limited angle) or cs_mri (undersampled k-space) [{task}]")


def test_help_of_validate_is_of_validate(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "validate", "--help")
    assert len(text.splitlines()) < 40 and "PSNR in dB at each noise level" in text
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
