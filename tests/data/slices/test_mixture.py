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
from lightning_mbir.errors import InputError
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


def test_what_is_said_of_a_volume_is_said_in_each_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Also where its slices come from the cache."""
    generator = torch.Generator().manual_seed(0)
    (tmp_path / "scans").mkdir()
    for name, deviation in (("a_one", 80.0), ("b_one", 1.0), ("c_one", 1.0)):
        write_scan(tmp_path / "scans" / f"{name}.nii.gz", 40 + deviation * torch.randn(4, 32, 32, generator=generator))
    for _ in range(2):
        caplog.clear()
        settings: dict[str, Any] = {"image_size": 32, "phantom_fraction": 0.0, "max_noise": 0.03}
        SliceDataModule(tmp_path / "scans", "ct", cache_dir=tmp_path / "cache", **settings).setup("fit")
        said = [record.message for record in caplog.records if "left out" in record.message]
        assert any("a_one.nii.gz: noise of " in message for message in said), said


def test_triples_are_neighbours_and_three_apart(tmp_path: Path) -> None:
    """Of a volume whose slices tell their place, with an empty one in the middle, which stays."""
    depth = 12
    data = torch.arange(depth)[:, None, None] * 40.0 - 200 + torch.zeros(depth, 24, 24)
    data[5] = -1000.0
    for name in ("a_one", "b_one"):
        write_scan(tmp_path / f"{name}.nii.gz", data)
    module = SliceDataModule(tmp_path, "ct", image_size=24, phantom_fraction=0.0, slices=3, batch_size=64)
    module.setup("fit")
    assert module._train is not None
    images, weights = module._train
    spacing = min(module._distances)
    apart = [round(distance / spacing) for distance in module._distances]
    assert sorted(apart) == [1] * (depth - 2) + [3] * (depth - 6)
    for image, step in zip(images, apart, strict=True):
        assert image.shape == (3, 24, 24)
        first, middle, last = (float(value) for value in image[:, 12, 12])
        if min(first, middle, last) > 0.1:
            assert middle - first == pytest.approx(last - middle, abs=2e-3) == pytest.approx(step * 0.02, abs=2e-3)
    assert float(weights.sum()) == pytest.approx(1)
    batch, distance = next(iter(module.train_dataloader()))
    assert batch.shape == (64, 3, 24, 24) and set(distance.tolist()) == {spacing, 3 * spacing}
    rising = (batch[:, 2, 12, 12] > batch[:, 0, 12, 12]).float().mean()
    assert 0.2 < float(rising) < 0.8  # both ways round
    with pytest.raises(InputError, match=r"--data.slices 2: give 1, or 3"):
        SliceDataModule(tmp_path, "ct", image_size=24, slices=2)


def test_volumes_of_two_slices_have_no_triples(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, depth in (("a_one", 2), ("b_one", 6), ("c_one", 6)):
        write_scan(tmp_path / f"{name}.nii.gz", torch.full((depth, 24, 24), 40.0))
    module = SliceDataModule(tmp_path, "ct", image_size=24, phantom_fraction=0.0, slices=3)
    module.setup("fit")
    assert "no 3 slices with signal" in caplog.text and "a_one" in caplog.text
