"""Parallel and fan beams by the sparse matrix of Joseph's interpolation and its transpose, all slices at once."""

from __future__ import annotations

import math
import warnings
from dataclasses import asdict
from typing import Any

import numpy as np
import scipy.sparse
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.physics.ct.geometry import PlaneGeometry
from lightning_mbir.physics.ct.joseph import FORMAT, joseph_matrix
from lightning_mbir.physics.ct.projectors.cache import cached_matrix
from lightning_mbir.physics.ct.projectors.projector import Projector

CHUNK = 64
"""Slices a product."""
BAND = 16384
"""Columns a product on a CPU: with so many pixels or rays of a chunk of slices (4 MB), what a view reads is still in
the processor's cache when the next view reads it again."""


class SparsePair(Projector):
    """``A`` and ``A^T`` in CSR. No module state: CSR buffers break DDP, deepcopy and dtype moves."""

    def __init__(self, matrix: scipy.sparse.csr_matrix) -> None:
        self.shape, self.nnz = matrix.shape, matrix.nnz
        self._host = {"A": _bands(matrix), "At": _bands(matrix.T.tocsr())}
        self._cache: dict[tuple[str, torch.device, torch.dtype], list[Tensor]] = {}

    def get(self, which: str, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
        """The matrix on a device, made on first use: in bands of columns on a CPU, elsewhere in one piece."""
        key = (which, device, dtype)
        if key not in self._cache:
            host = self._host[which]
            if device.type != "cpu":
                host = [scipy.sparse.hstack(host, format="csr")]
            self._cache[key] = [to_torch(band).to(device=device, dtype=dtype) for band in host]
        return self._cache[key]

    def product(self, x: Float[Tensor, "slices inputs"], transpose: bool) -> Float[Tensor, "slices outputs"]:
        bands = self.get("At" if transpose else "A", x.device, x.dtype)
        out = x.new_empty(len(x), self.shape[transpose])
        for start in range(0, len(x), CHUNK):
            # Slices last, so that an entry of the matrix meets one contiguous piece of memory.
            part = x[start : start + CHUNK].t().contiguous()
            pieces = torch.split(part, [band.shape[1] for band in bands])
            total = _multiply(bands[0], pieces[0])
            for band, piece in zip(bands[1:], pieces[1:], strict=True):
                total += _multiply(band, piece)
            out[start : start + CHUNK] = total.t()
        return out

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": {}}


def sparse_joseph(geometry: PlaneGeometry) -> SparsePair:
    """The matrix of a geometry, from the disk if it is there."""
    build = lambda: joseph_matrix(geometry.image_size, geometry.pixel_size, geometry.views)  # noqa: E731
    shape = (math.prod(geometry.range_shape), math.prod(geometry.domain_shape))
    longest = 1.5 * geometry.pixel_size  # in a pixel, beyond its diagonal
    return SparsePair(cached_matrix({**asdict(geometry), "format": FORMAT}, build, shape, longest))


def _multiply(matrix: Tensor, x: Tensor) -> Tensor:
    on_cpu = x.device.type == "cpu" and "fbgemm" in torch.backends.quantized.supported_engines
    if on_cpu and x.dtype == torch.float32 and x.shape[1] >= 8:
        # A sum of weighted rows of a table is the same thing, and has the faster kernel from eight slices on: 3 times
        # with 64 of them.
        return F.embedding_bag(
            matrix.col_indices(),
            x,
            matrix.crow_indices(),
            mode="sum",
            per_sample_weights=matrix.values(),
            include_last_offset=True,
        )
    return matrix @ x


def _bands(matrix: scipy.sparse.csr_matrix) -> list[scipy.sparse.csr_matrix]:
    if matrix.shape[1] <= BAND:
        return [matrix]
    return [matrix[:, first : first + BAND] for first in range(0, matrix.shape[1], BAND)]


def to_torch(matrix: scipy.sparse.csr_matrix) -> Tensor:
    """A CSR matrix for torch, with int32 indices: int64 is 2.5 times slower.

    Raises:
        InputError: more entries than those can count.
    """
    if matrix.nnz >= 2**31:
        raise InputError(f"a matrix of {matrix.nnz:.2e} entries is too large; take backend='matrix_free'")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)  # of the first one alone
        return torch.sparse_csr_tensor(
            torch.from_numpy(matrix.indptr.astype(np.int32, copy=False)),
            torch.from_numpy(matrix.indices.astype(np.int32, copy=False)),
            torch.from_numpy(matrix.data),
            size=matrix.shape,
            check_invariants=False,  # of scipy's own, or of the cache, which looks at them as it reads
        )
