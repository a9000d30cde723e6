"""Objects that nobody has a name for: occluding solids of all sizes ("dead leaves"), in a body or not.

Denoisers that were trained on dead leaves hold up on images that they have never seen (Achddou et al. 2021, "Synthetic
images as a regularity prior for image restoration neural networks"): there are edges, corners, flat and textured parts
at every scale, and no anatomy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from lightning_mbir.data.phantoms.canvas import Array, Canvas
from lightning_mbir.data.units import MU_WATER, Modality
from lightning_mbir.errors import InputError
from lightning_mbir.kinds import check_kinds

FOV, HEIGHT = {"ct": 350.0, "mri": 240.0}, 180.0
SIZES = 4.0, 0.3
"""The smallest leaf in pixels (twice its radius), and the largest in fields of view (its radius)."""
FEWEST, MOST = 12, 1500
"""Leaves of a phantom."""


def leaves_phantom(
    shape: Sequence[int] = (32, 128, 128), seed: int = 0, modality: Modality = "ct"
) -> Float32[Tensor, "z y x"]:
    """A volume ``(Z, Y, X)`` float32 of dead leaves: attenuation in 1/mm, or MRI magnitudes with a 99.5th percentile
    of 1; 350 mm (CT) or 240 mm wide, slices 3 mm apart.

    Ellipsoids, cylinders, prisms with three to seven sides, and strokes, some of them hollow; 12 to 1500 of them, radii
    by a power law, flat or textured; in most phantoms within one body or two, and the rest is air. Each seed is another
    one, and the same at every shape.

    Raises:
        InputError: a shape that is not three positive whole numbers, a negative seed, another modality.
    """
    check_kinds(leaves_phantom, locals())
    if modality not in FOV:
        raise InputError(f"leaves_phantom: modality is {modality!r}; give {' or '.join(FOV)}")
    rng = np.random.default_rng((abs(int(seed)), 0 if modality == "ct" else 1))  # the canvas refuses a negative one
    fov = FOV[modality]
    c = Canvas(shape, seed, fov, HEIGHT, bend=float(rng.choice([0.0, 0.0, 1.0, 3.0])))
    fine, coarse = c.field(float(rng.uniform(2, 7))), c.field(float(rng.uniform(12, 50)))
    palette = _Palette(rng, modality)
    body = _body(c, rng, fov)
    c.paint(body, max(palette(), 0.3))
    count = round(math.exp(rng.uniform(math.log(FEWEST), math.log(MOST))))
    exponent = rng.uniform(0.2, 1.6)  # of the number of leaves above a radius
    largest, smallest = SIZES[1] * fov, SIZES[0] * fov / 256 / 2
    share = rng.uniform(size=count)
    # inverse of the distribution function between the smallest and the largest radius
    radii = (smallest**-exponent * (1 - share) + largest**-exponent * share) ** (-1 / exponent)
    if rng.uniform() < 0.5:
        radii = np.sort(radii)[::-1]  # details lie on top
    for radius in radii:
        leaf = _Leaf(c, np.random.default_rng(rng.integers(2**62)), float(radius))
        value, amplitude = palette(), leaf.rng.choice([0.0, 0.0, leaf.rng.uniform(0, 0.08)])
        if leaf.box is None:
            continue
        texture = (fine if leaf.rng.uniform() < 0.5 else coarse)[leaf.box]
        mask = leaf.inside() * body[leaf.box]
        c.image[leaf.box] += mask * (value + amplitude * texture - c.image[leaf.box])
    if modality == "ct":
        return torch.from_numpy((np.clip(c.image, 0, None) * 2 * MU_WATER).astype(np.float32))
    image = c.image * np.exp(rng.uniform(0, 0.35) * c.field(100))  # surface coils
    image = np.clip(image, 0, None)
    return torch.from_numpy((image / max(float(np.percentile(image, 99.5)), 1e-6)).astype(np.float32))


class _Palette:
    """Values of leaves in a prior's unit: of a few materials, or of any."""

    def __init__(self, rng: np.random.Generator, modality: Modality) -> None:
        self.rng, self.modality = rng, modality
        few = rng.uniform() < 0.5
        self.materials = [self._any() for _ in range(rng.integers(2, 7))] if few else []

    def __call__(self) -> float:
        return float(self.rng.choice(self.materials)) if self.materials else self._any()

    def _any(self) -> float:
        if self.modality == "mri":
            return 0.0 if self.rng.uniform() < 0.15 else float(self.rng.uniform(0, 1))
        kind = self.rng.uniform()
        if kind < 0.15:
            return 0.0  # air
        low, high = (0.42, 0.6) if kind < 0.6 else (0.03, 0.42) if kind < 0.78 else (0.55, 1.3)
        return float(self.rng.uniform(low, high))


