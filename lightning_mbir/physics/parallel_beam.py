"""CT with a parallel beam."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.physics.joseph import joseph_matrix
from lightning_mbir.physics.operator import LinearOperator
from lightning_mbir.physics.sparse import SparsePair, cached_matrix

FORMAT = 1  # raise when joseph_matrix gives other values, so that cached matrices are built anew


class ParallelBeam(LinearOperator):
    """Line integrals of attenuation along parallel rays.

    Pixel ``(row, column)`` has its centre at ``y = (row - (Y - 1) / 2) pixel_size`` and ``x`` likewise from the
    column. The view at angle ``theta`` integrates along ``x cos(theta) + y sin(theta) = s``; bin ``i`` of the detector
    is at ``s = (i - (D - 1) / 2) detector_spacing - center_offset``. With attenuation in 1/mm a sinogram has no unit.

    Args:
        image_size: pixels along each side of a slice.
        angles: projection angles in degrees.
        n_detectors: bins a view; by default the image's diagonal over the spacing, rounded up (363 for 256 pixels).
        pixel_size: side of a pixel in mm.
        detector_spacing: distance of bins in mm; by default the pixel size.
        center_offset: how far the rotation centre lies from the middle of the detector, in mm.
        backend: ``sparse`` (Joseph's interpolation, exact adjoint, any device) or ``torch_radon`` (CUDA only; needs
            the conda-forge package torch-radon 3; the adjoint is then the gradient of its forward projection).
        max_memory_gb: limit for the sparse matrix and its transpose.

    Raises:
        InputError: no angle, angles that are not finite, sizes that are not positive, or a matrix over the limit.
    """

    def __init__(
        self,
        image_size: int,
        angles: Sequence[float] | Tensor,
        n_detectors: int | None = None,
        pixel_size: float = 1.0,
        detector_spacing: float | None = None,
        center_offset: float = 0.0,
        backend: Literal["sparse", "torch_radon"] = "sparse",
        max_memory_gb: float = 4.0,
    ) -> None:
        super().__init__()
        degrees = torch.as_tensor(angles, dtype=torch.float64).flatten().cpu()
        spacing = pixel_size if detector_spacing is None else detector_spacing
        if degrees.numel() == 0:
            raise InputError("ParallelBeam got no angles; give at least one view, in degrees")
        if not bool(torch.isfinite(degrees).all()):
            raise InputError("ParallelBeam got angles that are NaN or infinite; give degrees")
        for name, value in (("image_size", image_size), ("pixel_size", pixel_size), ("detector_spacing", spacing)):
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"ParallelBeam: {name} is {value}; give a positive number")
        if n_detectors is None:
            n_detectors = math.ceil(image_size * math.sqrt(2) * pixel_size / spacing - 1e-9)
        if n_detectors < 1:
            raise InputError(f"ParallelBeam: n_detectors is {n_detectors}; give at least 1")
        self.image_size, self.n_detectors = image_size, n_detectors
        self.pixel_size, self.detector_spacing, self.center_offset = pixel_size, spacing, center_offset
        self.backend = backend
        self.angles = tuple(degrees.tolist())
        self.domain_shape = (image_size, image_size)
        self.range_shape = (len(self.angles), n_detectors)
        if backend == "sparse":
            # 1.8 N^2 entries a view, 8 bytes each, in two directions (measured, see benchmarks).
            gigabytes = 2 * 8 * 1.8 * image_size**2 * len(self.angles) / 1e9
            if gigabytes > max_memory_gb:
                raise InputError(
                    f"the matrix of {len(self.angles)} views of {image_size} x {image_size} pixels takes "
                    f"{gigabytes:.1f} GB, over max_memory_gb={max_memory_gb:g}; raise that, or take fewer views"
                )
            self._pair = SparsePair(cached_matrix({**self.geometry, "format": FORMAT}, self._build))
        elif backend == "torch_radon":
            self._radon = _torch_radon(self)
        else:
            raise InputError(f"backend {backend!r} is unknown; there are sparse and torch_radon")

    @property
    def geometry(self) -> dict[str, Any]:
        """Everything that decides the matrix."""
        return {
            "image_size": self.image_size,
            "angles": self.angles,
            "n_detectors": self.n_detectors,
            "pixel_size": float(self.pixel_size),
            "detector_spacing": float(self.detector_spacing),
            "center_offset": float(self.center_offset),
        }

    def forward(self, x: Tensor) -> Tensor:
        """Sinograms: ``(..., Y, X)`` in 1/mm to ``(..., n_angles, n_detectors)``."""
        self.check_domain(x)
        lead = x.shape[:-2]
        if self.backend == "torch_radon":
            out: Tensor = self._radon.forward(x.reshape(-1, *self.domain_shape)) * self.pixel_size
            return out.reshape(*lead, *self.range_shape)
        return self._pair.apply(x.reshape(-1, self.image_size**2)).reshape(*lead, *self.range_shape)

    def adjoint(self, y: Tensor) -> Tensor:
        """Unfiltered back-projection, the exact transpose: ``(..., n_angles, n_detectors)`` to ``(..., Y, X)``."""
        self.check_range(y)
        lead = y.shape[:-2]
        if self.backend == "torch_radon":
            flat = y.reshape(-1, *self.range_shape)
            start = torch.zeros(len(flat), *self.domain_shape, dtype=y.dtype, device=y.device, requires_grad=True)
            with torch.enable_grad():
                projected = self._radon.forward(start) * self.pixel_size
            (out,) = torch.autograd.grad(projected, start, flat)
            return out.reshape(*lead, *self.domain_shape)
        flat = y.reshape(-1, self._pair.shape[0])
        return self._pair.apply(flat, transpose=True).reshape(*lead, *self.domain_shape)

    def get_extra_state(self) -> dict[str, Any]:
        """The geometry, so that a state is not loaded into another one."""
        return self.geometry

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        if {**state, "angles": tuple(state["angles"])} != self.geometry:
            raise InputError("this state belongs to a ParallelBeam of another geometry; build the operator to match it")

    def _build(self) -> Any:
        return joseph_matrix(
            self.image_size,
            self.angles,
            self.n_detectors,
            self.pixel_size,
            self.detector_spacing,
            self.center_offset,
        )


def _torch_radon(operator: ParallelBeam) -> Any:
    """The CUDA projector of torch-radon for the same geometry."""
    try:
        import torch_radon
    except ImportError as error:
        raise InputError(
            "backend torch_radon needs a CUDA device and the package torch-radon 3 (conda install -c conda-forge "
            "torch-radon); the default backend sparse needs neither"
        ) from error
    if operator.image_size % 16 or operator.center_offset:
        raise InputError("backend torch_radon needs an image size divisible by 16 and no center_offset; take sparse")
    # Its lengths are in pixels; it counts angles in radians and y against the rows, as it negates them itself.
    radians = torch.deg2rad(torch.tensor(operator.angles, dtype=torch.float32))
    spacing = operator.detector_spacing / operator.pixel_size
    return torch_radon.Radon(operator.image_size, radians, operator.n_detectors, spacing)
