"""Measurements that were really made: sinograms and k-space with their geometry, from one file."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_mbir.data.measurements.bart import SUFFIXES, bart_item
from lightning_mbir.data.measurements.beam_hardening import linearised, subtract_scatter
from lightning_mbir.data.measurements.centre import check_centre
from lightning_mbir.data.measurements.content import Content, open_content
from lightning_mbir.data.measurements.corrections import corrected, doubted
from lightning_mbir.data.measurements.data_exchange import is_data_exchange, read_data_exchange
from lightning_mbir.data.measurements.dicom_ct_pd import read_dicom_ct_pd
from lightning_mbir.data.measurements.field_map import check_seconds, read_field_map
from lightning_mbir.data.measurements.kspace import read_array, read_kspace
from lightning_mbir.data.measurements.matlab import open_matlab
from lightning_mbir.data.measurements.mrd import is_mrd, open_mrd
from lightning_mbir.data.measurements.nikon import read_nikon
from lightning_mbir.data.measurements.noise_scan import open_noise_scan
from lightning_mbir.data.measurements.options import MeasurementOptions, check_modality, check_options
from lightning_mbir.data.measurements.own_layout import COUPLED, noise_std, read_own_layout
from lightning_mbir.data.measurements.readouts import CHOSEN, parse_select
from lightning_mbir.data.measurements.rtk import read_rtk
from lightning_mbir.data.measurements.scanner import Scan, read_scan
from lightning_mbir.data.measurements.sinogram_layout import read_sinograms, struct_of
from lightning_mbir.data.measurements.system_matrix import has_system_matrix, read_system_matrix
from lightning_mbir.data.measurements.tiff import is_tiff, open_tiff
from lightning_mbir.data.measurements.timing import grid_times
from lightning_mbir.data.measurements.twix import read_twix
from lightning_mbir.data.measurements.vendors import check_vendor
from lightning_mbir.data.units import Modality
from lightning_mbir.errors import InputError

NIKON = ".xtekct"
SCANS = {".xml": read_rtk, NIKON: read_nikon}
"""What reads the geometry of a scan, by the suffix of its file."""


@dataclass(frozen=True)
class Measurement:
    """A measurement and what is needed to build its operator.

    Attributes:
        y: line integrals ``(Z, views, detectors)``, of cone and modular beams ``(views, rows, columns)``; centred
            complex k-space ``(Z, Y, X)`` or, of several coils, ``(Z, coils, Y, X)``.
        geometry: CT: ``beam`` (``parallel``, ``fan``, ``cone`` or ``modular``) and the arguments of its operator, or
            ``matrix`` and the arguments of ``matrix_operator``. MRI: ``mask`` ``(Y, X)``, or ``(Z, Y, X)`` where slices
            differ, and, where they were measured, ``coil_maps`` ``(coils, Y, X)`` or ``(Z, coils, Y, X)``; of a
            scanner's file ``phase_axis``, ``"x"`` or ``"y"``, and ``calibration``, k-space that only tells the coils;
            ``partial_fourier`` and ``coil_energy`` where they were asked for, until ``part_of`` has done them.
        affine: of the volume to come, from ``(x, y, z)`` to mm.
        name: what its results are filed under.
        modality: ``"ct"`` or ``"mri"``.
        calibrated: CT: whether lengths are really mm, so that attenuation is in 1/mm. Otherwise the length of a bin,
            or what the entries of a matrix are counted in, is the unit of all of them.
        notes: what was done to the file's numbers, a line each, for the log.
        noise_std: MRI: standard deviation of the noise in each part of k-space; 0 where the file does not tell.
        question: what the file leaves open and has to be told before anything is reconstructed; empty where nothing is.
        sized: whether the distance of the slices in ``affine`` is known.
        sided: whether ``affine`` tells left from right, front from back and foot from head.
    """

    y: Tensor
    geometry: dict[str, Any]
    affine: np.ndarray
    name: str
    modality: Modality
    calibrated: bool = True
    notes: tuple[str, ...] = field(default=())
    noise_std: float = 0.0
    question: str = ""
    sized: bool = True
    sided: bool = False

    @property
    def views(self) -> int | None:
        """How many there are; none of k-space."""
        along = 0 if self.geometry.get("beam") in COUPLED else 1
        return self.y.shape[along] if self.modality == "ct" else None

    def to(self, device: torch.device) -> Measurement:
        """The same with what was measured on a device, by which Lightning moves a batch."""
        return replace(self, y=self.y.to(device))


def read_measurement(path: str | Path, modality: Modality, options: MeasurementOptions | None = None) -> Measurement:
    """Read a measurement with its geometry, in any of the layouts of ``docs/measurements.md``.

    These are ours (``measurement`` and its geometry by the names of the operator's arguments), Data Exchange's
    (``exchange/data``), ``sinogram`` beside its angles, and fastMRI's (``kspace``), in HDF5 (``.h5``), NumPy
    (``.npz``) or MATLAB (``.mat``); TIFF pages of projections; RTK's (``.xml``) and Nikon's (``.xtekct``) with
    projections beside them, and DICOM-CT-PD; MRD (``dataset/data``), TWIX (``.dat``) and BART's (``.cfl`` and
    ``.hdr``). Datasets that are not needed are not read, nor is anything outside of the file.

    Args:
        path: the file, or the folder of a scan in DICOM-CT-PD or of Nikon's.
        modality: of the task, ``"ct"`` or ``"mri"``; a file that says another is refused.
        options: what the file leaves open.

    Raises:
        InputError: no such file, a damaged one, links out of it, keys that are missing, wrong dimensions or types,
            values that are not finite, more than the memory holds, options that the file's layout has no use for.
    """
    path, options = Path(path), options or MeasurementOptions()
    if path.is_dir() and options.flat_field is None and len(found := list(path.glob(f"*{NIKON}"))) == 1:
        path = found[0]
    tiff = path.exists() and is_tiff(path)
    if not tiff and (path.is_dir() or path.suffix.lower() in SCANS):
        return _treated(path, _scan(path, modality, options), options)
    if not path.is_file() and not tiff:
        raise InputError(
            f"--data.measurement {path}: no such file; give an .h5, .npz, .mat, .tif, .dat, .cfl or "
            f"{' or '.join(SCANS)} file, or a folder of TIFF or DICOM-CT-PD"
        )
    check_vendor(path)
    name = path.name.rsplit(".", 1)[0]
    if path.suffix.lower() == ".dat" or path.suffix.lower() in SUFFIXES:
        check_options(path, options, "mri", scanner=path.suffix.lower() == ".dat")
        check_modality(path, "mri", modality)
        return _asked(_scanner_file(path, name, options), options)
    with _opened(path, options, tiff) as content:
        if has_system_matrix(content):
            return _treated(path, _of_matrix(content, name, modality, options), options)
        mrd, struct = is_mrd(content), struct_of(content)
        projections = is_data_exchange(content) or struct is not None
        if not (projections or mrd or "kspace" in content or "measurement" in content):
            raise InputError(
                f"{path}: holds none of measurement, kspace, sinogram, exchange/data, a struct CtData or dataset/data; "
                "the layouts that are read are in docs/measurements.md"
            )
        kind: Modality = "ct" if projections else "mri" if mrd or "kspace" in content else modality
        check_modality(path, kind, modality)
        check_options(path, options, kind, projections, mrd, tiff)
        read = _mrd(content, name, options) if mrd else _read(content, name, kind, options, struct)
    if kind == "mri":
        return _asked(read if mrd else _in_field(path, _centred(path, read), options), options)
    treated = _treated(path, read, options)
    return _averaged(treated) if projections else treated


def _opened(path: Path, options: MeasurementOptions, tiff: bool) -> AbstractContextManager[Content]:
    if tiff:
        return open_tiff(path, options.angles, options.flat_field, options.dark_field)
    return open_matlab(path) if path.suffix.lower() == ".mat" else open_content(path)


def _treated(path: Path, found: Measurement, options: MeasurementOptions) -> Measurement:
    """Projections without the faults that are to be taken away; what was done, and what there may be, is noted."""
    y, notes = found.y.numpy(), list(found.notes)
    rows = y.transpose(1, 0, 2) if found.geometry["beam"] in COUPLED else y
    notes += doubted(rows)
    if options.scatter is not None:
        notes.append(subtract_scatter(rows, *options.scatter))
    notes += corrected(path, rows, options.correct)
    if options.beam_hardening is not None:
        notes.append(linearised(path, rows, options.beam_hardening, found.geometry))
    return replace(found, notes=tuple(notes))


def _scan(path: Path, modality: Modality, options: MeasurementOptions) -> Measurement:
    """Of a CT scanner that tells its geometry view by view, with projections in files of their own."""
    if not path.exists():
        raise InputError(f"--data.measurement {path}: no such file")
    check_modality(path, "ct", modality)
    nikon = path.suffix.lower() == NIKON and not path.is_dir()
    check_options(path, replace(options, image_size=0, angles=None if nikon else options.angles), "ct")
    if options.slices is not None:
        start, stop = options.slices
        raise InputError(f"--data.slices {start}:{stop}: the views of {path} show all slices at once; leave it out")
    if options.rotation_center is not None and not nikon:
        raise InputError(f"--data.rotation_center: {path} tells its geometry by itself; leave it out")
    name = path.name.rsplit(".", 1)[0]
    read = read_dicom_ct_pd if path.is_dir() else SCANS[path.suffix.lower()]
    own = {"rotation_center": options.rotation_center, "angles": options.angles} if nikon else {}
    y, geometry, affine, notes, sided = read(path, options.image_size, **own)
    return Measurement(y, geometry, affine, name, "ct", notes=notes, sided=sided)


def _of_matrix(content: Content, name: str, modality: Modality, options: MeasurementOptions) -> Measurement:
    """A sinogram whose operator comes with it as a matrix."""
    check_modality(content.path, "ct", modality)
    check_options(content.path, options, "ct")
    if options.rotation_center is not None:
        raise InputError(f"--data.rotation_center: {content.path} tells its geometry by a matrix; leave it out")
    y, geometry, notes = read_system_matrix(content, options.slices)
    return Measurement(torch.from_numpy(y), geometry, np.eye(4), name, "ct", False, notes, sized=False)


def _asked(found: Measurement, options: MeasurementOptions) -> Measurement:
    """With what is to be done to k-space, once it is known what part of it is wanted."""
    wanted: dict[str, Any] = {}
    if options.partial_fourier != "zero":
        wanted["partial_fourier"] = options.partial_fourier
    if options.coil_energy is not None:
        if found.y.ndim != 4:
            raise InputError(f"--data.coil_energy {options.coil_energy:g}: {found.name} has one coil; leave it out")
        wanted["coil_energy"] = options.coil_energy
    if options.whiten == "corners":
        if found.y.ndim != 4:
            raise InputError(f"--data.whiten corners: {found.name} has one coil; leave it out")
        wanted["whiten"] = options.whiten
    return replace(found, geometry={**found.geometry, **wanted}) if wanted else found


def _mrd(content: Content, name: str, options: MeasurementOptions) -> Measurement:
    with ExitStack() as files:
        noise = None if options.noise_scan is None else files.enter_context(open_noise_scan(options.noise_scan))
        select = parse_select(options.select, CHOSEN)
        scan = read_scan(files.enter_context(open_mrd(content)), noise, select, *_how(options))
        return _of_scan(content.path, scan, name, options)


def _scanner_file(path: Path, name: str, options: MeasurementOptions) -> Measurement:
    """Of a TWIX file, or of BART's."""
    if path.suffix.lower() in SUFFIXES:
        select = parse_select(options.select, ("echo", "repetition"))
        item, axes = bart_item(path, select)
        raw = read_array(item, axes, options.slices)
        affine, mask = _affine(raw.spacing, raw.first), {"mask": raw.mask}
        found = Measurement(raw.y, mask, affine, name, "mri", True, raw.notes, sized=False)
        return _in_field(path, _centred(path, found), options)
    select = parse_select(options.select, (*CHOSEN, "scan"))
    image, *others = read_twix(path, select.pop("scan", None))
    with ExitStack() as files:
        noise = None if options.noise_scan is None else files.enter_context(open_noise_scan(options.noise_scan))
        if noise is None and not image.noise.any() and others:
            noise = others[0]
        return _of_scan(path, read_scan(image, noise, select, *_how(options)), name, options)


