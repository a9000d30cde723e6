"""``predict`` that was stopped: the same command goes on, to the same files, and leaves no state behind."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from lightning_mbir.cli import main
from lightning_mbir.reconstruction.progress import LevelProgress
from lightning_mbir.samplers import SamplerState

BASE = ["predict", "--task", "sv_ct", "--data.image_size", "32", "--data.slices", "12:16", "--report", "false"]
BASE += ["--trainer.accelerator", "cpu", "--steps", "6", "--checkpoint_minutes", "1e-9", "--output_dir"]


def stopped(args: list[str], monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Run a command that is interrupted after so many steps."""
    seen: list[int] = []
    call = LevelProgress.__call__

    def interrupt(self: LevelProgress, state: SamplerState) -> None:
        call(self, state)
        seen.append(state.step)
        if len(seen) == after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LevelProgress, "__call__", interrupt)
        assert main(args) == 130


def states(out: Path) -> list[str]:
    return [path.name.split("-", 1)[1] for path in sorted(out.rglob("*/new/state/*"))]


def voxels(out: Path, name: str = "recon.nii.gz") -> np.ndarray:
    return np.asarray(nib.load(next(out.rglob(name))).dataobj)


@pytest.mark.usefixtures("bundled")
@pytest.mark.parametrize(
    ("options", "after", "kept"),
    [
        (["--method", "dds"], 4, "0-3-0of1.safetensors"),
        (["--method", "sirt"], 4, "0-3-0of1.safetensors"),
        (["--method", "dds", "--samples", "2"], 10, "1-3-0of1.safetensors"),
        (["--method", "dds", "--tune", "true", "--tune_evaluations", "2"], 4, "0-3-0of1.safetensors"),
    ],
    ids=["dds", "sirt", "samples", "tune"],
)
def test_the_same_command_goes_on(
    options: list[str],
    after: int,
    kept: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert main([*BASE, str(whole), *options]) == 0
    stopped([*BASE, str(out), *options], monkeypatch, after)
    assert states(out) == [kept] and not list(out.rglob("metrics.json"))
    told = "lightning_mbir: interrupted; what is finished is kept, and the same command goes on"
    assert capsys.readouterr().err.splitlines()[-1] == told
    assert main([*BASE, str(out), *options]) == 0
    said = capsys.readouterr()
    assert "goes on after 3 steps" in said.err
    assert "4/6" in said.err and "left)" in said.err and (after > 6 or "3/6" not in said.err)
    assert np.array_equal(voxels(out), voxels(whole))
    if "--samples" in options:
        assert np.array_equal(voxels(out, "std.nii.gz"), voxels(whole, "std.nii.gz"))
    assert not [path for path in out.rglob("*") if path.name[0] == "." or path.name == "state"]
    (one, two) = (json.loads(next(folder.rglob("metrics.json")).read_text()) for folder in (whole, out))
    assert one["key"] == two["key"] and one["files"] == two["files"] and one["nfe"] == two["nfe"]
    assert two["seconds"] > 0


@pytest.mark.usefixtures("bundled")
def test_a_state_of_other_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped([*BASE, str(tmp_path), "--method", "sirt"], monkeypatch, 4)
    assert main([*BASE, str(tmp_path), "--method", "sirt", "--views", "9", "--seed", "1"]) == 0
    told = "demo_chest_0: the state that was kept is of other settings (seed, settings) and not used; starting again"
    assert told in capsys.readouterr().err
    assert not states(tmp_path)


@pytest.mark.usefixtures("bundled")
def test_none_is_kept_with_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped([*BASE, str(tmp_path), "--method", "sirt", "--checkpoint_minutes", "0"], monkeypatch, 4)
    assert not states(tmp_path)
    told = "interrupted; nothing of demo_chest_0 was kept yet, so that the same command begins it again"
    assert capsys.readouterr().err.splitlines()[-1] == f"lightning_mbir: {told}"


@pytest.mark.parametrize("text", ["-1", "inf", "nan", "soon"])
def test_bad_minutes(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*BASE, str(tmp_path), "--checkpoint_minutes", text]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"--checkpoint_minutes {text}: give a number" in line
    assert not list(tmp_path.iterdir())


def test_test_keeps_no_states(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--trainer.accelerator", "cpu", "--method", "fbp", "--output_dir", str(tmp_path)]
    assert main(["test", "--task", "sv_ct", *args, "--model.checkpoint_minutes", "1"]) == 2
    assert "--checkpoint_minutes 1.0: of use to `predict` alone; leave it out" in capsys.readouterr().err
