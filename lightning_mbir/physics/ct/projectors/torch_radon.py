"""Parallel, flat fan and cone beams on a GPU by torch-radon 3 (GPL, the optional package carterbox-torch-radon)."""

from __future__ import annotations

import logging
import math
import warnings
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.physics.ct.geometry import Array, ConeGeometry, FanGeometry, PlaneGeometry
from lightning_mbir.physics.ct.projectors.projector import Projector

log = logging.getLogger(__name__)

INSTALL = "conda install -c conda-forge 'carterbox-torch-radon=3'"
CLASSES = ("ParallelBeam", "FanBeam", "ConeBeam", "Volume2D", "Volume3D")
SLICES = 64
"""Slices a call; a multiple of 4, which the package reads together."""
VIEWS = 2048
"""Views a back-projection: what its textures cannot hold would end the process."""
LARGEST = 16384
"""Pixels and bins along a side that its textures hold, in three dimensions as in two."""


class TorchRadonProjector(Projector):
    """Joseph's interpolation by textures, and a back-projection that reads the bins where each voxel projects to.

    The latter is not the transpose of the former; ``adjoint_gap`` tells by how much. All is in float32, whatever goes
    in and comes out. Kernels run on the default stream.

    Lengths go over in pixels: with voxels of any size but 1, its back-projection is displaced and lacks that size.
    Slices of another thickness are pressed into cubes and the rays, each of them as a whole, stretched back. Rays are
    denser where they meet the detector at a slant, which its back-projection leaves out and we put in.
    """

    exact_adjoint: ClassVar[bool] = False

    def __init__(self, geometry: PlaneGeometry | ConeGeometry) -> None:
        _package()
        if isinstance(geometry, FanGeometry) and geometry.detector != "flat":
            raise InputError("backend torch_radon has no curved detectors; take sparse")
        self.geometry = geometry
        self.domain_shape, self.range_shape = geometry.domain_shape, geometry.range_shape
        if isinstance(geometry, ConeGeometry):
            sides = list(zip(geometry.detector_shape, geometry.detector_spacing, geometry.offsets, strict=True))
        else:
            sides = [(geometry.n_detectors, geometry.detector_spacing, geometry.center_offset)]
        self.pads = [_pad(*side) for side in sides]
        self.bins = [size + sum(pad) for (size, _, _), pad in zip(sides, self.pads, strict=True)]
        if max(*self.bins, *self.domain_shape) > LARGEST:
            raise InputError(f"backend torch_radon takes up to {LARGEST} pixels or bins a side; take another one")
        # Its sine and cosine are the fast ones, which are good within half a turn.
        turns = np.remainder(np.array(geometry.angles) + 180, 360) - 180
        self.angles = torch.from_numpy(np.deg2rad(turns)).float()
        scale, share = _weights(geometry)
        self.scale, self.share = (torch.from_numpy(np.asarray(part)).float() for part in (scale, share))
        self._radon: Any = None
        self._gap: float | None = None

    def adjoint_gap(self, device: torch.device) -> float:
        """``|<A x, y> - <x, B y>| / (||A x|| ||y||)`` of the back-projection ``B``, measured once on a CUDA device: the
        larger for uniform random ``x`` and ``y``, and for a disc ``x`` and ``y = A x``."""
        if self._gap is None:
            _check_device(device)
            generator = torch.Generator().manual_seed(0)
            x, y = (torch.rand(1, math.prod(shape), generator=generator).to(device) for shape in self._shapes)
            height, width = self.domain_shape[-2:]
            across, down = (torch.linspace(-1, 1, size) for size in (width, height))
            disc = (across**2 + down[:, None] ** 2 < 0.5).float().expand(self.domain_shape).reshape(1, -1).to(device)
            projected = self._run(disc, False)
            self._gap = max(self._difference(x, y), self._difference(disc, projected))
            log.info("backend torch_radon: its back-projection is no exact adjoint, the gap is %.1e", self._gap)
        return self._gap

    def product(self, x: Float[Tensor, "slices inputs"], transpose: bool) -> Float[Tensor, "slices outputs"]:
        if x.dtype not in (torch.float32, torch.float64):
            raise InputError(f"backend torch_radon computes in float32, not {x.dtype}; give it that")
        self.adjoint_gap(x.device)  # told on first use
        return self._run(x, transpose)

    def _run(self, x: Tensor, transpose: bool) -> Tensor:
        radon, apply = self._make(), self._back if transpose else self._project
        out = x.new_empty(len(x), math.prod(self._shapes[not transpose]))
        at_once = SLICES if isinstance(self.geometry, PlaneGeometry) else 1
        with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
            for start in range(0, len(x), at_once):
                out[start : start + at_once] = apply(radon, x[start : start + at_once].float()).flatten(1)
        return out

    def _project(self, radon: Any, x: Tensor) -> Tensor:
        image = self._mirrored(x.reshape(-1, *self.domain_shape))
        _check_room(image)
        y = radon.forward(image.contiguous(), angles=self.angles.to(x.device))
        for dim, (before, after) in zip(range(-len(self.pads), 0), self.pads, strict=True):
            y = y.narrow(dim, before, y.shape[dim] - before - after)
        return y * self.scale.to(x.device)

    def _back(self, radon: Any, y: Tensor) -> Tensor:
        weighted = y.reshape(-1, *self.range_shape) * self.share.to(y.device)
        wide = F.pad(weighted, [side for pad in reversed(self.pads) for side in pad])
        _check_room(wide)
        angles = self.angles.to(y.device)
        image = wide.new_zeros(len(wide), *self.domain_shape)
        for start in range(0, len(angles), VIEWS):
            some = slice(start, start + VIEWS)
            image += radon.backward(wide[:, some].contiguous(), angles=angles[some])
        return self._mirrored(image)

    def _mirrored(self, image: Tensor) -> Tensor:
        """In two dimensions its y runs against the rows, in three it does not."""
        return image.flip(-2) if isinstance(self.geometry, PlaneGeometry) else image

    def _make(self) -> Any:
        """The package's operator, made on first use: it can neither be copied nor pickled."""
        if self._radon is not None:
            return self._radon
        package, geometry, unit = _package(), self.geometry, self.geometry.pixel_size
        if isinstance(geometry, ConeGeometry):
            volume = package.Volume3D()
            rows, columns = self.bins
            self._radon = package.ConeBeam(
                columns,
                self.angles,
                src_dist=geometry.source_distance / unit,
                det_dist=geometry.detector_distance / unit,
                det_count_v=rows,
                det_spacing_u=geometry.detector_spacing[1] / unit,
                det_spacing_v=geometry.detector_spacing[0] / geometry.slice_thickness,
                volume=volume,
            )
        else:
            volume = package.Volume2D()
            spacing = geometry.detector_spacing / unit
            if isinstance(geometry, FanGeometry):
                distances = (geometry.source_distance / unit, geometry.detector_distance / unit)
                self._radon = package.FanBeam(*self.bins, self.angles, *distances, det_spacing=spacing, volume=volume)
            else:
                self._radon = package.ParallelBeam(*self.bins, self.angles, det_spacing=spacing, volume=volume)
        volume.set_size(*self.domain_shape)
        return self._radon

    @property
    def _shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return self.domain_shape, self.range_shape

    def _difference(self, x: Tensor, y: Tensor) -> float:
        """The gap for one ``x`` and ``y``, ``(1, n)`` each."""
        projected, back = self._run(x, False), self._run(y, True)
        left, right = (projected.double() * y.double()).sum(), (x.double() * back.double()).sum()
        return float((left - right).abs() / (projected.double().norm() * y.double().norm()))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_radon": None}


