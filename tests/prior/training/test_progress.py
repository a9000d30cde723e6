"""The bar of a training: how far it is and how long it still takes."""

from pathlib import Path

import lightning as L
import pytest

from lightning_mbir.data import SliceDataModule
from lightning_mbir.prior import ScorePriorModule
from lightning_mbir.prior.training.progress import StepProgress


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
    assert len(lines) == 20
    assert "step 40/40" in lines[-1] and "val/loss" in lines[-1] and "0 s left" in lines[-1]
