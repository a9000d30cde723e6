"""The drawing that all figures of volumes share: planes of pictures in one place, with marks, scales and titles."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from lightning_mbir.report.metrics import PLANES
from lightning_mbir.report.scale import Scale, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEW = 4
"""Slices below which the other two planes are lines, and left out."""
DPI = 110
"""Of the files that figures are written to; a picture is at least as many pixels wide as its slices are."""
GAP, LABEL, CAPTION, TITLE, FOOT, LINE = 0.06, 0.24, 0.22, 0.26, 0.62, 0.16
"""Inches between pictures, of the label above a plane, of a caption, of a title, of the scales below, and of each
further line of these."""
MARK, MARKED = "#ffd54f", 0.14
"""The colour of marks, and inches that a picture must be high for them."""
COLOURS = {"grey": "gray", "error": "RdBu_r", "spread": "inferno"}
ENDS: dict[str, tuple[str, str]] = {"R": ("R", "L"), "L": ("L", "R"), "A": ("A", "P"), "P": ("P", "A")}

Kind = Literal["grey", "error", "spread"]
Planes = dict[str, np.ndarray]
"""The middle slice of each plane, as ``middle`` cuts it."""


@dataclass(frozen=True)
class Picture:
    """One column of a row: the same volume in each plane.

    Attributes:
        name: above the first of its pictures.
        planes: in physical unit; none of what failed.
        kind: how it is coloured: ``grey`` in the window of the scale, ``error`` about zero, ``spread`` from zero.
        captions: text below, by plane.
    """

    name: str
    planes: Planes | None
    kind: Kind = "grey"
    captions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """Where the voxels of ``(Z, Y, X)`` lie.

    Attributes:
        shape: ``(Z, Y, X)``.
        spacing: voxel size ``(z, y, x)`` in mm.
        sides: what the upper ends of x and y are, such as ``RA``; none where left and right are not known.
        sized: whether ``spacing`` is known; else no length is drawn.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    sides: str | None = None
    sized: bool = True

    @classmethod
    def of(cls, data: Tensor, affine: np.ndarray, sided: bool = True, sized: bool = True) -> Place:
        """The place of a volume ``(Z, Y, X)`` with an affine ``(4, 4)`` from ``(x, y, z)`` to RAS mm; ``sided`` says
        whether that can be trusted to tell left from right, ``sized`` whether its lengths are mm."""
        from nibabel.orientations import aff2axcodes

        x, y, z = (float(size) for size in np.linalg.norm(affine[:3, :3], axis=0))
        codes = aff2axcodes(affine)
        sides = "".join(codes[:2]) if sided and codes[0] in ENDS and codes[1] in ENDS else None
        return cls((data.shape[0], data.shape[1], data.shape[2]), (z, y, x), sides, sized)

    @property
    def planes(self) -> list[str]:
        """Those that are drawn."""
        return list(PLANES) if self.shape[0] >= FEW else ["axial"]

    def pixel(self, plane: str) -> tuple[float, float]:
        """Height and width of a pixel in mm."""
        z, y, x = self.spacing
        return {"axial": (y, x), "coronal": (z, x), "sagittal": (z, y)}[plane]

    def size(self, plane: str) -> tuple[float, float]:
        """Height and width of a picture in mm."""
        z, y, x = self.shape
        rows, columns = {"axial": (y, x), "coronal": (z, x), "sagittal": (z, y)}[plane]
        high, wide = self.pixel(plane)
        return rows * high, columns * wide

    def ends(self, plane: str) -> tuple[str, str] | None:
        """What lies at the left and the right edge of a picture, which ``middle`` has turned."""
        return None if self.sides is None else ENDS[self.sides[plane == "sagittal"]]