def on_gpu(device: torch.device) -> bool:
    """Whether the package's kernels can be given what is on this device."""
    return device.type == "cuda"


def _check_device(device: torch.device) -> None:
    if not on_gpu(device):
        raise InputError(
            f"backend torch_radon takes tensors on a CUDA device, not on {device}; move operator and tensors there, or "
            "take another backend"
        )


def _check_room(tensor: Tensor) -> None:
    """Raise what torch raises where a texture of this size has no room: the package would end the process."""
    if tensor.is_cuda:
        needed = tensor.numel() * tensor.element_size()
        if torch.cuda.mem_get_info(tensor.device)[0] < needed:
            torch.cuda.empty_cache()
        if (free := torch.cuda.mem_get_info(tensor.device)[0]) < needed:
            raise torch.OutOfMemoryError(
                f"CUDA out of memory: a texture takes {needed / 2**30:.2f} GiB, of which {free / 2**30:.2f} are free"
            )


def _package() -> Any:
    """The package.

    Raises:
        InputError: it is not there, or not version 3.
    """
    try:
        with warnings.catch_warnings():  # on import it has all warnings shown
            import torch_radon
    except ImportError as error:
        raise InputError(
            f"backend torch_radon needs a CUDA device and the package torch-radon 3 ({INSTALL}), which is under the "
            f"GPL, version 3 ({error}); the default backend needs neither"
        ) from error
    ours = all(hasattr(torch_radon, name) for name in CLASSES)
    version = str(getattr(torch_radon, "__version__", "3" if ours else "an older one"))
    if not ours or version.split(".")[0] != "3":
        raise InputError(f"backend torch_radon is made for torch-radon 3, not {version}; {INSTALL}")
    return torch_radon


def _pad(size: int, spacing: float, offset: float) -> tuple[int, int]:
    """How many bins more, before and after, make a detector with its middle where the axis projects to."""
    half_bins = 2 * offset / spacing
    if abs(half_bins - round(half_bins)) > 1e-4:
        raise InputError(
            f"backend torch_radon has the axis in the middle of its detector: an offset is a multiple of half a bin "
            f"({spacing / 2:g} mm), not {offset:g} mm; take sparse or matrix_free"
        )
    more = round(half_bins)
    return max(-more, 0), max(more, 0)


def _weights(geometry: PlaneGeometry | ConeGeometry) -> tuple[Array | float, Array | float]:
    """Of each bin: the length of its ray in mm over that in voxels, and what its share in a back-projection becomes."""
    unit = geometry.pixel_size
    if isinstance(geometry, ConeGeometry):
        rows, u = geometry.positions
        v = rows[:, None]
        stretched = v * (unit / geometry.slice_thickness)
    elif isinstance(geometry, FanGeometry):
        u = geometry.positions
        v = stretched = np.zeros(1)
    else:
        return unit, unit
    total2 = (geometry.source_distance + geometry.detector_distance) ** 2
    length2 = total2 + u**2 + v**2
    return unit * np.sqrt(length2 / (total2 + u**2 + stretched**2)), unit * np.sqrt(length2 / total2)
