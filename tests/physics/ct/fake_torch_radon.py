"""Stands in for the package ``torch_radon``, version 3, on machines without a GPU.

It has the package's signatures, refuses what the package refuses, and computes what the package's kernels compute: our
matrices of Joseph's interpolation in the package's conventions, and a back-projection that reads between bins at the
place that each voxel projects to. What it leaves out is that textures weigh neighbours in steps of 1/256, and that rays
are cut off at the border of the image, so that half a pixel there is lost.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_mbir.physics.ct.geometry import ConeGeometry
from lightning_mbir.physics.ct.joseph import joseph_matrix
from lightning_mbir.physics.ct.projectors.joseph_3d import Joseph3D

__version__ = "3.0.0"
GPU = {"cuda", "cpu"}
"""Types of devices that count as a GPU."""
Pair = tuple[float, float]
Triple = tuple[float, float, float]


def is_cuda(tensor: Tensor) -> bool:
    return tensor.device.type in GPU


class Volume2D:
    def __init__(self, center: Pair = (0.0, 0.0), voxel_size: Pair = (1.0, 1.0)) -> None:
        self.height = self.width = -1
        self.center, self.voxel_size = center, voxel_size

    def set_size(self, height: int, width: int) -> None:
        self.height, self.width = height, width

    def has_size(self) -> bool:
        return self.height > 0 and self.width > 0


class Volume3D:
    def __init__(self, center: Triple = (0.0, 0.0, 0.0), voxel_size: Triple = (1.0, 1.0, 1.0)) -> None:
        self.depth = self.height = self.width = -1
        self.center, self.voxel_size = center, voxel_size

    def set_size(self, depth: int, height: int, width: int) -> None:
        self.depth, self.height, self.width = depth, height, width

    def has_size(self) -> bool:
        return self.depth > 0 and self.height > 0 and self.width > 0


@dataclass
class Detector:
    """What its C++ takes: whole numbers and floats, nothing else."""

    count_u: int
    spacing_u: float
    count_v: int = 0
    spacing_v: float = 1.0
    source: float = 0.0
    detector: float = 0.0

    def __post_init__(self) -> None:
        for value, kind in ((self.count_u, int), (self.count_v, int), (self.spacing_u, float), (self.source, float)):
            if not isinstance(value, kind) and not (kind is float and isinstance(value, int)):
                raise TypeError("incompatible constructor arguments")


class BaseRadon:
    dims = 2

    def __init__(self, angles: Any, volume: Any, detector: Detector) -> None:
        if isinstance(angles, tuple) and len(angles) == 3:  # a range, whatever was meant
            angles = np.linspace(angles[0], angles[1], angles[2], endpoint=False)
        self.angles = angles if isinstance(angles, Tensor) else torch.tensor(angles, dtype=torch.float32)
        self.volume, self.cfg = volume, detector

    def forward(self, x: Tensor, angles: Tensor | None = None, exec_cfg: Any = None) -> Tensor:
        lead, x = x.shape[: -self.dims], x.contiguous().view(-1, *x.shape[-self.dims :])
        self.volume.set_size(*x.shape[1:])
        y = self.project(x, self.checked(x, angles))
        return y.view(*lead, *y.shape[1:])

    def backward(
        self, sinogram: Tensor, angles: Tensor | None = None, volume: Any = None, exec_cfg: Any = None
    ) -> Tensor:
        volume = self.volume if volume is None else volume
        assert volume.has_size(), "Must use forward before calling backward or specify a volume"
        lead, y = sinogram.shape[: -self.dims], sinogram.contiguous().view(-1, *sinogram.shape[-self.dims :])
        given = self.checked(y, angles)
        if len(given) > 4096:
            raise RuntimeError("Can only support up to 4096 angles")
        if self.dims == 3 and len(given) > 2048:
            raise SystemExit("CUDA error: invalid argument")  # layers of a texture; the package ends the process
        out = self.back(y, given, volume)
        return out.view(*lead, *out.shape[1:])

    def checked(self, x: Tensor, angles: Tensor | None) -> Tensor:
        """The angles. Those of the constructor follow ``x``, those given beside it do not."""
        if x.dtype == torch.float16:
            assert x.size(0) % 4 == 0, "Batch size must be multiple of 4 when using half precision."
        elif x.dtype != torch.float32:
            raise RuntimeError(f"expected scalar type Float but found {x.dtype}")
        self.angles = self.angles.to(x.device)
        given = self.angles if angles is None else angles
        for name, tensor in (("x", x), ("angles", given)):
            if not is_cuda(tensor):
                raise RuntimeError(f"{name} must be a CUDA tensor")
        if given.dtype != torch.float32:
            raise RuntimeError(f"expected scalar type Float but found {given.dtype}")
        return given

    def project(self, x: Tensor, angles: Tensor) -> Tensor:
        (width, height), size = self.volume.voxel_size, x.shape[-1]
        if width != height or x.shape[-2] != size:
            raise NotImplementedError("the stand-in knows square images of square pixels")
        rays = [self.rays(float(angle)) for angle in angles]
        matrix = torch.from_numpy(joseph_matrix(size, width, rays).toarray())
        return (x.flatten(1) @ matrix.t()).view(len(x), len(angles), self.cfg.count_u)

    def rays(self, angle: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Lines ``x cos + y sin = s`` about the middle of the image, where y runs along the rows."""
        cos, sin = math.cos(angle), math.sin(angle)
        start, end = (
            np.stack((u * cos + along * sin, -u * sin + along * cos)) for u, along in zip(*self.ends(), strict=True)
        )
        start, end = (point - np.array(self.volume.center)[:, None] for point in (start, end))
        dx, dy = end - start
        length = np.hypot(dx, dy)
        return -dy / length, dx / length, (start[1] * dx - start[0] * dy) / length

    def ends(self) -> tuple[tuple[np.ndarray, np.ndarray], Pair]:
        """Across and along, before the view's rotation: where the rays start and where they end."""
        u = (np.arange(self.cfg.count_u) - self.cfg.count_u * 0.5 + 0.5) * self.cfg.spacing_u
        return (u, u), (1.0, -1.0)

    def back(self, y: Tensor, angles: Tensor, volume: Any) -> Tensor:
        # Half a unit of length, whatever the size of a pixel.
        x = (torch.arange(volume.width) - volume.width / 2) * volume.voxel_size[0] + volume.center[0] + 0.5
        down = (torch.arange(volume.height) - volume.height / 2) * volume.voxel_size[1] + volume.center[1] + 0.5
        out = y.new_zeros(len(y), volume.height, volume.width)
        for view, angle in zip(y.unbind(1), angles.tolist(), strict=True):
            cos, sin = math.cos(angle), math.sin(angle)
            magnification = self.magnification(x * sin + down[:, None] * cos)
            place = (x * cos - down[:, None] * sin) * magnification / self.cfg.spacing_u + self.cfg.count_u / 2
            grid = torch.stack((place * 2 / self.cfg.count_u - 1, torch.zeros_like(place)), -1)
            read = F.grid_sample(view[None, :, None], grid[None], align_corners=False)  # zero beside the detector
            out += read[0] * magnification
        return out / self.cfg.spacing_u

    def magnification(self, towards_source: Tensor) -> Tensor:
        return torch.ones_like(towards_source)

    def __reduce__(self) -> NoReturn:
        raise TypeError("cannot pickle 'torch_radon_cuda.TextureCache' object")


