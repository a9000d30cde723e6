"""Training on two processes: the gradient of both ranks' slices, and a validation that counts each slice once."""

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_mbir.data import SliceDataModule
from lightning_mbir.data.slices.sampling import KeyedBatches, KeyedSlices, augmentation
from lightning_mbir.prior import ScorePriorModule, load_prior, save_prior
from lightning_mbir.prior.denoiser import posterior_mean
from lightning_mbir.prior.training.evaluate import SIGMAS, denoising_mse
from lightning_mbir.prior.training.watch import key
from tests.ranks import run_on_ranks

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
TINY = {"channels": [8, 16], "blocks": 1, "attention": False}
SEED, BATCH = 11, 4


def one_step_by_hand(module: ScorePriorModule, data: SliceDataModule) -> dict[str, tuple[Tensor, Tensor]]:
    """The weights after one step on the mean loss of two ranks, and where their gradient is more than rounding.

    Adam's first step is the sign of the gradient: before a group norm it is zero, and its rounding's sign is anybody's.
    """
    assert data._train is not None
    slices = KeyedSlices(data._train[0], [augmentation((32, 32), "axial", 0.0, False)] * len(data._train[0]))
    groups = [(torch.arange(len(slices)), BATCH)]
    loss = torch.zeros(())
    for rank in (0, 1):
        (drawn,) = KeyedBatches(data._train[1], groups, 1, SEED, rank, 2, lambda: 0)
        batch = torch.stack([slices[place] for place in drawn])
        generator = torch.Generator().manual_seed(key(SEED, rank, 0))
        sigma = module.draw_sigma(BATCH, generator)
        noise = torch.randn(batch.shape, generator=generator)
        clean = posterior_mean(module.network, batch + sigma[:, None, None, None] * noise, sigma)
        losses = module.weight(sigma) * (clean - batch).square().mean((1, 2, 3))
        expected = module.expected_log_loss(sigma)
        loss = loss + (losses * (-expected).exp() + expected).mean() / 2
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_((*module.network.parameters(), module.log_loss), 1.0)  # type: ignore[arg-type]
    torch.optim.Adam(module.network.parameters(), lr=1e-3).step()
    parameters = module.network.named_parameters()
    return {name: (p.detach(), p.grad.abs() > 1e-6) for name, p in parameters if p.grad is not None}


def scans(folder: Path, size: int) -> Path:
    """Two patients of 17 slices, which two ranks cannot share evenly; phantoms take each rank seconds to draw."""
    folder.mkdir()
    for number, patient in enumerate("ab"):
        hu = np.random.default_rng(number).integers(-500, 500, (size, size, 17), np.int16)
        nib.save(nib.Nifti1Image(hu, np.eye(4)), folder / f"{patient}_chest.nii.gz")
    return folder


def options(folder: Path, size: int, batch: int) -> list[str]:
    found = ["fit", "--data.path", str(folder), "--data.phantom_fraction", "0", "--data.image_size", str(size)]
    found += ["--data.batch_size", str(batch), "--seed", str(SEED), "--model.cosine", "false"]
    return [*found, "--model.network_options", "{channels: [8, 16], blocks: 1, attention: false}"]


def test_two_processes_resume_in_bf16_with_accumulated_gradients(tmp_path: Path) -> None:
    """Bit for bit, from the middle of an epoch."""
    given = options(scans(tmp_path / "scans", 16), 16, 2)
    given += ["--data.slices_per_epoch", "24", "--trainer.accumulate_grad_batches", "2"]
    given += ["--trainer.precision", "bf16-mixed"]

    def fit(name: str, steps: int, *more: str) -> Path:
        """The last checkpoint."""
        args = [*given, "--steps", str(steps), *more, "--output_dir", str(tmp_path / name)]
        for status, said in run_on_ranks(args, tmp_path / f"{name}_said"):
            assert status == 0, said[-3000:]
        (last,) = (tmp_path / name).rglob("last.ckpt")
        return last

    unbroken, first = fit("unbroken", 4), fit("first", 2)
    resumed = fit("second", 4, "--ckpt_path", str(first))
    ours, theirs = (torch.load(path, weights_only=True) for path in (resumed, unbroken))
    assert ours["global_step"] == theirs["global_step"] == 4
    moved = torch.load(first, weights_only=True)["state_dict"]
    for name, value in theirs["state_dict"].items():
        torch.testing.assert_close(ours["state_dict"][name], value, rtol=0, atol=0)
    assert any(not torch.equal(moved[name], value) for name, value in theirs["state_dict"].items())


def test_two_processes_take_the_step_of_both(tmp_path: Path) -> None:
    torch.manual_seed(0)
    start = ScorePriorModule(network_options=TINY)
    with torch.no_grad():  # the last layers start at zero, and would let no gradient through
        for parameter in start.network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    config = {"network": "light", "network_options": start.hparams["network_options"], "modality": "ct"}
    save_prior(tmp_path / "start.safetensors", start.network, config)
    folder = scans(tmp_path / "scans", 32)
    given = [*options(folder, 32, BATCH), "--model.init", str(tmp_path / "start.safetensors"), "--steps", "1"]
    given += ["--model.learning_rate", "1e-3", "--model.warmup_steps", "1", "--data.slices_per_epoch", "8"]
    given += ["--trainer.precision", "32-true", "--trainer.accelerator", "cpu", "--trainer.devices", "2"]
    command = [sys.executable, "-m", "lightning_mbir", *given, "--trainer.strategy", "ddp"]  # which starts the second
    command += ["--output_dir", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=300)
    assert done.returncode == 0, f"{done.returncode}: {done.stderr[-3000:]}"
    (last,) = (tmp_path / "out").rglob("last.ckpt")
    trained = torch.load(last, weights_only=True)["state_dict"]

    module = ScorePriorModule(network_options=TINY, init=str(tmp_path / "start.safetensors"))
    data = SliceDataModule(folder, image_size=32, batch_size=BATCH, phantom_fraction=0.0, slices_per_epoch=8)
    data.setup("fit")
    certain = total = 0
    for name, (value, sure) in one_step_by_hand(module, data).items():
        torch.testing.assert_close(trained[f"network.{name}"][sure], value[sure], rtol=1e-4, atol=2e-6)
        certain, total = certain + int(sure.sum()), total + sure.numel()
    assert certain > 0.9 * total

    # Held-out slices: each once, though they are dealt to two ranks, 9 and 8, in batches of their own.
    (card,) = (tmp_path / "out").rglob("prior.md")
    assert "1 steps, 8 slices" in card.read_text()
    row = next(line for line in card.read_text().splitlines() if line.startswith("| 0.5 |"))
    errors = []
    for rank in (0, 1):
        held_out = data.val_dataloader()[0].dataset
        images = torch.stack([held_out[i] for i in range(rank, len(held_out), 2)])
        for i, batch in enumerate(images.split(BATCH)):
            errors.append(denoising_mse(load_prior(last).network, batch, seed=key(i, rank))[SIGMAS.index(0.5)])
    expected = -10 * torch.cat(errors).mean().log10()
    assert float(row.split("|")[2]) == pytest.approx(float(expected), abs=0.006)
