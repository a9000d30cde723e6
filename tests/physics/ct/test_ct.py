"""CT geometries against closed forms, against each other, against ASTRA; their backends."""

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_mbir.data.volumes.reading import read_volume
from lightning_mbir.physics import ConeBeam, FanBeam, ParallelBeam
from lightning_mbir.physics.ct.plane_beam import PlaneBeam
from lightning_mbir.physics.ct.projectors.joseph_3d import Joseph3D

VIEWS = [i * 15.0 + 3.0 for i in range(24)]
FAN: dict[str, Any] = {"source_distance": 300.0, "detector_distance": 180.0}
BEAMS: dict[str, Callable[..., PlaneBeam]] = {
    "parallel": ParallelBeam,
    "parallel_offset": lambda n, angles, **options: ParallelBeam(n, angles, center_offset=3.3, **options),
    "flat": lambda n, angles, **options: FanBeam(n, angles, **FAN, **options),
    "flat_offset": lambda n, angles, **options: FanBeam(n, angles, **FAN, center_offset=3.3, **options),
    "curved": lambda n, angles, **options: FanBeam(n, angles, **FAN, detector="curved", **options),
    "axis": lambda n, angles, **options: FanBeam(
        n, angles, source_distance=200.0, detector_distance=0.0, detector_spacing=1.3, **options
    ),
}
Ellipse = tuple[tuple[float, float], tuple[float, float], float]
"""Centre ``(x, y)`` and semi-axes in mm, turn of the first axis from x towards y in degrees."""
DISC: Ellipse = ((0.0, 0.0), (40.0, 40.0), 0.0)
ELLIPSE: Ellipse = ((21.0, -13.0), (36.0, 20.0), 25.0)


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def ellipse_image(n: int, pixel: float, ellipse: Ellipse, k: int = 8) -> Tensor:
    """Share of each pixel in the ellipse, by ``k x k`` points."""
    (cx, cy), (a, b), turn = ellipse
    fine = (torch.arange(n * k, dtype=torch.float64) - (n * k - 1) / 2) * (pixel / k)
    x, y = fine[None, :] - cx, fine[:, None] - cy
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    inside = ((x * cos + y * sin) / a) ** 2 + ((y * cos - x * sin) / b) ** 2 < 1
    return torch.nn.functional.avg_pool2d(inside[None].float(), k)[0]


def ellipse_sinogram(op: ParallelBeam | FanBeam, ellipse: Ellipse) -> Tensor:
    """Chords in mm. The ray of bin ``i`` is drawn from the source to the bin, as docs/geometry.md has them."""
    (cx, cy), (a, b), turn = ellipse
    theta = torch.deg2rad(torch.tensor(op.angles, dtype=torch.float64))[:, None]
    i = torch.arange(op.n_detectors, dtype=torch.float64)
    u = (i - (op.n_detectors - 1) / 2) * op.detector_spacing - op.center_offset
    if isinstance(op, ParallelBeam):
        normal, s = theta.expand(-1, len(u)), u
    else:
        total = op.source_distance + op.detector_distance
        sx, sy = op.source_distance * theta.sin(), -op.source_distance * theta.cos()
        across, along = (u, total) if op.detector == "flat" else (total * (u / total).sin(), total * (u / total).cos())
        dx, dy = along * -theta.sin() + across * theta.cos(), along * theta.cos() + across * theta.sin()
        normal = torch.atan2(-dx, dy)
        s = sx * normal.cos() + sy * normal.sin()
    s = s - cx * normal.cos() - cy * normal.sin()
    turned = normal - math.radians(turn)
    width2 = (a * turned.cos()) ** 2 + (b * turned.sin()) ** 2
    return (2 * a * b * (width2 - s**2).clamp_min(0).sqrt() / width2).float()


def ball_image(shape: tuple[int, int, int], voxel: tuple[float, float, float], center: Any, radius: float) -> Tensor:
    k = 4
    z, y, x = (
        (torch.arange(n * k, dtype=torch.float64) - (n * k - 1) / 2) * (size / k)
        for n, size in zip(shape, voxel, strict=True)
    )
    distance = (x - center[0]) ** 2 + (y[:, None] - center[1]) ** 2 + (z[:, None, None] - center[2]) ** 2
    return torch.nn.functional.avg_pool3d((distance < radius**2)[None].float(), k)[0]


def ball_projections(op: ConeBeam, center: Any, radius: float) -> Tensor:
    """Chords in mm, ``(views, rows, columns)``."""
    (rows, columns), (dv, du) = op.range_shape[1:], op.detector_spacing
    v = ((torch.arange(rows, dtype=torch.float64) - (rows - 1) / 2) * dv - op.offsets[0])[:, None]
    u = (torch.arange(columns, dtype=torch.float64) - (columns - 1) / 2) * du - op.offsets[1]
    out = []
    for angle in op.angles:
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        source = op.source_distance * torch.tensor([sin, -cos, 0.0], dtype=torch.float64)
        far = op.detector_distance
        bins = torch.stack(torch.broadcast_tensors(-far * sin + u * cos, far * cos + u * sin, v), -1)
        ray = torch.nn.functional.normalize(bins - source, dim=-1)
        to_center = torch.tensor(center, dtype=torch.float64) - source
        distance2 = (to_center**2).sum() - (ray @ to_center) ** 2
        out.append(2 * (radius**2 - distance2).clamp_min(0).sqrt())
    return torch.stack(out).float()