def _body(c: Canvas, rng: np.random.Generator, fov: float) -> Array:
    """Occupancy of what leaves lie in: one body, two, or the whole field of view."""
    kind = rng.uniform()
    if kind > 0.85:
        return np.ones(c.shape, np.float32)
    parts: list[Array] = []
    for side in (0,) if kind < 0.7 else (-1, 1):
        wide = 0.24 if side else rng.uniform(0.25, 0.46)
        radii = [fov * wide * rng.uniform(0.6, 1), fov * wide * rng.uniform(0.6, 1)]
        centre = (side * 0.25 * fov + rng.uniform(-0.03, 0.03) * fov, rng.uniform(-0.03, 0.03) * fov, 0)
        parts.append(c.inside(c.ellipsoid(centre, radii, rng.uniform(0, math.pi), rng.choice([2.0, 2.0, 3.0, 8.0]))))
    return np.asarray(np.maximum.reduce(parts))


class _Leaf:
    """A solid of some shape, in the box of voxels that it lies in; None outside of the volume."""

    def __init__(self, c: Canvas, rng: np.random.Generator, radius: float) -> None:
        self.c, self.rng, self.radius = c, rng, radius
        long = rng.uniform(1, 3)
        upright = rng.uniform() < 0.5  # a cylinder or prism through many slices, as much that is made
        self.half = np.array([radius, radius * rng.uniform(0.3, 1), HEIGHT if upright else radius * long])
        self.turn = _rotation(rng, 0.35 if upright else math.pi)
        self.centre = np.array([rng.uniform(-0.5, 0.5) * size for size in (c.size[2], c.size[1], c.size[0])])
        reach = np.abs(self.turn).T @ self.half + 2 * c.pixel + c.margin
        spans = [
            np.searchsorted(axis, (at - r, at + r))
            for axis, at, r in zip(c.axes, self.centre[::-1], reach[::-1], strict=True)
        ]
        empty = any(start == stop for start, stop in spans)
        self.box = None if empty else tuple(slice(start, stop) for start, stop in spans)

    def inside(self) -> Array:
        """Occupancy 0 .. 1 in the box."""
        assert self.box is not None
        axes = (self.c.x, self.c.y, self.c.z)
        x, y, z = (axis[self.box] - np.float32(at) for axis, at in zip(axes, self.centre, strict=True))
        u, v, w = (np.float32(r[0]) * x + np.float32(r[1]) * y + np.float32(r[2]) * z for r in self.turn)
        a, b, h = (np.float32(half) for half in self.half)
        kind = self.rng.choice(["ellipsoid", "cylinder", "prism", "stroke"], p=[0.3, 0.25, 0.3, 0.15])
        if kind == "ellipsoid":
            distance = _round((u / a, v / b, w / h), np.sqrt(u * u + v * v + w * w))
        elif kind == "cylinder":
            distance = np.maximum(_round((u / a, v / b), np.sqrt(u * u + v * v)), np.abs(w) - h)
        elif kind == "prism":
            distance = np.maximum(self._polygon(u, v, float(a), float(b)), np.abs(w) - h)
        else:
            thick = float(a) * self.rng.uniform(0.06, 0.3)
            bend = float(self.rng.uniform(-0.8, 0.8))
            along = np.clip(u, -a, a)
            distance = np.sqrt((u - along) ** 2 + (v - bend * b * (1 - (along / a) ** 2)) ** 2) - thick
            distance = np.maximum(distance, np.abs(w) - h)
        if self.rng.uniform() < 0.15:  # hollow
            distance = np.maximum(distance, -distance - self.radius * self.rng.uniform(0.15, 0.5))
        return self.c.inside(distance)

    def _polygon(self, u: Array, v: Array, a: float, b: float) -> Array:
        sides = int(self.rng.integers(3, 8))
        angles = 2 * math.pi * (np.arange(sides) + self.rng.uniform(-0.3, 0.3, sides)) / sides
        planes = [
            (np.float32(math.cos(t)), np.float32(math.sin(t)), 0.6 * math.hypot(a * math.cos(t), b * math.sin(t)))
            for t in angles
        ]
        return np.asarray(np.maximum.reduce([x * u + y * v - far for x, y, far in planes]))


def _round(parts: Sequence[Array], length: Array) -> Array:
    """Distance along the ray from the centre of an ellipse or ellipsoid."""
    r = np.sqrt(sum(p * p for p in parts))
    return np.asarray(length - (length + 1e-3) / (r + 1e-5), np.float32)


def _rotation(rng: np.random.Generator, tilt: float) -> Array:
    """Rows of a rotation: any about z, then up to ``tilt`` radians about x and y."""
    about_z, about_x, about_y = rng.uniform(0, 2 * math.pi), rng.uniform(-tilt, tilt), rng.uniform(-tilt, tilt)
    turns = []
    for angle, (i, j) in ((about_z, (0, 1)), (about_x, (1, 2)), (about_y, (0, 2))):
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = math.cos(angle)
        turn[i, j], turn[j, i] = math.sin(angle), -math.sin(angle)
        turns.append(turn)
    return np.asarray(turns[0] @ turns[1] @ turns[2])
