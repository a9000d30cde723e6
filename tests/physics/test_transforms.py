"""Known transforms: a disc's sinogram, a Gaussian's spectrum; masks; the cache."""

import math
from pathlib import Path

import pytest
import torch

from lightning_mbir.errors import InputError
from lightning_mbir.physics import MASKS, FourierSampling, ParallelBeam, make_mask
from lightning_mbir.physics.mri.masks import COLUMNS


def supersampled_disc(n: int, pixel: float, center: tuple[float, float], radius: float, k: int = 8) -> torch.Tensor:
    """Area of the disc in each pixel, by ``k x k`` points."""
    fine = (torch.arange(n * k) - (n * k - 1) / 2) * (pixel / k)
    inside = ((fine[None, :] - center[0]) ** 2 + (fine[:, None] - center[1]) ** 2 < radius**2).float()
    return torch.nn.functional.avg_pool2d(inside[None], k)[0]


@pytest.mark.parametrize(("center", "offset"), [((0.0, 0.0), 0.0), ((21.0, -13.0), 0.0), ((-9.0, 17.0), 4.0)])
def test_disc_is_its_chords_in_mm(center: tuple[float, float], offset: float) -> None:
    n, pixel, radius, mu = 96, 1.6, 40.0, 0.02
    op = ParallelBeam(n, [i * 180 / 24 for i in range(24)], pixel_size=pixel, center_offset=offset)
    sinogram = op(mu * supersampled_disc(n, pixel, center, radius))
    theta = torch.deg2rad(torch.tensor(op.angles))[:, None]
    s = (torch.arange(op.n_detectors) - (op.n_detectors - 1) / 2) * pixel - offset
    distance = s - center[0] * theta.cos() - center[1] * theta.sin()
    exact = (2 * mu * (radius**2 - distance**2).clamp_min(0).sqrt()).float()
    # Joseph's line samples against chords: 1 % over all, the edges of the disc being one pixel wide.
    assert float((sinogram - exact).norm() / exact.norm()) < 0.02
    inner = distance.abs() < 0.8 * radius
    assert float(((sinogram - exact).abs() / exact)[inner].mean()) < 0.01


def test_gaussian_becomes_a_gaussian() -> None:
    n, width = 64, 3.0
    grid = torch.arange(n, dtype=torch.float64) - n // 2
    image = torch.exp(-(grid[:, None] ** 2 + grid[None, :] ** 2) / (2 * width**2))
    k = FourierSampling(torch.ones(n, n)).to(torch.float64)(image)
    frequency = grid / n
    radius2 = frequency[:, None] ** 2 + frequency[None, :] ** 2
    exact = 2 * math.pi * width**2 / n * torch.exp(-2 * math.pi**2 * width**2 * radius2)
    assert float((k - exact).abs().max()) < 1e-9
    assert float(k.abs().norm()) == pytest.approx(float(image.norm()))


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("acc", [2, 4, 8, 12.5])
@pytest.mark.parametrize("shape", [(64, 64), (50, 75)])
def test_masks_sample_exactly_with_a_full_centre(kind: str, acc: float, shape: tuple[int, int]) -> None:
    mask = make_mask(kind, shape, acc, seed=3)
    assert mask.shape == shape and set(mask.unique().tolist()) <= {0.0, 1.0}
    if kind in COLUMNS:
        assert bool((mask == mask[:1]).all())
        assert int(mask[0].sum()) == round(shape[1] / acc)
    else:
        assert int(mask.sum()) == round(shape[0] * shape[1] / acc)
    y, x = shape[0] // 2, shape[1] // 2
    assert bool((mask[y - 1 : y + 1, x - 1 : x + 1] == 1).all())
    assert torch.equal(mask, make_mask(kind, shape, acc, seed=3))
    assert not torch.equal(mask, make_mask(kind, shape, acc, seed=4))


def test_gaussian_masks_are_denser_inside_and_poisson_keeps_apart() -> None:
    gaussian = make_mask("gaussian2d", (96, 96), 8)
    assert float(gaussian[32:64, 32:64].mean()) > 3 * float(gaussian[:16].mean())
    poisson = make_mask("poisson2d", (96, 96), 8)
    uniform = torch.zeros(96, 96)
    uniform.view(-1)[torch.randperm(96 * 96, generator=torch.Generator().manual_seed(0))[: int(poisson.sum())]] = 1
    corner = slice(0, 30)

    def neighbours(mask: torch.Tensor) -> float:
        part = mask[corner]
        return float((part[:, 1:] * part[:, :-1]).sum())

    assert neighbours(poisson) < 0.2 * neighbours(uniform)


@pytest.mark.parametrize(
    ("kind", "acc", "words"),
    [("spiral", 4, "unknown"), ("uniform1d", 0, "at least 1"), ("uniform1d", float("nan"), "at least 1"),
     ("uniform1d", 500, "none")],
)  # fmt: skip
def test_wrong_masks_are_refused(kind: str, acc: float, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make_mask(kind, (64, 64), acc)


def test_a_centre_over_the_budget_is_refused() -> None:
    with pytest.raises(InputError, match="centre"):
        make_mask("uniform1d", (64, 64), 8, center_fraction=0.5)


def test_wrong_geometries_are_refused() -> None:
    for arguments, words in (
        ((16, []), "no angles"),
        ((16, [0.0, float("nan")]), "NaN"),
        ((0, [0.0]), "image_size"),
        ((16, [0.0], None, -1.0), "pixel_size"),
    ):
        with pytest.raises(InputError, match=words):
            ParallelBeam(*arguments)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="max_memory_gb"):
        ParallelBeam(512, range(1000), backend="sparse", max_memory_gb=1.0)
    with pytest.raises(InputError, match="samples nothing"):
        FourierSampling(torch.zeros(8, 8))
    with pytest.raises(InputError, match="another geometry"):
        ParallelBeam(8, [0.0, 1.0]).load_state_dict(ParallelBeam(8, [0.0, 2.0]).state_dict())


def test_matrix_is_cached_and_damage_is_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTNING_MBIR_CACHE", str(tmp_path / "cache"))
    x = torch.rand(12, 12)
    expected = ParallelBeam(12, [0.0, 30.0])(x)
    (file,) = (tmp_path / "cache").iterdir()
    stamp = file.stat().st_mtime_ns
    torch.testing.assert_close(ParallelBeam(12, [0.0, 30.0])(x), expected)
    assert file.stat().st_mtime_ns == stamp
    file.write_bytes(file.read_bytes()[:100])
    torch.testing.assert_close(ParallelBeam(12, [0.0, 30.0])(x), expected)
    assert file.stat().st_size > 100
    monkeypatch.setenv("LIGHTNING_MBIR_CACHE", str(file))  # a file, where a folder should be
    torch.testing.assert_close(ParallelBeam(12, [0.0, 30.0])(x), expected)
