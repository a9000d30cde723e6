"""MRD files (ISMRMRD): readouts of any vendor's scanner, as its converter writes them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lightning_mbir.data.measurements.content import Content
from lightning_mbir.data.measurements.item import told
from lightning_mbir.data.measurements.readouts import COUNTERS, Grid, Readouts, check_ramps
from lightning_mbir.errors import InputError

DATA, HEADER = "dataset/data", "dataset/xml"
SMALLEST = 1.0
"""mm of a field of view that a scanner images."""
INSTALL = "pip install 'lightning-mbir[scanners]'"
COUNTER_NAMES = dict(zip(COUNTERS, ("kspace_encode_step_1", "kspace_encode_step_2", *COUNTERS[2:]), strict=True))
COUNTER_NAMES["echo"] = "contrast"
LEFT_OUT = (
    *("NAVIGATION_DATA", "PHASECORR_DATA", "RTFEEDBACK_DATA", "HPFEEDBACK_DATA", "DUMMYSCAN_DATA"),
    *("SURFACECOILCORRECTIONSCAN_DATA", "PHASE_STABILIZATION", "PHASE_STABILIZATION_REFERENCE"),
)
"""Flags of readouts that show no image."""


def is_mrd(content: Content) -> bool:
    """Whether an HDF5 file has the datasets of MRD."""
    return DATA in content and HEADER in content


@contextmanager
def open_mrd(content: Content) -> Iterator[Readouts]:
    """The readouts of a file, whose samples are read as long as the context lasts.

    Raises:
        InputError: the package that reads them is not installed, a damaged file, a header that lacks its grid, samples
            off the grid.
    """
    path = content.path
    try:
        import ismrmrd
    except ImportError as error:
        raise InputError(f"{path}: is read by the package ismrmrd, which is not installed; {INSTALL}") from error
    text = content[HEADER].text()
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise InputError(f"{path}: {HEADER} has a DOCTYPE, which a header has no use for; leave it out")
    content[DATA]  # not virtual, and nothing outside of the file
    with told(path):
        file = ismrmrd.File(str(path), "r")
    with file:
        with told(path, HEADER):
            header = _parsed(path, text)
        with told(path, DATA):
            acquisitions = file["dataset"].acquisitions
            heads = acquisitions.data.fields("head")[:]
        if not len(heads):
            raise InputError(f"{path}: has no readouts")

        def load(k: int) -> np.ndarray:
            with told(path, f"readout {k}"):
                return np.asarray(acquisitions[k].data)

        yield _readouts(path, header, heads, load)


def _parsed(path: Path, text: str) -> Any:
    import ismrmrd

    try:
        return ismrmrd.xsd.CreateFromDocument(text.encode())
    except Exception as error:  # of whatever parser xsdata uses
        raise InputError(f"{path}: {HEADER} cannot be read ({' '.join(str(error).split())})") from error


def _readouts(path: Path, header: Any, heads: np.ndarray, load: Any) -> Readouts:
    import ismrmrd

    def flagged(name: str) -> np.ndarray:
        value = getattr(ismrmrd, f"ACQ_IS_{name}", None)
        return np.zeros(len(heads), bool) if value is None else (heads["flags"] >> np.uint64(value - 1)) & 1 == 1

    if len(header.encoding) != 1 and len(set(heads["encoding_space_ref"].tolist())) > 1:
        raise InputError(f"{path}: has {len(header.encoding)} encodings; write those of one into a file of its own")
    if header.encoding and int(heads["encoding_space_ref"].max()) >= len(header.encoding):
        raise InputError(f"{path}: has readouts of an encoding that {HEADER} has not; correct the header")
    noise = flagged("NOISE_MEASUREMENT")
    other = np.any([flagged(name) for name in LEFT_OUT], axis=0)
    # Converters set both flags, as Siemens does, where a line of the image is one of the calibration too.
    calibration = flagged("PARALLEL_CALIBRATION") & ~flagged("PARALLEL_CALIBRATION_AND_IMAGING") & ~other
    imaging = ~(noise | other | calibration)
    notes = (f"{other.sum()} readouts of navigators and the like left out",) if other.any() else ()
    if bool((heads["trajectory_dimensions"][imaging] > 0).any()):
        notes = (*notes, f"trajectories of the readouts left out: {HEADER} says that they are on a grid")
    encoding = header.encoding[int(heads["encoding_space_ref"][0])] if header.encoding else None
    parallel = encoding.parallelImaging if encoding else None
    mode = (
        getattr(parallel.calibrationMode, "value", "embedded") if parallel and parallel.calibrationMode else "embedded"
    )
    system = header.acquisitionSystemInformation
    labels = sorted(system.coilLabel, key=lambda label: label.coilNumber) if system else []
    bandwidth = system.relativeReceiverNoiseBandwidth if system else None
    counters = {name: heads["idx"][key].astype(int) for name, key in COUNTER_NAMES.items()}
    return Readouts(
        path,
        _grid(path, encoding, heads, imaging),
        counters,
        imaging,
        calibration,
        noise,
        flagged("REVERSE"),
        heads["number_of_samples"].astype(int),
        heads["active_channels"].astype(int),
        heads["center_sample"].astype(int),
        np.stack([heads["discard_pre"], heads["discard_post"]], 1).astype(int),
        heads["sample_time_us"].astype(float),
        heads["position"].astype(float),
        np.stack([heads["read_dir"], heads["phase_dir"], heads["slice_dir"]], 1).astype(float),
        load,
        tuple(label.coilName for label in labels),
        float(bandwidth or 1.0),
        mode in ("embedded", "interleaved"),
        notes,
        getattr(encoding.trajectory, "value", "") == "epi" if encoding else False,
    )


def _check_ramps(path: Path, described: Any) -> None:
    """Refuse samples on ramps, which a header of an echo train tells as converters of Siemens and GE write it."""
    told = {one.name: float(one.value) for one in (*described.userParameterLong, *described.userParameterDouble)}
    if {"acqDelayTime", "rampUpTime", "flatTopTime", "numSamples", "dwellTime"} <= told.keys():
        duration = told["numSamples"] * told["dwellTime"]
        check_ramps(path, told["acqDelayTime"], told["rampUpTime"], told["flatTopTime"], duration)


def _grid(path: Path, encoding: Any, heads: np.ndarray, imaging: np.ndarray) -> Grid:
    if encoding is None:
        raise InputError(f"{path}: {HEADER} has no encoding, so the grid of k-space is not known")
    trajectory = getattr(encoding.trajectory, "value", "cartesian")
    if trajectory not in ("cartesian", "epi"):
        raise InputError(f"{path}: {HEADER} says the trajectory is {trajectory}; k-space on a grid is read alone")
    if encoding.trajectoryDescription is not None:
        _check_ramps(path, encoding.trajectoryDescription)
    encoded, kept = encoding.encodedSpace, encoding.reconSpace
    sizes = [encoded.matrixSize.x, encoded.matrixSize.y, encoded.fieldOfView_mm.x, encoded.fieldOfView_mm.y]
    sizes += [kept.fieldOfView_mm.x, kept.fieldOfView_mm.z, kept.matrixSize.z]
    if not all(np.isfinite(size) and 0 < size < 1e6 for size in sizes):
        raise InputError(f"{path}: {HEADER} has sizes that are not positive: {', '.join(f'{s:g}' for s in sizes)}")
    if max(sizes[2:4]) < SMALLEST:
        raise InputError(
            f"{path}: {HEADER} has a field of view of {sizes[2]:g} x {sizes[3]:g} mm, which looks like meters; give mm"
        )
    if encoded.matrixSize.z > 1:
        raise InputError(
            f"{path}: {HEADER} says that {encoded.matrixSize.z} partitions were encoded along z; slices are read alone"
        )
    limits = encoding.encodingLimits.kspace_encoding_step_1 if encoding.encodingLimits else None
    center = encoded.matrixSize.y // 2 if limits is None else limits.center
    highest = int(heads["idx"]["kspace_encode_step_1"][imaging].max(initial=0))
    if highest - center + encoded.matrixSize.y // 2 >= encoded.matrixSize.y or center > highest > 0:
        raise InputError(
            f"{path}: has line {highest}, {HEADER} {encoded.matrixSize.y} lines with zero frequency in {center}; "
            "correct the header"
        )
    return Grid(
        encoded.matrixSize.x,
        encoded.matrixSize.y,
        center,
        (encoded.fieldOfView_mm.x, encoded.fieldOfView_mm.y),
        kept.fieldOfView_mm.x,
        kept.fieldOfView_mm.z / kept.matrixSize.z,
    )
