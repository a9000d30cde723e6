"""What a training is mixed of: patients, phantoms, dead leaves; and what is left out of it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.transforms import Compose

from lightning_mbir.data import SliceDataModule
from lightning_mbir.data.slices import datamodule as slice_datamodule
from lightning_mbir.data.slices.reading import own_noise
from lightning_mbir.data.units import Modality
from tests.data.slices.test_datamodule import folder_of_volumes, write_scan


def test_a_mixture_has_its_shares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patients, phantoms and dead leaves, as they are drawn; several patients held out."""
    monkeypatch.setattr(slice_datamodule, "augmentation", lambda *_: Compose([]))
    shares: dict[str, Any] = {
        "phantom_fraction": 0.2,
        "phantom_volumes": 2,
        "leaves_fraction": 0.3,
        "leaves_volumes": 3,
    }
    data = SliceDataModule(folder_of_volumes(tmp_path), image_size=24, held_out=["b", "c"], batch_size=50, **shares)
    data.setup("fit")
    assert data._train is not None
    images, weights = data._train
    flat = [image.unique().numel() <= 2 for image in images]  # those of the patients: one value, and zeros around it
    assert float(weights[torch.tensor(flat)].sum()) == pytest.approx(0.5, abs=0.02)
    assert float(weights.sum()) == pytest.approx(1)
    assert "(b and c held out), 2 phantoms (20%), 3 volumes of dead leaves (30%); " in data.summary
    (loader,) = data.val_dataloader()
    assert {round(float(v), 2) for batch in loader for v in batch[:, 0, 12, 12]} == {0.6, 0.65}


@pytest.mark.parametrize(("modality", "share"), [("ct", 1.0), (None, 1.0), (None, 0.5)])
def test_a_prior_of_leaves_needs_no_volumes(modality: Modality | None, share: float) -> None:
    data = SliceDataModule(modality=modality, image_size=24, leaves_fraction=share, leaves_volumes=4, phantom_volumes=2)
    data.setup("fit")
    assert ("phantoms" in data.summary) == (share < 1) and "4 volumes of dead leaves" in data.summary
    assert data.val_dataloader()


def test_noisy_volumes_are_left_out_at_the_size_where_they_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Averaging 2 x 2 pixels halves the noise."""
    generator = torch.Generator().manual_seed(0)
    for name, deviation in (("a_one", 80.0), ("b_one", 1.0), ("c_one", 1.0)):
        noisy = 40 + deviation * torch.randn(4, 64, 64, generator=generator)
        write_scan(tmp_path / f"{name}.nii.gz", noisy)
    data = SliceDataModule(tmp_path, "ct", image_size=[32, 64], phantom_fraction=0.0, max_noise=0.03)
    data.setup("fit")
    assert data._train is not None
    assert sorted(tuple(image.shape) for image in data._train[0]) == 8 * [(32, 32)] + 4 * [(64, 64)]
    (record,) = (record.message for record in caplog.records if "left out" in record.message)
    assert "a_one.nii.gz: noise of 0.0" in record and "at 64 pixels" in record
    assert own_noise(
        torch.full((1, 64, 64), 0.5) + 0.02 * torch.randn(1, 64, 64, generator=generator)
    ) == pytest.approx(0.02, rel=0.1)