class Sheet:
    """Places what is drawn in inches from the left and the top."""

    def __init__(self, wide: float, tall: float) -> None:
        self.wide, self.tall = wide, tall
        self.figure = new_figure((wide, tall))

    def axes(self, left: float, top: float, width: float, height: float) -> Any:
        """A place to draw in."""
        return self.figure.add_axes(
            (left / self.wide, 1 - (top + height) / self.tall, width / self.wide, height / self.tall)
        )

    def text(self, left: float, top: float, text: str, size: float = 9, colour: str = "white", **options: Any) -> None:
        """A line, centred about its height."""
        self.figure.text(
            left / self.wide, 1 - top / self.tall, text, color=colour, fontsize=size, va="center", **options
        )

    def bar(self, picture: Any, left: float, top: float, width: float, label: str) -> None:
        """The colours of a picture with their numbers."""
        bar = self.figure.colorbar(picture, cax=self.axes(left, top, width, 0.1), orientation="horizontal")
        low, high = picture.get_clim()
        bar.set_ticks([low, (low + high) / 2, high], labels=[plain(v) for v in (low, (low + high) / 2, high)])
        bar.ax.tick_params(colors="white", labelsize=7, length=2, pad=1)
        self.text(left + width + 0.1, top + 0.05, label, 8)


def planes_sheet(
    title: str,
    rows: list[list[Picture | None]],
    place: Place,
    scale: Scale,
    note: str = "",
    aside: float = 0.0,
    least: float = 0.0,
    peak: float | None = None,
) -> Sheet:
    """The middle slice of each plane, one block a plane: its rows of pictures below each other.

    Args:
        title: above all; broken into lines as wide as the figure.
        rows: of each block; None leaves a place empty.
        place: of the voxels.
        scale: window and unit.
        note: below all, beside what the window is.
        aside: inches that are left free to the left.
        least: inches that the figure is high at least.
        peak: of ``spread``, in the unit of the file.
    """
    columns, margin = max(map(len, rows)), 0.12
    width = picture_width(place, columns)
    per_mm = width / max(place.size(plane)[1] for plane in place.planes)
    heights = {plane: place.size(plane)[0] * per_mm for plane in place.planes}
    wide = aside + 2 * margin + columns * (width + GAP)
    lines = textwrap.wrap(title, int(wide * 11))
    words = [scale.window_text, *filter(None, [note]), *([] if place.sides else ["left and right are not known"])]
    told = textwrap.wrap("; ".join(words), int(wide * 14))
    ground = FOOT + LINE * (len(told) - 1)
    captioned = [any(picture and picture.captions for picture in row) for row in rows]
    top = 0.08 + TITLE * len(lines) + TITLE
    block = LABEL + sum(CAPTION * has for has in captioned) + GAP * len(rows)
    tall = max(top + sum(block + len(rows) * high for high in heights.values()) + ground, least)
    sheet = Sheet(wide, tall)
    for k, line in enumerate(lines):
        sheet.text(margin, 0.08 + TITLE * (k + 0.5), line, 10)
    drawn: dict[Kind, Any] = {}
    y = top - TITLE
    for plane in place.planes:
        first = plane == place.planes[0]
        sheet.text(
            aside + margin, y + LABEL / 2 + (TITLE if first else 0), _label(plane, place, heights[plane]), 8, "0.7"
        )
        y += LABEL + (TITLE if first else 0)
        for row, has in zip(rows, captioned, strict=True):
            for column, picture in enumerate(row):
                if picture is None:
                    continue
                left = aside + margin + column * (width + GAP)
                if first and row is rows[0]:
                    size = _fitting(picture.name, width)
                    sheet.text(left + width / 2, top - TITLE / 2, picture.name, size, ha="center")
                ax = sheet.axes(left, y, width, heights[plane])
                shown = _draw(ax, picture, plane, place, scale, peak)
                drawn.setdefault(picture.kind, shown)
                mark(ax, plane, place, heights[plane], measure=first and column == 0 and row is rows[0])
                if plane in picture.captions:
                    below = y + heights[plane] + CAPTION / 2
                    sheet.text(left + width / 2, below, picture.captions[plane], 8.5, ha="center")
            y += heights[plane] + GAP + CAPTION * has
    foot = tall - ground + 0.12
    left = aside + margin + 0.1
    for kind, label in (("error", "error"), ("spread", "|error| and deviation")):
        if kind in drawn:
            sheet.bar(drawn[kind], left, foot, 1.3, label + scale.in_brackets)
            left += 1.5 + 0.075 * len(label + scale.in_brackets)
    for k, line in enumerate(reversed(told)):
        sheet.text(aside + margin, tall - 0.12 - LINE * k, line, 8, "0.7")
    return sheet


def picture_width(place: Place, columns: int) -> float:
    """Inches: as many pixels as the slices have, and more for few columns of small slices."""
    pixels = max(place.shape[1:])
    return max(2.5 if columns < 6 else 1.9, pixels / DPI)