def _how(options: MeasurementOptions) -> tuple[Any, ...]:
    """What ``read_scan`` takes after what is selected."""
    timing = None if options.field_map is None else (options.readout_time, options.echo_spacing)
    return options.slices, options.oversampling, options.whiten is True, timing


def _centred(path: Path, found: Measurement) -> Measurement:
    """K-space of an array, refused where zero frequency is not in the middle, if its dimensions are known by now."""
    return found if found.question else replace(found, notes=(*found.notes, *check_centre(path, found.y)))


def _of_scan(path: Path, scan: Scan, name: str, options: MeasurementOptions) -> Measurement:
    geometry: dict[str, Any] = {"mask": scan.mask, "phase_axis": scan.phase_axis}
    if scan.calibration is not None:
        geometry["calibration"] = scan.calibration
    told = {"noise_std": scan.noise_std, "question": scan.question, "sized": scan.sized, "sided": scan.sided}
    found = Measurement(scan.y, geometry, scan.affine, name, "mri", notes=scan.notes, **told)  # type: ignore[arg-type]
    return _in_field(path, found, replace(options, readout_time=None, echo_spacing=None), scan.times)


def _in_field(path: Path, found: Measurement, options: MeasurementOptions, times: Tensor | None = None) -> Measurement:
    """With the map of ``--data.field_map``, and ``times`` of samples or those that ``options`` tell."""
    if options.field_map is None:
        return found
    flag, shape = f"--data.field_map {options.field_map}", (len(found.y), found.y.shape[-2], found.y.shape[-1])
    if "b0" in found.geometry:
        raise InputError(f"{flag}: {path} has a map b0 of its own; leave it out")
    b0, own, note = read_field_map(options.field_map, shape, found.affine, found.sided)
    timing = options.readout_time, options.echo_spacing
    if own is not None and timing != (None, None):
        raise InputError(f"{flag}: has times of its own; leave --data.readout_time and --data.echo_spacing out")
    if own is None:
        own = grid_times(path, shape[1:], *timing) if times is None else times
        check_seconds(path, own)
    span = 1e3 * float(own.max() - own.min())
    notes = (*found.notes, note, f"samples taken over {span:.3g} ms")
    return replace(found, geometry={**found.geometry, "b0": b0, "times": own}, notes=notes)


