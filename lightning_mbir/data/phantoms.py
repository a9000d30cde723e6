"""Demo volumes that the project draws itself: a chest for CT and a head for MRI.

Anatomy-like, not anatomy: closed shapes with soft edges on a grid that is bent by a smooth random field, with vessels,
ribs, folded cortex and texture. Each seed is another person. What is drawn later lies over what was drawn before.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from lightning_mbir.data.volume import MU_WATER
from lightning_mbir.errors import InputError

Array = np.ndarray


class _Canvas:
    """A volume under construction, with bent coordinates ``x`` (left to right), ``y`` (back to front), ``z`` (foot to
    head), each from -1 to 1 over the field of view.
    """

    def __init__(self, shape: Sequence[int], seed: int, bend: float) -> None:
        if len(shape) != 3 or any(int(n) != n or n < 1 for n in shape):
            raise InputError(f"a phantom has a shape of three positive whole numbers (Z, Y, X), not {tuple(shape)}")
        self.shape = tuple(int(n) for n in shape)
        self.rng = np.random.default_rng(seed)
        axes = [(np.arange(n, dtype=np.float32) + 0.5) / n * 2 - 1 for n in self.shape]
        z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
        self.z = np.broadcast_to(z, self.shape).astype(np.float32)
        self.y = y + bend * self.field(0.5)
        self.x = x + bend * self.field(0.5)
        self.edge = 1.2 / max(self.shape[1:])  # half the width of an edge: about a pixel
        self.image: Array = np.zeros(self.shape, np.float32)

    def field(self, scale: float) -> Array:
        """A smooth random field of unit deviation; ``scale`` is its grain as a share of the field of view."""
        # Volumes are a third to a half as high as they are wide, so as many grains fewer are stacked.
        grain = [min(n, max(2, round(4 / scale * (0.4 if i == 0 else 1)))) for i, n in enumerate(self.shape)]
        coarse = self.rng.standard_normal(grain).astype(np.float32)
        zoom = [n / g for n, g in zip(self.shape, grain, strict=True)]
        fine = ndimage.zoom(coarse, zoom, order=3, mode="nearest", grid_mode=True)
        fine = fine[: self.shape[0], : self.shape[1], : self.shape[2]]
        out: Array = (fine / max(float(fine.std()), 1e-6)).astype(np.float32)
        return out

    def inside(self, distance: Array, edge: float | None = None) -> Array:
        """Occupancy 0 .. 1 of where the signed distance is negative."""
        return np.clip(0.5 - distance / (2 * (edge or self.edge)), 0, 1)

    def ellipsoid(
        self, center: Sequence[float], radii: Sequence[float], angle: float = 0.0, power: float = 2.0
    ) -> Array:
        """Signed distance (roughly) to a superellipsoid; ``center`` and ``radii`` in the order x, y, z."""
        c, s = np.cos(angle), np.sin(angle)
        dx, dy = self.x - center[0], self.y - center[1]
        u, v, w = (c * dx + s * dy) / radii[0], (c * dy - s * dx) / radii[1], (self.z - center[2]) / radii[2]
        r = (np.abs(u) ** power + np.abs(v) ** power + np.abs(w) ** power) ** (1 / power)
        out: Array = (r - 1) * min(radii[0], radii[1])
        return out

    def paint(self, mask: Array, value: float | Array) -> None:
        """Blend ``value`` over the image."""
        self.image += mask * (value - self.image)

    def vary(self, value: float, share: float) -> float:
        """``value`` up to ``share`` of it more or less."""
        return float(value * (1 + share * self.rng.uniform(-1, 1)))

    def stamp_tubes(self, points: Array, radii: Array) -> Array:
        """Occupancy of balls at ``points`` ``(n, 3)`` (x, y, z) of ``radii`` ``(n,)``: tubes, if dense."""
        occupied = np.zeros(self.shape, np.float32)
        nz, ny, nx = self.shape
        half = np.array([nx, ny, nz]) / 2
        for (px, py, pz), radius in zip((points + 1) * half - 0.5, radii * nx / 2, strict=True):
            reach = int(np.ceil(radius + 1))
            k = round(pz)
            i0, i1, j0, j1 = round(py) - reach, round(py) + reach + 1, round(px) - reach, round(px) + reach + 1
            if k < 0 or k >= nz or i0 < 0 or j0 < 0 or i1 > ny or j1 > nx:
                continue
            gy, gx = np.ogrid[i0:i1, j0:j1]
            ball = np.clip(radius + 0.5 - np.hypot(gy - py, gx - px), 0, 1) * min(1.0, 1.5 * radius)
            view = occupied[k, i0:i1, j0:j1]
            np.maximum(view, ball, out=view)
        return occupied


def chest_phantom(shape: Sequence[int] = (48, 128, 128), seed: int = 0) -> Tensor:
    """A chest-like volume ``(Z, Y, X)`` float32 of attenuation in 1/mm, about 350 mm wide.

    Skin, fat, muscle, lungs with vessels and airways, heart with contrast, aorta, spine with canal, oblique ribs,
    sternum, liver dome, arms down or up, and the table.

    Raises:
        InputError: a shape that is not three positive numbers.
    """
    c = _Canvas(shape, seed, bend=0.02)
    rng = c.rng
    width, depth = c.vary(0.84, 0.07), c.vary(0.60, 0.08)
    c.image[:] = -1000.0

    taper = 1 - 0.12 * np.clip(c.z, 0, 1) ** 2  # shoulders aside, the thorax narrows upwards
    body = c.ellipsoid((0, 0, 0), (width, depth, 1e3), power=2.5) + 0.10 * (1 - taper)
    fat = c.vary(0.055, 0.6) + 0.02 * c.field(0.6)
    c.paint(c.inside(body), 20.0)  # skin
    c.paint(c.inside(body + 0.012), -100.0 + 8 * c.field(0.05))
    c.paint(c.inside(body + fat), 50.0 + 10 * c.field(0.06))  # muscle
    wall = body + fat + c.vary(0.075, 0.2)
    c.paint(c.inside(wall + 0.02 * c.field(0.3)) * 0.35, -90.0)  # fat between muscles

    # Lungs, each bounded by the wall, the mediastinum and the diaphragm.
    dome = -0.55 + 0.25 * np.cos(2.2 * c.x + 0.5) * np.cos(1.8 * c.y) + rng.uniform(-0.25, 0.1)
    lungs = np.zeros(c.shape, np.float32)
    for side in (-1, 1):
        x0 = side * c.vary(0.45 * width / 0.84, 0.05)
        lung = c.ellipsoid((x0, -0.02, 0.0), (0.35 * width / 0.84, depth * 0.74, 1.6), side * 0.12, power=2.4)
        lung = np.maximum(lung, wall + 0.02)
        lung = np.maximum(lung, 0.35 * (dome - c.z))
        lungs = np.maximum(lungs, c.inside(lung + 0.01 * c.field(0.15)))
    mediastinum = c.ellipsoid((0, 0, 0), (0.34, depth * 0.8, 1e3))
    c.paint(c.inside(np.maximum(wall + 0.01, mediastinum)), 30 + 25 * c.field(0.12))
    liver = np.maximum(wall + 0.03, 0.35 * (c.z - dome))
    c.paint(c.inside(liver), 60 + 12 * c.field(0.04))
    stomach = np.maximum(liver + 0.02, c.ellipsoid((0.35, 0.12, -1.0), (0.24, 0.2, 0.5)))
    c.paint(c.inside(stomach), rng.choice([-700.0, 20.0]))
    gradient = -830 + 70 * c.y + rng.uniform(-40, 40)  # denser towards the back, where one lies
    c.paint(lungs, gradient + 25 * c.field(0.03))

    # Heart with its chambers, aorta, superior vena cava, oesophagus.
    contrast = rng.uniform(40, 220)
    hx, hy = 0.12 + rng.uniform(-0.03, 0.03), 0.14 + rng.uniform(-0.03, 0.03)
    heart = c.ellipsoid((hx, hy, -0.2), (c.vary(0.30, 0.1), c.vary(0.25, 0.1), 0.75), 0.5)
    c.paint(c.inside(heart - 0.015), -80.0)
    c.paint(c.inside(heart), 60 + 12 * c.field(0.08))
    for dx, dy, r in ((0.08, -0.02, 0.12), (-0.12, 0.06, 0.11), (0.02, -0.13, 0.09)):
        chamber = c.ellipsoid((hx + dx, hy + dy, -0.2 + rng.uniform(-0.1, 0.1)), (r, r * 0.8, 0.45), 0.5)
        c.paint(c.inside(chamber), 45 + contrast)
    lungs *= 1 - c.inside(heart - 0.015)
    for (px, py), radius, value in (
        ((0.10, -0.28), c.vary(0.07, 0.15), 50 + contrast),  # descending aorta
        ((-0.10, 0.08), c.vary(0.05, 0.15), 50 + 0.8 * contrast),  # vena cava
        ((0.03, -0.20), 0.03, 30.0),  # oesophagus
    ):
        tube = np.hypot(c.x - px - 0.02 * np.sin(2 * c.z), c.y - py) - radius
        c.paint(c.inside(tube) * (1 - (np.hypot(px, py) < 0.2) * c.inside(heart)), value)
    arch = np.hypot(np.hypot(c.x - 0.02, (c.y + 0.06) * 0.7) - 0.2, (c.z - 0.55) * 0.5) - 0.07
    c.paint(c.inside(arch) * (c.z > 0.2), 50 + contrast)
    trachea = np.hypot((c.x + 0.01) * 1.1, c.y + 0.10) - c.vary(0.05, 0.15)
    c.paint(c.inside(trachea) * c.inside(0.3 - c.z, 0.1), -980.0)

    # Bronchi and vessels: trees that grow from the hilum outwards.
    for value, size, count in ((-20.0, 0.030, 9), (-960.0, 0.020, 3)):
        trees = [_tree(rng, side, size, count) for side in (-1, 1)]
        points, radii = (np.concatenate(part) for part in zip(*trees, strict=True))
        c.paint(c.stamp_tubes(points, radii) * lungs, value if value > -500 else -960.0)

    _spine_and_ribs(c, wall, depth)

    table = np.abs(c.y + depth + 0.10 - 0.10 * c.x**2) - 0.022
    c.paint(c.inside(np.maximum(table, np.abs(c.x) - 0.8)) * (body > 0.01), -200.0)
    c.image += 6 * rng.standard_normal(c.shape).astype(np.float32) * (c.image > -990)
    hu = np.clip(c.image, -1000, 2500)
    # In RAS, x grows towards the right hand of the patient: the heart, drawn at high x, belongs at low x.
    return torch.from_numpy((MU_WATER * (1 + hu[:, :, ::-1] / 1000)).astype(np.float32))


def _spine_and_ribs(c: _Canvas, wall: Array, depth: float) -> None:
    """Vertebrae with discs, canal and processes; twelve pairs of oblique ribs; the breastbone."""
    rng = c.rng
    back = -depth + 0.26
    vertebra = c.ellipsoid((0, back, 0), (c.vary(0.115, 0.1), c.vary(0.095, 0.1), 1e3), power=2.6)
    marrow = rng.uniform(150, 260)
    disc = np.clip(1.6 * np.cos(2 * np.pi * (2.6 * c.z + rng.uniform())) - 0.9, 0, 1)
    c.paint(c.inside(vertebra), 620.0 - 480 * disc)
    c.paint(c.inside(vertebra + 0.022), (marrow + 40 * c.field(0.03)) * (1 - disc) + 90 * disc)
    arch = np.abs(np.hypot(c.x, (c.y - back + 0.135) * 1.1) - 0.07) - 0.022
    c.paint(c.inside(arch), 480.0)
    c.paint(c.inside(np.hypot(c.x, (c.y - back + 0.135) * 1.1) - 0.048), 30.0)  # canal
    process = np.maximum(np.abs(c.x) - 0.016, np.abs(c.y - back + 0.25) - 0.06)
    c.paint(c.inside(process) * (1 - disc), 380.0)
    for side in (-1, 1):
        transverse = c.ellipsoid((side * 0.14, back - 0.10, 0), (0.085, 0.022, 1e3), side * 0.35)
        c.paint(c.inside(transverse) * (1 - disc), 360.0)

    # Ribs run in a shell around the chest and fall from back to front, so that a slice cuts them obliquely.
    angle = np.arctan2(np.abs(c.x), -(c.y - 0.02))  # 0 at the back, pi at the front
    spacing = c.vary(0.27, 0.1)
    phase = (c.z + 0.34 * angle + rng.uniform(0, spacing)) % spacing / spacing - 0.5
    rib = np.hypot((wall + 0.005) * 1.0, phase * spacing * 0.55) - c.vary(0.024, 0.15)
    rib = np.maximum(rib, angle - 2.55)
    c.paint(c.inside(rib), 620.0)
    c.paint(c.inside(rib + 0.014), 220.0)
    sternum = np.maximum(np.abs(c.x) - 0.085, np.abs(wall + 0.01) - 0.024)
    sternum = np.maximum(sternum, -c.y)
    c.paint(c.inside(sternum) * c.inside(-0.4 - c.z, 0.1), 380.0)
    c.paint(c.inside(sternum + 0.014) * c.inside(-0.4 - c.z, 0.1), 140.0)


def _tree(rng: np.random.Generator, side: int, size: float, count: int) -> tuple[Array, Array]:
    """Points and radii of branching tubes in one lung, from the hilum outwards."""
    points: list[Array] = []
    radii: list[Array] = []
    stack = []
    for _ in range(count):
        direction = rng.normal(size=3) * (0.6, 0.7, 0.8) + (0.8 * side, -0.1, 0.0)
        stack.append((np.array([0.17 * side, -0.02, 0.0]), direction, size * rng.uniform(0.6, 1.1), 0))
    while stack:
        start, direction, radius, depth = stack.pop()
        direction = direction / np.linalg.norm(direction)
        length = rng.uniform(0.12, 0.26) * (0.85**depth)
        steps = np.linspace(0, 1, 48)[:, None]
        bend = rng.normal(size=3) * 0.04
        points.append(start + direction * length * steps + bend * steps**2)
        radii.append(np.linspace(radius, 0.8 * radius, 48))
        if depth < 6 and radius > 0.004:
            for _ in range(2):
                turn = direction + 0.55 * rng.normal(size=3)
                stack.append((points[-1][-1], turn, radius * rng.uniform(0.62, 0.85), depth + 1))
    return np.concatenate(points), np.concatenate(radii)


CONTRASTS = {
    # fat, skull, marrow, csf, grey, white, deep grey, muscle, vessel
    "t1": (1.15, 0.10, 0.75, 0.18, 0.55, 0.80, 0.62, 0.45, 0.25),
    "t2": (0.75, 0.08, 0.50, 1.10, 0.62, 0.45, 0.48, 0.30, 0.12),
    "flair": (0.80, 0.08, 0.50, 0.12, 0.85, 0.65, 0.72, 0.42, 0.15),
}


def head_phantom(shape: Sequence[int] = (48, 128, 128), seed: int = 0, contrast: str | None = "t1") -> Tensor:
    """A head-like volume ``(Z, Y, X)`` float32 of MRI magnitudes, 99.5th percentile 1, about 240 mm wide.

    Scalp, skull with marrow, folded grey and white matter, ventricles, deep nuclei, eyes, sinuses, vessels, a bias
    field and texture.

    Args:
        shape: ``(Z, Y, X)``.
        seed: of the anatomy.
        contrast: ``t1``, ``t2``, ``flair``, or none for one by the seed.

    Raises:
        InputError: a shape that is not three positive numbers, or an unknown contrast.
    """
    c = _Canvas(shape, seed, bend=0.012)
    rng = c.rng
    if contrast is None:
        contrast = str(rng.choice(list(CONTRASTS)))
    if contrast not in CONTRASTS:
        raise InputError(f"contrast {contrast!r} is unknown; there are {', '.join(CONTRASTS)}")
    fat, skull, marrow, csf, grey, white, deep, muscle, vessel = (c.vary(v, 0.08) for v in CONTRASTS[contrast])
    a, b, top = c.vary(0.62, 0.06), c.vary(0.77, 0.05), 1.15
    z = c.z - 0.05

    head = c.ellipsoid((0, 0, -0.1), (a + 0.09, b + 0.08, top + 0.08), power=2.2)
    scalp = c.vary(0.035, 0.3)
    c.paint(c.inside(head), muscle)
    c.paint(c.inside(head + 0.012) * (1 - c.inside(head + scalp)), fat)
    c.paint(c.inside(head + scalp), skull)
    c.paint(c.inside(head + scalp + 0.022) * (1 - c.inside(head + scalp + 0.036)), marrow)
    brain = c.ellipsoid((0, -0.01, -0.1), (a - 0.02, b - 0.02, top - 0.06), power=2.15)
    c.paint(c.inside(brain - 0.012), csf)

    # Folded cortex: the depth of grey matter follows sulci, which are the zeros of a random field.
    near = np.clip(1 + brain / 0.34, 0, 1) ** 0.5  # folds reach some 40 mm deep
    valley = np.abs(c.field(0.26) + 0.35 * c.field(0.12))
    c.paint(c.inside(brain + 0.015), grey)
    ridge = np.clip((valley - 0.62 * near) / 0.12 + 0.5, 0, 1)  # what lies far from a sulcus is white matter
    c.paint(c.inside(brain + 0.055) * ridge, white)
    c.paint(np.clip((0.20 - valley) / 0.12, 0, 1) * c.inside(brain + 0.02) * np.clip(2.5 * near - 0.9, 0, 1), csf)
    fissure = np.maximum(np.abs(c.x + 0.008 * c.field(0.3)) - 0.010, 0.35 - np.abs(c.y))
    c.paint(c.inside(fissure) * c.inside(brain), csf)

    # Deep nuclei, ventricles.
    for side in (-1, 1):
        c.paint(c.inside(c.ellipsoid((side * 0.11, -0.08, -0.02), (0.085, 0.13, 0.22), side * 0.3)), deep)
        c.paint(c.inside(c.ellipsoid((side * 0.23, 0.08, 0.0), (0.07, 0.17, 0.26), side * -0.25)), deep)
        size = c.vary(1.0, 0.35)
        for center, radii, angle in (
            ((side * 0.085, 0.20, 0.12), (0.045 * size, 0.16, 0.20), side * -0.28),  # frontal horn
            ((side * 0.095, 0.00, 0.20), (0.042 * size, 0.26, 0.13), side * 0.05),  # body
            ((side * 0.17, -0.28, 0.06), (0.050 * size, 0.17, 0.20), side * 0.35),  # occipital horn
            ((side * 0.30, -0.08, -0.22), (0.028 * size, 0.16, 0.10), side * 0.2),  # temporal horn
        ):
            c.paint(c.inside(c.ellipsoid(center, radii, angle)), csf)
    c.paint(c.inside(c.ellipsoid((0, -0.02, -0.02), (0.018, 0.12, 0.20))), csf)  # third ventricle

    # Hindbrain below, face in front of it.
    low = c.inside(z + 0.45, 0.05)
    cerebellum = c.ellipsoid((0, -0.40, -0.75), (0.42, 0.26, 0.36))
    leaves = 0.5 + 0.5 * np.sin(60 * np.hypot(c.x * 0.6, c.y + 0.1) + 2 * c.field(0.2))
    c.paint(c.inside(cerebellum - 0.012) * low, csf)
    c.paint(c.inside(cerebellum) * low, grey + (white - grey) * leaves)
    c.paint(c.inside(c.ellipsoid((0, -0.08, -0.75), (0.12, 0.11, 0.5))) * low, white)
    c.paint(c.inside(c.ellipsoid((0, -0.24, -0.75), (0.04, 0.03, 0.2))) * low, csf)
    face = c.inside(np.maximum(brain - 0.02, 0.30 - c.y)) * c.inside(z + 0.55, 0.05)
    c.paint(face, muscle + 0.1 * c.field(0.1))
    for side in (-1, 1):
        c.paint(c.inside(c.ellipsoid((side * 0.24, b - 0.17, -0.78), (0.16, 0.17, 0.22))), fat * 0.85)
        c.paint(c.inside(c.ellipsoid((side * 0.24, b - 0.13, -0.78), (0.105, 0.105, 0.16))), csf)
    c.paint(c.inside(c.ellipsoid((0, b - 0.13, -0.85), (0.09, 0.14, 0.28))), 0.02)  # sinuses

    for px, py, radius in ((0.0, -b + 0.03, 0.025), (-0.05, 0.12, 0.014), (0.05, 0.12, 0.014), (0.0, b - 0.05, 0.016)):
        c.paint(c.inside(np.hypot(c.x - px, c.y - py) - radius) * c.inside(brain), vessel)
    tissue = c.image > 0.03
    c.image *= 1 + 0.03 * c.field(0.03) * tissue
    c.image *= np.exp(0.10 * c.field(0.9))  # receive coil
    c.image *= c.inside(head)
    noise = 0.008 * rng.standard_normal((2, *c.shape)).astype(np.float32)
    magnitude = np.hypot(c.image + noise[0], noise[1])
    magnitude /= max(float(np.percentile(magnitude, 99.5)), 1e-6)
    return torch.from_numpy(magnitude.astype(np.float32))
