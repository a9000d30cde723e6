"""MRI operators against the sums that they stand for."""

import math

import pytest
import torch
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.physics import (
    CartesianFourier3D,
    FourierSampling,
    MultiCoilFourier,
    NonCartesianFourier,
    RealDomain,
    make_mask,
    radial_trajectory,
    spiral_trajectory,
)
from lightning_mbir.physics.mri.coils import CHUNK
from lightning_mbir.physics.mri.nufft import BACKENDS
from tests.physics.registry import random_maps, random_mask


def complex_random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


def dft(n: int) -> Tensor:
    """The centred, orthonormal transform as a matrix."""
    i = torch.arange(n, dtype=torch.float64) - n // 2
    return torch.exp(-2j * math.pi * i[:, None] * i / n) / math.sqrt(n)


@pytest.mark.parametrize("shape", [(8, 6), (7, 9), (6, 5), (1, 4)])
def test_k_space_of_coils_is_centred_and_orthonormal(shape: tuple[int, int]) -> None:
    maps, mask = random_maps(3, *shape), random_mask(*shape)
    mask[shape[0] // 2, shape[1] // 2] = 1
    op = MultiCoilFourier(mask, maps).to(torch.float64)
    x = complex_random(2, *shape)
    exact = torch.einsum("jy,zcyx,kx->zcjk", dft(shape[0]), maps * x[:, None], dft(shape[1])) * mask
    torch.testing.assert_close(op(x), exact, rtol=1e-12, atol=1e-12)
    assert op.acceleration == pytest.approx(mask.numel() / float(mask.sum()))
    one_coil = MultiCoilFourier(mask, torch.ones(1, *shape)).to(torch.float64)
    torch.testing.assert_close(one_coil(x)[:, 0], FourierSampling(mask).to(torch.float64)(x))


def test_maps_by_slice_are_one_operator_a_slice() -> None:
    maps, mask = random_maps(4, 3, 6, 5), random_mask(6, 5)
    op = MultiCoilFourier(mask, maps).to(torch.float64)
    slices = [MultiCoilFourier(mask, m).to(torch.float64) for m in maps]
    assert not op.separable and slices[0].separable
    assert (op.domain_shape, op.range_shape) == ((4, 6, 5), (4, 3, 6, 5))
    x = complex_random(4, 6, 5)
    for k, one in enumerate(slices):
        torch.testing.assert_close(op(x)[k], one(x[k]))
        torch.testing.assert_close(op.normal(x)[k], one.normal(x[k]))
    largest = max(one.norm(1e-9, 5000) for one in slices)
    assert op.norm(1e-9, 5000) == pytest.approx(largest, rel=1e-4)
    with pytest.raises(InputError, match="takes"):
        op(x[:3])


@pytest.mark.parametrize("maps", [None, random_maps(3, 6, 5), random_maps(4, 3, 6, 5)])
def test_masks_by_slice_are_one_operator_a_slice(maps: torch.Tensor | None) -> None:
    masks = torch.stack([random_mask(6, 5).roll(k, 1) for k in range(4)])
    of_slice = [None if maps is None else maps if maps.ndim == 3 else maps[k] for k in range(4)]
    pairs = zip(masks, of_slice, strict=True)
    slices = [FourierSampling(m) if s is None else MultiCoilFourier(m, s) for m, s in pairs]
    op = FourierSampling(masks) if maps is None else MultiCoilFourier(masks, maps)
    assert not op.separable and op.domain_shape == (4, 6, 5)
    assert op.range_shape == ((4, 6, 5) if maps is None else (4, 3, 6, 5))
    x = complex_random(2, 4, 6, 5).to(torch.complex64)
    for k, one in enumerate(slices):
        torch.testing.assert_close(op(x)[:, k], one(x[:, k]))
        torch.testing.assert_close(op.normal(x)[:, k], one.normal(x[:, k]))
        torch.testing.assert_close(op.adjoint(op(x))[:, k], one.adjoint(one(x[:, k])))
    assert op.norm() == pytest.approx(max(one.norm() for one in slices), rel=1e-3)
    assert op.acceleration == pytest.approx(masks.numel() / float(masks.sum()))
    masks[2] = 0
    with pytest.raises(InputError, match="samples nothing of a slice"):
        FourierSampling(masks)
    if maps is not None and maps.ndim == 4:
        with pytest.raises(InputError, match="the volume has 2"):
            MultiCoilFourier(masks[:2], maps)


COLUMNS = random_mask(1, 4).index_fill(1, torch.tensor(1), 1)
MASKS = {
    "points": random_mask(6, 4),
    "columns": COLUMNS.repeat(6, 1),
    "rows": random_mask(6, 1).index_fill(0, torch.tensor(2), 1).repeat(1, 4),
    "columns by slice": torch.stack([COLUMNS.roll(k, 1).repeat(6, 1) for k in range(5)]),
    "all": torch.ones(6, 4),
}


@pytest.mark.parametrize("maps", [None, random_maps(3, 6, 4), random_maps(5, 3, 6, 4)], ids=["none", "one", "by slice"])
@pytest.mark.parametrize("mask", MASKS)
def test_normal_in_pieces_is_adjoint_after_forward(
    mask: str, maps: torch.Tensor | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    op = FourierSampling(MASKS[mask]) if maps is None else MultiCoilFourier(MASKS[mask], maps)
    for dtype, gap in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        op = op.to(dtype)
        x = complex_random(2, 5, 6, 4).to(op.dtype)
        exact = op.adjoint(op(x))
        for values in (2**17, 300, 100, 1):  # everything, slices, rows of a slice, a row of one
            monkeypatch.setitem(CHUNK, "cpu", values)
            assert float((op.normal(x) - exact).norm() / exact.norm()) < gap
            magnitudes = RealDomain(op)
            gone = magnitudes.normal(x.real) - magnitudes.adjoint(magnitudes(x.real))
            assert float(gone.norm() / exact.norm()) < gap


def test_maps_of_unit_power_and_a_full_mask_make_an_isometry() -> None:
    maps = random_maps(4, 9, 8)
    maps = maps / maps.abs().square().sum(0).sqrt()
    op = MultiCoilFourier(torch.ones(9, 8), maps).to(torch.float64)
    x = complex_random(9, 8)
    torch.testing.assert_close(op.normal(x), x, rtol=1e-6, atol=1e-6)
    assert op.norm() == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("coils", ["none", "shared", "by slice"])
@pytest.mark.parametrize("shape", [(4, 6, 5), (3, 5, 8)])
def test_volumes_are_coupled_through_kz(shape: tuple[int, int, int], coils: str) -> None:
    depth, rows, columns = shape
    mask = random_mask(depth, rows)
    maps = {"none": None, "shared": random_maps(2, rows, columns), "by slice": random_maps(depth, 2, rows, columns)}
    op = CartesianFourier3D(mask, shape, maps[coils]).to(torch.float64)
    x = complex_random(*shape)
    images = x[:, None] if maps[coils] is None else maps[coils] * x[:, None]
    exact = torch.einsum("az,by,cx,znyx->anbc", dft(depth), dft(rows), dft(columns), images) * mask[:, None, :, None]
    torch.testing.assert_close(op(x), exact[:, 0] if coils == "none" else exact, rtol=1e-12, atol=1e-12)
    assert not op.separable
    assert op.acceleration == pytest.approx(mask.numel() / float(mask.sum()))


def installed(backend: str) -> str:
    pytest.importorskip(BACKENDS[backend])
    return backend


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(12, 12), (9, 14)])
@pytest.mark.parametrize("coils", [0, 2])
def test_samples_off_the_grid_are_the_sum_over_pixels(backend: str, shape: tuple[int, int], coils: int) -> None:
    trajectory = torch.cat((radial_trajectory(7, 16), spiral_trajectory(2, 16, 3.0)))
    maps = random_maps(coils, *shape) if coils else None
    op = NonCartesianFourier(trajectory, shape, maps, installed(backend)).to(torch.float64)  # type: ignore[arg-type]
    x = complex_random(3, *shape)
    n, m = (torch.arange(size, dtype=torch.float64) - size // 2 for size in shape)
    ky, kx = op.trajectory[..., 0, None, None], op.trajectory[..., 1, None, None]
    kernel = torch.exp(-2j * math.pi * (ky * n[:, None] + kx * m)) / math.sqrt(math.prod(shape))
    exact = torch.einsum("stnm,zcnm->zcst", kernel, (torch.ones(1, 1, 1) if maps is None else maps) * x[:, None])
    out = op(x)
    assert out.shape == ((3, coils, 9, 16) if coils else (3, 9, 16))
    error = float((out - exact.reshape(out.shape)).norm() / exact.norm())
    assert error < (1e-10 if backend == "finufft" else 2e-3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(8, 10), (9, 7)])
