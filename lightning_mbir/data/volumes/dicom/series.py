"""Which slices of a folder are one volume: by series, and within a series by what tells slices apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from lightning_mbir.data.volumes.dicom.pixels import same_pixels
from lightning_mbir.data.volumes.dicom.slices import MARKS, Slice
from lightning_mbir.data.volumes.dicom.stack import SAME_PLACE, along_normal
from lightning_mbir.errors import InputError

SAME_DIRECTION, SAME_SPACING = 1e-3, 1e-3
"""Components of directions, and shares of a spacing, that slices of one stack may differ by."""


@dataclass(frozen=True)
class Part:
    """Slices of one series, orientation, size, spacing and frame of reference.

    Attributes:
        slices: in the order of the files.
        told: what tells it from other parts of its series, or ``""``.
        label: what ``--data.series`` takes for it.
        problem: why it is no volume, or ``""``.
        notes: what is to be told, a line each.
    """

    slices: tuple[Slice, ...]
    told: str = ""
    label: str = ""
    problem: str = ""
    notes: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """Its label for notes, which may come into files: no UID, but the name of a file in its place."""
        first = self.slices[0]
        return self.label if first.number and first.series not in self.label else f"of {first.file.name}"


def parts_of(slices: Iterable[Slice]) -> list[Part]:
    """All parts of all series, by the numbers of the series."""
    series: dict[str, list[Slice]] = {}
    for one in slices:
        series.setdefault(one.series, []).append(one)
    numbers = Counter(found[0].number for found in series.values())
    parts = []
    for uid, found in sorted(series.items(), key=lambda item: (_order(item[1][0].number), item[0])):
        number = found[0].number
        label = number if number and numbers[number] == 1 else uid
        own = _split(found)
        labels = [label] if len(own) == 1 else [f"{label}:{k + 1}" for k in range(len(own))]
        parts += [replace(part, label=name) for part, name in zip(own, labels, strict=True)]
    return parts


def chosen(parts: Sequence[Part], series: str | None, folder: Path) -> Part:
    """The part that is asked for, or the only one that is no scout and has a geometry.

    Args:
        parts: all of them.
        series: the label of one, the number or UID of its series, or the beginning of the UID; None takes the only one.
        folder: for messages.

    Raises:
        InputError: none or several.
    """
    if series is None:
        usable = [part for part in parts if part.slices[0].position and not part.slices[0].localizer] or list(parts)
        if len(usable) == 1:
            return usable[0]
        whole = len({part.slices[0].series for part in usable})
        what = (
            f"{whole} series"
            if whole > 1
            else (f"{len(usable)} stacks of slices in one series, at the same positions or of another kind")
        )
        raise InputError(f"{folder}: {what}: {_listed(usable)}; choose one by --data.series, such as {usable[0].label}")
    uid, colon, _ = series.partition(":")
    ways = (
        [part for part in parts if part.label == series],
        [part for part in parts if series in (part.slices[0].series, part.slices[0].number)],
        [part for part in parts if not colon and part.slices[0].series.startswith(uid)],
    )
    found = next((way for way in ways if way), [])
    if len(found) == 1:
        return found[0]
    if not found:
        raise InputError(f"--data.series {series}: not in {folder}, which has {_listed(parts)}; give one of these")
    raise InputError(
        f"--data.series {series}: {len(found)} in {folder}: {_listed(found)}; give one such as {found[0].label}"
    )


def _listed(parts: Sequence[Part]) -> str:
    """Parts with their labels, descriptions, numbers of slices and sizes."""
    shown = [_described(part) for part in parts[:12]]
    return ", ".join(shown) + (f" and {len(parts) - 12} more" if len(parts) > 12 else "")


def _described(part: Part) -> str:
    first, count = part.slices[0], len(part.slices)
    description = f' "{first.description}"' if first.description else f" with {first.file.name}"
    scout = ", a localizer" if first.localizer else ""
    told = f", {part.told}" if part.told else ""
    place = "" if first.position else ", without geometry"
    size = f"{first.shape[1]} x {first.shape[0]} pixels"
    return f"{part.label}{description} ({first.modality}, {count} slices of {size}{told}{scout}{place})"


def _split(slices: Sequence[Slice]) -> list[Part]:
    """The parts of a series."""
    placed = [one for one in slices if one.position]
    bad = [one for one in slices if not one.position]
    groups: list[list[Slice]] = []
    for one in placed:
        like = next((group for group in groups if _alike(group[0], one)), None)
        if like is None:
            groups.append([one])
        else:
            like.append(one)
    parts = [part for group in groups for part in _by_place(group, _differences(group[0], groups))]
    if bad and parts:  # a slice of the volume is not known: nothing is left out of a series without a word
        return [replace(part, problem=part.problem or bad[0].problem) for part in parts]
    return parts or [Part(tuple(bad), problem=bad[0].problem)]


def _alike(a: Slice, b: Slice) -> bool:
    same = (a.shape, a.reference, a.localizer) == (b.shape, b.reference, b.localizer)
    if not same or not np.allclose(a.spacing, b.spacing, rtol=SAME_SPACING, atol=0):
        return False
    return bool(np.abs(np.subtract(a.orientation, b.orientation)).max() <= SAME_DIRECTION)


def _differences(one: Slice, groups: Sequence[Sequence[Slice]]) -> str:
    """What tells a group from the others of its series."""
    if len(groups) == 1:
        return ""
    firsts = [group[0] for group in groups]
    told = []
    if not all(np.allclose(one.spacing, other.spacing, rtol=SAME_SPACING) for other in firsts):
        told.append(f"PixelSpacing {one.spacing[0]:g} x {one.spacing[1]:g}")
    if not all(np.allclose(one.orientation, other.orientation, atol=SAME_DIRECTION) for other in firsts):
        told.append(f"orientation {', '.join(f'{value:.3g}' for value in one.orientation)}")
    if len({other.reference for other in firsts}) > 1:
        told.append("a frame of reference of its own")
    return ", ".join(told)


def _by_place(slices: Sequence[Slice], told: str) -> list[Part]:
    """A stack, or where slices are at the same place the stacks that something tells apart."""
    slices, notes = _without_copies(slices)
    if not (twice := _twice(slices)):
        return [Part(tuple(slices), told, notes=notes)]
    names = [*MARKS, *sorted({name for one in slices for name in one.marks} - set(MARKS))]
    for name in names:
        groups: dict[str, list[Slice]] = {}
        for one in slices:
            groups.setdefault(one.marks.get(name, ""), []).append(one)
        whole = all(len(group) > 1 and not _twice(group) for group in groups.values())
        if len(groups) > 1 and whole:
            labels = {value: f"{name} {value or 'not told'}" for value in groups}
            return [
                Part(tuple(group), ", ".join(filter(None, (told, labels[value]))), notes=notes)
                for value, group in sorted(groups.items(), key=lambda item: _order(item[0]))
            ]
    first, second = twice[0]
    place = along_normal(slices)[list(slices).index(first)]
    pairs = "1 pair" if len(twice) == 1 else f"{len(twice)} pairs"
    problem = (
        f"{first.file.parent}: {pairs} of slices at the same place, such as "
        f"{first.name} and {second.name} at {place:.2f} mm along the normal: duplicates, or phases that nothing in the "
        "headers tells apart; leave one of each in the folder"
    )
    return [Part(tuple(slices), told, problem=problem, notes=notes)]


def _twice(slices: Sequence[Slice]) -> list[tuple[Slice, Slice]]:
    """Neighbours along the normal that are at the same place."""
    places = along_normal(slices)
    order = np.argsort(places, kind="stable")
    return [(slices[a], slices[b]) for a, b in pairwise(order) if places[b] - places[a] < SAME_PLACE]


def _without_copies(slices: Sequence[Slice]) -> tuple[list[Slice], tuple[str, ...]]:
    """Each object once: files with the same UID, place and pixels are copies."""
    kept: dict[tuple[str, int | None, tuple[float, ...]], Slice] = {}
    rest: list[Slice] = []
    copies: list[Slice] = []
    for one in slices:
        first = kept.setdefault((one.uid, one.frame, one.position), one)
        if first is one or not one.uid:
            rest.append(one)
        elif (one.slope, one.intercept) == (first.slope, first.intercept) and same_pixels(one.file, first.file):
            copies.append(one)
        else:
            rest.append(one)
    if not copies:
        return rest, ()
    noun = "file is a copy of another" if len(copies) == 1 else "files are copies of others"
    return rest, (f"{len(copies)} {noun} and not used twice: {_names(copies)}",)


def _names(slices: Sequence[Slice]) -> str:
    names = [one.name for one in slices]
    return ", ".join(names[:3]) + (" and others" if len(names) > 3 else "")


def _order(text: str) -> tuple[float, str]:
    """Numbers by their size, then texts."""
    try:
        return float(text), text
    except ValueError:
        return float("inf"), text
