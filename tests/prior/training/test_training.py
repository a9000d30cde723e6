"""How a training ends: the last step, the best weights and their model card, or a divergence."""

import math
from pathlib import Path

import lightning as L
import nibabel as nib
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import MixedPrecision
from matplotlib.pyplot import imread
from torch import Tensor

from lightning_mbir.data import SliceDataModule
from lightning_mbir.data.slices.sampling import Axis
from lightning_mbir.errors import InputError
from lightning_mbir.prior import load_prior
from lightning_mbir.prior.training.evaluate import SIGMAS, denoising_mse, smoothing_mse
from lightning_mbir.prior.training.shared import check_checkpoint, warmup_cosine
from lightning_mbir.prior.training.watch import key
from tests.prior.conftest import LITTLE_VALIDATION, tiny, tiny_data, trainer


def test_the_best_checkpoint_becomes_the_prior(tmp_path: Path) -> None:
    """A learning rate that ruins the network: the best weights are the first, and these are kept."""
    L.seed_everything(0)
    keep = ModelCheckpoint(dirpath=tmp_path / "kept", monitor="val/loss", filename="best-{step}")

    class Ruin(L.Callback):
        def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
            if trainer.global_step >= 4:  # the first epoch is over
                for group in trainer.optimizers[0].param_groups:
                    group["lr"] = 1.0

    module = tiny(learning_rate=1e-3, cosine=False)
    trainer(tmp_path, 8, callbacks=[keep, Ruin()]).fit(module, tiny_data())
    assert Path(keep.best_model_path).name == "best-step=4.ckpt"
    prior, x = load_prior(tmp_path / "run" / "prior.safetensors"), torch.rand(2, 32, 32)
    torch.testing.assert_close(prior(x, 0.3), load_prior(keep.best_model_path)(x, 0.3), rtol=0, atol=5e-3)
    assert "best by held-out loss" in (tmp_path / "run" / "prior.md").read_text()
    expected = held_out_psnr(load_prior(keep.best_model_path).network)
    assert card_psnr(tmp_path / "run") == pytest.approx(expected, abs=0.006)


def test_a_coarse_size_is_validated_with_and_goes_into_the_prior(tmp_path: Path) -> None:
    L.seed_everything(0)
    keep = ModelCheckpoint(dirpath=tmp_path / "kept", save_last=True)
    module = tiny(learning_rate=1e-2, coarse_size=16)
    trainer(tmp_path, 4, callbacks=[keep]).fit(module, tiny_data())
    assert module.ema.module.coarse_size == 16
    prior, last = load_prior(tmp_path / "run" / "prior.safetensors"), load_prior(tmp_path / "kept" / "last.ckpt")
    assert prior.network.coarse_size == last.network.coarse_size == 16
    coarse = held_out_psnr(last.network)
    assert {32: pytest.approx(list(coarse.values()), abs=1e-3)} == module.validation_psnr
    last.network.coarse_size = None  # type: ignore[assignment]
    fine = held_out_psnr(last.network)
    assert [sigma for sigma in SIGMAS if fine[sigma] != coarse[sigma]] == [5.0]
    start = tmp_path / "run" / "prior.safetensors"
    for given, kept in ((None, 16), (8, 8)):  # a training that starts from it may have another
        module = tiny(init=str(start), coarse_size=given)
        assert module.ema.module.coarse_size == module.hparams["coarse_size"] == kept
    check_checkpoint(tmp_path / "kept" / "last.ckpt", tiny(coarse_size=16), goes_on=True)
    for other in (None, 8):  # one that goes on may not: its best loss would be of another denoiser
        with pytest.raises(InputError, match=r"last.ckpt: trained with coarse_size 16; give --model.coarse_size 16$"):
            check_checkpoint(tmp_path / "kept" / "last.ckpt", tiny(coarse_size=other), goes_on=True)
    for wrong in (0, 6, -4):
        with pytest.raises(InputError, match=f"coarse_size {wrong}: give an image size .* multiple of 4"):
            tiny(coarse_size=wrong)


def test_a_coarse_size_that_is_not_trained_at_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for folder, size in (("own", 32), ("none", 16)):
        trainer(tmp_path / folder, 1, **LITTLE_VALIDATION).fit(tiny(coarse_size=size), tiny_data())
    told = [record.getMessage() for record in caplog.records if "coarse_size" in record.getMessage()]
    assert told == ["--model.coarse_size 16: no image size of this training, which may not make it one"]


