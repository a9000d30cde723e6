"""Trainings that go on from a checkpoint."""

import functools
from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from lightning_mbir.data import SliceDataModule
from lightning_mbir.errors import InputError
from lightning_mbir.prior import ScorePriorModule, load_prior
from lightning_mbir.prior.training.shared import BestCheckpoint, check_checkpoint
from tests.prior.conftest import LITTLE_VALIDATION, TINY, tiny, tiny_data, trainer


def all_state(checkpoint: Path) -> dict[str, Tensor]:
    """Weights, averaged weights and the optimiser's moments of a checkpoint."""
    content = torch.load(checkpoint, weights_only=True)
    state = dict(content["state_dict"])
    for i, moments in content["optimizer_states"][0]["state"].items():
        state |= {f"optimizer.{i}.{name}": value for name, value in moments.items()}
    return state


def two_sizes() -> SliceDataModule:
    """Three steps an epoch where two batches are one step."""
    return SliceDataModule(image_size=[32, 48], batch_size=4, phantom_volumes=1, slices_per_epoch=20)


def nine_steps(folder: Path, seed: int, precision: str, **options: object) -> Path:
    """The folder of the checkpoints after each of them, with gradient accumulation."""
    L.seed_everything(seed)
    keep = ModelCheckpoint(dirpath=folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    settings = {"callbacks": [keep], "accumulate_grad_batches": 2, "precision": precision, **LITTLE_VALIDATION}
    trainer(folder / "log", 9, **settings).fit(tiny(), two_sizes(), **options)  # type: ignore[arg-type]
    return folder


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The unbroken training in a precision, taken once."""
    return functools.cache(lambda precision: nine_steps(tmp_path_factory.mktemp("unbroken"), 5, precision))


@pytest.mark.parametrize(("stop", "precision"), [(4, "32-true"), (6, "32-true"), (7, "32-true"), (4, "bf16-mixed")])
def test_a_resumed_training_takes_the_steps_of_an_unbroken_one(
    tmp_path: Path,
    unbroken: Callable[[str], Path],
    stop: int,
    precision: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Bit for bit, from the middle of an epoch (4, 7) and from its end (6), with gradient accumulation."""
    caplog.set_level("INFO", "lightning_mbir")
    middle = unbroken(precision) / f"step={stop}.ckpt"
    resumed = nine_steps(tmp_path, 99, precision, ckpt_path=str(middle))  # the seed comes from the checkpoint
    assert "seed 5 of the checkpoint goes on, in the place of 99" in caplog.text
    first, second = (all_state(folder / "step=9.ckpt") for folder in (unbroken(precision), resumed))
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=0, msg=lambda m, name=name: f"{name}: {m}")


def test_a_checkpoint_of_the_same_weights_and_another_function_is_refused(tmp_path: Path) -> None:
    keep = ModelCheckpoint(dirpath=tmp_path, save_last=True)
    trainer(tmp_path, 1, callbacks=[keep], **LITTLE_VALIDATION).fit(tiny(), tiny_data())
    check_checkpoint(tmp_path / "last.ckpt", tiny(), goes_on=True)
    for option, value in {"sigma_data": 0.5, "mean": 0.0, "preconditioning": "ve"}.items():
        other = ScorePriorModule(network_options={**TINY, option: value})
        with pytest.raises(InputError, match=rf"another network or other options \({option} does not fit\)"):
            check_checkpoint(tmp_path / "last.ckpt", other, goes_on=True)


def test_resume_keeps_the_average_and_obeys_the_flags(tmp_path: Path) -> None:
    L.seed_everything(0)
    keep = ModelCheckpoint(dirpath=tmp_path, save_last=True)
    first = tiny(learning_rate=1e-3, cosine=False)
    trainer(tmp_path, 4, callbacks=[keep], **LITTLE_VALIDATION).fit(first, tiny_data())
    saved = {k: v.clone() for k, v in first.state_dict().items() if k.startswith("ema.")}
    checkpoint = tmp_path / "last.ckpt"
    content = torch.load(checkpoint, weights_only=True)  # plain types only
    assert int(content["state_dict"]["ema.n_averaged"]) == 5  # it starts at 1

    class Spy(L.Callback):
        state: dict[str, Tensor]
        rate: float

        def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            self.state = {k: v.clone() for k, v in pl_module.state_dict().items() if k.startswith("ema.")}

        def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
            self.rate = trainer.optimizers[0].param_groups[0]["lr"]

    spy = Spy()
    second = tiny(learning_rate=2e-4, cosine=False)
    more = trainer(tmp_path / "more", 6, callbacks=[spy], **LITTLE_VALIDATION)
    more.fit(second, tiny_data(), ckpt_path=str(checkpoint))
    for name, value in saved.items():
        torch.testing.assert_close(spy.state[name], value, rtol=0, atol=0)
    assert spy.rate == pytest.approx(2e-4)
    assert int(second.ema.n_averaged) == 7


