"""TWIX files (``meas.dat``): readouts as scanners of Siemens write them, of software VD and later."""

from __future__ import annotations

import contextlib
import ctypes
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from lightning_mbir.data.measurements.item import DAMAGED
from lightning_mbir.data.measurements.mrd import INSTALL
from lightning_mbir.data.measurements.readouts import COUNTERS, Grid, Readouts, check_ramps
from lightning_mbir.errors import InputError

MOST_SCANS = 64
OVERSAMPLED = 2
"""Readouts are always sampled at twice the field of view of the protocol."""
COUNTER_NAMES = dict(zip(COUNTERS, ("Lin", "Par", "Sli", "Ave", "Eco", "Phs", "Rep", "Set"), strict=True))
SEPARATE = (4, 8, 16)
"""``ucRefScanMode`` of calibration lines that are a scan of their own."""


def read_twix(path: Path, scan: int | None = None) -> list[Readouts]:
    """The measurements of a file: the one that has the image, and those with noise alone.

    Args:
        path: the file.
        scan: which of several measurements, counted from 0.

    Raises:
        InputError: the package that reads them is not installed, a file of another kind or of software VB, one that is
            cut short, several measurements of which none is chosen, none with lines of an image.
    """
    scans = _measurements(path)
    found = [_readouts(path, one) for one in scans]
    with_image = [k for k, one in enumerate(found) if one is not None and one.imaging.any()]
    if not with_image:
        raise InputError(f"{path}: has no lines of an image, of {len(found)} measurements")
    if scan is None and len(with_image) > 1:
        there = ", ".join(f"{k} ({_protocol(scans[k])})" for k in with_image)
        raise InputError(f"{path}: has scan {there}; choose one with --data.select scan={with_image[-1]}")
    chosen = with_image[0] if scan is None else scan
    if chosen not in with_image:
        raise InputError(f"--data.select scan={chosen}: {path} has images in {', '.join(map(str, with_image))}")
    others = [one for k, one in enumerate(found) if k != chosen and one is not None and one.noise.any()]
    return [one for one in [found[chosen]] if one is not None] + others


def read_twix_noise(path: Path) -> Readouts:
    """The measurement of a file that has a noise scan; see ``read_twix``.

    Raises:
        InputError: see ``read_twix``; a file without one.
    """
    for one in (_readouts(path, scan) for scan in _measurements(path)):
        if one is not None and one.noise.any():
            return one
    raise InputError(f"{path}: has no noise scan; give another --data.noise_scan, or leave it out")


def _measurements(path: Path) -> list[dict[str, Any]]:
    """All of a file, as twixtools has them, each whole."""
    try:
        import twixtools
    except ImportError as error:
        raise InputError(f"{path}: is read by the package twixtools, which is not installed; {INSTALL}") from error
    _check_start(path)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scans = twixtools.read_twix(
                str(path), parse_pmu=False, parse_geometry=False, verbose=False, keep_syncdata=False, keep_acqend=True
            )
    except (*DAMAGED, AttributeError, UnboundLocalError) as error:
        raise InputError(f"{path}: cannot be read as TWIX ({error}); the file may be damaged or cut short") from error
    return list(scans)


def _check_start(path: Path) -> None:
    """What twixtools takes for granted, and would run on without end."""
    with path.open("rb") as file:
        start = np.frombuffer(file.read(8), dtype="<u4")
    if len(start) == 2 and start[0] >= 10000 and start[0] < path.stat().st_size:
        raise InputError(
            f"{path}: is no TWIX file of software VD or later; of VB, convert it to MRD with siemens_to_ismrmrd"
        )
    if len(start) < 2 or not 1 <= start[1] <= MOST_SCANS or start[0] >= 10000:
        raise InputError(f"{path}: is no TWIX file; give the meas.dat of the scanner")
    entries = np.fromfile(path, dtype="<u8", count=1 + 19 * int(start[1]))
    if len(entries) < 1 + 19 * int(start[1]):
        raise InputError(f"{path}: ends within its list of measurements; it was cut short")
    size, places = path.stat().st_size, entries[2:].tolist()
    scans = list(zip(places[::19], places[1::19], strict=True))[: int(start[1])]  # where each begins, and its length
    if any(offset + length > size or offset == size for offset, length in scans):
        raise InputError(f"{path}: has {size} bytes, its list of measurements tells of more; it was cut short")
    for offset, length in scans:
        _check_blocks(path, offset, offset + length if length else size)


def _check_blocks(path: Path, offset: int, end: int) -> None:
    """That a measurement goes on from block to block to its end."""
    from twixtools.mdh_def import Channel_header, Scan_header, get_dma_len, is_flag_set

    head, channel = ctypes.sizeof(Scan_header), ctypes.sizeof(Channel_header)
    with path.open("rb") as file:
        file.seek(offset)
        at = offset + int.from_bytes(file.read(4), "little")
        while at + head <= end:
            file.seek(at)
            block = Scan_header.from_buffer_copy(file.read(head))
            own = is_flag_set(block, "ACQEND") or is_flag_set(block, "SYNCDATA")
            told = get_dma_len(block) if own else head + block.UsedChannels * (channel + 8 * block.SamplesInScan)
            if is_flag_set(block, "ACQEND"):
                return
            if not head <= told <= end - at:
                break
            at += told
    raise InputError(f"{path}: its blocks end before its last readout; it was cut short or is damaged, copy it again")


def _protocol(scan: dict[str, Any]) -> str:
    return str(_get(scan, "MeasYaps", "tProtocolName") or "no name").strip('"')


def _get(scan: dict[str, Any], *names: str | int) -> Any:
    """What lies in the header under these names; None where there is nothing."""
    found: Any = scan.get("hdr")
    for name in names:
        try:
            found = found[name]
        except (KeyError, IndexError, TypeError):
            return None
    return found