@pytest.mark.parametrize("ellipse", [DISC, ELLIPSE])
@pytest.mark.parametrize("beam", BEAMS)
def test_an_ellipse_is_its_chords_and_ever_more_so(beam: str, ellipse: Ellipse) -> None:
    """The error is that of edges one pixel wide: it falls about in proportion to the pixel. That of the centred disc
    depends on how its rim lies between the bins, the same in all views."""
    errors = []
    for n in (32, 64, 128):
        pixel = 128.0 / n
        op = BEAMS[beam](n, VIEWS, pixel_size=pixel)
        y, exact = op(ellipse_image(n, pixel, ellipse)), ellipse_sinogram(op, ellipse)  # type: ignore[arg-type]
        errors.append(relative(y, exact))
        assert errors[-1] < 2 / n
        assert float(y.sum() / exact.sum()) == pytest.approx(1, abs=0.3 / n)
    assert ellipse is DISC or errors[2] < errors[0] / 3


@pytest.mark.parametrize("offsets", [(0.0, 0.0), (4.0, -3.0)])
def test_a_ball_is_its_chords_and_ever_more_so(offsets: tuple[float, float]) -> None:
    center, radius = (9.0, -6.0, 4.0), 20.0
    errors = []
    for n in (16, 32, 64):
        voxel = (72.0 / (n * 3 // 4), 80.0 / n, 80.0 / n)
        shape = (n * 3 // 4, n, n)
        op = ConeBeam(shape, VIEWS[::5], **FAN, pixel_size=voxel[1], slice_thickness=voxel[0], offsets=offsets)
        y, exact = op(ball_image(shape, voxel, center, radius)), ball_projections(op, center, radius)
        errors.append(relative(y, exact))
        assert errors[-1] < 2.5 / n
        assert float(y.sum() / exact.sum()) == pytest.approx(1, abs=0.3 / n)
    assert errors[2] < errors[0] / 3


def test_a_far_source_gives_parallel_rays() -> None:
    x = ellipse_image(48, 1.5, ELLIPSE)
    parallel = ParallelBeam(48, VIEWS, pixel_size=1.5, center_offset=0.7)
    for detector in ("flat", "curved"):
        fan = FanBeam(
            48,
            VIEWS,
            source_distance=1e7,
            detector_distance=0.0,
            n_detectors=parallel.n_detectors,
            pixel_size=1.5,
            center_offset=0.7,
            detector=detector,  # type: ignore[arg-type]
        )
        assert relative(fan(x), parallel(x)) < 1e-4


def test_a_line_that_a_full_scan_meets_twice_has_one_integral() -> None:
    """The ray at fan angle gamma from theta is that at -gamma from theta + 180 - 2 gamma."""
    x = ellipse_image(64, 1.5, ELLIPSE)
    gamma = math.radians(4.0)
    spacing = 480.0 * gamma
    options = {**FAN, "pixel_size": 1.5, "detector_spacing": spacing, "n_detectors": 9, "detector": "curved"}
    here, there = FanBeam(64, [30.0], **options)(x)[0], FanBeam(64, [30.0 + 180 - 2 * 4.0], **options)(x)[0]
    assert float(here[5]) > 10
    assert float(here[5]) == pytest.approx(float(there[3]), rel=1e-5)


def test_the_plane_of_the_source_is_a_fan_beam() -> None:
    fan = FanBeam(24, VIEWS, **FAN, center_offset=1.1)
    cone = ConeBeam((5, 24, 24), VIEWS, **FAN, detector_shape=(5, fan.n_detectors), offsets=(0.0, 1.1))
    x = torch.rand(5, 24, 24, generator=torch.Generator().manual_seed(0))
    x[:] = x[0]  # no change along z, so that only the middle row matters
    torch.testing.assert_close(cone(x)[:, 2], fan(x[0]), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("beam", ["parallel_offset", "flat", "curved"])
def test_without_a_matrix_the_projection_is_the_same(beam: str) -> None:
    x = torch.rand(5, 20, 20, generator=torch.Generator().manual_seed(0))
    sparse, free = (BEAMS[beam](20, VIEWS, pixel_size=1.7, backend=b) for b in ("sparse", "matrix_free"))
    y = sparse(x)
    torch.testing.assert_close(free(x), y)
    torch.testing.assert_close(free.adjoint(y), sparse.adjoint(y))


def test_a_cone_in_parts_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    op = ConeBeam((4, 9, 12), VIEWS, **FAN)
    x = torch.rand(4, 9, 12, generator=torch.Generator().manual_seed(0))
    y, back = op(x), op.adjoint(op(x))
    monkeypatch.setattr(Joseph3D, "VIEW_RAYS", 1)
    monkeypatch.setattr(Joseph3D, "RAYS", 7)
    monkeypatch.setattr(Joseph3D, "STEPS", 1)
    torch.testing.assert_close(op(x), y)
    torch.testing.assert_close(op.adjoint(y), back)


def test_auto_takes_the_matrix_while_it_fits_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        assert ParallelBeam(16, VIEWS).backend == "sparse"
        assert FanBeam(16, VIEWS, **FAN, max_memory_gb=1e-5).backend == "matrix_free"
        assert ConeBeam((2, 8, 8), VIEWS, **FAN).backend == "matrix_free"
    assert "ParallelBeam uses backend sparse" in caplog.text
    assert "over max_memory_gb=1e-05" in caplog.text
    assert "FanBeam uses backend matrix_free" in caplog.text
    size = ParallelBeam(64, VIEWS).matrix_gigabytes
    nnz = ParallelBeam(64, VIEWS)._projector.nnz  # type: ignore[attr-defined]
    assert size == pytest.approx(2 * 8 * nnz / 1e9, rel=1 / 3)


def test_bands_and_chunks_of_slices_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.rand(7, 20, 20, generator=torch.Generator().manual_seed(0))
    whole = ParallelBeam(20, VIEWS)
    y = whole(x)
    monkeypatch.setattr("lightning_mbir.physics.ct.projectors.sparse.BAND", 150)
    monkeypatch.setattr("lightning_mbir.physics.ct.projectors.sparse.CHUNK", 3)
    parts = ParallelBeam(20, VIEWS)
    assert len(parts._projector._host["A"]) == 3  # type: ignore[attr-defined]
    torch.testing.assert_close(parts(x), y)
    torch.testing.assert_close(parts.adjoint(y), whole.adjoint(y))


@pytest.mark.parametrize("beam", ["parallel", "parallel_offset", "flat", "flat_offset", "axis"])
def test_astra_agrees_and_its_adjoint_is_exact(beam: str) -> None:
    pytest.importorskip("astra")
    ours, theirs = (BEAMS[beam](64, VIEWS, pixel_size=1.5, backend=b) for b in ("sparse", "astra"))
    x = torch.stack([ellipse_image(64, 1.5, ellipse) for ellipse in (DISC, ELLIPSE)])
    # Parallel: Joseph's weights too. Fans: ASTRA's are lengths in pixels.
    assert relative(theirs(x), ours(x)) < (1e-5 if beam.startswith("parallel") else 0.01)
    u = torch.randn(2, 64, 64, generator=torch.Generator().manual_seed(0))
    v = torch.randn(2, *theirs.range_shape, generator=torch.Generator().manual_seed(1))
    au = theirs(u)
    assert float(((au * v).sum() - (u * theirs.adjoint(v)).sum()).abs() / (au.norm() * v.norm())) < 1e-5


@pytest.mark.parametrize("beam", ["parallel", "flat"])
def test_astra_agrees_on_a_patient(beam: str, shared: Path) -> None:
    pytest.importorskip("astra")
    volume = read_volume(shared / "data/ct/test/lungfcp0001_chest.nii.gz", "ct").data
    x = volume[len(volume) // 2]
    n = min(x.shape) // 2
    x = x[x.shape[0] // 2 - n : x.shape[0] // 2 + n, x.shape[1] // 2 - n : x.shape[1] // 2 + n].contiguous()
    ours, theirs = (BEAMS[beam](2 * n, VIEWS[:8], pixel_size=0.5, backend=b) for b in ("sparse", "astra"))
    assert relative(theirs(x), ours(x)) < 0.01


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cones_on_a_gpu() -> None:
    op = ConeBeam((12, 24, 24), VIEWS, **FAN, offsets=(1.0, 2.0))
    x = ball_image((12, 24, 24), (1.0, 1.0, 1.0), (1.0, 2.0, 0.5), 5.0)
    y = op(x)
    torch.testing.assert_close(op.to("cuda")(x.cuda()).cpu(), y, rtol=1e-4, atol=1e-4)
    pytest.importorskip("diffct")
    other = ConeBeam((12, 24, 24), VIEWS, **FAN, offsets=(1.0, 2.0), backend="diffct").to("cuda")
    assert relative(other(x.cuda()).cpu(), y) < 0.05
    u, v = torch.randn(12, 24, 24, device="cuda"), torch.randn(*op.range_shape, device="cuda")
    au = other(u)
    assert float(((au * v).sum() - (u * other.adjoint(v)).sum()).abs() / (au.norm() * v.norm())) < 1e-5
