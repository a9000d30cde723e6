"""Measured projections in the Data Exchange layout, from counts to line integrals, part by part."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_mbir.data.measurements.angles import full_turn, read_angles
from lightning_mbir.data.measurements.content import Content
from lightning_mbir.data.measurements.detector import check_few, filled, stuck
from lightning_mbir.data.measurements.item import PART, Item
from lightning_mbir.data.measurements.rotation_center import ROWS, find_rotation_center, seen_bins
from lightning_mbir.data.measurements.selection import chosen_slices
from lightning_mbir.errors import InputError
from lightning_mbir.free_memory import check_fits

DATA, WHITE, DARK, THETA = "exchange/data", "exchange/data_white", "exchange/data_dark", "exchange/theta"

DIM = f"are no brighter in {WHITE} than in {DARK} (or NaN, or show the same in every view)"


def is_data_exchange(content: Content) -> bool:
    """Whether a file's datasets are of the Data Exchange layout."""
    return DATA in content


def read_data_exchange(
    content: Content,
    image_size: int = 0,
    detector_spacing: float | None = None,
    rotation_center: float | str | None = None,
    slices: tuple[int, int] | None = None,
    fine: bool = False,
) -> tuple[Tensor, dict[str, Any], tuple[str, ...]]:
    """Sinograms from the projections of a parallel beam (De Carlo et al., J. Synchrotron Rad. 21, 2014).

    Projections ``(views, rows, bins)`` are corrected by the means of the flat and dark fields, and turned to line
    integrals by the law of Beer and Lambert. Bins that cannot be used are filled from their neighbours. As many bins
    as fit into a pixel are averaged. What is needed in memory is little more than what comes out.

    Args:
        content: of the file.
        image_size: pixels of a slice, which covers what the detector sees (its width or, where it was moved aside in a
            full turn, twice its longer side); 0 for as many as bins.
        detector_spacing: distance of bins in mm; without it, 1.
        rotation_center: bin of the rotation axis, counted from 0; ``search``, or none, searches for it.
        slices: which rows, from the first to before the last; all by default, and no others are read.
        fine: whether bins stay as they are, so that their faults can be told.

    Returns:
        ``(rows, views, bins)`` line integrals, the arguments of ``ParallelBeam`` with ``slice_thickness``, and notes
        of what was done.

    Raises:
        InputError: datasets that are missing or do not fit each other, angles in radians that do not say so, too many
            bins that cannot be used, a rotation centre outside the detector, too little memory.
    """
    path, data = content.path, content[DATA]
    missing = [key for key in (WHITE, THETA) if key not in content]
    if missing:
        raise InputError(f"{path}: lacks {', '.join(missing)}; projections need flat fields and angles")
    if data.ndim != 3 or 0 in data.shape or data.dtype.kind not in "iuf":
        raise InputError(f"{path}: {DATA} is {data.shape} of {data.dtype}; give real counts (views, rows, bins)")
    axes = data.attributes.get("axes", "theta:y:x")
    if axes != "theta:y:x" and sorted(axes.split(":")) == ["theta", "x", "y"]:
        raise InputError(f"{path}: the axes of {DATA} are {axes}; give theta:y:x, which are (views, rows, bins)")
    angles, notes = read_angles(content[THETA], data.shape[0])
    rows, row_notes = chosen_slices(path, slices, data.shape[1])
    least = image_size or data.shape[2]
    image = 4 * (rows.stop - rows.start) * least**2
    check_fits(f"--data.image_size {least}: the volume", image, "give a smaller one, or fewer --data.slices")
    together = 1 if fine else max(1, data.shape[2] // least)
    searched = rotation_center is None or isinstance(rotation_center, str)
    scan = _Scan.read(content, rows, together)
    y, sample = scan.line_integrals(few=ROWS if searched else 0)
    notes = (*notes, *row_notes, "flat and dark field corrected" if DARK in content else "flat field corrected")
    notes = (*notes, *scan.notes)

    bins = data.shape[2]
    center = find_rotation_center(torch.from_numpy(sample), angles) if searched else float(rotation_center or 0)
    if not 0 <= center <= bins - 1:
        raise InputError(f"--data.rotation_center {center:g}: give a bin from 0 to {bins - 1}")
    notes = (*notes, f"rotation centre at bin {center:.2f}" + (", found" if searched else ""))
    if together > 1:
        notes = (*notes, f"{together} bins averaged to one")
    if bins % together:
        notes = (*notes, f"the last {bins % together} bins, which do not fill a wider one, left out")
    spacing = 1.0 if detector_spacing is None else detector_spacing
    seen, wider = seen_bins(bins, center, full_turn(angles))
    image_size, notes = image_size or math.ceil(seen), (*notes, *wider)
    geometry = {
        "beam": "parallel",
        "image_size": image_size,
        "angles": angles.tolist(),
        "n_detectors": y.shape[-1],
        "pixel_size": seen * spacing / image_size,
        "detector_spacing": together * spacing,
        "center_offset": spacing * (center - (together * y.shape[-1] - 1) / 2),
        "slice_thickness": spacing,
    }
    return torch.from_numpy(y), geometry, notes


def line_integrals(content: Content) -> tuple[Tensor, tuple[str, ...]]:
    """All of the projections as ``(rows, views, bins)`` line integrals, and notes, by the flat and dark fields alone.

    Args:
        content: with the counts, the flat and the dark fields of the Data Exchange layout; it may lack angles.

    Raises:
        InputError: see ``read_data_exchange``.
    """
    scan = _Scan.read(content, slice(0, content[DATA].shape[1]), 1)
    y, _ = scan.line_integrals(few=0)
    return torch.from_numpy(y), scan.notes


@dataclass
class _Scan:
    """Projections that are converted; ``bad``, ``floor`` and the counts become known on the way.

    Attributes:
        rows: those that are wanted.
        together: bins that are averaged to one.
        dark, range: ``(rows, bins)`` mean of the dark fields, and that of the flat ones above it; 1 where bad.
        bad: ``(rows, bins)``, bins that are filled from their neighbours.
        floor: least transmission; rays without counts get it.
        blocked, broken: how many rays have no counts, and how many counts that are NaN or infinite.
    """

    path: Path
    data: Item
    rows: slice
    together: int
    dark: np.ndarray
    range: np.ndarray
    bad: np.ndarray
    floor: float = float(np.finfo(np.float32).tiny)
    blocked: int = 0
    broken: int = 0

    @classmethod
    def read(cls, content: Content, rows: slice, together: int) -> _Scan:
        data = content[DATA]
        white = _mean_field(content[WHITE], data.shape[1:], rows)
        dark = _mean_field(content[DARK], data.shape[1:], rows) if DARK in content else np.zeros_like(white)
        with np.errstate(invalid="ignore"):
            span = white - dark
        bad = ~(np.isfinite(span) & (span > 0))
        check_few(content.path, bad, DIM)
        return cls(content.path, data, rows, together, np.where(bad, 0, dark), np.where(bad, 1, span), bad)

    def line_integrals(self, few: int) -> tuple[np.ndarray, np.ndarray]:
        """``(rows, views, bins)``, and those of up to ``few`` rows as they are, ``(few, views, all bins)``.

        What is known of all counts only, the weakest ray and bins that never change, takes another turn.
        """
        views, _, bins = self.data.shape
        count, kept = len(self.bad), bins // self.together
        some = range(0, count if few else 0, math.ceil(count / max(few, 1)))
        size = 4 * views * (count * kept + len(some) * bins) + 40 * PART
        check_fits(f"{self.path}: {self.data.name} as line integrals", size, "take fewer --data.slices")
        y = np.empty((count, views, kept), dtype=np.float32)
        sample = np.empty((len(some), views, bins), dtype=np.float32)
        while True:
            low, high, least = self._convert(y, sample, some)
            more = stuck(low, high, self.bad) if views >= 8 else np.zeros_like(self.bad)
            if not more.any() and (not self.blocked or self.floor == least):
                return y, sample
            self.bad, self.floor = self.bad | more, least
            check_few(self.path, self.bad, DIM)

    def _convert(self, y: np.ndarray, sample: np.ndarray, some: Sequence[int]) -> tuple[np.ndarray, np.ndarray, float]:
        """Fill ``y`` and ``sample``; returns the least and the largest transmission of each bin, and of all rays."""
        low, high = np.full(self.bad.shape, np.inf), np.full(self.bad.shape, -np.inf)
        least, self.blocked, self.broken = 1.0, 0, 0
        lit = np.zeros(self.data.shape[0], dtype=bool)
        for (views, rows, _), counts in self.data.parts(slice(None), self.rows):
            with np.errstate(over="ignore", invalid="ignore"):  # becomes infinite, and is found as such
                transmission = (counts.astype(np.float32) - self.dark[rows]) / self.range[rows]
            broken = ~np.isfinite(transmission)
            unusable = broken | self.bad[rows]
            transmission[unusable] = 1
            seen = transmission > 0
            least = min(least, float(transmission[seen].min(initial=1.0)))
            self.blocked += int((~seen).sum())
            lit[views] |= seen[:, ~self.bad[rows]].any(1)
            self.broken += int((broken & ~self.bad[rows]).sum())
            low[rows] = np.minimum(low[rows], np.where(unusable, np.inf, transmission).min(0))
            high[rows] = np.maximum(high[rows], np.where(unusable, -np.inf, transmission).max(0))
            lines = -np.log(np.maximum(transmission, self.floor))
            if unusable.any():
                check_few(self.path, broken, "have NaN or infinite counts in a view")
                lines = filled(lines, unusable)
            for k in range(rows.start, rows.stop):
                if k in some:
                    sample[some.index(k), views] = lines[:, k - rows.start]
            kept = y.shape[-1]
            averaged = lines[..., : kept * self.together].reshape(*lines.shape[:2], kept, self.together).mean(-1)
            y[rows, views] = averaged.transpose(1, 0, 2)
        if not lit.all():
            raise InputError(
                f"{self.path}: view {int(lit.argmin())} of {self.data.name} has no counts at all ({int((~lit).sum())} "
                f"such views of {len(lit)}): the beam was off; leave them out, and their angles"
            )
        return low, high, least

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done to the numbers."""
        notes = []
        if self.bad.any():
            rows = int(self.bad.any(1).sum())
            notes.append(f"{int(self.bad.sum())} bad detector bins in {rows} rows filled from their neighbours")
        if self.broken:
            notes.append(f"{self.broken} NaN or infinite counts filled from their neighbours")
        if self.blocked:
            share = 100 * self.blocked / (self.bad.size * self.data.shape[0])
            notes.append(f"{share:.3g} % of the rays had no counts and were set to the weakest measured one")
        return tuple(notes)


def _mean_field(item: Item, shape: tuple[int, ...], rows: slice) -> np.ndarray:
    """The mean of the flat or dark fields, ``(rows, bins)``, of the rows that are wanted."""
    if item.ndim not in (2, 3) or item.shape[-2:] != shape or 0 in item.shape or item.dtype.kind not in "iuf":
        raise InputError(
            f"{item.path}: {item.name} is {item.shape} of {item.dtype}, a projection {shape}; give the same rows and "
            "bins, real counts"
        )
    total = np.zeros((rows.stop - rows.start, shape[1]))
    lead = (slice(None),) * (item.ndim - 2)
    for place, part in item.parts(*lead, rows):
        total[place[-2]] += part.astype(np.float64).reshape(-1, *part.shape[-2:]).sum(0)
    with np.errstate(over="ignore"):
        return (total / math.prod(item.shape[:-2])).astype(np.float32)
