"""Draws docs/figures/geometry.png from the operators themselves: rays are those that the matrices are made of.

python benchmarks/geometry_figure.py
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from lightning_mbir.physics import ConeBeam, FanBeam, ParallelBeam
from lightning_mbir.physics.ct.plane_beam import PlaneBeam

OUT = Path(__file__).resolve().parents[1] / "docs" / "figures" / "geometry.png"
ANGLE = 30.0
SIZE, PIXEL = 8, 10.0
FAN: dict[str, Any] = {"source_distance": 120.0, "detector_distance": 70.0, "pixel_size": PIXEL, "n_detectors": 9}
Point = tuple[float, float]


def turned(across: float, along: float) -> Point:
    """Point at ``across`` along the detector and ``along`` away from the source, at the drawn angle."""
    cos, sin = math.cos(math.radians(ANGLE)), math.sin(math.radians(ANGLE))
    return across * cos - along * sin, across * sin + along * cos


def foot(operator: PlaneBeam, i: int) -> tuple[np.ndarray, np.ndarray]:
    """The point of ray ``i`` nearest to the axis, and its direction."""
    cos, sin, s = (part[i] for part in operator.rays(ANGLE))
    return np.array([s * cos, s * sin]), np.array([-sin, cos])


def frame(ax: plt.Axes, title: str) -> None:
    half = SIZE * PIXEL / 2
    for k in range(SIZE + 1):
        ax.plot([-half, half], [k * PIXEL - half] * 2, color="0.85", lw=0.8)
        ax.plot([k * PIXEL - half] * 2, [-half, half], color="0.85", lw=0.8)
    ax.text(-half + PIXEL / 2, -half + PIXEL / 2, "0,0", ha="center", va="center", fontsize=7)
    for tip, name in (((35, 0), "x (columns)"), ((0, 35), "y (rows)")):
        ax.annotate("", tip, (0, 0), arrowprops={"arrowstyle": "->", "color": "0.3"})
        ax.annotate(name, tip, fontsize=8, color="0.3", xytext=(3, 5), textcoords="offset points")
    ax.plot(0, 0, "k+", ms=9)
    ax.set(aspect="equal", title=title, xlabel="x, mm", ylabel="y, mm")
    ax.set_xlim(-150, 140)
    ax.set_ylim(130, -150)  # rows downwards, as an image is shown


def angle_mark(ax: plt.Axes) -> None:
    """The angle from the x axis to the direction of the detector."""
    arc = np.radians(np.linspace(0, ANGLE, 30))
    ax.plot(52 * np.cos(arc), 52 * np.sin(arc), "C3")
    ax.annotate("", turned(62, 0), (0, 0), arrowprops={"arrowstyle": "->", "color": "C3"})
    ax.text(56, 13, r"$\theta$", color="C3", fontsize=12)


def bins(ax: plt.Axes, points: list[Point], label: str) -> None:
    ax.plot(*np.array(points).T, "C0o-", ms=4)
    for i, text in ((0, "bin 0"), (len(points) - 1, label)):
        ax.annotate(text, points[i], color="C0", fontsize=8, xytext=(5, 7), textcoords="offset points")


def parallel(ax: plt.Axes) -> None:
    operator = ParallelBeam(SIZE, [ANGLE], n_detectors=9, pixel_size=PIXEL, detector_spacing=14.0)
    frame(ax, "ParallelBeam, $\\theta = 30°$")
    points = []
    for i in range(9):
        near, ray = foot(operator, i)
        points.append(tuple(near + 80 * ray))
        ax.annotate("", near + 78 * ray, near - 90 * ray, arrowprops={"arrowstyle": "->", "color": "C1", "lw": 0.7})
    bins(ax, points, "bin D-1, +s")
    angle_mark(ax)


def fan(ax: plt.Axes) -> None:
    flat = FanBeam(SIZE, [ANGLE], **FAN, detector_spacing=22.0)
    curved = FanBeam(SIZE, [ANGLE], **FAN, detector_spacing=22.0, detector="curved")
    frame(ax, "FanBeam, flat (dots) and curved (dashed)")
    source = np.array(turned(0, -flat.source_distance))
    total = flat.source_distance + flat.detector_distance
    arc = [source + total * foot(curved, i)[1] for i in range(9)]
    ax.plot(*np.array(arc).T, "C0s--", ms=3, lw=0.8)
    points = []
    for i, angle in enumerate(flat.fan_angles):
        points.append(tuple(source + total / math.cos(angle) * foot(flat, i)[1]))
        ax.plot(*np.array([source, points[-1]]).T, color="C1", lw=0.7)
    bins(ax, points, "bin D-1, +u")
    ax.plot(*source, "C3o")
    ax.annotate("source", source, fontsize=8, xytext=(8, 0), textcoords="offset points")
    for along, name in ((-78.0, "source_distance"), (36.0, "detector_distance")):
        ax.text(*turned(-7, along), name, fontsize=8, rotation=90 - ANGLE, ha="center", va="center", color="0.2")
    ax.plot(*np.array([source, turned(0, 70)]).T, "k:", lw=1.2)
    angle_mark(ax)


def cone(ax: plt.Axes) -> None:
    operator = ConeBeam(
        (5, SIZE, SIZE),
        [0.0],
        source_distance=120.0,
        detector_distance=70.0,
        detector_shape=(7, 9),
        pixel_size=PIXEL,
        slice_thickness=12.0,
        detector_spacing=(20.0, 22.0),
        offsets=(10.0, 0.0),
    )
    v, _ = operator.positions
    half, height = SIZE * PIXEL / 2, 5 * 12.0 / 2
    for k in range(6):
        ax.plot([-half, half], [k * 12.0 - height] * 2, color="0.85", lw=0.8)
    ax.plot([-half, -half, None, half, half], [-height, height, None, -height, height], color="0.85", lw=0.8)
    ax.text(-half + 4, -height + 6, "slice 0", va="center", fontsize=7)
    ax.text(-half + 4, height - 6, "slice Z-1", va="center", fontsize=7)
    ax.axvline(0, color="k", lw=0.8, ls="-.")
    ax.text(2, 88, "rotation axis, z", fontsize=8)
    for height_of_row in v:
        ax.plot([-120, 70], [0, height_of_row], color="C1", lw=0.7)
    ax.plot([70] * len(v), v, "C0o-", ms=4)
    ax.text(74, v[0], "row 0", color="C0", fontsize=8, va="center")
    ax.text(74, v[-1], "row R-1, +v", color="C0", fontsize=8, va="center")
    middle = (v[0] + v[-1]) / 2
    ax.annotate("", (78, 0), (78, middle), arrowprops={"arrowstyle": "->", "color": "C3"})
    ax.text(81, middle / 2, "offsets[0] > 0", color="C3", fontsize=8, va="center")
    ax.plot([-120, 70], [0, 0], "k:", lw=1.2)
    ax.plot(-120, 0, "C3o")
    ax.text(-122, -9, "source", fontsize=8)
    ax.text(-90, 3, "source_distance", fontsize=8, color="0.2")
    ax.text(28, -7, "detector_\ndistance", fontsize=8, color="0.2", va="center", ha="center")
    ax.set(aspect="equal", title="ConeBeam from the side", xlabel="along the central ray, mm", ylabel="z, mm")
    ax.set_xlim(-130, 130)
    ax.set_ylim(-100, 100)


def main() -> None:
    figure, axes = plt.subplots(1, 3, figsize=(16, 5.4), layout="constrained")
    for draw, ax in zip((parallel, fan, cone), axes, strict=True):
        draw(ax)
    OUT.parent.mkdir(exist_ok=True)
    figure.savefig(OUT, dpi=110)
    print(OUT)


if __name__ == "__main__":
    main()
