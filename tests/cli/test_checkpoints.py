"""What ``--ckpt_path`` takes, and what it refuses before any volume is read."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_mbir.cli import main
from lightning_mbir.data import SliceDataModule
from lightning_mbir.reconstruction.unet_training import PairDataModule
from tests.cli.test_cli import TINY_FIT
from tests.reconstruction.test_fbp_unet import scans

NETWORK = ["--model.network_options", json.dumps({"channels": [8, 16], "attention": False})]
SETTINGS = [*NETWORK, "--data.image_size", "32", "--trainer.precision", "32-true", "--trainer.accelerator", "cpu"]


def train_both() -> tuple[list[str], list[str]]:
    """Into the folders ``prior`` and ``unet``; returns the commands that go on."""
    fit = [*TINY_FIT, "--output_dir", "prior"]
    unet = ["fit_unet", *SETTINGS, "--views", "6", "--data.path", str(scans(Path("scans"))), "--data.variants", "1"]
    assert main(fit) == 0
    assert main([*unet, "--steps", "4", "--output_dir", "unet"]) == 0
    return [*TINY_FIT, "--output_dir", "again"], [*unet, "--output_dir", "again"]


def test_checkpoints_that_do_not_fit_are_refused_in_one_line_before_volumes_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    fit, unet = train_both()
    prior_ckpt, unet_ckpt = (next(Path(folder).rglob("last.ckpt")) for folder in ("prior", "unet"))
    content = torch.load(prior_ckpt, weights_only=True)
    Path("cut.ckpt").write_bytes(prior_ckpt.read_bytes()[:5000])
    Path("text.ckpt").write_text("no checkpoint")
    Path("empty").mkdir()
    torch.save({"state_dict": content["state_dict"]}, "weights.ckpt")
    torch.save(content["state_dict"], "bare.ckpt")
    first = next(iter(content["state_dict"].values()))
    first.view(-1)[0] = np.nan
    torch.save(content, "nan.ckpt")
    old = torch.load(prior_ckpt, weights_only=True)
    torch.save({**old, "pytorch-lightning_version": "1.9.5"}, "old.ckpt")
    validate = ["validate", *fit[1 : fit.index("--steps")], *SETTINGS]
    wider = ["--model.network_options", json.dumps({"channels": [8, 24], "attention": False})]
    cases = [
        (fit, "cut.ckpt", "not a whole PyTorch checkpoint"),
        (fit, "empty", "empty: a folder; give a checkpoint that `fit` or `fit_unet` wrote"),
        (fit, "prior", f"prior: a folder; give {prior_ckpt}"),
        (validate, str(prior_ckpt.parents[1]), f"{prior_ckpt.parents[1]}: a folder; give {prior_ckpt}"),
        (unet, str(unet_ckpt.parent), f"{unet_ckpt.parent}: a folder; give {unet_ckpt}"),
        (fit, "text.ckpt", "not a whole PyTorch checkpoint"),
        (fit, "weights.ckpt", "no checkpoint of a training"),
        (fit, "bare.ckpt", "no checkpoint of a training"),
        (fit, "nan.ckpt", "NaN"),
        (fit, "old.ckpt", "of Lightning 1.9.5"),
        ([*fit, "--data.modality", "mri"], str(prior_ckpt), "trained on ct, and --data.modality is mri"),
        (fit, str(unet_ckpt), "another network"),
        ([*fit, *wider], str(prior_ckpt), "config.yaml in the folder above"),
        ([*fit, "--model.uncertainty", "false"], str(prior_ckpt), "log_loss does not fit"),
        (validate, "cut.ckpt", "not a whole PyTorch checkpoint"),
        (validate, "weights.ckpt", "no checkpoint of a training"),
        ([*validate, *wider], str(prior_ckpt), "another network"),
        (unet, "cut.ckpt", "not a whole PyTorch checkpoint"),
        (unet, str(prior_ckpt), "another network"),
        ([*unet, *wider], str(unet_ckpt), "another network"),
    ]
    capfd.readouterr()
    read = []
    with monkeypatch.context() as patch:
        for module in (SliceDataModule, PairDataModule):
            patch.setattr(module, "setup", lambda self, stage: read.append(self))
        for args, path, words in cases:
            assert main([*args, "--ckpt_path", path]) == 2, words
            lines = capfd.readouterr().err.strip().splitlines()
            assert len(lines) == 1 and words in lines[0] and path in lines[0], lines
    assert not read and not Path("again").exists()

    assert main([*validate, "--ckpt_path", str(prior_ckpt)]) == 0
    capfd.readouterr()
    assert main([*fit, "--steps", "8", "--ckpt_path", str(prior_ckpt)]) == 0
    assert "warning" not in capfd.readouterr().err  # what Lightning warns of at each resume is so by intention
    assert torch.load(next(Path("again").rglob("last.ckpt")), weights_only=True)["global_step"] == 8
    assert main([*fit, "--steps", "3", "--ckpt_path", str(prior_ckpt)]) == 0
    said = capfd.readouterr().err
    assert said.count("nothing ") == 1 and "at step 6, and --steps 3 is no more: nothing is trained" in said


@pytest.mark.parametrize("limit", ["--steps=0", "--trainer.limit_train_batches=0", "--trainer.max_epochs=0"])
def test_a_prior_that_was_not_trained_is_told(
    limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*TINY_FIT, "--output_dir", "out", limit]) == 0
    assert capfd.readouterr().err.count("nothing was trained: --steps, --trainer.max_time") == 1