def test_a_trajectory_on_the_grid_is_the_grid(backend: str, shape: tuple[int, int]) -> None:
    y, x = ((torch.arange(n, dtype=torch.float64) - n // 2) / n for n in shape)
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij"), -1)
    op = NonCartesianFourier(grid, shape, backend=installed(backend)).to(torch.float64)  # type: ignore[arg-type]
    image = complex_random(*shape)
    exact = FourierSampling(torch.ones(shape)).to(torch.float64)(image)
    torch.testing.assert_close(op(image), exact, rtol=0, atol=1e-5 if backend == "finufft" else 1e-2)
    assert op.acceleration == 1


def test_trajectories() -> None:
    radial = radial_trajectory(5, 8)
    assert radial.shape == (5, 8, 2) and bool((radial[:, 4] == 0).all())
    assert float(radial.norm(dim=-1).max()) == pytest.approx(0.5)
    direction = radial[:, 7:] / radial[:, 7:].norm(dim=-1, keepdim=True)  # a spoke is a line through the centre
    torch.testing.assert_close((radial * direction).sum(-1).abs(), radial.norm(dim=-1))
    turned = torch.rad2deg(
        torch.atan2(radial[1, 7, 0], radial[1, 7, 1]) - torch.atan2(radial[0, 7, 0], radial[0, 7, 1])
    )
    assert float(turned) % 360 == pytest.approx(111.246, abs=1e-3)
    even = radial_trajectory(4, 6, golden=False)
    torch.testing.assert_close(even[2, :, 0], even[0, :, 1])  # 90 degrees on
    spiral = spiral_trajectory(3, 101, 4.0)
    radius = spiral.norm(dim=-1)
    torch.testing.assert_close(radius, torch.linspace(0, 0.5, 101, dtype=torch.float64).expand(3, 101))
    # One turn on, the same interleave is 0.5 / turns further out.
    torch.testing.assert_close(radius[0, 75] - radius[0, 50], torch.tensor(0.125, dtype=torch.float64))
    torch.testing.assert_close(spiral[0, 75] / radius[0, 75], spiral[0, 50] / radius[0, 50])


def test_real_volumes_through_coils_keep_their_acceleration() -> None:
    op = RealDomain(MultiCoilFourier(make_mask("radial", (16, 16), 4), random_maps(2, 16, 16)))
    assert op.acceleration == 4


def test_real_domains_refuse_complex_volumes() -> None:
    """Of which the imaginary part would be measured and never come back."""
    op = RealDomain(FourierSampling(make_mask("uniform1d", (16, 16), 2)))
    x = torch.ones(2, 16, 16, dtype=torch.complex64)
    for use in (op, op.normal):
        with pytest.raises(InputError, match="RealDomain takes real volumes, not complex ones"):
            use(x)
    assert op(x.real).is_complex() and not op.normal(x.real).is_complex()


def test_wrong_maps_masks_and_trajectories_are_refused() -> None:
    mask, maps = torch.ones(6, 8), random_maps(2, 6, 8)
    broken = maps.clone()
    broken[1, 2, 3] = float("nan")
    for wrong, words in (
        (random_maps(2, 8, 6), "images \\(6, 8\\)"),
        (random_maps(6, 8), "coils, Y, X"),
        (broken, "NaN"),
        (torch.zeros(2, 6, 8), "all zero"),
        (maps[:0], "a coil"),
    ):
        with pytest.raises(InputError, match=words):
            MultiCoilFourier(mask, wrong)
    with pytest.raises(InputError, match="samples nothing"):
        MultiCoilFourier(torch.zeros(6, 8), maps)
    with pytest.raises(InputError, match="zeros and ones"):
        CartesianFourier3D(torch.full((4, 6), 0.5), (4, 6, 8))
    with pytest.raises(InputError, match="mask \\(Z, Y\\)"):
        CartesianFourier3D(torch.ones(6, 8), (4, 6, 8))
    with pytest.raises(InputError, match="of 3 slices"):
        CartesianFourier3D(torch.ones(4, 6), (4, 6, 8), random_maps(3, 2, 6, 8))
    with pytest.raises(InputError, match=r"measures \(..., 2, 6, 8\)"):
        MultiCoilFourier(mask, maps).adjoint(torch.zeros(3, 6, 8))
    for wrong, words in (
        (torch.zeros(5, 3), "\\(ky, kx\\) last"),
        (torch.full((5, 2), float("inf")), "NaN or infinite"),
        (torch.full((5, 2), 3.1), "cycles per pixel"),
    ):
        with pytest.raises(InputError, match=words):
            NonCartesianFourier(wrong, 8)
    with pytest.raises(InputError, match="auto, finufft, kbnufft"):
        NonCartesianFourier(radial_trajectory(2, 8), 8, backend="sigpy")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at least 1"):
        radial_trajectory(0, 8)
    with pytest.raises(InputError, match="positive"):
        spiral_trajectory(2, 8, 0.0)


def test_a_backend_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pytorch-finufft or torchkbnufft.*lightning-mbir\[noncartesian\]"):
        NonCartesianFourier(radial_trajectory(2, 8), 8)
