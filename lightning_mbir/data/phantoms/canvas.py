"""What phantoms are drawn with: signed distances, random fields, tubes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_mbir.errors import InputError, is_finite

Array = npt.NDArray[np.floating[Any]]
Point = Sequence[float] | npt.NDArray[np.floating[Any]]
Segment = tuple[Array, Array, float, float]
"""A tapered tube: its two ends (x, y, z) and the radii there, in mm."""

SLICE_THICKNESS = 3.0
"""mm, or less where a stack would grow beyond the body."""


class Canvas:
    """A volume under construction, with bent coordinates ``x``, ``y``, ``z`` in mm about its centre."""

    def __init__(self, shape: Sequence[int], seed: int, fov: float, height: float, bend: float) -> None:
        try:
            sizes = list(shape)
        except TypeError:  # one number
            sizes = []
        if len(sizes) != 3 or not all(is_finite(n) and int(n) == n >= 1 for n in sizes):
            raise InputError(f"shape {shape}: a phantom needs three positive whole numbers (Z, Y, X)")
        if seed < 0:
            raise InputError(f"seed {seed}: give a whole number from 0 up")
        self.shape = tuple(int(n) for n in sizes)
        self.rng = np.random.default_rng(int(seed))
        self.pixel = fov / max(self.shape[1:])
        thickness = min(SLICE_THICKNESS, height / self.shape[0])
        steps = (thickness, self.pixel, self.pixel)
        self.axes = [(np.arange(n) - (n - 1) / 2) * d for n, d in zip(self.shape, steps, strict=True)]
        self.axes[0] += self.rng.uniform(-0.25, 0.25) * (height - thickness * self.shape[0])
        self.size = (height, fov, fov)
        self.margin = 3.5 * bend
        z, y, x = np.meshgrid(*(axis.astype(np.float32) for axis in self.axes), indexing="ij", sparse=True)
        self.flat = (z, y, x)  # for what does not bend
        self.x = x + bend * self.field(40)
        self.y = y + bend * self.field(40)
        self.z = z + 0.5 * bend * self.field(40)
        self.image: Array = np.zeros(self.shape, np.float32)

    def field(self, scale: float) -> Array:
        """A Gaussian random field of unit deviation and correlation length ``scale`` mm.

        White noise on a lattice, blurred by a Gaussian that is evaluated at the voxels: the same field at any shape.
        """
        reach = [np.arange(-np.ceil(n / 2 / scale) - 2, np.ceil(n / 2 / scale) + 3) * scale for n in self.size]
        values = self.rng.standard_normal([len(r) for r in reach], dtype=np.float32)
        for axis, nodes in zip(self.axes, reach, strict=True):  # each pass moves the next axis into first place
            blur = np.exp(-0.5 * ((axis[:, None] - nodes) / scale) ** 2)
            blur /= np.sqrt((blur**2).sum(1, keepdims=True))
            values = np.tensordot(values, blur.astype(np.float32), axes=(0, 1))
        return values

    def inside(self, distance: Array) -> Array:
        """Occupancy 0 .. 1 of where the signed distance (mm) is negative."""
        return np.clip(0.5 - distance / self.pixel, 0, 1)

    def band(self, distance: Array, half: float | Array) -> Array:
        """Occupancy of a sheet ``half`` mm to either side; right also where it is thinner than a pixel."""
        return self.inside(distance - half) - self.inside(distance + half)

    def ellipsoid(
        self,
        center: Point,
        radii: Point,
        turn: float = 0.0,
        power: float = 2.0,
    ) -> Array:
        """Distance along the ray from ``center`` to a superellipsoid (x, y, z; mm), turned about z by ``turn`` rad.

        Two radii make a cylinder along z.
        """
        dx, dy, dz = self.x - center[0], self.y - center[1], 0 * self.z
        if len(radii) == 3:
            dz = self.z - center[2]
        if turn:
            dx, dy = np.cos(turn) * dx + np.sin(turn) * dy, np.cos(turn) * dy - np.sin(turn) * dx
        parts = [np.abs(d / r) for d, r in zip((dx, dy, dz), radii, strict=False)]
        r = sum(p * p for p in parts) ** 0.5 if power == 2 else sum(p**power for p in parts) ** (1 / power)
        length = np.sqrt(dx * dx + dy * dy + dz * dz)
        return np.asarray(length - (length + 1e-3) / (r + 1e-5), np.float32)

    def tubes(self, segments: Sequence[Segment], grow: float = 0.0) -> Array:
        """Occupancy of tapered tubes; each is drawn in its own box. ``grow`` mm are added to the radii."""
        occupied = np.zeros(self.shape, np.float32)
        for a, b, ra, rb in segments:
            pad = max(ra, rb) + grow + self.margin + self.pixel
            low, high = np.minimum(a, b)[::-1] - pad, np.maximum(a, b)[::-1] + pad
            spans = [np.searchsorted(axis, (lo, hi)) for axis, lo, hi in zip(self.axes, low, high, strict=True)]
            if any(start == stop for start, stop in spans):
                continue
            box = tuple(slice(start, stop) for start, stop in spans)
            p = [v[box] - np.float32(o) for v, o in zip((self.x, self.y, self.z), a, strict=True)]
            u = (b - a).astype(np.float32)
            t = np.clip((p[0] * u[0] + p[1] * u[1] + p[2] * u[2]) / max(float(u @ u), 1e-6), 0, 1)
            d = np.sqrt(sum((q - t * w) ** 2 for q, w in zip(p, u, strict=True)))
            thin = min(1.0, 2 * (max(ra, rb) + grow) / self.pixel) ** 1.5  # a thin tube fills its pixels only partly
            np.maximum(occupied[box], thin * self.inside(d - (ra + t * (rb - ra)) - grow), out=occupied[box])
        return occupied

    def path(self, points: Sequence[Sequence[float]], radii: Point, grow: float = 0.0) -> Array:
        """Occupancy of one tube through ``points`` (x, y, z)."""
        p = np.asarray(points, np.float64)
        return self.tubes(list(zip(p[:-1], p[1:], radii[:-1], radii[1:], strict=True)), grow)

    def paint(self, mask: Array, value: float | Array) -> None:
        """Blend ``value`` over the image."""
        self.image += mask * (value - self.image)

    def vary(self, value: float, share: float) -> float:
        """``value``, up to ``share`` of it more or less."""
        return float(value * (1 + share * self.rng.uniform(-1, 1)))


def union(a: Array, b: Array, k: float) -> Array:
    """Union of two signed distances with the seam rounded over ``k`` mm."""
    h = np.clip(0.5 + 0.5 * (b - a) / k, 0, 1)
    return np.asarray(b + (a - b) * h - k * h * (1 - h), np.float32)


def smooth_step(value: Array, middle: float, width: float) -> Array:
    """A smooth step from 0 to 1."""
    return np.asarray(0.5 + 0.5 * np.tanh((value - middle) / width), np.float32)


def grow_tree(rng: np.random.Generator, start: Point, toward: Point, radius: float) -> list[Segment]:
    """Branching tubes from ``start`` on; at a fork the cubes of the radii add up (Murray 1926)."""
    segments: list[Segment] = []
    stack = [(np.array(start, float), np.array(toward, float), radius)]
    while stack:
        a, direction, r = stack.pop()
        direction = direction / np.linalg.norm(direction)
        b = a + direction * rng.uniform(4.0, 7.5) * (1 + 1.1 * r) ** 0.75
        split = rng.uniform(0.25, 0.75)
        segments.append((a, b, r, 0.92 * r))
        side = np.cross(direction, rng.normal(size=3))
        side /= np.linalg.norm(side)
        for share, sign in ((split, 1), (1 - split, -1)):
            child = 0.97 * r * share ** (1 / 3)
            if child > 0.6:
                stack.append((b, direction + sign * 0.9 * (1 - share) * side + 0.2 * rng.normal(size=3), child))
    return segments
