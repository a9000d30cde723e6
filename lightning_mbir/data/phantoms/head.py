"""The head phantom."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float32
from scipy import ndimage
from torch import Tensor

from lightning_mbir.data.phantoms.canvas import Array, Canvas, smooth_step, union
from lightning_mbir.errors import InputError
from lightning_mbir.kinds import check_kinds

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
) -> Float32[Tensor, "z y x"]:
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
    check_kinds(head_phantom, locals())
    if contrast is not None and contrast not in CONTRASTS:
        raise InputError(f"contrast {contrast!r}: give one of {', '.join(CONTRASTS)}")
    if not noise >= 0:
        raise InputError(f"noise {noise}: give a deviation from 0 up")
    c = Canvas(shape, seed, fov=240, height=165, bend=2.0)
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
    floor = -12 - 14 * smooth_step(y, 22, 14) + (10 - 0.33 * side) * smooth_step(-y, 36, 12)
    temporal = [c.ellipsoid((s * 40, 0, -26), (24, 42, 24), s * -0.15) for s in (1, -1)]
    cerebrum = union((floor - z) * 0.85, np.minimum(*temporal), 12)
    cerebrum = -union(-cerebrum, -dome, 10)
    lobes = tuple(c.ellipsoid((s * 24, -52, -42), (30, 29, 24), s * 0.25) for s in (1, -1))
    cerebellum = np.maximum(union(lobes[0], lobes[1], 6), (z - floor + 3) * 0.85)
    stem = c.path([(0, -16, -6), (0, -14, -20), (0, -12, -34), (0, -22, -58), (0, -27, -100)], (15, 13, 15, 9, 8))
    stem_near = np.where(stem > 0, -3, c.ellipsoid((0, -16, -35), (17, 15, 45)))
    cavity = union(union(cerebrum, cerebellum, 8), stem_near, 8) - c.vary(3.0, 0.4)

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
        body = [(s * 13, 34, 8), (s * 9, 20, 14), (s * 10, 0, 20), (s * 14, -18, 20), (s * 23, -36, 11)]
        horns = ([*body, (s * 23, -62, 5)], [(s * 23, -36, 10), (s * 31, -24, -10), (s * 31, -4, -21)])
        for way, radii in zip(horns, ((2.5, 4.5, 4.5, 4.5, 6, 1.5), (5, 2.2, 2)), strict=True):
            fluids.append(c.path(way, [v * size * rng.uniform(0.9, 1.1) for v in radii]))
    for _ in range(int(rng.integers(3, 14) * rng.choice([0, 0, 1]))):  # lesions, most of them by the ventricles
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
    ring: list[list[Sequence[float]]] = [[(0, 3, -60), (0, 2, -36), (0, 1, -14)]]
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


def _sulci(c: Canvas, stretch: Array) -> Array:
    """Distance (mm, roughly) to the sulci, zeros of a band-limited field, at ``stretch`` times the place."""
    step, half = 2.5, 140.0
    nodes = int(2 * half / step) + 1
    white = c.rng.standard_normal((nodes, nodes, nodes), dtype=np.float32)
    fine, coarse = ndimage.gaussian_filter(white, 2.0), ndimage.gaussian_filter(white, 3.0)
    band = fine / fine.std() - 0.8 * coarse / coarse.std()
    slope = np.sqrt(sum(g * g for g in np.gradient(band, step)))
    sheet = np.abs(band) / np.sqrt(slope**2 + (0.35 * slope.mean()) ** 2)
    places = [np.clip(p * stretch, -half, half) / step + (nodes - 1) / 2 for p in (c.z, c.y, c.x)]
    return np.asarray(ndimage.map_coordinates(sheet, np.stack(places), order=1), np.float32)


def _outside(c: Canvas, dome: Array, cavity: Array, tissue: Sequence[float], long: float) -> None:
    """Scalp, skull, and below them the face: orbits with eyes, sinuses, the base of the skull, muscles."""
    rng, z = c.rng, c.z
    fat, bone, marrow, muscle, eye = tissue
    skull = rng.uniform(6, 8.5)
    head = dome - 3 - skull - rng.uniform(5, 8)
    nose = c.ellipsoid((0, long + 4, -54), (14, 17, 20))
    head = union(head, nose, 10)
    scalp = rng.uniform(3.0, 6.0) + 0.8 * c.field(20)
    c.paint(c.inside(head), muscle)
    c.paint(c.inside(head + 1.3), fat * (1 + 0.06 * c.field(5)))
    c.paint(c.inside(head + 1.3 + scalp), muscle * (1 + 0.12 * c.field(5)))
    low = smooth_step(-z, 24, 5)
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
