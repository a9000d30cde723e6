"""The linear operator ``y = A x`` that everything else is built on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor, nn

from lightning_mbir.errors import InputError, is_finite
from lightning_mbir.slabs import current, largest, length, own_inner

PRECISIONS = (torch.float32, torch.float64, torch.complex64, torch.complex128)
"""That operators work in; others lose what the adjoint and the solvers rely on, or cannot be multiplied."""


def check_tensor(what: str, value: object) -> None:
    """Raise where an array of another library, or a list, is given for a tensor."""
    if not isinstance(value, Tensor):
        raise InputError(f"{what} is a {type(value).__name__}; give a tensor, as torch.as_tensor(...) makes it")


@dataclass(frozen=True)
class Parts:
    """What a measurement consists of: things that were measured one by one, and could be left out one by one.

    Attributes:
        place: where each part lies, ``(n,)``: neighbours are close in what they measure. Of views their angle.
        needed: which parts nothing can be reconstructed without, ``(n,)``: the calibration centre of k-space.
        what: their name, for messages.
        open: whether they lie along a line with two ends rather than around a circle: views that leave a wedge out.
    """

    place: Float[Tensor, " n"]
    needed: Bool[Tensor, " n"]
    what: str = "parts"
    open: bool = False


class LinearOperator(nn.Module):
    """A linear map with its exact adjoint; what is excepted from exactness tells by ``adjoint_gap``.

    A subclass sets the four attributes and writes ``forward`` and ``adjoint``, both for any leading dimensions.

    Attributes:
        domain_shape: shape of one slice, ``(Y, X)``, or of one volume where ``separable`` is false.
        range_shape: shape of its measurement.
        separable: whether the operator acts slice by slice.
        domain_complex, range_complex: whether the two sides are complex.
        normal_is_cheaper: whether ``normal`` takes less time than ``forward``, as where transforms cancel.
        centred: whether it measures k-space on a grid, with zero frequency in the middle of its last two dimensions.
        working: measurements that a product with a whole volume takes for its work, beside what is given and found.
    """

    domain_shape: tuple[int, ...]
    range_shape: tuple[int, ...]
    separable: bool = True
    domain_complex: bool = False
    range_complex: bool = False
    normal_is_cheaper: bool = False
    centred: bool = False
    working: float = 2.0

    def __init__(self, device: torch.device | None = None) -> None:
        super().__init__()
        # An empty buffer that follows .to(device, dtype) and tells both, also where there is no other tensor.
        self.register_buffer("_probe", torch.empty(0, device=device), persistent=False)
        self._norm: float | None = None

    def forward(self, x: Tensor) -> Tensor:
        """``A x``: ``(..., *domain_shape)`` to ``(..., *range_shape)``."""
        raise TypeError(f"{type(self).__name__} does not define forward")

    def adjoint(self, y: Tensor) -> Tensor:
        """``A^H y``: ``(..., *range_shape)`` to ``(..., *domain_shape)``."""
        raise TypeError(f"{type(self).__name__} does not define adjoint")

    def normal(self, x: Num[Tensor, "*shape"]) -> Num[Tensor, "*shape"]:
        """``A^H A x``."""
        return self.adjoint(self(x))

    @property
    def device(self) -> torch.device:
        """Where the operator works."""
        return self._buffers["_probe"].device  # type: ignore[union-attr]

    @property
    def real_dtype(self) -> torch.dtype:
        """float32 or float64: the precision that the operator works in."""
        return self._buffers["_probe"].dtype  # type: ignore[union-attr]

    @property
    def dtype(self) -> torch.dtype:
        """Type of what goes in."""
        return self.real_dtype.to_complex() if self.domain_complex else self.real_dtype

    @property
    def range_dtype(self) -> torch.dtype:
        """Type of what comes out."""
        return self.real_dtype.to_complex() if self.range_complex else self.real_dtype

    @property
    def H(self) -> LinearOperator:
        """The adjoint as an operator of its own."""
        return Adjoint(self)

    @property
    def adjoint_gap(self) -> float:
        """``|<A x, y> - <x, B y>| / (||A x|| ||y||)`` as measured, where ``adjoint`` is another ``B`` than ``A^H``; 0
        where it is exact. Of an operator made of others, their sum."""
        return sum((part.adjoint_gap for part in self.children() if isinstance(part, LinearOperator)), 0.0)

    @property
    def at_once(self) -> int:
        """How many slices it is best given together, where that matters: those that pass through a device at a time
        (``InSlabs``). Of an operator made of others, the most of these."""
        return max((part.at_once for part in self.children() if isinstance(part, LinearOperator)), default=1)

    @property
    def acceleration(self) -> float | None:
        """MRI: how many times fewer samples there are than points of k-space."""
        return None

    @torch.no_grad()
    def norm(self, tolerance: float = 1e-5, max_iterations: int = 200) -> float:
        """Spectral norm ``||A||``, by power iteration on ``A^H A`` from a fixed start; computed once.

        Converges from below. A separable operator is measured on one slice, one that differs from slice to slice
        without coupling them on the slice that leads after a few steps on all. Of slabs it is that of the volume.
        """
        if self._norm is None and self.of_slice(0) is not None:
            k, size = self._largest_slice()
            one = self.of_slice(k)
            assert one is not None
            leads = bool(size == largest(size))  # which one of several slabs does
            value = one.norm(tolerance, max_iterations) if leads else 0.0
            self._norm = float(largest(torch.tensor(value, dtype=torch.float64, device=self.device)))
        if self._norm is None:
            x = self._start()
            norm = _size if self.separable else length
            value = 0.0
            for _ in range(max_iterations):
                x = x / norm(x)
                x = self.normal(x)
                previous, value = value, norm(x) ** 0.5
                if value == 0 or abs(value - previous) < tolerance * value:
                    break
            self._norm = value
        return self._norm

    def of_slice(self, k: int) -> LinearOperator | None:
        """The operator of slice ``k``, where the domain is a volume whose slices are not coupled."""
        return None

    def of_slices(self, start: int, stop: int) -> LinearOperator | None:
        """The operator of some neighbouring slices, whose measurement is ``y[start:stop]``; none where slices are
        coupled. That of one that acts slice by slice is itself."""
        return self if self.separable else None

    @property
    def parts(self) -> Parts:
        """What could be left out, one by one. By default what lies along the first dimension of ``range_shape``."""
        count = self.range_shape[0]
        return Parts(torch.arange(count, dtype=torch.float64), torch.zeros(count, dtype=torch.bool))

    def of_parts(self, chosen: Int[Tensor, " n"]) -> LinearOperator:
        """The operator that measures only the parts of these numbers; its measurement is ``parts_of(y, chosen)``."""
        return Selection(self, chosen)

    def parts_of(self, y: Num[Tensor, "*measured"], chosen: Int[Tensor, " n"]) -> Num[Tensor, "*kept"]:
        """Of a measurement (or of weights) ``(..., *range_shape)`` only the parts of these numbers."""
        return y.index_select(-len(self.range_shape), chosen.to(y.device))

    def _largest_slice(self, steps: int = 10) -> tuple[int, Tensor]:
        """The slice whose operator has the largest norm, by power iteration on each, and its square nearly."""
        x = self._start()
        size = torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True)
        for _ in range(steps):
            x = self.normal(x / torch.where(size > 0, size, 1))
            size = torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True)
        return int(size.argmax()), size.max()

    def _start(self) -> Tensor:
        """Where power iterations start: fixed, of slabs that of the volume."""
        generator, slab = torch.Generator().manual_seed(0), current()
        shared = slab.split and not self.separable
        shape = (slab.depth, *self.domain_shape[1:]) if shared else self.domain_shape
        x = torch.rand(shape, generator=generator, dtype=torch.float64) + 0.1
        return (x[slab.start : slab.stop] if shared else x).to(self.device, self.dtype)

    def check_domain(self, x: Tensor) -> None:
        """Raise where ``x`` cannot be put in."""
        self._check(x, self.domain_shape, "takes")

    def check_range(self, y: Tensor) -> None:
        """Raise where ``y`` is no measurement of this operator."""
        self._check(y, self.range_shape, "measures")

    def _check(self, tensor: Tensor, shape: tuple[int, ...], verb: str) -> None:
        name = type(self).__name__
        if not isinstance(tensor, Tensor):
            raise InputError(f"{name} {verb} tensors, not a {type(tensor).__name__}; torch.as_tensor(...) makes one")
        if tuple(tensor.shape[-len(shape) :]) != shape:
            raise InputError(f"{name} {verb} (..., {', '.join(map(str, shape))}), not {tuple(tensor.shape)}")
        if not tensor.numel():
            raise InputError(f"{name} {verb} one slice or more, not {tuple(tensor.shape)}; leave out what is empty")
        if tensor.dtype not in PRECISIONS:
            raise InputError(f"{name} {verb} single or double precision, not {tensor.dtype}; give .float()")

    def __mul__(self, factor: float) -> LinearOperator:
        return ScaledOperator(self, factor)

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> LinearOperator:
        if divisor == 0:
            raise InputError(f"{type(self).__name__} / 0: give another number")
        return ScaledOperator(self, 1.0 / divisor)

    def __matmul__(self, other: LinearOperator) -> LinearOperator:
        return Composition(self, other)


def _size(x: Tensor) -> float:
    """Euclidean norm of what one process has."""
    return float(own_inner(x, x).sqrt())


def check_operator(name: str, operator: object) -> None:
    """Raise where what an operator is made of is none."""
    if not isinstance(operator, LinearOperator):
        raise InputError(f"{name}: {operator!r:.80} is no LinearOperator; give one, such as ParallelBeam(...)")


class Adjoint(LinearOperator):
    """``A^H`` of an operator ``A``."""

    def __init__(self, operator: LinearOperator) -> None:
        super().__init__()
        self.operator = operator
        self.domain_shape, self.range_shape = operator.range_shape, operator.domain_shape
        self.domain_complex, self.range_complex = operator.range_complex, operator.domain_complex
        self.separable = operator.separable
        self._probe = operator._probe

    def forward(self, x: Tensor) -> Tensor:
        return self.operator.adjoint(x)

    def adjoint(self, y: Tensor) -> Tensor:
        out: Tensor = self.operator(y)
        return out

    @property
    def H(self) -> LinearOperator:
        return self.operator

    def norm(self, tolerance: float = 1e-5, max_iterations: int = 200) -> float:
        return self.operator.norm(tolerance, max_iterations)


class Around(LinearOperator):
    """An operator that changes another one, and is in all else as that is: shapes, types, and what it knows of itself.

    A subclass writes ``forward``, ``adjoint`` and ``around``; one that gives each slice or part something of its own
    writes ``of_slice``, ``of_slices`` or ``of_parts``.
    """

    def __init__(self, operator: LinearOperator) -> None:
        super().__init__()
        check_operator(type(self).__name__, operator)
        self.operator = operator
        self.domain_shape, self.range_shape = operator.domain_shape, operator.range_shape
        self.domain_complex, self.range_complex = operator.domain_complex, operator.range_complex
        self.separable, self.centred = operator.separable, operator.centred
        self._probe = operator._probe

    def around(self, operator: LinearOperator) -> LinearOperator:
        """The same change of another operator."""
        raise TypeError(f"{type(self).__name__} does not define around")

    @property
    def acceleration(self) -> float | None:
        return self.operator.acceleration

    @property
    def coil_maps(self) -> Num[Tensor, "*slices coils y x"] | None:
        """Those of the operator; none where it has none."""
        found: Tensor | None = getattr(self.operator, "coil_maps", None)
        return found

    @property
    def parts(self) -> Parts:
        return self.operator.parts

    def of_parts(self, chosen: Int[Tensor, " n"]) -> LinearOperator:
        return self.around(self.operator.of_parts(chosen))

    def parts_of(self, y: Num[Tensor, "*measured"], chosen: Int[Tensor, " n"]) -> Num[Tensor, "*kept"]:
        return self.operator.parts_of(y, chosen)

    def of_slice(self, k: int) -> LinearOperator | None:
        one = self.operator.of_slice(k)
        return None if one is None else self.around(one)

    def of_slices(self, start: int, stop: int) -> LinearOperator | None:
        if self.separable:
            return self
        some = self.operator.of_slices(start, stop)
        return None if some is None else self.around(some)


class ScaledOperator(Around):
    """``factor * A`` for a real factor."""

    def __init__(self, operator: LinearOperator, factor: float) -> None:
        super().__init__(operator)
        if not is_finite(factor):
            raise InputError(f"operators are scaled by real finite numbers, not by {factor!r:.80}")
        self.factor, self.normal_is_cheaper = factor, operator.normal_is_cheaper

    def around(self, operator: LinearOperator) -> ScaledOperator:
        return ScaledOperator(operator, self.factor)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.operator(x) * self.factor
        return out

    def adjoint(self, y: Tensor) -> Tensor:
        return self.operator.adjoint(y) * self.factor

    def normal(self, x: Num[Tensor, "*shape"]) -> Num[Tensor, "*shape"]:
        return self.operator.normal(x) * self.factor**2

    def norm(self, tolerance: float = 1e-5, max_iterations: int = 200) -> float:
        return self.operator.norm(tolerance, max_iterations) * abs(self.factor)


class Selection(LinearOperator):
    """``A``, of whose measurement only some places along its first dimension are kept."""

    def __init__(self, operator: LinearOperator, chosen: Int[Tensor, " n"]) -> None:
        super().__init__()
        self.operator = operator
        self.register_buffer("chosen", chosen.to(operator.device), persistent=False)
        self.domain_shape, self.range_shape = operator.domain_shape, (len(chosen), *operator.range_shape[1:])
        self.domain_complex, self.range_complex = operator.domain_complex, operator.range_complex
        self.separable = operator.separable
        self._probe = operator._probe

    chosen: Int[Tensor, " n"]

    def forward(self, x: Tensor) -> Tensor:
        return self.operator.parts_of(self.operator(x), self.chosen)

    def adjoint(self, y: Tensor) -> Tensor:
        self.check_range(y)
        dim = y.ndim - len(self.range_shape)
        full = y.new_zeros(*y.shape[:dim], *self.operator.range_shape)
        return self.operator.adjoint(full.index_copy(dim, self.chosen, y))


class Composition(LinearOperator):
    """``A B``: first ``B``, then ``A``."""

    def __init__(self, outer: LinearOperator, inner: LinearOperator) -> None:
        super().__init__()
        for operator in (outer, inner):
            check_operator("Composition", operator)
        if outer.domain_shape != inner.range_shape:
            raise InputError(f"cannot apply an operator of {outer.domain_shape} to measurements of {inner.range_shape}")
        self.outer, self.inner = outer, inner
        self.domain_shape, self.range_shape = inner.domain_shape, outer.range_shape
        self.domain_complex, self.range_complex = inner.domain_complex, outer.range_complex
        self.separable = outer.separable and inner.separable
        self._probe = inner._probe

    @property
    def acceleration(self) -> float | None:
        return self.outer.acceleration

    @property
    def parts(self) -> Parts:
        return self.outer.parts

    def of_parts(self, chosen: Int[Tensor, " n"]) -> LinearOperator:
        return self.outer.of_parts(chosen) @ self.inner

    def parts_of(self, y: Num[Tensor, "*measured"], chosen: Int[Tensor, " n"]) -> Num[Tensor, "*kept"]:
        return self.outer.parts_of(y, chosen)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.outer(self.inner(x))
        return out

    def adjoint(self, y: Tensor) -> Tensor:
        return self.inner.adjoint(self.outer.adjoint(y))
