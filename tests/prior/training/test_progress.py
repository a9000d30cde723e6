"""The bar of a training: how far it is and how long it still takes."""

from pathlib import Path

import lightning as L
import pytest

from lightning_mbir.data import SliceDataModule
from lightning_mbir.prior import ScorePriorModule
from lightning_mbir.prior.training.progress import MEASURED, WARM, Speed, StepProgress


@pytest.mark.filterwarnings("ignore")
def test_steps_and_time_are_told_without_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = SliceDataModule(image_size=32, batch_size=4, phantom_volumes=1, slices_per_epoch=80)  # two epochs
    module = ScorePriorModule(network_options={"channels": [8, 16], "attention": False})
    trainer = L.Trainer(
        max_steps=40, accelerator="cpu", logger=False, default_root_dir=tmp_path, callbacks=[StepProgress()],
        enable_model_summary=False, enable_checkpointing=False, num_sanity_val_steps=0, limit_val_batches=2,
    )  # fmt: skip
    trainer.fit(module, data)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("training:")]
    (speed,) = [line for line in lines if "slices a second" in line]
    assert "of the time in the network" in speed
    lines.remove(speed)
    assert len(lines) == 20
    assert "step 40/40" in lines[-1] and "val/loss" in lines[-1] and "0 s left" in lines[-1]


def test_a_training_with_a_time_limit_tells_the_time_that_it_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = SliceDataModule(image_size=32, batch_size=1, phantom_volumes=1)
    module = ScorePriorModule(network_options={"channels": [4], "attention": False})
    trainer = L.Trainer(
        max_steps=10**6, max_time="00:00:00:03", accelerator="cpu", logger=False, default_root_dir=tmp_path,
        callbacks=[StepProgress()], enable_model_summary=False, enable_checkpointing=False, num_sanity_val_steps=0,
        limit_val_batches=1,
    )  # fmt: skip
    progress = next(callback for callback in trainer.callbacks if isinstance(callback, StepProgress))  # type: ignore[attr-defined]
    trainer.fit(module, data)
    assert 0 < trainer.global_step < 10**6
    assert progress._text(trainer, 1, 10**6).endswith("0 s left")


@pytest.mark.parametrize(("waiting", "hint"), [(0.0, False), (3.0, True)])
def test_what_the_time_goes_into(waiting: float, hint: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seconds a step of 8 slices; the first steps are left out, and so is a validation."""
    clock = [0.0]
    monkeypatch.setattr("lightning_mbir.prior.training.progress.time.monotonic", lambda: clock[0])
    speed, lines = Speed(), []
    for step in range(WARM + MEASURED + 5):
        clock[0] += 100.0 if step < WARM else waiting
        speed.batch_comes()
        clock[0] += 2.0
        lines.append(speed.batch_is_done(8))
        clock[0] += 50.0
        speed.skip()
    (line,) = [line for line in lines if line is not None]
    assert line.startswith(f"{8 / (2 + waiting):.3g} slices a second, {2 / (2 + waiting):.0%} of the time")
    assert ("--data.num_workers" in line) is hint