def _averaged(found: Measurement) -> Measurement:
    """With as many bins averaged to one as fit into a pixel."""
    geometry, (*_, bins) = found.geometry, found.y.shape
    together = max(1, bins // geometry["image_size"])
    if together == 1:
        return found
    kept, spacing = bins // together, geometry["detector_spacing"]
    y = found.y[..., : kept * together].reshape(*found.y.shape[:-1], kept, together).mean(-1)
    # What does not fill a wider bin is left out at the end.
    offset = geometry["center_offset"] + spacing * (bins - together * kept) / 2
    geometry = {**geometry, "n_detectors": kept, "detector_spacing": together * spacing, "center_offset": offset}
    return replace(found, y=y, geometry=geometry, notes=(*found.notes, f"{together} bins averaged to one"))


def _read(
    content: Content, name: str, modality: Modality, options: MeasurementOptions, struct: str | None = None
) -> Measurement:
    given = (options.image_size, options.detector_spacing, options.rotation_center, options.slices)
    if struct is not None:
        found = read_sinograms(content, struct, *given)
        pixel = found.geometry["pixel_size"]
        affine = _affine([1.0, pixel, pixel], found.first)
        return Measurement(found.y, found.geometry, affine, name, "ct", found.calibrated, found.notes, sized=False)
    if is_data_exchange(content):
        fine = bool(options.correct or options.scatter or options.beam_hardening)
        y, geometry, notes = read_data_exchange(content, *given, fine)
        thickness = geometry.pop("slice_thickness")
        first = 0 if options.slices is None else options.slices[0]
        affine = _affine([thickness, geometry["pixel_size"], geometry["pixel_size"]], first)
        known = options.detector_spacing is not None
        return Measurement(y, geometry, affine, name, "ct", known, notes, sized=known)
    noise = noise_std(content, modality)
    if "kspace" in content:
        raw = read_kspace(content, options.axes, options.slices)
        affine, mask = _affine(raw.spacing, raw.first), {"mask": raw.mask}
        return Measurement(raw.y, mask, affine, name, "mri", True, raw.notes, noise, raw.question, raw.sized)
    own = read_own_layout(content, modality, options.axes, options.slices, options.rotation_center)
    affine = _affine(own.spacing, own.first)
    return Measurement(own.y, own.geometry, affine, name, modality, True, own.notes, noise, sized=own.sized)


def _affine(spacing: Sequence[float], first: int) -> np.ndarray:
    """Of a voxel size ``(z, y, x)``, from the number of the first slice on."""
    z, y, x = spacing
    affine = np.diag([x, y, z, 1.0])
    affine[2, 3] = first * z
    return affine
