"""What all CT beams have in common: a geometry, and the backend that computes its line integrals."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.physics.ct.geometry import PlaneGeometry, VolumeGeometry, outer_bins
from lightning_mbir.physics.ct.projectors.projector import Projector
from lightning_mbir.physics.operator import LinearOperator, Parts

log = logging.getLogger(__name__)


def view_parts(angles: Sequence[float], turn: float) -> Parts:
    """Views by their angle in degrees, modulo ``turn``; whether they leave a wedge of it out."""
    places = np.mod(np.asarray(angles, dtype=np.float64), turn)
    ordered = np.sort(places)
    gaps = np.diff(ordered, append=ordered[0] + turn)
    wedge = bool(gaps.max() > max(3 * np.median(gaps), turn / 18))
    if wedge:  # counted from its end
        places = np.mod(places - ordered[(int(gaps.argmax()) + 1) % len(ordered)], turn)
    return Parts(torch.from_numpy(places), torch.zeros(len(places), dtype=torch.bool), "views", wedge)


class Beam(LinearOperator):
    """Line integrals of attenuation along the rays of a geometry, of which all attributes are those of the beam too.

    Lengths are in mm, angles in degrees; see ``docs/geometry.md``.
    """

    BACKENDS: ClassVar[Mapping[str, Callable[[Any], Projector]]]
    """What makes the projector of a geometry; those that need an optional package import it when they are called."""

    def __init__(self, geometry: PlaneGeometry | VolumeGeometry, backend: str, default: str) -> None:
        super().__init__()
        if backend != "auto" and backend not in self.BACKENDS:
            raise InputError(f"backend {backend!r} is unknown; there are auto, {', '.join(self.BACKENDS)}")
        self._geometry = geometry
        self.domain_shape, self.range_shape = geometry.domain_shape, geometry.range_shape
        self.backend = default if backend == "auto" else backend
        self._projector = self.BACKENDS[self.backend](geometry)
        inexact = "" if self._projector.exact_adjoint else ", whose adjoint is not exact: adjoint_gap tells by how much"
        level = logging.INFO if inexact else logging.DEBUG
        log.log(level, "%s uses backend %s%s", type(self).__name__, self.backend, inexact)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and hasattr(self._geometry, name):
            return getattr(self._geometry, name)
        return super().__getattr__(name)

    @property
    def adjoint_gap(self) -> float:
        return self._projector.adjoint_gap(self.device)

    @property
    def outer_bins(self) -> tuple[int, ...]:
        """The ends of the detector, 0 and -1 along its bins, that no object may reach beyond."""
        return outer_bins(self._geometry.goes_around, self._geometry.columns)

    @property
    def geometry(self) -> dict[str, Any]:
        """Everything that decides the operator: the arguments of the geometry."""
        return asdict(self._geometry)

    @property
    def parts(self) -> Parts:
        """The views, by their angle; of a parallel beam half a turn is the whole circle, of others a full one."""
        return view_parts(self._geometry.angles, self._geometry.turn)

    def of_parts(self, chosen: Int[Tensor, " n"]) -> Beam:
        one = type(self).__new__(type(self))
        Beam.__init__(
            one, self._geometry.of_views(chosen.tolist()), self.backend, self.backend
        )  # all else was checked when the whole was made
        return one.to(self.device, self.real_dtype)

    def get_extra_state(self) -> dict[str, Any]:
        """The geometry, so that a state is not loaded into another one."""
        return self.geometry

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        same = {key: tuple(value) if isinstance(value, list) else value for key, value in state.items()}
        if same != self.geometry:
            name = type(self).__name__
            raise InputError(f"this state belongs to a {name} of another geometry; build the operator to match it")