def held_out_psnr(network: torch.nn.Module) -> dict[float, float]:
    """PSNR of the held-out slices of ``tiny_data`` by noise level, by hand."""
    data = tiny_data()
    data.setup("fit")
    (loader,) = data.val_dataloader()
    errors = [denoising_mse(network, batch, seed=key(i, 0)) for i, batch in enumerate(loader)]
    return dict(zip(SIGMAS, (-10 * torch.cat(errors, 1).mean(1).log10()).tolist(), strict=True))


def card_psnr(run: Path) -> dict[float, float]:
    """The table of a model card."""
    rows = [line.split("|") for line in (run / "prior.md").read_text().splitlines() if line.startswith("| ")]
    return {float(sigma): float(value) for _, sigma, value, _ in rows[1:]}


def test_the_reference_is_of_all_held_out_slices(tmp_path: Path) -> None:
    """Lightning's sanity check looks at two batches, and must not set it."""
    L.seed_everything(0)
    module, data = tiny(), tiny_data()
    trainer(tmp_path, 4).fit(module, data)
    (loader,) = data.val_dataloader()
    assert len(loader) > 2
    errors = [smoothing_mse(batch, seed=key(i, 0)) for i, batch in enumerate(loader)]
    torch.testing.assert_close(module._reference[32], torch.cat(errors, 1).mean(1))


def test_samples_have_the_shape_of_the_largest_held_out_slices(tmp_path: Path) -> None:
    """Coronal slices are as low as the volume has slices."""
    L.seed_everything(0)
    for name, depth in {"a_t1": 12, "b_t1": 8, "b_t2": 12}.items():
        head = np.random.default_rng(depth).uniform(50, 100, (32, 32, depth)).astype(np.float32)
        nib.save(nib.Nifti1Image(head, np.eye(4)), tmp_path / f"{name}.nii.gz")  # type: ignore[attr-defined]
    data = SliceDataModule(tmp_path, image_size=32, axis="coronal", modality="mri", held_out="b", batch_size=4)
    trainer(tmp_path, 1, **LITTLE_VALIDATION).fit(tiny(), data)
    assert imread(tmp_path / "run" / "prior_samples.png").shape[:2] == (2 * 12, 4 * 32)


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
def test_a_prior_knows_whether_its_slices_were_mirrored(tmp_path: Path, axis: Axis) -> None:
    """Those of sagittal slices, front for back, were not; in a file and in a checkpoint."""
    L.seed_everything(0)
    for name in "ab":
        head = np.random.default_rng(len(name)).uniform(50, 100, (32, 32, 32)).astype(np.float32)
        nib.save(nib.Nifti1Image(head, np.eye(4)), tmp_path / f"{name}_t1.nii.gz")  # type: ignore[attr-defined]
    data = SliceDataModule(tmp_path, image_size=32, axis=axis, modality="mri", held_out="b", batch_size=4)
    keep = ModelCheckpoint(dirpath=tmp_path / "kept", monitor="val/loss", filename="best-{step}")
    trainer(tmp_path, 1, callbacks=[keep], **LITTLE_VALIDATION).fit(tiny(), data)
    for file in (tmp_path / "run" / "prior.safetensors", Path(keep.best_model_path)):
        assert load_prior(file).mirrors == (axis != "sagittal")


@pytest.mark.parametrize(("steps", "validations"), [(2, [2]), (6, [4, 6]), (8, [4, 8])])
def test_the_last_step_is_validated_wherever_in_an_epoch_it_is(
    tmp_path: Path, steps: int, validations: list[int]
) -> None:
    """So that its weights can be the best, and the card tells of them."""

    class Validations(L.Callback):
        def __init__(self) -> None:
            self.steps: list[int] = []

        def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            self.steps.append(trainer.global_step)

    L.seed_everything(0)
    keep = ModelCheckpoint(dirpath=tmp_path / "kept", monitor="val/loss", filename="best-{step}")
    seen = Validations()
    module = tiny(learning_rate=1e-3, cosine=False)
    trainer(tmp_path, steps, callbacks=[keep, seen], num_sanity_val_steps=0).fit(module, tiny_data())
    assert seen.steps == validations
    assert Path(keep.best_model_path).name == f"best-step={steps}.ckpt"
    assert card_psnr(tmp_path / "run") == pytest.approx(held_out_psnr(module.ema.module), abs=0.006)
    assert f"{steps} steps, {4 * steps} slices" in (tmp_path / "run" / "prior.md").read_text()