def _fitting(name: str, width: float) -> float:
    """A size of type in which a name fits above its picture."""
    return min(10.0, max(5.0, 10.0 * width * 12 / max(len(name), 1)))


def _label(plane: str, place: Place, height: float) -> str:
    """What a plane is; with its ends, where the pictures are too low to hold them."""
    n, ends = place.shape[PLANES[plane]], place.ends(plane)
    told = "" if ends is None or height >= MARKED else f", from {ends[0]} to {ends[1]}"
    return f"{plane}, slice {n // 2 + 1} of {n}{told}"


def _draw(ax: Any, picture: Picture, plane: str, place: Place, scale: Scale, peak: float | None) -> Any:
    high, wide = place.pixel(plane)
    if picture.planes is None:
        empty = np.full(tuple(round(n / p) for n, p in zip(place.size(plane), (high, wide), strict=True)), np.nan)
        shown = show(ax, empty, high / wide, "gray", scale.window)
        ax.text(0.5, 0.5, "failed", transform=ax.transAxes, color="white", fontsize=9, ha="center", va="center")
        return shown
    values = picture.planes[plane]
    if picture.kind == "grey":
        return show(ax, scale.shown(values), high / wide, COLOURS["grey"], scale.window)
    limit = (-scale.error_peak, scale.error_peak) if picture.kind == "error" else (0.0, peak or scale.error_peak)
    return show(ax, values * scale.factor, high / wide, COLOURS[picture.kind], limit)


def mark(ax: Any, plane: str, place: Place, height: float, measure: bool) -> None:
    """Left and right at the edges where there is room for them, and a length in the first picture."""
    ends = place.ends(plane)
    from matplotlib.patheffects import withStroke

    def rim(width: float) -> list[Any]:  # so that it can be read on white
        return [withStroke(linewidth=width, foreground="black")]

    # Smaller, matplotlib may snap the foot of an L to nothing, and it would be read as an I.
    options: dict[str, Any] = {"transform": ax.transAxes, "color": MARK, "fontsize": 8, "va": "center"}
    options["path_effects"] = rim(1.5)
    if ends is not None and height >= MARKED:
        ax.text(0.015, 0.5, ends[0], ha="left", **options)
        ax.text(0.985, 0.5, ends[1], ha="right", **options)
    if measure and place.sized and height >= 0.5:
        wide = place.size(plane)[1]
        length = nice(wide / 4)
        line = {"transform": ax.transAxes, "color": MARK, "linewidth": 1.5, "path_effects": rim(3)}
        ax.plot([0.04, 0.04 + length / wide], [0.04, 0.04], **line)
        ax.text(0.04, 0.04 + 0.1 / height, f"{length:g} mm", ha="left", **options)


def nice(length: float) -> float:
    """The largest of 1, 2, 5, 10, 20, 50 and so on that is not above a length."""
    power = 10.0 ** np.floor(np.log10(length))
    return float(max(step for step in (1, 2, 5) if step * power <= length * (1 + 1e-9)) * power)


def new_figure(size: tuple[float, float], **options: Any) -> Figure:
    """An empty figure on black, ``(width, height)`` in inches; matplotlib is imported for the first one."""
    from lightning_mbir.report.shown_figure import ShownFigure

    figure: Figure = ShownFigure(figsize=size, facecolor="black", dpi=DPI, **options)
    return figure


def middle(data: Tensor, plane: str) -> np.ndarray:
    """The middle slice of a plane as people look at it: front and head up, rows downwards."""
    axis = PLANES[plane]
    picture = data.detach().float().cpu().select(axis, data.shape[axis] // 2)
    # RAS: rows go from back to front (axial) or foot to head, so they are turned upside down.
    return torch.flip(picture, (0, 1)).numpy()


def middle_planes(volume: Tensor) -> Planes:
    """The middle slices of ``(Z, Y, X)``."""
    return {plane: middle(volume, plane) for plane in PLANES}


def show(ax: Any, picture: np.ndarray, aspect: float, colours: str, window: tuple[float, float]) -> Any:
    """Draw a picture and nothing around it; returns what a colour bar takes."""
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.set_facecolor("black")
    return ax.imshow(picture, cmap=colours, vmin=window[0], vmax=window[1], aspect=aspect, interpolation="bilinear")
