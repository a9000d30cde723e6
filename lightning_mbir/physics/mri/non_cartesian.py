"""MRI along any trajectory: radial, spiral, or one that was measured."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Complex, Float, Int, Num
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.free_memory import check_fits
from lightning_mbir.kinds import check_kinds
from lightning_mbir.physics.mri.coils import CoilOperator, check_coil_maps
from lightning_mbir.physics.mri.nufft import BACKENDS, Nufft
from lightning_mbir.physics.operator import Parts, check_tensor

INSTALL = "pip install 'lightning-mbir[noncartesian]' has them"


class NonCartesianFourier(CoilOperator):
    """Samples of the Fourier transform off the grid, slice by slice.

    ``y[j] = (Y X)^(-1/2) sum_n x[n] exp(-2 pi i k[j] . n)`` with ``n`` counted in pixels from ``(Y // 2, X // 2)``: on
    the grid ``k = (index - N // 2) / N`` that is ``FourierSampling``. Density is not compensated, so the
    adjoint is no reconstruction, as in CT; see ``density_compensation``.

    Maps for all slices make it act slice by slice; maps by slice make it an operator on volumes (``separable`` false,
    domain ``(Z, Y, X)``, range ``(Z, coils, ...)``).

    Args:
        trajectory: ``(..., 2)`` with ``(ky, kx)`` last, in cycles per pixel, from -0.5 to 0.5; see
            :func:`radial_trajectory` and :func:`spiral_trajectory`. Radians per pixel over ``2 pi`` are that.
        image_size: ``(Y, X)``, or the one number where they are equal.
        coil_maps: ``(coils, Y, X)`` complex for all slices, or ``(Z, coils, Y, X)``; by default one coil of
            sensitivity 1.
        backend: ``finufft`` (Barnett et al., SIAM J. Sci. Comput. 41, 2019; its tolerance is 1e-6 in single and 1e-12
            in double precision), ``kbnufft`` (torchkbnufft, Muckley et al., ISMRM Workshop 2020; Kaiser-Bessel
            tables, right to about 1e-3), or ``auto``: the first that is installed.

    Raises:
        InputError: a trajectory that is not finite, has no sample or leaves the range; maps that do not fit; a backend
            that is not installed.
    """

    trajectory: Float[Tensor, "*samples 2"]

    def __init__(
        self,
        trajectory: Tensor,
        image_size: int | tuple[int, int],
        coil_maps: Tensor | None = None,
        backend: Literal["auto", "finufft", "kbnufft"] = "auto",
    ) -> None:
        super().__init__()
        check_kinds(NonCartesianFourier.__init__, locals())
        image = tuple(image_size) if isinstance(image_size, Sequence) else (image_size, image_size)
        if len(image) != 2 or min(image) < 1:
            raise InputError(f"NonCartesianFourier: image_size is {image_size}; give (Y, X) in pixels")
        _check_trajectory(trajectory)
        check_fits(f"NonCartesianFourier: images of {image}", 64 * math.prod(image), "give a smaller image_size")
        if coil_maps is not None:
            check_coil_maps(coil_maps, image)
        self.backend = _installed(backend)
        self.register_buffer("trajectory", trajectory.to(torch.get_default_dtype()))
        samples = tuple(trajectory.shape[:-1])
        lead = () if coil_maps is None else tuple(coil_maps.shape[:-2])  # coils, or slices and coils
        self.separable = len(lead) < 2
        self.domain_shape = (*lead[:-1], *image)
        self.range_shape = (*lead, *samples)
        self._samples = samples
        self._image = (image[0], image[1])
        self.set_maps(coil_maps)

    @property
    def acceleration(self) -> float:
        """Pixels over samples. Below 1 where samples are more, such as close to the centre of radial spokes."""
        return math.prod(self._image) / math.prod(self._samples)

    def of_slice(self, k: int) -> NonCartesianFourier | None:
        if self.separable or self.coil_maps is None:
            return None
        one = NonCartesianFourier(self.trajectory, self._image, self.coil_maps[k], self.backend)  # type: ignore[arg-type]
        return one.to(self.device, self.real_dtype)

    def of_slices(self, start: int, stop: int) -> NonCartesianFourier:
        if self.separable or self.coil_maps is None:
            return self
        some = NonCartesianFourier(self.trajectory, self._image, self.coil_maps[start:stop], self.backend)  # type: ignore[arg-type]
        return some.to(self.device, self.real_dtype)

    @property
    def parts(self) -> Parts:
        """Spokes or interleaves, by their number; single samples of a trajectory that has none, by their distance from
        the centre."""
        count = len(self.trajectory)
        needed = torch.zeros(count, dtype=torch.bool)
        if self.trajectory.ndim == 2:
            return Parts(self.trajectory.cpu().double().norm(dim=-1), needed, "samples of k-space")
        return Parts(torch.arange(count, dtype=torch.float64), needed, "spokes")

    def of_parts(self, chosen: Int[Tensor, " n"]) -> NonCartesianFourier:
        trajectory = self.trajectory[chosen.to(self.device)]
        one = NonCartesianFourier(trajectory, self._image, self.coil_maps, self.backend)  # type: ignore[arg-type]
        return one.to(self.device, self.real_dtype)

    def parts_of(self, y: Num[Tensor, "*measured"], chosen: Int[Tensor, " n"]) -> Num[Tensor, "*kept"]:
        return y.index_select(-len(self._samples), chosen.to(y.device))

    def prepare(self) -> None:
        super().prepare()
        self._nufft = Nufft(self.trajectory.reshape(-1, 2), self._image, self.backend)

    def forward(self, x: Num[Tensor, "*batch y x"]) -> Complex[Tensor, "*measured"]:
        """k-space: ``(..., Y, X)`` real or complex to ``(..., [coils,] *samples)``."""
        self.check_domain(x)
        k = self._nufft.apply(self.expand(x))
        if self._maps is None:
            k = k.squeeze(-2)
        return k.reshape(*k.shape[:-1], *self._samples)

    def adjoint(self, y: Num[Tensor, "*measured"]) -> Complex[Tensor, "*batch y x"]:
        """``(..., [coils,] *samples)`` to ``(..., Y, X)``."""
        self.check_range(y)
        k = y.flatten(y.ndim - len(self._samples))
        if self._maps is None:
            k = k.unsqueeze(-2)
        return self.combine(self._nufft.apply(k, adjoint=True))


def radial_trajectory(spokes: int, samples: int, golden: bool = True) -> Float[Tensor, "spokes samples 2"]:
    """Spokes through the centre: ``(spokes, samples, 2)`` with ``(ky, kx)`` last, in cycles per pixel.

    Sample ``i`` of a spoke is at ``(i - samples // 2) / samples``, so ``samples // 2`` is the centre. Spokes turn by
    the golden angle of 111.246 degrees (Winkelmann et al., IEEE TMI 26, 2007), or evenly over 180 degrees.

    Raises:
        InputError: no spoke or no sample.
    """
    check_kinds(radial_trajectory, locals())
    if spokes < 1 or samples < 1:
        raise InputError(f"radial_trajectory: {spokes} spokes of {samples} samples; give at least 1 of each")
    _check_samples(spokes, samples)
    step = math.pi * 2 / (1 + math.sqrt(5)) if golden else math.pi / spokes
    angle = step * torch.arange(spokes, dtype=torch.float64)[:, None]
    radius = (torch.arange(samples, dtype=torch.float64) - samples // 2) / samples
    return torch.stack((radius * angle.sin(), radius * angle.cos()), -1)


def spiral_trajectory(interleaves: int, samples: int, turns: float) -> Float[Tensor, "interleaves samples 2"]:
    """Archimedean spirals from the centre out: ``(interleaves, samples, 2)``, ``(ky, kx)`` last, in cycles per pixel.

    Radius and angle grow evenly, to 0.5 and ``turns`` full turns. Neighbouring windings are ``0.5 / (turns
    interleaves)`` apart: ``turns = N / (2 interleaves)`` meets the Nyquist criterion of ``N`` pixels, fewer turns
    undersample.

    Raises:
        InputError: no interleave, no sample, or turns that are not positive.
    """
    check_kinds(spiral_trajectory, locals())
    if interleaves < 1 or samples < 1 or not (math.isfinite(turns) and turns > 0):
        raise InputError(
            f"spiral_trajectory: {interleaves} interleaves of {samples} samples, {turns:g} turns; give positive numbers"
        )
    _check_samples(interleaves, samples)
    t = torch.linspace(0, 1, samples, dtype=torch.float64)
    start = torch.arange(interleaves, dtype=torch.float64)[:, None] / interleaves
    angle = 2 * math.pi * (turns * t + start)
    return torch.stack((0.5 * t * angle.sin(), 0.5 * t * angle.cos()), -1)


def _check_samples(lines: int, samples: int) -> None:
    check_fits(f"a trajectory of {lines:,.0f} x {samples:,.0f} samples", 64 * lines * samples, "give fewer")


def _check_trajectory(trajectory: Tensor) -> None:
    check_tensor("the trajectory", trajectory)
    check_fits(f"a trajectory of {tuple(trajectory.shape)}", 32 * trajectory.numel(), "give fewer samples")
    if trajectory.ndim < 2 or trajectory.shape[-1] != 2 or trajectory.numel() == 0 or trajectory.is_complex():
        raise InputError(f"the trajectory is {tuple(trajectory.shape)}; give (..., 2) real numbers, (ky, kx) last")
    if not bool(torch.isfinite(trajectory).all()):
        raise InputError("the trajectory has NaN or infinite values; give cycles per pixel")
    largest = float(trajectory.abs().max())
    if largest > 0.5 + 1e-6:
        raise InputError(
            f"the trajectory reaches {largest:.3g}; give cycles per pixel, -0.5 to 0.5 (radians per pixel over 2 pi)"
        )


def _installed(backend: str) -> str:
    """The backend to use."""
    if backend != "auto" and backend not in BACKENDS:
        raise InputError(f"backend {backend!r} is unknown; there are auto, {', '.join(BACKENDS)}")
    wanted = BACKENDS if backend == "auto" else {backend: BACKENDS[backend]}
    for name, module in wanted.items():
        if importlib.util.find_spec(module):
            return name
    packages = " or ".join(module.replace("_", "-") for module in wanted.values())
    raise InputError(f"NonCartesianFourier needs the package {packages}, which is not installed; {INSTALL}")
