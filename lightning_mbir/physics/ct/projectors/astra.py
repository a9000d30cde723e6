"""Parallel and flat fan beams by the ASTRA toolbox on the CPU (GPL, the optional extra ``astra``)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.physics.ct.geometry import FanGeometry, PlaneGeometry
from lightning_mbir.physics.ct.projectors.projector import Projector


class AstraProjector(Projector):
    """ASTRA's projectors ``linear`` (Joseph's) of parallel beams and ``line_fanflat`` (lengths in pixels, Siddon's) of
    fans; float32 and one slice after the other, for comparison. Forward and backward are each other's transpose.
    """

    def __init__(self, geometry: PlaneGeometry) -> None:
        try:
            import astra
        except ImportError as error:
            raise InputError(
                "backend astra needs the package astra-toolbox (pip install astra-toolbox), which is under the GPL, "
                "version 3; the default backend sparse needs nothing and is faster"
            ) from error
        self.astra: Any = astra
        n, bins = geometry.domain_shape[0], geometry.n_detectors
        half = n * geometry.pixel_size / 2
        self.volume = astra.create_vol_geom(n, n, -half, half, -half, half)
        fan = geometry if isinstance(geometry, FanGeometry) else None
        if fan is not None and fan.detector != "flat":
            raise InputError("backend astra has no curved detectors; take sparse")
        theta = np.deg2rad(np.array(geometry.angles))
        # Its y runs against the rows.
        along = np.stack((np.cos(theta), -np.sin(theta)), 1)
        ray = np.stack((-np.sin(theta), -np.cos(theta)), 1)
        start = ray if fan is None else -fan.source_distance * ray
        far = 0.0 if fan is None else fan.detector_distance
        vectors = np.concatenate(
            (start, far * ray - geometry.center_offset * along, geometry.detector_spacing * along), 1
        )
        kind = "parallel" if fan is None else "fanflat"
        self.sinogram = astra.create_proj_geom(f"{kind}_vec", bins, vectors)
        self.projector = "linear" if fan is None else "line_fanflat"
        self.domain_shape, self.range_shape = geometry.domain_shape, geometry.range_shape

    def product(self, x: Float[Tensor, "slices inputs"], transpose: bool) -> Float[Tensor, "slices outputs"]:
        source, target = (self.range_shape, self.domain_shape) if transpose else (self.domain_shape, self.range_shape)
        rows = x.detach().to("cpu", torch.float32).reshape(-1, *source).numpy()
        out = np.zeros((len(rows), *target), dtype=np.float32)
        projector = self.astra.create_projector(self.projector, self.sinogram, self.volume)
        try:
            for given, result in zip(rows, out, strict=True):
                self._run(projector, np.ascontiguousarray(given), result, transpose)
        finally:
            self.astra.projector.delete(projector)
        return torch.from_numpy(out).flatten(1).to(x)

    def _run(self, projector: int, given: Any, result: Any, transpose: bool) -> None:
        image, sinogram = (result, given) if transpose else (given, result)
        config = self.astra.astra_dict("BP" if transpose else "FP")
        ids = (
            self.astra.data2d.link("-vol", self.volume, image),
            self.astra.data2d.link("-sino", self.sinogram, sinogram),
        )
        config["ProjectorId"], config["ProjectionDataId"] = projector, ids[1]
        config["ReconstructionDataId" if transpose else "VolumeDataId"] = ids[0]
        algorithm = self.astra.algorithm.create(config)
        try:
            self.astra.algorithm.run(algorithm)
        finally:
            self.astra.algorithm.delete(algorithm)
            self.astra.data2d.delete(list(ids))

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "astra"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        import astra

        self.__dict__.update(state, astra=astra)
