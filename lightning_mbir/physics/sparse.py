"""A sparse matrix and its transpose, applied to all slices at once, cached on disk and a device."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from lightning_mbir.physics.projector import Projector

CHUNK = 64
"""Slices a product: more of them fall out of the processor's cache."""


class SparsePair(Projector):
    """``A`` and ``A^T`` in CSR. No module state: CSR buffers break DDP, deepcopy and dtype moves."""

    def __init__(self, matrix: scipy.sparse.csr_matrix) -> None:
        self.shape = matrix.shape
        self._host = {"A": matrix, "At": matrix.T.tocsr()}
        self._cache: dict[tuple[str, torch.device, torch.dtype], Tensor] = {}

    def get(self, which: str, device: torch.device, dtype: torch.dtype) -> Tensor:
        """The matrix on a device, made on first use."""
        key = (which, device, dtype)
        if key not in self._cache:
            host = self._host[which]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # "sparse CSR support is in beta"
                self._cache[key] = torch.sparse_csr_tensor(
                    torch.from_numpy(host.indptr.astype(np.int32)),
                    torch.from_numpy(host.indices.astype(np.int32)),
                    torch.from_numpy(host.data),
                    size=host.shape,
                ).to(device=device, dtype=dtype)
        return self._cache[key]

    def product(self, x: Tensor, transpose: bool) -> Tensor:
        matrix = self.get("At" if transpose else "A", x.device, x.dtype)
        return torch.cat([(matrix @ part.t()).t() for part in torch.split(x, CHUNK)]).contiguous()

    def __getstate__(self) -> dict[str, Any]:
        return {"shape": self.shape, "_host": self._host, "_cache": {}}


def cache_folder() -> Path:
    """``$LIGHTNING_MBIR_CACHE``, or the user's cache folder."""
    if chosen := os.environ.get("LIGHTNING_MBIR_CACHE"):
        return Path(chosen)
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home()))
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "lightning_mbir"


def cached_matrix(geometry: dict[str, Any], build: Callable[[], scipy.sparse.csr_matrix]) -> scipy.sparse.csr_matrix:
    """The matrix of a geometry from the disk, or built and put there.

    A file that is damaged is built again; a folder that cannot be written is done without.
    """
    key = hashlib.sha256(repr(sorted(geometry.items())).encode()).hexdigest()[:32]
    path = cache_folder() / f"{key}.npz"
    try:
        return scipy.sparse.load_npz(path).tocsr()
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        matrix = build()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".npz")
        try:
            with os.fdopen(handle, "wb") as stream:
                scipy.sparse.save_npz(stream, matrix, compressed=False)
            os.replace(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)
    except OSError:
        pass  # no cache, then: the matrix is whole in memory
    return matrix