def test_the_card_counts_the_slices_of_batches_of_several_sizes(tmp_path: Path) -> None:
    """Also those from before a resume."""

    class Count(L.Callback):
        slices = 0

        def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Tensor, *_: int) -> None:
            self.slices += len(batch)

    count = Count()
    for steps, checkpoint in ((6, None), (11, tmp_path / "last.ckpt")):
        keep = ModelCheckpoint(dirpath=tmp_path, save_last=True)
        data = SliceDataModule(image_size=[32, 64], batch_size=8, phantom_volumes=1, slices_per_epoch=24)
        fit = trainer(tmp_path, steps, callbacks=[keep, count], **LITTLE_VALIDATION)
        fit.fit(tiny(seed=1), data, ckpt_path=checkpoint)
    assert 11 * 2 < count.slices < 11 * 8
    assert f"11 steps, {count.slices} slices" in (tmp_path / "run" / "prior.md").read_text()


def test_a_training_that_diverges_says_so_and_keeps_its_checkpoints(tmp_path: Path) -> None:
    L.seed_everything(0)
    keep = ModelCheckpoint(dirpath=tmp_path, monitor="val/loss", save_last=True)
    module = tiny()

    class Break(L.Callback):
        def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
            if trainer.global_step == 5:
                with torch.no_grad():
                    next(pl_module.parameters()).fill_(float("nan"))

    with pytest.raises(InputError, match=r"diverged at step 5.*learning_rate"):
        trainer(tmp_path, 12, callbacks=[keep, Break()], **LITTLE_VALIDATION).fit(module, tiny_data())
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert content["global_step"] == 4
    assert all(bool(torch.isfinite(value).all()) for value in content["state_dict"].values())


def test_a_gradient_that_overflows_in_half_precision_is_no_divergence(tmp_path: Path) -> None:
    """The loss is scaled by far too much at first; the scaler leaves those steps out and scales by less."""
    L.seed_everything(0)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40, backoff_factor=2.0**-10)
    half = MixedPrecision("16-mixed", "cpu", scaler)
    module = tiny()
    before = next(module.network.parameters()).detach().clone()
    trainer(tmp_path, 8, plugins=[half], **LITTLE_VALIDATION).fit(module, tiny_data())
    assert scaler.get_scale() < 2.0**40
    assert not torch.equal(next(module.network.parameters()), before)
    assert all(bool(torch.isfinite(parameter).all()) for parameter in module.parameters())


def test_a_divergence_between_two_looks_at_the_gradient_is_seen_before_a_checkpoint_is_replaced(tmp_path: Path) -> None:
    L.seed_everything(0)
    keep = ModelCheckpoint(dirpath=tmp_path, filename="last", enable_version_counter=False)

    class Break(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
            if trainer.global_step == 7:
                with torch.no_grad():
                    next(pl_module.parameters()).fill_(float("nan"))

    with pytest.raises(InputError, match=r"diverged at step 8: the held-out loss.*learning_rate"):
        fit = trainer(tmp_path, 12, callbacks=[keep, Break()], log_every_n_steps=20, **LITTLE_VALIDATION)
        fit.fit(tiny(), tiny_data())
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert content["global_step"] == 4
    assert all(bool(torch.isfinite(value).all()) for value in content["state_dict"].values())


def test_the_rate_warms_up_along_a_line_and_falls_along_a_cosine() -> None:
    factor = warmup_cosine(10, 100)
    assert factor(0) == pytest.approx(0.1) and factor(4) == pytest.approx(0.5 * (1 + math.cos(0.04 * math.pi)) / 2)
    assert factor(9) == pytest.approx((1 + math.cos(0.09 * math.pi)) / 2)
    assert factor(50) == pytest.approx(0.5) and factor(100) == pytest.approx(0, abs=1e-12) == factor(120)
    assert [warmup_cosine(4, math.inf)(step) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
