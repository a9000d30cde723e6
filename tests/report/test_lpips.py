"""LPIPS with a stand-in for its network, which would have to be downloaded."""

import pytest
import torch
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.report import lpips


class Distance:
    """The mean distance of two pictures, as LPIPS would be called."""

    def to(self, device: torch.device) -> "Distance":
        return self

    def reset(self) -> None: ...

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        assert a.shape == b.shape == (1, 3, 16, 20) and float(a.min()) >= 0 and float(a.max()) <= 1
        return (a - b).abs().mean()


def test_slices_are_pictures_from_black_to_white(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lpips, "_network", Distance)
    truth = torch.rand(4, 16, 20) * 1.5
    assert lpips.lpips(truth + 0.5, truth, data_range=2.0) == pytest.approx(0.25, rel=1e-5)
    assert lpips.lpips(truth + 9, truth, data_range=2.0) < 1


def test_weights_that_cannot_be_had_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(**options: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("lightning_mbir.report.lpips.importlib.util.find_spec", lambda name: "there")
    monkeypatch.setattr("torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity", offline)
    lpips._network.cache_clear()
    with pytest.raises(InputError, match="cannot be had"):
        lpips.check_lpips()