def _readouts(path: Path, scan: dict[str, Any]) -> Readouts | None:
    """A measurement; None without any readout."""
    from twixtools.mdh_def import is_image_scan

    blocks = [block for block in scan["mdb"] if not (block.is_flag_set("ACQEND") or block.is_flag_set("SYNCDATA"))]
    if not blocks:
        return None

    def flagged(name: str) -> np.ndarray:
        return np.array([block.is_flag_set(name) for block in blocks])

    heads = [block.mdh for block in blocks]
    noise = flagged("NOISEADJSCAN")
    imaging = np.array([bool(is_image_scan(head)) for head in heads])
    other = flagged("PHASCOR") | flagged("PHASESTABSCAN") | flagged("REFPHASESTABSCAN") | flagged("RTFEEDBACK")
    calibration = flagged("PATREFSCAN") & ~flagged("PATREFANDIMASCAN") & ~other & ~noise
    imaging &= ~calibration & ~noise
    counters = {
        name: np.array([int(getattr(head.Counter, key)) for head in heads]) for name, key in COUNTER_NAMES.items()
    }
    left = int((~(imaging | calibration | noise)).sum())
    turns = [np.array(head.SliceData.Quaternion, dtype=float) for head in heads]
    spots = [head.SliceData.SlicePos for head in heads]
    dwell = _get(scan, "MeasYaps", "sRXSPEC", "alDwellTime", 0)
    if int(_get(scan, "Meas", "alRegridMode", 0) or 1) > 1:
        check_ramps(path, *(float(_get(scan, "Meas", name, 0) or 0) for name in RAMPS))
    coils = _get(scan, "MeasYaps", "sCoilSelectMeas", "aRxCoilSelectData", 0, "asList") or []
    identities = [_get({"hdr": coil}, "sCoilElementID") or {} for coil in coils]
    return Readouts(
        path,
        _grid(scan, blocks, counters, imaging),
        counters,
        imaging,
        calibration,
        noise,
        flagged("REFLECT"),
        np.array([int(head.SamplesInScan) for head in heads]),
        np.array([int(head.UsedChannels) for head in heads]),
        np.array([int(head.CenterCol) for head in heads]),
        np.array([[head.CutOff.Pre, head.CutOff.Post] for head in heads], dtype=int),
        np.full(len(heads), float(dwell or 0.0) / 1000),
        np.array([[spot.Sag, spot.Cor, spot.Tra] for spot in spots], dtype=float),
        np.stack([rotation(turn) for turn in turns]),
        lambda k: np.asarray(blocks[k].data),
        tuple(f"{one.get('tCoilID')}:{one.get('tElement')}" for one in identities if one),
        1.0,
        (_get(scan, "MeasYaps", "sPat", "ucRefScanMode") or 0) not in SEPARATE,
        (f"{left} readouts of navigators and the like left out",) if left else (),
        int(_get(scan, "MeasYaps", "sFastImaging", "lEPIFactor") or 1) > 1,
    )


def rotation(quaternion: np.ndarray) -> np.ndarray:
    """Directions of readout, phase encoding and slices, one a row, of a quaternion ``(w, x, y, z)``.

    It rotates (phase, read, slice) to the patient's (left, back, head), as ISMRMRD's converter of these files has it.
    """
    w, x, y, z = quaternion
    phase = [1 - 2 * (y * y + z * z), 2 * (x * y + z * w), 2 * (x * z - y * w)]
    read = [2 * (x * y - z * w), 1 - 2 * (x * x + z * z), 2 * (y * z + x * w)]
    normal = [2 * (x * z + y * w), 2 * (y * z - x * w), 1 - 2 * (x * x + y * y)]
    return np.array([read, phase, normal], dtype=float)


def _grid(scan: dict[str, Any], blocks: list[Any], counters: dict[str, np.ndarray], imaging: np.ndarray) -> Grid:
    measured = int(counters["line"][imaging].max(initial=0)) + 1
    first = int(np.flatnonzero(imaging)[0]) if imaging.any() else 0
    samples = int(blocks[first].mdh.SamplesInScan)
    base = int(_get(scan, "MeasYaps", "sKSpace", "lBaseResolution") or 0)
    lines = int(_get(scan, "MeasYaps", "sKSpace", "lPhaseEncodingLines") or 0)
    more = float(_get(scan, "MeasYaps", "sKSpace", "dPhaseOversamplingForDialog") or 0)
    piece = [_get(scan, "MeasYaps", "sSliceArray", "asSlice", 0, name) for name in SIZES]
    read, phase, thickness = (float(size or 0) for size in piece)
    center = int(blocks[first].mdh.CenterLin)
    encoded = max(1, round(lines * (1 + more)))
    doubt = ""
    if measured > encoded or base == 0 or center > measured or (center == 0 and measured > 1):
        doubt = f"its header is of {lines} lines with zero frequency in {center}, of which {measured} were measured"
        encoded, center, more = measured, measured // 2, 0.0
    # Lines that are not encoded on purpose stand beyond those that are.
    encoded = max(encoded, 2 * center, 2 * (measured - center) - 1)
    share = encoded / max(1, lines) if not doubt else 1.0
    grid = samples if doubt else max(samples, OVERSAMPLED * base)
    return Grid(grid, encoded, center, (OVERSAMPLED * read, phase * share), read, thickness, doubt)


RAMPS = ("alRegridDelaySamplesTime", "alRegridRampupTime", "alRegridFlattopTime", "aflRegridADCDuration")
"""Times of an echo train's gradient in microseconds, as ``check_ramps`` takes them."""
SIZES = ("dReadoutFOV", "dPhaseFOV", "dThickness")
