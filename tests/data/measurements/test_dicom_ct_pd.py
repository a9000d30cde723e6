"""DICOM-CT-PD: files that are written here by its dictionary, whose bead lands where it is."""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

from lightning_mbir.data.measurements.measurement import read_measurement
from lightning_mbir.data.measurements.options import MeasurementOptions
from lightning_mbir.errors import InputError
from lightning_mbir.physics import ModularBeam
from lightning_mbir.reconstruction.measured import measured_operator
from tests.data.measurements.beads import bead, found

ROWS, COLUMNS = 10, 32
RHO, TOTAL = 100.0, 165.0
ACROSS, ALONG = 2.2, 2.6
CENTRAL = (17.25, 5.0)
"""Column and row, counted from 1."""
SLOPE, INTERCEPT = 2e-5, -0.01
PLACE = (6.0, -4.0, 5.0)
"""Of the bead, in the manual's axes: to the right and up as seen from the table, into the gantry."""


def at(rho: Any, phi: Any, z: Any) -> np.ndarray:
    return np.stack(np.broadcast_arrays(-rho * np.sin(phi), rho * np.cos(phi), z), -1)


def element(phi: float, z: float, column: int, row: int, curved: bool) -> np.ndarray:
    """Where one is, in the manual's axes, from its words alone."""
    focal = at(RHO, phi, z)
    beside = (column - CENTRAL[0]) * ACROSS
    # With the detector at 6 o'clock (phi 0) columns go to the right (+x); rows come towards the table (-z).
    inward = -at(1.0, phi, 0.0)
    right = np.array([np.cos(phi), np.sin(phi), 0.0])
    turn = beside / TOTAL
    point = (
        focal + TOTAL * (np.cos(turn) * inward + np.sin(turn) * right)
        if curved
        else focal + TOTAL * inward + beside * right
    )
    return point - np.array([0.0, 0.0, (row - CENTRAL[1]) * ALONG])


