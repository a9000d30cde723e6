"""What a measurement's file may leave open and the user tells, and what of it a file has no use for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lightning_mbir.data.measurements.bart import SUFFIXES
from lightning_mbir.data.units import Modality
from lightning_mbir.errors import InputError


@dataclass(frozen=True)
class MeasurementOptions:
    """What a file may leave open.

    Attributes:
        image_size: pixels of a slice, for projections whose file does not tell; 0 for as many as bins.
        detector_spacing: distance of detector bins in mm, where the file does not tell. Without it attenuation is
            per bin and the unit of the prior is estimated from the measurement.
        rotation_center: the bin that the rotation axis falls on, counted from 0, or ``search``; by default it is
            searched for where rays are parallel and the file does not tell, and the middle of a fan's detector.
        axes: names of the dimensions of raw k-space, of ``slice``, ``coil``, ``y`` and ``x``, such as ``coil y x``;
            ``x`` is the phase-encoding direction.
        slices: which ones are read, from the first to before the last; all by default.
        select: of a scanner's file with several, which echo, repetition, set, phase or scan, such as
            ``echo=1,repetition=0``, counted from 0.
        noise_scan: another file of the scanner, with a noise scan of the same coils.
        whiten: whether a noise scan, of this file or of that one, makes the noise of the coils white; or ``corners``:
            what the corners of k-space tell of it does, in any file (see ``kspace_covariance``).
        oversampling: how many times the field of view is read out, where a scanner's file does not tell.
        partial_fourier: what becomes of a side of k-space that was not measured: ``zero``, or it is completed by
            ``pocs`` or ``homodyne`` (see ``complete_partial_fourier``).
        coil_energy: share of the energy that virtual coils have to hold (see ``coil_compression``); by default the
            coils stay as they are.
        field_map: a file of how far the main field is off, in Hz (see ``read_field_map``).
        readout_time: seconds of a readout, and ``echo_spacing`` from an echo-planar line to the next, for a map whose
            file has no times, where a scanner's file does not tell (see ``grid_times`` and ``scan_times``).
        correct: faults of projections that are taken away: of ``zingers``, ``drift`` and ``rings`` (see ``corrected``).
        scatter: the share of it in projections, and how many bins it is smoothed over, or 0 (see ``subtract_scatter``).
        beam_hardening: how it is taken away: ``consistency``, or a text file (see ``linearised``).
        angles: TIFF, Nikon: text file of an angle in degrees a view.
        flat_field: TIFF: another one with flat fields, the counts of the open beam, or ``none`` of line integrals.
        dark_field: TIFF: another one with dark fields.
    """

    image_size: int = 0
    detector_spacing: float | None = None
    rotation_center: float | Literal["search"] | None = None
    axes: str | None = None
    slices: tuple[int, int] | None = None
    select: str | None = None
    noise_scan: Path | None = None
    whiten: bool | Literal["corners"] = True
    oversampling: float | None = None
    partial_fourier: Literal["zero", "pocs", "homodyne"] = "zero"
    coil_energy: float | None = None
    field_map: Path | None = None
    readout_time: float | None = None
    echo_spacing: float | None = None
    correct: tuple[str, ...] = ()
    scatter: tuple[float, float] | None = None
    beam_hardening: str | None = None
    angles: Path | None = None
    flat_field: str | None = None
    dark_field: Path | None = None


def check_modality(path: Path, kind: Modality, wanted: Modality) -> None:
    """Raise an ``InputError`` where the task is of the other kind."""
    if kind != wanted:
        raise InputError(f"{path}: holds a measurement of {kind}, the task is of {wanted}; give another --task")


def check_options(
    path: Path,
    options: MeasurementOptions,
    kind: Modality,
    projections: bool = False,
    scanner: bool = False,
    tiff: bool = False,
) -> None:
    """Refuse what would be ignored. ``projections``: whether the layout leaves size, spacing and centre open."""
    for name in ("detector_spacing", "rotation_center"):
        own = name == "rotation_center" and kind == "ct"  # of our own layout, where it may be open
        if getattr(options, name) is not None and not projections and not own:
            raise InputError(f"--data.{name}: {path} tells its geometry by itself; leave it out")
    if options.image_size and not projections:
        raise InputError(f"--data.image_size {options.image_size}: {path} tells its size by itself; leave it out")
    for name in ("angles", "flat_field", "dark_field"):
        if getattr(options, name) is not None and not tiff:
            raise InputError(
                f"--data.{name} {getattr(options, name)}: is for TIFF projections, not {path}; leave it out"
            )
    for name in ("correct", "scatter", "beam_hardening"):
        if getattr(options, name) and kind == "mri":
            raise InputError(f"--data.{name}: is for projections, {path} holds k-space; leave it out")
    if options.axes is not None and kind == "ct":
        raise InputError(f"--data.axes '{options.axes}': {path} holds projections, that is for k-space; leave it out")
    bart = path.suffix.lower() in SUFFIXES
    if options.axes is not None and (scanner or bart):
        raise InputError(f"--data.axes '{options.axes}': {path} tells its dimensions by itself; leave it out")
    given: dict[str, object] = {"noise_scan": options.noise_scan, "oversampling": options.oversampling}
    given["select"] = None if bart else options.select
    given["whiten"] = None if options.whiten else "false"  # what a scanner alone has: a noise scan
    for name, value in given.items():
        if value is not None and not scanner:
            raise InputError(
                f"--data.{name} {value}: is for a scanner's own file, which {path} is none of; leave it out"
            )
    of_kspace = {
        "partial_fourier": options.partial_fourier != "zero",
        "coil_energy": options.coil_energy is not None,
        "whiten": options.whiten == "corners",
        "field_map": options.field_map is not None,
    }
    for name, asked in of_kspace.items():
        if kind == "ct" and asked:
            raise InputError(f"--data.{name}: is for k-space, {path} holds projections; leave it out")
    for name in ("readout_time", "echo_spacing"):
        if getattr(options, name) is not None and options.field_map is None:
            raise InputError(f"--data.{name}: tells when samples were taken, for --data.field_map; give that too")
