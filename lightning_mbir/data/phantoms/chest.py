"""The chest phantom."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from lightning_mbir.data.phantoms.canvas import Array, Canvas, Point, Segment, grow_tree, smooth_step, union
from lightning_mbir.data.units import MU_WATER
from lightning_mbir.kinds import check_kinds


def chest_phantom(shape: Sequence[int] = (48, 128, 128), seed: int = 0) -> Float32[Tensor, "z y x"]:
    """A chest-like volume ``(Z, Y, X)`` float32 of attenuation in 1/mm, 350 mm wide, slices 3 mm apart.

    Skin, fat, muscle, lungs with vessels, airways and fissures, heart with chambers, great vessels, spine with canal
    and discs, oblique ribs, breastbone, shoulder blades, liver, stomach, spleen, and the table. Air is 0.

    Raises:
        InputError: a shape that is not three positive whole numbers, or a negative seed.
    """
    check_kinds(chest_phantom, locals())
    c = Canvas(shape, seed, fov=350, height=260, bend=3.5)
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
    c.paint(muscle * c.band(seam, 1.5) * smooth_step(c.field(35), 0, 0.4), -85)
    c.paint(c.inside(cage), -92 + 8 * grain + 60 * np.clip(mottle - 0.4, 0, 1.2))

    # What bounds the lungs: chest wall, mediastinum, diaphragm.
    hx, hy, hz = -20 + rng.uniform(-6, 4), cy + 20 + rng.uniform(-5, 5), -24 + rng.uniform(-6, 6)
    turn, tilt = rng.uniform(2.2, 2.6), rng.uniform(0.35, 0.6)  # the apex looks left, forward, down
    long = np.array([np.cos(turn) * np.cos(tilt), np.sin(turn) * np.cos(tilt), -np.sin(tilt)])
    wide = np.cross((0, 0, 1), long) / np.cos(tilt)
    size = c.vary(1, 0.1)
    dx, dy, dz = x - hx, y - hy, z - hz
    h = [dx * v[0] + dy * v[1] + dz * v[2] for v in (long, wide, np.cross(long, wide))]

    def part(center: Point, radii: Point) -> Array:
        """Signed distance in the frame of the heart, in its size."""
        d = [p - size * o for p, o in zip(h, center, strict=True)]
        r = np.sqrt(sum((p / (size * w)) ** 2 for p, w in zip(d, radii, strict=True)))
        length = np.sqrt(sum(p * p for p in d))
        return np.asarray(length - (length + 1e-3) / (r + 1e-5), np.float32)

    heart = part((0, 0, 0), (54, 39, 38))
    column = c.ellipsoid((0, cy - 6, 0), (c.vary(29, 0.15), 0.62 * cb))
    middle = union(column + 12 * smooth_step(-z, 15, 10), c.ellipsoid((0, back - 2, 0), (26, 23)), 10)
    middle = union(middle, c.ellipsoid((-4, cy + cb - 22, 0), (10, 30)), 14)
    middle = union(middle, heart - 4, 10) + 2.5 * c.field(14)
    domes = [c.vary(-42, 0.3), c.vary(-54, 0.25)]
    falls = [((x - s * 62) / 75) ** 2 + ((y - cy - 8) / 80) ** 2 for s in (1, -1)]
    dome = -union(42 * falls[0] - domes[0], 42 * falls[1] - domes[1], 12) + 2 * c.field(25)
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
    veins = [grow_tree(rng, (20, back + 25, -95), v, 5) for v in ((1, 0.3, 0.6), (0.6, 1, 0.5), (0.1, 1, 0.3))]
    c.paint(c.tubes([s for tree in veins for s in tree]) * c.inside(liver + 5), 48 + 0.45 * contrast)
    c.paint(c.inside(spleen), 52 + 0.35 * contrast + 6 * grain)
    c.paint(c.inside(stomach), 45)
    level = smooth_step(y, cy + 12 + rng.uniform(-15, 25), 0.5 * c.pixel)  # gas rises to the front
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
            vessels += grow_tree(rng, hilum, toward, rng.uniform(2.8, 4.4))
        for ty, tz in ((-0.8, -0.9), (0.5, 0.8), (0.5, -0.5)):
            tree = grow_tree(rng, (s * 31.0, cy - 10, 15.0), (s * 0.9, ty, tz), rng.uniform(3.0, 3.8))
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
    for center, half, value in (
        ((20, -12, 4), (30, 17, 17), blood),  # left ventricle
        ((12, 21, -8), (34, 13, 22), right),  # right ventricle
        ((-30, -15, 8), (17, 22, 22), blood),  # left atrium
        ((-28, 20, -6), (17, 17, 24), right),  # right atrium
    ):
        c.paint(c.inside(np.maximum(part(center, half) + 0.8 * mottle, heart + 4)), value)
    down, rise, top = (-19.0, back + 16), (8.0, cy + 16), rng.uniform(48, 62)
    arch: list[Sequence[float]] = [
        (*rise, hz + 10), (rise[0] + 6, rise[1], 20), (*rise, top - 12), (1, cy + 8, top),
        (-10, cy - 8, top), (-18, down[1] + 10, top - 8), (*down, top - 22), (down[0], down[1] - 2, -40),
        (-12, back + 20, -140),
    ]  # fmt: skip
    aorta = [r * c.vary(1, 0.12) for r in (13, 15, 15, 13, 12, 12, 12, 11.5, 10)]
    branches: tuple[tuple[list[Sequence[float]], Sequence[float], float], ...] = (
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
    trachea: tuple[list[Sequence[float]], Sequence[float]] = ([(4, cy - 6, 150), fork, (33, cy - 10, 14)], (8.5, 8, 5))
    bronchus: tuple[list[Sequence[float]], Sequence[float]] = ([fork, (-33, cy - 10, 14)], (6.5, 4.5))
    for grow, value in ((1.6, 20), (0.0, -990)):
        for points, radii in (trachea, bronchus):
            c.paint(c.path(points, radii, grow), value)
    c.paint(c.tubes(airways) * lungs, -985)

    _skeleton(c, cage, body, back, cy)
    flat_y, flat_x = c.flat[1:]
    surface = flat_y - (yc - b - 3 - rng.uniform(0, 5)) - flat_x**2 / rng.uniform(900, 1800)
    thick = rng.uniform(18, 34)
    edge = np.abs(flat_x) - rng.uniform(150, 200)
    table = np.broadcast_to(np.maximum(np.maximum(surface, -surface - thick), edge), c.shape)
    outside = 1 - c.inside(body)
    c.paint(c.inside(table) * outside, rng.uniform(-250, -50))
    c.paint(c.inside(table + 3) * outside, -930)
    hu = np.clip(c.image, -1000, 2500)
    return torch.from_numpy((MU_WATER * (1 + hu / 1000)).astype(np.float32))


def _skeleton(c: Canvas, cage: Array, body: Array, back: float, cy: float) -> None:
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
    plate = np.maximum(np.maximum(np.abs(x) - 17 - 6 * smooth_step(z, 45, 8), np.abs(cage - 2) - 4.5), 20 - y)
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