def test_a_training_that_was_done_goes_on_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    """From a last step in the middle of an epoch, which is validated before it is kept."""
    last = tmp_path / "short" / "last.ckpt"
    for name, steps, checkpoint in (("whole", 9, None), ("short", 4, None), ("rest", 9, last)):
        L.seed_everything(5)
        keep = ModelCheckpoint(dirpath=tmp_path / name, monitor="val/loss", save_last=True)
        fit = trainer(tmp_path / name, steps, accumulate_grad_batches=2, callbacks=[keep], **LITTLE_VALIDATION)
        fit.fit(tiny(cosine=False), two_sizes(), ckpt_path=checkpoint)
    first, second = all_state(tmp_path / "whole" / "last.ckpt"), all_state(tmp_path / "rest" / "last.ckpt")
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=0, msg=lambda m, name=name: f"{name}: {m}")


class Rates(L.Callback):
    """Notes the learning rates of each step."""

    def __init__(self) -> None:
        self.seen: dict[int, list[float]] = {}

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        self.seen[trainer.global_step] = [group["lr"] for group in optimizer.param_groups]


def test_more_steps_than_before_are_taken_at_the_rates_of_the_longer_schedule(tmp_path: Path) -> None:
    """Where the first training had come down to 0, and with another learning rate too."""
    fits = {"short": (4, 1e-3, None), "long": (12, 2e-3, None), "more": (12, 2e-3, tmp_path / "short/last.ckpt")}
    rates = {}
    for name, (steps, rate, checkpoint) in fits.items():
        keep, rates[name] = ModelCheckpoint(dirpath=tmp_path / name, save_last=True), Rates()
        fit = trainer(tmp_path / name, steps, callbacks=[keep, rates[name]], **LITTLE_VALIDATION)
        fit.fit(tiny(learning_rate=rate), tiny_data(), ckpt_path=checkpoint)
    assert list(rates["more"].seen) == list(range(4, 12))
    assert rates["more"].seen == {step: rates["long"].seen[step] for step in range(4, 12)}
    # by hand: 2e-3, and 20 times that for the expected losses, along a cosine from step 0 to 12
    assert rates["more"].seen[6] == pytest.approx([1e-3, 20e-3])


def run_to(folder: Path, steps: int, rate: float, checkpoint: Path | None = None) -> BestCheckpoint:
    """A training with the callbacks of the command line; epochs are of 4 steps."""
    L.seed_everything(0)
    best = BestCheckpoint(monitor="val/loss", filename="best-{step}")
    last = ModelCheckpoint(filename="last", enable_version_counter=False)
    fit = trainer(folder, steps, callbacks=[best, last], num_sanity_val_steps=0, limit_val_batches=4)
    fit.fit(tiny(learning_rate=rate, cosine=False), tiny_data(), ckpt_path=checkpoint)
    return best


def test_the_best_checkpoint_is_remembered_when_a_training_goes_on_in_another_folder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = run_to(tmp_path / "first", 8, 1e-3)
    old, last = Path(first.best_model_path), tmp_path / "first/run/checkpoints/last.ckpt"
    content = old.read_bytes()

    worse = run_to(tmp_path / "worse", 12, 1.0, last)  # a learning rate that ruins the network
    assert worse.best_model_path == str(old) and worse.best_model_score == first.best_model_score
    prior, x = load_prior(tmp_path / "worse/run/prior.safetensors"), torch.rand(2, 32, 32)
    torch.testing.assert_close(prior(x, 0.3), load_prior(old)(x, 0.3), rtol=0, atol=5e-3)

    better = run_to(tmp_path / "better", 16, 1e-3, last)
    assert better.best_model_path == str(tmp_path / "better/run/checkpoints/best-step=16.ckpt")
    names = {file.name for file in (tmp_path / "better/run/checkpoints").iterdir()}
    assert names == {"best-step=16.ckpt", "last.ckpt"}  # that of step 12 is gone, the old one is not
    assert old.read_bytes() == content

    assert "is gone" not in caplog.text
    old.unlink()
    alone = run_to(tmp_path / "alone", 12, 1.0, last)
    assert alone.best_model_path == str(tmp_path / "alone/run/checkpoints/best-step=12.ckpt")
    assert f"{old}, the best checkpoint of before, is gone" in caplog.text
