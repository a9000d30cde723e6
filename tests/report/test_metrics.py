"""Metrics with one data range: exact values, means over the slices of a plane, no rescaling."""

import math
from typing import Any

import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from lightning_mbir.reconstruction import image_metrics
from lightning_mbir.report import metrics
from tests.helpers import peak_bytes


def test_constant_error_has_the_same_psnr_in_every_plane() -> None:
    truth = torch.rand(12, 16, 20)
    result = image_metrics(truth + 0.1, truth, data_range=2.0)
    expected = 10 * math.log10(2.0**2 / 0.1**2)
    for plane in ("axial", "coronal", "sagittal"):
        assert result[plane]["psnr"] == pytest.approx(expected, abs=1e-3)
    assert result["volume_psnr"] == pytest.approx(expected, abs=1e-3)
    assert result["nrmse"] == pytest.approx(0.1 / float(truth.square().mean().sqrt()), rel=1e-5)


def test_planes_are_means_over_their_slices() -> None:
    truth = torch.zeros(2, 16, 16)
    wrong = truth.clone()
    wrong[0] += 0.1
    wrong[1] += 0.01
    result = image_metrics(wrong, truth, data_range=1.0)
    assert result["axial"]["psnr"] == pytest.approx((20 + 40) / 2, abs=1e-3)
    both = 10 * math.log10(1 / ((0.1**2 + 0.01**2) / 2))
    assert result["coronal"]["psnr"] == pytest.approx(both, abs=1e-3)
    assert result["volume_psnr"] == pytest.approx(both, abs=1e-3)


def test_ssim_is_the_mean_over_slices_whatever_their_number() -> None:
    torch.manual_seed(0)
    truth = torch.rand(70, 16, 16)  # more slices than pass at once
    noisy = truth + 0.1 * torch.randn_like(truth)
    one = [structural_similarity_index_measure(a[None, None], b[None, None], data_range=1.0)
           for a, b in zip(noisy, truth, strict=True)]  # fmt: skip
    expected = float(torch.stack([s for s in one if isinstance(s, torch.Tensor)]).mean())
    assert image_metrics(noisy, truth, 1.0)["axial"]["ssim"] == pytest.approx(expected, rel=1e-4)


def test_exact_volumes_and_thin_ones() -> None:
    truth = torch.rand(3, 16, 16)
    result = image_metrics(truth, truth, 1.0)
    assert result["axial"] == {"psnr": 100.0, "ssim": pytest.approx(1.0)}
    assert result["volume_psnr"] == 100.0
    assert "ssim" not in result["coronal"]  # 3 slices are narrower than the window
    assert result["nrmse"] == 0


def test_a_global_factor_is_an_error() -> None:
    truth = torch.rand(4, 16, 16)
    assert image_metrics(2 * truth, truth, 1.0)["volume_psnr"] < 10


def test_slices_of_air_are_left_out_of_planes_but_not_of_the_volume() -> None:
    truth = torch.full((4, 20, 20), 0.5)
    truth[0] = 0
    truth[1] = 0
    truth[1, 0, :4] = 0.5  # 1 % of the voxels: just enough
    wrong = truth.clone()
    wrong[0] += 0.2
    assert image_metrics(wrong, truth, 1.0)["axial"]["psnr"] == 100.0
    assert image_metrics(wrong, truth, 1.0)["volume_psnr"] == pytest.approx(10 * math.log10(4 / 0.2**2), abs=1e-3)
    wrong[1] += 0.1
    assert image_metrics(wrong, truth, 1.0)["axial"]["psnr"] == pytest.approx((20 + 100 + 100) / 3, abs=1e-3)


def test_ssim_of_a_volume_is_that_of_cubes() -> None:
    torch.manual_seed(0)
    truth = torch.rand(90, 14, 15)  # more slices than a slab
    noisy = truth + 0.1 * torch.randn_like(truth)
    _, whole = structural_similarity_index_measure(
        noisy[None, None], truth[None, None], data_range=1.0, return_full_image=True
    )
    inside = whole[0, 0, 5:-5, 5:-5, 5:-5]  # elsewhere windows reach beyond the volume
    assert image_metrics(noisy, truth, 1.0)["volume_ssim"] == pytest.approx(float(inside.mean()), rel=1e-4)
    assert image_metrics(truth, truth, 1.0)["volume_ssim"] == pytest.approx(1.0)
    assert "volume_ssim" not in image_metrics(noisy[:10], truth[:10], 1.0)


def test_large_volumes_take_little_more_memory_than_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = torch.rand(64, 64, 64, generator=torch.Generator().manual_seed(0))
    noisy = truth + 0.1
    expected = image_metrics(noisy, truth, 1.0)
    monkeypatch.setattr(metrics, "CHUNK", 64**2)  # a slice at a time, as of large ones
    monkeypatch.setattr(metrics, "SLAB", 1)
    found: list[dict[str, Any]] = []
    peak = peak_bytes(lambda: found.append(image_metrics(noisy, truth, 1.0)))
    assert peak < 5 * truth.nbytes
    assert found[0]["sagittal"]["ssim"] == pytest.approx(expected["sagittal"]["ssim"], rel=1e-5)
    assert found[0]["volume_psnr"] == expected["volume_psnr"]