class ParallelBeam(BaseRadon):
    def __init__(self, det_count: int, angles: Any, det_spacing: float = 1.0, volume: Volume2D | None = None) -> None:
        super().__init__(angles, volume or Volume2D(), Detector(det_count, det_spacing))


class FanBeam(BaseRadon):
    def __init__(
        self,
        det_count: int,
        angles: Any,
        src_dist: float | None = None,
        det_dist: float | None = None,
        det_spacing: float | None = None,
        volume: Volume2D | None = None,
    ) -> None:
        source = det_count if src_dist is None else src_dist
        detector = source if det_dist is None else det_dist
        spacing = (source + detector) / source if det_spacing is None else det_spacing
        cfg = Detector(det_count, spacing, source=source, detector=detector)
        super().__init__(angles, volume or Volume2D(), cfg)

    def ends(self) -> tuple[tuple[np.ndarray, np.ndarray], Pair]:
        (u, _), _ = super().ends()
        return (np.zeros_like(u), u), (self.cfg.source, -self.cfg.detector)

    def magnification(self, towards_source: Tensor) -> Tensor:
        return (self.cfg.source + self.cfg.detector) / (self.cfg.source - towards_source)


class ConeBeam(BaseRadon):
    dims = 3

    def __init__(
        self,
        det_count_u: int,
        angles: Any,
        src_dist: float | None = None,
        det_dist: float | None = None,
        det_count_v: int = -1,
        det_spacing_u: float = 1.0,
        det_spacing_v: float = -1.0,
        pitch: float = 0.0,
        base_z: float = 0.0,
        volume: Volume3D | None = None,
    ) -> None:
        source = det_count_u if src_dist is None else src_dist
        detector = source if det_dist is None else det_dist
        rows = det_count_v if det_count_v > 0 else det_count_u
        spacing_v = det_spacing_v if det_spacing_v > 0 else det_spacing_u
        if pitch or base_z:
            raise NotImplementedError("the stand-in knows circular orbits")
        cfg = Detector(det_count_u, det_spacing_u, rows, spacing_v, source, detector)
        super().__init__(angles, volume or Volume3D(), cfg)

    def project(self, x: Tensor, angles: Tensor) -> Tensor:
        cfg = self.cfg
        if set(self.volume.voxel_size) != {1.0} or any(self.volume.center):
            raise NotImplementedError("the stand-in knows cubes of size 1 about the axis")
        # In three dimensions its source is at (sin, -cos), its detector's axis (cos, sin): as ours are.
        shape: Sequence[int] = x.shape[1:]
        geometry = ConeGeometry(
            volume_shape=(shape[0], shape[1], shape[2]),
            angles=tuple(torch.rad2deg(angles.double()).tolist()),
            source_distance=cfg.source,
            detector_distance=cfg.detector,
            detector_shape=(cfg.count_v, cfg.count_u),
            pixel_size=1.0,
            slice_thickness=1.0,
            detector_spacing=(cfg.spacing_v, cfg.spacing_u),
            offsets=(0.0, 0.0),
        )
        return Joseph3D(geometry).product(x.flatten(1), False).view(len(x), *geometry.range_shape)

    def back(self, y: Tensor, angles: Tensor, volume: Any) -> Tensor:
        cfg, shape = self.cfg, (volume.depth, volume.height, volume.width)
        z, down, x = (
            (torch.arange(size) - size / 2) * voxel + center + 0.5
            for size, voxel, center in zip(shape, reversed(volume.voxel_size), reversed(volume.center), strict=True)
        )
        out = y.new_zeros(len(y), *shape)
        for view, angle in zip(y.unbind(1), angles.tolist(), strict=True):
            cos, sin = math.cos(angle), math.sin(angle)
            magnification = (cfg.source + cfg.detector) / (cfg.source - x * sin + down[:, None] * cos)
            u = (x * cos + down[:, None] * sin) * magnification / (cfg.spacing_u * cfg.count_u / 2)
            v = z[:, None, None] * magnification / (cfg.spacing_v * cfg.count_v / 2)
            grid = torch.stack((u.expand_as(v), v), -1).flatten(0, 1)
            read = F.grid_sample(view[None], grid[None], align_corners=False)[0]
            out += read.view(len(y), *shape) * magnification**2
        return out / (cfg.spacing_u * cfg.spacing_v)
