"""Demo volumes that the project draws itself: a chest for CT and a head for MRI.

Anatomy-like, not anatomy: signed distances in mm to closed shapes, drawn one over the other with edges a pixel wide, in
coordinates bent by a smooth random field. Each seed is another person, and the same person at every shape. The axes are
those of files that were read: ``x`` grows to the patient's right, ``y`` to the front, ``z`` to the head.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from lightning_mbir.data.volume import MU_WATER
from lightning_mbir.errors import InputError

Array = npt.NDArray[np.float32]
Segment = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], float, float]
"""A tapered tube: its two ends (x, y, z) and the radii there, in mm."""

SLICE_THICKNESS = 3.0
"""mm, or less where a stack would grow beyond the body."""


class _Canvas:
    """A volume under construction, with bent coordinates ``x``, ``y``, ``z`` in mm about its centre."""

    def __init__(self, shape: Sequence[int], seed: int, fov: float, height: float, bend: float) -> None:
        if len(shape) != 3 or any(int(n) != n or n < 1 for n in shape):
            raise InputError(f"shape {tuple(shape)}: a phantom needs three positive whole numbers (Z, Y, X)")
        if seed < 0:
            raise InputError(f"seed {seed}: give a whole number from 0 up")
        self.shape = tuple(int(n) for n in shape)
        self.rng = np.random.default_rng(seed)
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
        center: Sequence[float],
        radii: Sequence[float],
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

    def path(self, points: Sequence[Sequence[float]], radii: Sequence[float], grow: float = 0.0) -> Array:
        """Occupancy of one tube through ``points`` (x, y, z)."""
        p = np.asarray(points, np.float64)
        return self.tubes(list(zip(p[:-1], p[1:], radii[:-1], radii[1:], strict=True)), grow)

    def paint(self, mask: Array, value: float | Array) -> None:
        """Blend ``value`` over the image."""
        self.image += mask * (value - self.image)

    def vary(self, value: float, share: float) -> float:
        """``value``, up to ``share`` of it more or less."""
        return float(value * (1 + share * self.rng.uniform(-1, 1)))


def _union(a: Array, b: Array, k: float) -> Array:
    """Union of two signed distances with the seam rounded over ``k`` mm."""
    h = np.clip(0.5 + 0.5 * (b - a) / k, 0, 1)
    return np.asarray(b + (a - b) * h - k * h * (1 - h), np.float32)


def _rise(value: Array, middle: float, width: float) -> Array:
    """A smooth step from 0 to 1."""
    return np.asarray(0.5 + 0.5 * np.tanh((value - middle) / width), np.float32)


def _tree(rng: np.random.Generator, start: Sequence[float], toward: Sequence[float], radius: float) -> list[Segment]:
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


def chest_phantom(shape: Sequence[int] = (48, 128, 128), seed: int = 0) -> Tensor:
    """A chest-like volume ``(Z, Y, X)`` float32 of attenuation in 1/mm, 350 mm wide, slices 3 mm apart.

    Skin, fat, muscle, lungs with vessels, airways and fissures, heart with chambers, great vessels, spine with canal and
    discs, oblique ribs, breastbone, shoulder blades, liver, stomach, spleen, and the table. Air is 0.

    Raises:
        InputError: a shape that is not three positive whole numbers, or a negative seed.
    """
    c = _Canvas(shape, seed, fov=350, height=260, bend=3.5)
    rng, x, y, z = c.rng, c.x, c.y, c.z
    c.image[:] = -1000
    a, b, fat, yc = c.vary(149, 0.07), c.vary(107, 0.07), rng.uniform(7, 24), 12.0
    up = np.clip((z - 20) / 110, 0, 1)  # the chest narrows upwards
    x0 = c.x
    c.x = x0 / (1 - 0.14 * up**2)
    body = c.ellipsoid((0, yc, 0), (a, b), power=2.5)
    c.x = x0 / np.sqrt(1 - 0.7 * up**2)
    ca, cb, cy = a - fat - rng.uniform(9, 15), b - fat - 15, yc + 6
    cage = c.ellipsoid((0, cy, 0), (ca, cb), power=2.3)
    c.x = x0
    back = cy - cb + 16  # of the vertebral bodies
    grain = c.field(4)  # texture of soft tissue
    mottle = c.field(9)

    depth = fat * (1 + 0.22 * c.field(45))
    c.paint(c.inside(body), 40)
    c.paint(c.inside(body + 2.2), -102 + 6 * grain)
    muscle = c.inside(np.maximum(body + depth, -cage - 3))
    c.paint(muscle, 52 + 7 * grain)
    seam = np.abs(cage - 9 - 4 * c.field(28))  # fat between the layers of muscle
    c.paint(muscle * c.band(seam, 1.5) * _rise(c.field(35), 0, 0.4), -85)
    c.paint(c.inside(cage), -92 + 8 * grain + 60 * np.clip(mottle - 0.4, 0, 1.2))

    # What bounds the lungs: chest wall, mediastinum, diaphragm.
    hx, hy, hz = -20 + rng.uniform(-6, 4), cy + 20 + rng.uniform(-5, 5), -24 + rng.uniform(-6, 6)
    turn, tilt = rng.uniform(2.2, 2.6), rng.uniform(0.35, 0.6)  # the apex looks left, forward, down
    long = np.array([np.cos(turn) * np.cos(tilt), np.sin(turn) * np.cos(tilt), -np.sin(tilt)])
    wide = np.cross((0, 0, 1), long) / np.cos(tilt)
    size = c.vary(1, 0.1)
    dx, dy, dz = x - hx, y - hy, z - hz
    h = [dx * v[0] + dy * v[1] + dz * v[2] for v in (long, wide, np.cross(long, wide))]

    def part(center: Sequence[float], radii: Sequence[float]) -> Array:
        """Signed distance in the frame of the heart, in its size."""
        d = [p - size * o for p, o in zip(h, center, strict=True)]
        r = np.sqrt(sum((p / (size * w)) ** 2 for p, w in zip(d, radii, strict=True)))
        length = np.sqrt(sum(p * p for p in d))
        return np.asarray(length - (length + 1e-3) / (r + 1e-5), np.float32)

    heart = part((0, 0, 0), (54, 39, 38))
    column = c.ellipsoid((0, cy - 6, 0), (c.vary(29, 0.15), 0.62 * cb))
    middle = _union(column + 12 * _rise(-z, 15, 10), c.ellipsoid((0, back - 2, 0), (26, 23)), 10)
    middle = _union(middle, c.ellipsoid((-4, cy + cb - 22, 0), (10, 30)), 14)
    middle = _union(middle, heart - 4, 10) + 2.5 * c.field(14)
    domes = [c.vary(-42, 0.3), c.vary(-54, 0.25)]
    falls = [((x - s * 62) / 75) ** 2 + ((y - cy - 8) / 80) ** 2 for s in (1, -1)]
    dome = -_union(*(42 * f - top for f, top in zip(falls, domes, strict=True)), 12) + 2 * c.field(25)
    below = (z - dome) * 0.75  # negative below the diaphragm
    lungs = c.inside(np.maximum(np.maximum(cage + 8, -middle), 2 - below))

    # Abdomen: liver on the right, stomach and spleen on the left, crura and cava in between.
    abdomen = np.maximum(cage + 9, below + 1)
    c.paint(c.inside(np.maximum(cage + 8, np.abs(below) - 2)), 50)
    contrast = float(rng.choice([0.0, rng.uniform(40, 110), rng.uniform(120, 300)]))
    liver = np.maximum(abdomen, -(x + 32 + 0.35 * (y - cy) + 5 * c.field(30)))
    stomach = np.maximum(abdomen + 5, c.ellipsoid((-58, cy + 12, -98), (c.vary(42, 0.2), 36, 44), 0.4))
    spleen = np.maximum(abdomen + 3, c.ellipsoid((-0.70 * ca, cy - 28, -100), (26, 42, 44), -0.4))
    c.paint(c.inside(liver), 58 + 0.25 * contrast + 7 * grain)
    veins = [_tree(rng, (20, back + 25, -95), v, 5) for v in ((1, 0.3, 0.6), (0.6, 1, 0.5), (0.1, 1, 0.3))]
    c.paint(c.tubes([s for tree in veins for s in tree]) * c.inside(liver + 5), 48 + 0.45 * contrast)
    c.paint(c.inside(spleen), 52 + 0.35 * contrast + 6 * grain)
    c.paint(c.inside(stomach), 45)
    level = _rise(y, cy + 12 + rng.uniform(-15, 25), 0.5 * c.pixel)  # gas rises to the front
    c.paint(c.inside(stomach + 4), 12 + 8 * mottle - (1000 + 10 * mottle) * level)

    # Lungs: denser towards the back, where one lies.
    lung_value = rng.uniform(-890, -800) - 0.35 * (y - cy) + 16 * grain + 12 * mottle + 15 * c.field(25)
    c.paint(lungs, lung_value)
    for s in (1, -1):
        fissure = (z - 5 - 0.75 * (y - cy) + 3 * c.field(40)) * 0.8
        c.paint(c.band(fissure, 0.25) * lungs * (s * x > 0), -250)
    hila = [(s * 33.0, cy - 8, 14.0) for s in (1, -1)]
    vessels: list[Segment] = []
    airways: list[Segment] = []
    for hilum, s in zip(hila, (1, -1), strict=True):
        for ty, tz in 2 * ((-0.7, -0.9), (0.5, -0.8), (-0.3, 0.9), (0.8, 0.5), (-0.9, 0.1)):
            toward = np.array([s * rng.uniform(0.5, 1.2), ty, tz]) + 0.25 * rng.normal(size=3)
            vessels += _tree(rng, hilum, toward, rng.uniform(2.8, 4.4))
        for ty, tz in ((-0.8, -0.9), (0.5, 0.8), (0.5, -0.5)):
            tree = _tree(rng, (s * 31.0, cy - 10, 15.0), (s * 0.9, ty, tz), rng.uniform(3.0, 3.8))
            airways += [t for t in tree if t[2] > 1.9]
    c.paint(c.tubes(vessels) * lungs, 35 + 0.8 * contrast)
    c.paint(c.tubes(airways, 1.2) * lungs, -150)
    for _ in range(rng.integers(0, 4)):
        spot = (rng.choice([-1, 1]) * 0.6 * ca, cy + rng.uniform(-0.5, 0.5) * cb, rng.uniform(-50, 70))
        c.paint(c.inside(c.ellipsoid(spot, rng.uniform(2.5, 9, 3)) + 1.5 * mottle) * lungs, 30)

    # Heart in its fat, chambers, great vessels.
    c.paint(c.inside(heart - 3), -85)
    c.paint(c.inside(heart + 1), 55 + 0.35 * contrast + 5 * grain)
    groove = np.maximum(heart + 1, np.abs(h[0] + 9 * size) - 5 + 0.2 * np.clip(-heart, 0, 40))
    c.paint(c.inside(groove), -70)
    blood = 42 + contrast * rng.uniform(0.9, 1.1)
    right = 42 + contrast * rng.uniform(0.5, 1.3)
    for center, radii, value in (
        ((20, -12, 4), (30, 17, 17), blood),  # left ventricle
        ((12, 21, -8), (34, 13, 22), right),  # right ventricle
        ((-30, -15, 8), (17, 22, 22), blood),  # left atrium
        ((-28, 20, -6), (17, 17, 24), right),  # right atrium
    ):
        c.paint(c.inside(np.maximum(part(center, radii) + 0.8 * mottle, heart + 4)), value)
    down, rise, top = (-19.0, back + 16), (8.0, cy + 16), rng.uniform(48, 62)
    arch = [
        (*rise, hz + 10), (rise[0] + 6, rise[1], 20), (*rise, top - 12), (1, cy + 8, top),
        (-10, cy - 8, top), (-18, down[1] + 10, top - 8), (*down, top - 22), (down[0], down[1] - 2, -40),
        (-12, back + 20, -140),
    ]  # fmt: skip
    aorta = [r * c.vary(1, 0.12) for r in (13, 15, 15, 13, 12, 12, 12, 11.5, 10)]
    branches = (
        ([(22, cy + 8, 150), (25, cy + 10, 60), (27, cy + 8, -5)], (6, 8, 9), right),  # superior vena cava
        ([(22, cy - 2, -30), (24, back + 34, -130)], (12, 12), 45 + 0.4 * contrast),  # inferior vena cava
        ([(-12, cy + 28, 5), (-14, cy + 16, 22), (-20, cy - 2, 24), hila[1]], (12, 13, 9, 7), right),
        ([(-14, cy + 16, 22), (12, cy - 2, 18), hila[0]], (11, 9, 7), right),  # pulmonary arteries
        ([(8, cy + 4, top), (18, cy, 150)], (6, 5), blood),
        ([(-4, cy - 2, top), (-12, cy - 6, 150)], (4.5, 4), blood),
        ([(-14, cy - 12, top - 4), (-26, cy - 14, 150)], (5.5, 5), blood),
        ([(9, back + 17, 45), (7, back + 18, -140)], (4, 4), 45),  # azygos vein
        ([(-4, back + 28, 150), (-6, back + 26, 10), (-14, back + 30, -100)], (6, 6, 7), 38),  # oesophagus
    )
    for points, radii, value in branches:
        c.paint(c.path(points, radii, 1.0) * (1 - c.inside(heart + 3)), 45)
        c.paint(c.path(points, radii) * (1 - c.inside(heart + 3)), value)
    c.paint(c.path(arch, aorta, 1.2), 50)
    c.paint(c.path(arch, aorta), blood)
    fork = (4.0, cy - 14, 36.0)
    trachea = ([(4, cy - 6, 150), fork, (33, cy - 10, 14)], (8.5, 8, 5))
    bronchus = ([fork, (-33, cy - 10, 14)], (6.5, 4.5))
    for grow, value in ((1.6, 20), (0.0, -990)):
        for points, radii in (trachea, bronchus):
            c.paint(c.path(points, radii, grow), value)
    c.paint(c.tubes(airways) * lungs, -985)

    _skeleton(c, cage, body, back, cy)
    tz, ty, tx = c.flat
    table = ty - (yc - b - 3 - rng.uniform(0, 5)) - tx**2 / rng.uniform(900, 1800)
    thick = rng.uniform(18, 34)
    edge = np.abs(tx) - rng.uniform(150, 200)
    table = np.broadcast_to(np.maximum(np.maximum(table, -table - thick), edge), c.shape)
    outside = 1 - c.inside(body)
    c.paint(c.inside(table) * outside, rng.uniform(-250, -50))
    c.paint(c.inside(table + 3) * outside, -930)
    hu = np.clip(c.image, -1000, 2500)
    return torch.from_numpy((MU_WATER * (1 + hu / 1000)).astype(np.float32))


def _skeleton(c: _Canvas, cage: Array, body: Array, back: float, cy: float) -> None:
    """Ribs and their cartilage, breastbone, shoulder blades, vertebrae with discs, canal and processes."""
    rng, x, y, z = c.rng, c.x, c.y, c.z
    hard, soft = rng.uniform(550, 850), rng.uniform(130, 260)
    marrow = soft + 45 * c.field(4)

    def bone(distance: Array, shell: float, share: float | Array = 1.0) -> None:
        c.paint(c.inside(distance) * share, hard)
        c.paint(c.inside(distance + shell) * share, marrow)

    # A rib runs round the cage and falls from back to front, so that a slice cuts it obliquely.
    angle = np.arctan2(np.abs(x), cy - y)  # 0 at the back, pi in front
    gap, fall = c.vary(23, 0.08), c.vary(26, 0.15)
    start = rng.uniform(0, gap) + np.where(x > 0, rng.uniform(-3, 3), 0)
    height = (np.remainder(z + fall * angle - 6 * np.cos(2 * angle) + start, gap) - gap / 2) * 0.93
    rib = np.hypot((cage + 3.5) / 4.0, height / 6.5)
    rib = (rib - 1) * 4.6
    ends = c.vary(2.35, 0.05)
    cartilage = np.maximum(rib, (ends - angle) * 60)
    c.paint(c.inside(cartilage) * c.inside(-25 - z), 95)
    bone(np.maximum(rib, (angle - ends) * 60), 1.9)
    plate = np.maximum(np.maximum(np.abs(x) - 17 - 6 * _rise(z, 45, 8), np.abs(cage - 2) - 4.5), 20 - y)
    bone(np.maximum(plate, -42 - z), 1.6)
    for s in (1, -1):
        blade = np.abs(cage - 15 - 3 * np.sin(z / 20)) - 3.2
        blade = np.maximum(blade, np.abs(angle - 1.15) * 90 - 12 - 0.55 * np.clip(z, 0, 80))
        bone(np.maximum(np.maximum(blade, 8 - z), body + 8), 1.6, (s * x > 0).astype(np.float32))

    level = np.cos(2 * np.pi * (z / c.vary(24, 0.06) + rng.uniform()))
    disc = np.clip((level - 0.62) * 5, 0, 1)
    plates = np.clip(1 - np.abs(level - 0.55) * 5, 0, 1)
    radius = c.vary(17, 0.08)
    vertebra = c.ellipsoid((0, back, 0), (radius, 0.82 * radius), power=2.4) + 1.3 * (1 - disc) * (0.4 - level) * -1
    canal = (0.0, back - 1.32 * radius)
    arch = c.ellipsoid((*canal, 0), (13.5, 12.5))
    joint = np.clip((-level - 0.1) * 3, 0, 1)
    c.paint(c.inside(c.ellipsoid((0, canal[1] - 8, 0), (34, 19), power=2.5)), 50 + 8 * c.field(6))  # erector muscles
    c.paint(c.inside(vertebra), hard * (1 - disc) + 85 * disc)
    c.paint(c.inside(vertebra + 1.8), (marrow + 0.5 * hard * plates) * (1 - disc) + 85 * disc)
    bone(arch, 2.2, 0.35 + 0.65 * joint)
    for s in (1, -1):
        wing = c.ellipsoid((s * 24, canal[1] - 5, 0), (17, 4.5), s * -0.35)
        bone(wing, 2.0, joint)
    lean = np.maximum(np.abs(x) - 2.8, np.abs(y - (canal[1] - 20)) - 11)
    bone(lean, 1.6, np.clip(joint + 0.3, 0, 1))
    c.paint(c.inside(c.ellipsoid((*canal, 0), (9.5, 8.5))), -20)
    c.paint(c.inside(c.ellipsoid((*canal, 0), (7.5, 6.5))), 32)


CONTRASTS = {
    # fat, bone, marrow, csf, grey, white, nuclei, muscle, vessel, lesion, eye
    "t1": (1.05, 0.05, 0.55, 0.16, 0.50, 0.70, 0.57, 0.36, 0.25, 0.48, 0.14),
    "t2": (0.62, 0.05, 0.40, 1.05, 0.60, 0.42, 0.46, 0.22, 0.08, 0.85, 1.10),
    "flair": (0.72, 0.05, 0.40, 0.08, 0.70, 0.54, 0.60, 0.30, 0.12, 1.00, 0.10),
}


def head_phantom(
    shape: Sequence[int] = (48, 128, 128),
    seed: int = 0,
    contrast: str | None = "t1",
    noise: float = 0.0,
) -> Tensor:
    """A head-like volume ``(Z, Y, X)`` float32 of MRI magnitudes, 99.5th percentile 1, 240 mm wide, slices 3 mm apart.

    Scalp, skull with marrow, folded grey and white matter, ventricles with horns, deep nuclei, cerebellum, brain stem,
    eyes, sinuses, vessels, now and then white-matter lesions, a bias field and texture. Air is 0.

    Args:
        shape: ``(Z, Y, X)``.
        seed: of the anatomy.
        contrast: ``t1``, ``t2``, ``flair``, or none for one by the seed.
        noise: deviation of the complex noise whose magnitude is taken (Rician); 0 for none.

    Raises:
        InputError: a shape that is not three positive whole numbers, a negative seed or noise, an unknown contrast.
    """
    if contrast is not None and contrast not in CONTRASTS:
        raise InputError(f"contrast {contrast!r}: give one of {', '.join(CONTRASTS)}")
    if not noise >= 0:
        raise InputError(f"noise {noise}: give a deviation from 0 up")
    c = _Canvas(shape, seed, fov=240, height=165, bend=2.0)
    rng, x, y, z = c.rng, c.x, c.y, c.z
    drawn = str(rng.choice(list(CONTRASTS)))  # drawn in any case: the anatomy depends on the seed alone
    tissue = [c.vary(v, 0.07) for v in CONTRASTS[contrast or drawn]]
    fat, bone, marrow, csf, grey, white, nuclei, muscle, vessel, lesion, eye = tissue
    grain, side = c.field(3), np.abs(x)
    wide, long, top = c.vary(66, 0.05), c.vary(84, 0.05), c.vary(74, 0.05)

    # The brain: an egg, wider at the back, cut off below by the base of the skull.
    egg = (x * (1 + 0.0009 * (y + 10)), y, np.where(z > 0, z, z * top / 130))
    r = sum(np.abs(e / n) ** 2.2 for e, n in zip(egg, (wide, long, top), strict=True)) ** (1 / 2.2) + 1e-4
    ray = np.sqrt(x * x + y * y + z * z)
    dome = np.asarray(ray - ray / r, np.float32)
    floor = -12 - 14 * _rise(y, 22, 14) + (10 - 0.33 * side) * _rise(-y, 36, 12)
    temporal = [c.ellipsoid((s * 40, 0, -26), (24, 42, 24), s * -0.15) for s in (1, -1)]
    cerebrum = _union((floor - z) * 0.85, np.minimum(*temporal), 12)
    cerebrum = -_union(-cerebrum, -dome, 10)
    lobes = [c.ellipsoid((s * 24, -52, -42), (30, 29, 24), s * 0.25) for s in (1, -1)]
    cerebellum = np.maximum(_union(*lobes, 6), (z - floor + 3) * 0.85)
    stem = c.path([(0, -16, -6), (0, -14, -20), (0, -12, -34), (0, -22, -58), (0, -27, -100)], (15, 13, 15, 9, 8))
    stem_near = np.where(stem > 0, -3, c.ellipsoid((0, -16, -35), (17, 15, 45)))
    cavity = _union(_union(cerebrum, cerebellum, 8), stem_near, 8) - c.vary(3.0, 0.4)

    _outside(c, dome, cavity, (fat, bone, marrow, muscle, eye), long)
    c.paint(c.inside(cavity + 0.5), csf)

    # Folds. A sulcus is a sheet that runs inwards from the surface, a zero of a random field that hardly changes along
    # the way in; what is near a sheet or the surface is grey, what is nearer still is fluid, and the core is white.
    sheet = _sulci(c, r**-0.5) * r**0.5
    callosum = 20 - 0.004 * (y - 4) ** 2
    inward = np.minimum(np.maximum(-cerebrum, 0), side + 3 * np.maximum(callosum + 9 - z, 0))
    deep = c.vary(17, 0.15) + 5 * c.field(14)
    pial = np.minimum(-cerebrum, np.hypot(sheet, np.maximum(inward - deep, 0)))
    gap = np.hypot(side + 0.6 * c.field(12), np.maximum(callosum - z, 0))
    pial = np.minimum(pial, gap)
    sylvian = z + 2 - 0.30 * (y - 5) + 2 * c.field(14)
    pocket = np.maximum(np.abs(y - 4) - 24, 0)
    island = c.vary(39, 0.05) + 0.01 * (y - 5) ** 2 + 2 * c.field(10)
    pial = np.minimum(pial, np.hypot(np.hypot(sylvian, np.maximum(island - side, 0)), pocket))
    pial = np.minimum(pial, np.hypot(np.hypot(side - island, np.maximum(np.abs(sylvian) - 13, 0)), pocket))
    atrophy = rng.uniform(0.35, 0.9)
    fluid = atrophy * np.clip(1.3 - inward / 30, 0.5, 1.3)
    ribbon = rng.uniform(2.6, 3.3) + fluid
    within = c.inside(cerebrum)
    c.paint(within, grey)
    c.paint(c.inside(ribbon - pial) * within, white)
    c.paint(c.band(pial, fluid) * within, csf)
    c.paint(c.inside(c.ellipsoid((0, 2, 20), (13, 40, 6))) * c.inside(-cerebrum - 12), white)  # corpus callosum

    # Deep nuclei, ventricles with frontal, occipital and temporal horns.
    size = rng.uniform(0.75, 1.5)
    c.paint(c.inside(c.ellipsoid((0, -6, -8), (14, 20, 10))), 0.5 * (grey + white))
    fluids = []
    for s in (1, -1):
        c.paint(c.inside(c.ellipsoid((s * 11.5, -13, 3), (9.5, 15, 10), s * -0.3)), nuclei)  # thalamus
        c.paint(c.inside(c.ellipsoid((s * 26, 5, 2), (6, 17, 11), s * 0.2)), 0.5 * (nuclei + grey))  # putamen
        c.paint(c.inside(c.ellipsoid((s * 19.5, 1, 0), (4.5, 10, 7), s * 0.35)), 0.4 * nuclei + 0.6 * white)
        head = [(s * 15, 22, 4), (s * 16, 10, 18), (s * 19, -10, 21), (s * 24, -26, 16)]
        c.paint(c.path(head, (7.5, 5, 3.5, 2.5)), nuclei)  # caudate
        horns = ([(s * 13, 34, 8), (s * 9, 20, 14), (s * 10, 0, 20), (s * 14, -18, 20), (s * 23, -36, 11), (s * 23, -62, 5)],
                 [(s * 23, -36, 10), (s * 31, -24, -10), (s * 31, -4, -21)])  # fmt: skip
        for points, radii in zip(horns, ((2.5, 4.5, 4.5, 4.5, 6, 1.5), (5, 2.2, 2)), strict=True):
            fluids.append(c.path(points, [v * size * rng.uniform(0.9, 1.1) for v in radii]))
    for _ in range(int(rng.choice([0, 0, rng.integers(3, 14)]))):  # lesions, most of them by the ventricles
        spot = (rng.choice([-1, 1]) * rng.uniform(15, 32), rng.uniform(-50, 40), rng.uniform(8, 34))
        c.paint(c.inside(c.ellipsoid(spot, rng.uniform(1.5, 5, 3)) + 0.8 * grain) * c.inside(8 - pial), lesion)
    for horn in fluids:
        c.paint(horn, csf)
    c.paint(c.inside(c.ellipsoid((0, -6, -2), (1.3 + 1.2 * size, 15, 11))), csf)  # third ventricle

    # Hindbrain: leaves of grey around a white core; brain stem; fourth ventricle.
    leaves = np.sin(2 * np.pi * (np.hypot(np.hypot(0.55 * x, y + 26), z + 36) + 2.5 * c.field(12)) / 5.5)
    crust = np.clip((cerebellum + 12) / 6, 0, 1)
    c.paint(c.inside(cerebellum), white + (grey - white) * np.clip(crust + 0.35 * leaves + 0.15, 0, 1))
    c.paint(c.inside(cerebellum) * np.clip(leaves - 0.55, 0, 1) * crust, csf)
    c.paint(stem, 0.25 * grey + 0.75 * white)
    c.paint(c.inside(c.ellipsoid((0, -29, -36), (7 * size**0.5, 4.5, 10))), csf)

    # Vessels: the sagittal sinus, the large arteries; dark where the blood runs.
    sinus = np.hypot(x, cavity + 1.5) - rng.uniform(2.5, 4)
    c.paint(c.inside(np.maximum(sinus, -z - 0.3 * y - 8)), vessel + 0.1)
    ring = [[(0, -3 + 6, -60), (0, 2, -36), (0, 1, -14)]]
    ring += [[(s * 24, 5, -70), (s * 16, 6, -34), (s * 9, 8, -17), (s * 24, 10, -12), (s * 40, 8, -6)] for s in (1, -1)]
    ring += [[(s * 9, 8, -17), (s * 1.5, 24, -10), (s * 1.5, 46, 8), (s * 1.5, 20, 27)] for s in (1, -1)]
    for points in ring:
        c.paint(c.path(points, np.linspace(2.2, 1.2, len(points)).tolist()), vessel)

    c.image *= 1 + 0.025 * grain + 0.02 * c.field(8)
    tilt = 0.5 * c.field(110) + 0.25 * np.clip(dome / 60, -1, 0.3)  # surface coils: brighter outside
    c.image *= np.exp(rng.uniform(0.1, 0.35) * tilt)
    magnitude = np.clip(c.image, 0, None)
    magnitude /= max(float(np.percentile(magnitude, 99.5)), 1e-6)
    if noise:
        real, imaginary = noise * rng.standard_normal((2, *c.shape), dtype=np.float32)
        magnitude = np.hypot(magnitude + real, imaginary)
    return torch.from_numpy(magnitude.astype(np.float32))


def _sulci(c: _Canvas, stretch: Array) -> Array:
    """Distance (mm, roughly) to the sulci, which are the zeros of a band-limited field, at ``stretch`` times the place."""
    step, half = 2.5, 140.0
    nodes = int(2 * half / step) + 1
    white = c.rng.standard_normal((nodes, nodes, nodes), dtype=np.float32)
    fine, coarse = ndimage.gaussian_filter(white, 2.0), ndimage.gaussian_filter(white, 3.0)
    band = fine / fine.std() - 0.8 * coarse / coarse.std()
    slope = np.sqrt(sum(g * g for g in np.gradient(band, step)))
    sheet = np.abs(band) / np.sqrt(slope**2 + (0.35 * slope.mean()) ** 2)
    places = [np.clip(p * stretch, -half, half) / step + (nodes - 1) / 2 for p in (c.z, c.y, c.x)]
    return np.asarray(ndimage.map_coordinates(sheet, np.stack(places), order=1), np.float32)


def _outside(c: _Canvas, dome: Array, cavity: Array, tissue: Sequence[float], long: float) -> None:
    """Scalp, skull, and below them the face: orbits with eyes, sinuses, the base of the skull, muscles."""
    rng, x, y, z = c.rng, c.x, c.y, c.z
    fat, bone, marrow, muscle, eye = tissue
    skull = rng.uniform(6, 8.5)
    head = dome - 3 - skull - rng.uniform(5, 8)
    nose = c.ellipsoid((0, long + 4, -54), (14, 17, 20))
    head = _union(head, nose, 10)
    scalp = rng.uniform(3.0, 6.0) + 0.8 * c.field(20)
    c.paint(c.inside(head), muscle)
    c.paint(c.inside(head + 1.3), fat * (1 + 0.06 * c.field(5)))
    c.paint(c.inside(head + 1.3 + scalp), muscle * (1 + 0.12 * c.field(5)))
    low = _rise(-z, 24, 5)
    seams = np.clip(1.2 - 6 * np.abs(c.field(9)), 0, 1) * low  # fat between the muscles of the face and neck
    c.paint(c.inside(head + 8) * seams, 0.8 * fat)
    c.paint(c.inside(cavity - skull), bone)
    c.paint(c.band(cavity - 0.5 * skull + 0.5 * c.field(15), 0.27 * skull), marrow * (1 + 0.1 * c.field(4)))
    for s in (1, -1):
        petrous = c.ellipsoid((s * 42, -14, -44), (26, 9, 10), s * -0.4)
        c.paint(c.inside(petrous), bone + 0.25 * marrow * np.clip(c.field(4), 0, 1))
        orbit = (s * 31, long - 17, -34)
        c.paint(c.inside(c.ellipsoid(orbit, (21, 26, 20), s * 0.25)) * c.inside(head + 3), bone)
        c.paint(c.inside(c.ellipsoid(orbit, (18.5, 24, 17), s * 0.25)) * c.inside(head + 2), 0.95 * fat)
        ball = (s * 31, long - 9, -34)
        for dx, dz in ((-11, 0), (10, 0), (0, 10), (0, -10)):
            run = [(s * (31 + dx), long - 14, -34 + dz), (s * 17, long - 44, -31)]
            c.paint(c.path(run, (2.2, 1.2)), muscle)
        c.paint(c.path([ball, (s * 16, long - 48, -30)], (2.2, 2.2)), 0.9 * muscle)
        c.paint(c.inside(c.ellipsoid(ball, (13, 13, 13))), 0.8 * muscle)
        c.paint(c.inside(c.ellipsoid(ball, (11.8, 11.8, 11.8))), eye)
        c.paint(c.inside(c.ellipsoid((ball[0], ball[1] + 8.5, -34), (4.5, 2.2, 4.5))), muscle)
        c.paint(c.inside(c.ellipsoid((s * 30, long - 28, -66), (15, 17, 15)) + 1.5 * c.field(9)), 0.01)  # maxillary
    cells = c.inside(1 - 9 * np.abs(c.field(6)))
    c.paint(c.inside(c.ellipsoid((0, long - 24, -40), (11, 26, 18))), 0.02 + 0.9 * muscle * (1 - cells))
    c.paint(c.inside(c.ellipsoid((0, 30, -38), (12, 11, 9))), 0.01)  # sphenoid sinus
    c.paint(c.inside(c.ellipsoid((0, long + 8, -8), (15, 4, 10))) * c.inside(-cavity), 0.01)  # frontal sinus
