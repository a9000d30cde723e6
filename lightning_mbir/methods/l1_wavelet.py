"""Sparse wavelet coefficients."""

from __future__ import annotations

from typing import Annotated, Any

from torch import Tensor

from lightning_mbir import solvers
from lightning_mbir.errors import InputError
from lightning_mbir.methods.method import PRIOR, Axes, Checked, Count, Limits, Searched, method
from lightning_mbir.methods.problem import Problem
from lightning_mbir.samplers import keyed_generator


def _wrong_wavelet(value: Any) -> str | None:
    if not isinstance(value, str):
        return "give a name"
    try:
        solvers.Wavelets(value, 1, (-1,))
    except InputError:
        return "give an orthogonal one of PyWavelets"
    return None


@method(modalities=("mri",), splits=True, memory=(8, 2.3, 0))
def l1_wavelet(
    p: Problem,
    *,
    steps: Count = 100,
    lam: Annotated[float, PRIOR, Searched(1e-4, 0.1)] = 2e-3,
    wavelet: Annotated[str, Checked(_wrong_wavelet, "an orthogonal wavelet of PyWavelets")] = "haar",
    levels: Annotated[int, Limits(1, 30), Searched(1, 6, linear=True)] = 2,
    axes: Axes = "yx",
    shifts: bool = True,
) -> Tensor:
    """Sparse wavelet coefficients without a prior (SparseMRI, Lustig et al. 2007), by FISTA.

    Args:
        p: the problem.
        steps: FISTA steps.
        lam: weight of the magnitudes of the coefficients.
        wavelet: such as haar, db4 or sym8.
        levels: how often the low frequencies are split again, at most.
        axes: that are transformed.
        shifts: shift the grid of wavelets at random in each step (cycle spinning), which takes their blocks away.
    """
    return solvers.l1_wavelet(
        p.y,
        p.operator,
        lam=lam,
        iterations=steps,
        wavelet=wavelet,
        levels=levels,
        axes=tuple(axes),
        step=max(1.0, p.operator.norm()) ** -2,  # statistical weights leave some rays more than the unit norm
        generator=keyed_generator("l1_wavelet", p.noise.seed) if shifts else None,
        callback=p.iteration(steps),
        checkpoint=p.checkpoint,
    )
