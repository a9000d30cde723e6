"""CT by a sparse matrix that comes with the measurement, whatever its geometry is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import scipy.sparse
from jaxtyping import Num
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.kinds import check_kinds
from lightning_mbir.physics.ct.beam import view_parts
from lightning_mbir.physics.ct.geometry import degrees
from lightning_mbir.physics.ct.projectors.sparse import SparsePair
from lightning_mbir.physics.operator import LinearOperator, Parts


class MatrixOperator(LinearOperator):
    """``y = A x`` of each slice, ``A`` a sparse matrix; the adjoint is its transpose, kept as a matrix of its own.

    Nothing is known of the geometry, so there is no filtered back-projection. The length that entries of ``A`` are
    counted in is that of the volume: entries in mm give attenuation in 1/mm, entries in pixels give it per pixel.

    Args:
        matrix: ``(prod(range_shape), prod(domain_shape))``, real; pixels row by row (``image.ravel()``), rays view by
            view. Kept in float32.
        domain_shape: ``(Y, X)`` of a slice.
        range_shape: ``(views, bins)`` of its measurement.
        angles: direction of each view in degrees, where it is known, modulo 180; what is held out of the measurement
            is spread by it, else by the number of the view.

    Raises:
        InputError: a matrix of another size, no real or finite numbers, angles of another number.
    """

    def __init__(
        self,
        matrix: scipy.sparse.spmatrix | scipy.sparse.sparray,
        domain_shape: tuple[int, int],
        range_shape: tuple[int, int],
        angles: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        check_kinds(MatrixOperator.__init__, locals())
        wanted = (math.prod(range_shape), math.prod(domain_shape))
        if tuple(matrix.shape) != wanted:
            raise InputError(
                f"MatrixOperator: the matrix is {tuple(matrix.shape)}; slices of {domain_shape} and views of "
                f"{range_shape} take {wanted}"
            )
        csr = scipy.sparse.csr_matrix(matrix)
        if csr.dtype.kind not in "biuf" or not np.isfinite(csr.data).all():
            raise InputError("MatrixOperator: the matrix has entries that are no finite real numbers")
        self.domain_shape, self.range_shape = tuple(domain_shape), tuple(range_shape)
        self.angles = None if angles is None else degrees("MatrixOperator", angles, level=3)
        if self.angles is not None and len(self.angles) != range_shape[0]:
            raise InputError(f"MatrixOperator: {len(self.angles)} angles but {range_shape[0]} views; give one a view")
        self._projector = SparsePair(csr.astype(np.float32))

    def forward(self, x: Num[Tensor, "*batch y x"]) -> Num[Tensor, "*batch views bins"]:
        """``(..., Y, X)`` to ``(..., views, bins)``."""
        self.check_domain(x)
        flat = x.reshape(-1, math.prod(self.domain_shape))
        return self._projector.apply(flat).reshape(*x.shape[:-2], *self.range_shape)

    def adjoint(self, y: Num[Tensor, "*batch views bins"]) -> Num[Tensor, "*batch y x"]:
        """The exact transpose: ``(..., views, bins)`` to ``(..., Y, X)``."""
        self.check_range(y)
        flat = y.reshape(-1, math.prod(self.range_shape))
        return self._projector.apply(flat, transpose=True).reshape(*y.shape[:-2], *self.domain_shape)

    @property
    def parts(self) -> Parts:
        """The views, by their directions or, where these are not known, by their numbers."""
        return super().parts if self.angles is None else view_parts(self.angles, 180.0)