def scan(
    folder: Path, *, shape: str = "CYLINDRICAL", flying: bool = False, stored: str = "columns", **options: Any
) -> Path:
    """A helix of three turns, with the focal spot in two places by turns."""
    folder.mkdir(exist_ok=True)
    views, mangled = options.get("views", 60), options.get("bytes", False)
    for view in range(views):
        phi, z = 0.4 - 2 * np.pi * view / 20, 40.0 - 8.0 * view / 20  # clockwise, into the table
        shifts = (0.012 * (-1) ** view, 1.5 * (-1) ** (view // 2), -0.8) if flying else (0.0, 0.0, 0.0)
        source = at(RHO + shifts[2], phi + shifts[0], z + shifts[1])
        bins = np.array(
            [[element(phi, z, c + 1, r + 1, shape == "CYLINDRICAL") for c in range(COLUMNS)] for r in range(ROWS)]
        )
        y = bead(source[None], bins[None], (PLACE[0], PLACE[1], PLACE[2] + 28.0), 3.0, 0.03)[0]
        pixels = np.round((y - INTERCEPT) / SLOPE).astype(np.uint16)
        file = pydicom.Dataset()
        file.file_meta = FileMetaDataset()
        file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = CTImageStorage
        file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = generate_uid(entropy_srcs=[str(view)])
        file.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if mangled else ExplicitVRLittleEndian
        file.InstanceNumber, file.Modality, file.PatientPosition = view + 1, "CT", options.get("lies", "HFS")
        file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
        file.BitsAllocated = file.BitsStored = 16
        file.HighBit, file.PixelRepresentation = 15, 0
        file.RescaleSlope, file.RescaleIntercept = SLOPE, INTERCEPT
        if stored == "columns":
            pixels = pixels.T
        file.Rows, file.Columns = pixels.shape
        file.PixelData = np.ascontiguousarray(pixels).tobytes()
        tags = {
            0x7029100B: ("CS", shape), 0x70291010: ("US", ROWS), 0x70291011: ("US", COLUMNS),
            0x70291002: ("FL", ACROSS), 0x70291006: ("FL", ALONG),
            0x70311001: ("FL", phi), 0x70311002: ("FL", z), 0x70311003: ("FL", RHO),
            0x70311031: ("FL", TOTAL), 0x70311033: ("FL", list(CENTRAL)),
            0x7033100B: ("FL", shifts[0]), 0x7033100C: ("FL", shifts[1]), 0x7033100D: ("FL", shifts[2]),
            0x70391009: ("CS", "YES"), **options.get("tags", {}).get(view, {}),
        }  # fmt: skip
        for tag, (kind, value) in tags.items():
            if value is not None:
                file.add_new(tag, kind, value)
        file.save_as(folder / f"{(view * 7) % views:04d}.dcm", enforce_file_format=True)
    return folder


@pytest.mark.parametrize(
    "options",
    [{}, {"flying": True}, {"shape": "FLAT"}, {"stored": "rows", "bytes": True}],
    ids=["plain", "flying focal spot", "flat", "row by row, read without a dictionary"],
)
def test_a_bead_lands_where_it_is(options: dict[str, Any], tmp_path: Path) -> None:
    read = read_measurement(scan(tmp_path, **options), "ct", MeasurementOptions(image_size=24))
    operator = measured_operator(read)
    assert isinstance(operator, ModularBeam) and operator.range_shape == (60, ROWS, COLUMNS)
    place, mass = found(read)
    # In RAS: the manual's x is the left of one who lies head first on the back, its y is up.
    assert place == pytest.approx((-PLACE[0], PLACE[1], PLACE[2] + 28.0), abs=0.35)
    assert mass == pytest.approx(0.03 * 4 / 3 * np.pi * 27, rel=0.15)
    if options.get("flying"):
        assert "the focal spot is off the centre of the detector's arc in 60 of 60 views" in read.notes


def test_a_flying_focal_spot_that_is_not_heeded_blurs(tmp_path: Path) -> None:
    """So the test above would see it: without the shifts the measurement is not explained."""
    from lightning_mbir.solvers import sirt

    read = read_measurement(scan(tmp_path, flying=True), "ct", MeasurementOptions(image_size=24))
    misfits = []
    for heeded in (True, False):
        if not heeded:
            for path in tmp_path.iterdir():
                file = pydicom.dcmread(path)
                for tag in (0x7033100B, 0x7033100C, 0x7033100D):
                    del file[tag]
                file.save_as(path)
            read = read_measurement(tmp_path, "ct", MeasurementOptions(image_size=24))
        operator = measured_operator(read)
        misfits.append(float((operator(sirt(read.y, operator, iterations=30)) - read.y).norm() / read.y.norm()))
    assert misfits[0] < 0.9 * misfits[1]


def test_sides_are_told_only_where_they_are_known(tmp_path: Path) -> None:
    read = read_measurement(scan(tmp_path, lies="FFS"), "ct", MeasurementOptions(image_size=24))
    assert "PatientPosition FFS: sides are not told" in read.notes
    assert read.affine[0, 0] > 0 and not read.sided
    read = read_measurement(scan(tmp_path / "silent", lies=""), "ct", MeasurementOptions(image_size=24))
    assert "PatientPosition is not there: sides are not told" in read.notes and not read.sided
    assert read_measurement(scan(tmp_path / "head_first"), "ct", MeasurementOptions(image_size=24)).sided


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({4: {0x70311001: ("FL", None)}}, r"has DetectorFocalCenterAngularPosition \(7031,1001\)"),
        ({4: {0x70311001: ("FL", float("nan"))}}, "DetectorFocalCenterAngularPosition is .nan.; give finite numbers"),
        ({4: {0x70311031: ("FL", 170.0)}}, "another ConstantRadialDistance than"),
        ({4: {0x70391009: ("CS", "NO")}}, "LogFlag is NO"),
        ({4: {0x7029100B: ("CS", "SPHERICAL")}}, "there are CYLINDRICAL and FLAT"),
        ({4: {0x70311033: ("FL", 3.0)}}, "DetectorCentralElement has 1 values"),
        ({4: {0x70331063: ("US", 2)}, 0: {0x70331063: ("US", 1)}}, "give one spectrum alone"),
        ({4: {0x70291010: ("US", 11)}}, "another NumberofDetectorRows"),
        ({v: {0x70291010: ("US", 11)} for v in range(30)}, "the detector has 11 rows"),
        ({4: {0x70311033: ("FL", [300.0, 5.0])}}, "is column 300, row 5 of 32 columns and 10 rows"),
        ({4: {0x70311033: ("FL", [5.0, 17.25])}}, "is column 5, row 17.25 of 32 columns and 10 rows"),
        ({v: {0x70291002: ("FL", 0.0)} for v in range(30)}, "DetectorElementTransverseSpacing is 0; give more than 0"),
        ({v: {0x70291006: ("FL", -2.6)} for v in range(30)}, "DetectorElementAxialSpacing is -2.6; give more than 0"),
        ({4: {0x70311003: ("FL", 0.0)}}, "DetectorFocalCenterRadialDistance is 0; give more than 0"),
        ({v: {0x70311001: ("FL", -18.0 * v)} for v in range(30)}, "which are no radians"),
        ({v: {0x70311001: ("FL", 0.4)} for v in range(30)}, "all 30 views look in one direction"),
        ({4: {0x00281053: ("DS", "0")}}, "RescaleSlope is 0; give more than 0"),
    ],
)
def test_other_files_are_refused(tags: dict[int, Any], words: str, tmp_path: Path) -> None:
    scan(tmp_path, views=30, tags=tags)
    with pytest.raises(InputError, match=words) as caught:
        read_measurement(tmp_path, "ct")
    assert "\n" not in str(caught.value)


def test_folders_of_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no file"):
        read_measurement(tmp_path, "ct")
    scan(tmp_path, views=45)
    with pytest.raises(InputError, match=r"--data.slices 0:2: the views of"):
        read_measurement(tmp_path, "ct", MeasurementOptions(slices=(0, 2)))
    fourth = next(path for path in sorted(tmp_path.iterdir()) if pydicom.dcmread(path).InstanceNumber == 4)
    kept = fourth.read_bytes()
    fourth.unlink()  # one view less is a note, many are a gap
    assert "1 of the InstanceNumbers from 1 to 45 are not there" in read_measurement(tmp_path, "ct").notes
    fourth.write_bytes(kept)
    lost = [path for path in tmp_path.iterdir() if 20 <= pydicom.dcmread(path).InstanceNumber < 27]
    for path in lost:
        path.unlink()
    with pytest.raises(InputError, match="views of the helix are missing"):
        read_measurement(tmp_path, "ct")
    first = min(tmp_path.iterdir())
    (tmp_path / "again.dcm").write_bytes(first.read_bytes())
    with pytest.raises(InputError, match="is there twice"):
        read_measurement(tmp_path, "ct")
    (tmp_path / "again.dcm").write_bytes(first.read_bytes()[:300])
    with pytest.raises(InputError, match="again"):
        read_measurement(tmp_path, "ct")
    (tmp_path / "again.dcm").write_text("no DICOM")
    with pytest.raises(InputError, match="no DICOM file"):
        read_measurement(tmp_path, "ct")
