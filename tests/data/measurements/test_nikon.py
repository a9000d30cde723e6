"""Nikon's scans: a bead where two readers of others put it, and parameters that nobody defines."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from lightning_mbir.data.measurements.measurement import read_measurement
from lightning_mbir.data.measurements.options import MeasurementOptions
from lightning_mbir.errors import InputError
from lightning_mbir.physics import ConeBeam, ModularBeam
from lightning_mbir.reconstruction.measured import measured_operator, part_of
from lightning_mbir.solvers import fdk
from tests.data.measurements.beads import bead, found

NEAR, TOTAL, PITCH, ROWS, COLUMNS, VIEWS, WHITE = 100.0, 160.0, (2.5, 2.0), 18, 34, 36, 60000.0
PLACE = (6.0, -4.0, 3.0)
"""Of the bead, in the axes of CIL's slices."""
GIVEN: dict[str, Any] = {
    "Name": "scan",
    "InputSeparator": "_",
    "SrcToObject": NEAR,
    "SrcToDetector": TOTAL,
    "DetectorPixelsX": COLUMNS,
    "DetectorPixelsY": ROWS,
    "DetectorPixelSizeX": PITCH[1],
    "DetectorPixelSizeY": PITCH[0],
    "DetectorOffsetX": 0.0,
    "DetectorOffsetY": 0.0,
    "ObjectOffsetX": 0.0,
    "CentreOfRotationTop": 0.0,
    "CentreOfRotationBottom": 0.0,
    "WhiteLevel": WHITE,
    "Projections": VIEWS,
    "InitialAngle": 12.0,
    "AngularStep": 10.0,
    "Units": "mm",
}


def turn(degrees: np.ndarray) -> np.ndarray:
    """``(views, 3, 3)``, right-handed about z."""
    cos, sin, zero, one = np.cos(a := np.deg2rad(degrees)), np.sin(a), np.zeros_like(a), np.ones_like(a)
    return np.stack((cos, -sin, zero, sin, cos, zero, zero, zero, one), -1).reshape(-1, 3, 3)


def by_cil(values: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    """Source, bins and bead in the axes of the sample, as CIL's ``NikonDataReader`` has them.

    The source is at ``(0, -SrcToObject, 0)``, the axis at ``(-ObjectOffsetX, 0)``, the detector at ``(-DetectorOffsetX,
    SrcToDetector - SrcToObject, 0)`` with its first pixel at the top right: columns towards -x, rows towards -z. CIL's
    angle is ``180 - InitialAngle - AngularStep k``, by which the sample turns, right-handed.
    """
    angle = 180 - values["InitialAngle"] - values["AngularStep"] * np.arange(VIEWS)
    axis = np.array([-values["ObjectOffsetX"], 0, 0])
    across = -(np.arange(COLUMNS) - (COLUMNS - 1) / 2) * PITCH[1] - values["DetectorOffsetX"]
    down = -(np.arange(ROWS) - (ROWS - 1) / 2) * PITCH[0]
    grid = np.stack(np.broadcast_arrays(across, TOTAL - NEAR, down[:, None]), -1)
    back = turn(-angle)
    source = np.array([0, -NEAR, 0]) - axis
    return source @ back.transpose(0, 2, 1), np.einsum("vab,rcb->vrca", back, grid - axis), PLACE


def by_tigre(values: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    """The same as TIGRE has them, whose axis points down where CIL's points up: ``(x, y, z)`` is CIL's ``(y, x, -z)``.

    The source is at ``(DSO, 0, 0)``, columns go towards y and rows towards z; ``COR`` of ``-ObjectOffsetX`` moves
    source and detector along the columns, ``offDetector`` of ``DetectorOffsetX`` the detector. All turn by ``-(
    InitialAngle + AngularStep k)``, right-handed.
    """
    angle = -(values["InitialAngle"] + values["AngularStep"] * np.arange(VIEWS))
    moved = -values["ObjectOffsetX"]
    across = (np.arange(COLUMNS) - (COLUMNS - 1) / 2) * PITCH[1] + values["DetectorOffsetX"] + moved
    along = (np.arange(ROWS) - (ROWS - 1) / 2) * PITCH[0]
    grid = np.stack(np.broadcast_arrays(NEAR - TOTAL, across, along[:, None]), -1)
    matrix = turn(angle)
    source = np.array([NEAR, moved, 0])
    x, y, z = PLACE
    return source @ matrix.transpose(0, 2, 1), np.einsum("vab,rcb->vrca", matrix, grid), (y, x, -z)


def write(folder: Path, convention: Any = by_cil, written: dict[str, Any] | None = None, **values: Any) -> Path:
    """A scan of the bead; ``written`` is what the file says instead."""
    given = {**GIVEN, **values}
    sources, bins, place = convention(given)
    counts = WHITE * np.exp(-bead(sources, bins, place, 3.0, 0.03))
    for k, image in enumerate(counts):
        tifffile.imwrite(folder / f"scan_{k + 1:04d}.tif", np.round(image).astype(np.uint16))
    path = folder / "scan.xtekct"
    told = {key: value for key, value in {**given, **(written or {})}.items() if value is not None}
    path.write_text("[XTekCT]\n" + "".join(f"{key}={value}\n" for key, value in told.items()) + "[Xrays]\nXraykV=100\n")
    return path


@pytest.mark.parametrize("convention", [by_cil, by_tigre])
@pytest.mark.parametrize("offsets", [{}, {"ObjectOffsetX": 2.5, "DetectorOffsetX": -3.0}])
def test_a_bead_lands_where_both_readers_put_it(convention: Any, offsets: dict[str, float], tmp_path: Path) -> None:
    read = read_measurement(write(tmp_path, convention, **offsets), "ct", MeasurementOptions(image_size=26))
    operator = measured_operator(read)
    assert isinstance(operator, ModularBeam if offsets else ConeBeam)
    assert operator.range_shape == (VIEWS, ROWS, COLUMNS) and operator.domain_shape[1:] == (26, 26)
    at, mass = found(read)
    assert at == pytest.approx(PLACE, abs=0.35)
    assert mass == pytest.approx(0.03 * 4 / 3 * np.pi * 27, rel=0.15)
    assert f"{VIEWS} projections over WhiteLevel 60000" in read.notes
    assert len(part_of(read, views=12).y) == 12


def test_a_small_offset_is_that_of_a_cone(tmp_path: Path) -> None:
    write(tmp_path, ObjectOffsetX=0.02, DetectorOffsetX=4.0)
    read = read_measurement(tmp_path, "ct", MeasurementOptions(image_size=26))  # the folder will do
    assert read.name == "scan" and read.geometry["beam"] == "cone"
    assert read.geometry["angles"][0] == pytest.approx(192 + np.rad2deg(0.02 / NEAR))
    operator = measured_operator(read)
    assert isinstance(operator, ConeBeam)
    volume = fdk(read.y, operator)
    k, j, i = np.unravel_index(int(volume.argmax()), volume.shape)
    at = read.affine @ np.array([i, j, k, 1.0])
    assert at[:3] == pytest.approx(PLACE, abs=1.6)  # within a voxel of 2 mm


@pytest.mark.parametrize("how", ["told", "search"])
def test_the_axis_may_be_told_or_found(how: str, tmp_path: Path) -> None:
    """Instead of what the file says, which here is another offset."""
    path = write(tmp_path, written={"ObjectOffsetX": -1.5}, ObjectOffsetX=2.5)
    column = (COLUMNS - 1) / 2 + 2.5 * TOTAL / NEAR / PITCH[1]
    center: Any = "search" if how == "search" else column
    read = read_measurement(path, "ct", MeasurementOptions(image_size=26, rotation_center=center))
    note = next(one for one in read.notes if one.startswith("rotation axis at column"))
    assert float(note.split()[4]) == pytest.approx(column, abs=0.1)
    assert found(read)[0] == pytest.approx(PLACE, abs=0.35)


def test_files_of_angles(tmp_path: Path) -> None:
    path = write(tmp_path)
    nominal = 12.0 + 10.0 * np.arange(VIEWS)
    (tmp_path / "_ctdata.txt").write_text(
        "CTdata\nframes\t1\nProjection\tAngle\tTime\n"
        + "".join(f"{k + 1}\t{a + 90.001}\t{k}\n" for k, a in enumerate(nominal))
    )
    assert read_measurement(path, "ct").geometry["beam"] == "cone"  # another start is none
    (tmp_path / "scan.ang").write_text(
        "Proj\tAngle(deg)\n" + "".join(f"{k + 1}:\t{a + 5 * (k == 7)}\n" for k, a in enumerate(nominal))
    )
    with pytest.raises(InputError, match=r"scan\.ang has angles .* give --data.angles"):
        read_measurement(path, "ct")
    (tmp_path / "mine.txt").write_text("\n".join(str(a + 1) for a in nominal))
    told = read_measurement(path, "ct", MeasurementOptions(angles=tmp_path / "mine.txt"))
    assert told.geometry["angles"][0] == pytest.approx(193) and "angles of mine.txt" in told.notes
    (tmp_path / "mine.txt").write_text("\n".join(map(str, np.deg2rad(nominal))))
    with pytest.raises(InputError, match=r"mine\.txt: covers .*, which looks like radians; give degrees"):
        read_measurement(path, "ct", MeasurementOptions(angles=tmp_path / "mine.txt"))


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ({"SrcToObject": None}, "lacks SrcToObject"),
        ({"SrcToObject": 200.0}, "SrcToObject 200 is not below SrcToDetector 160"),
        ({"SrcToDetector": "far"}, "SrcToDetector is 'far'; give a number"),
        ({"WhiteLevel": 0}, "WhiteLevel is 0; give more than 0"),
        ({"WhiteLevel": "nan"}, "WhiteLevel is 'nan'; give a number"),
        ({"DetectorPixelsX": 33.5}, "DetectorPixelsX is 33.5; give a whole number"),
        ({"DetectorPixelsX": 35}, r"projections are 36 x 18 x 34 .* the file says 36 x 18 x 35"),
        ({"Projections": 35}, "Projections is 35, and there are 36 TIFF files"),
        ({"Units": "microns"}, "Units is microns; give mm"),
        ({"AngularStep": 0}, "AngularStep is 0"),
        ({"AngularStep": 0.17453293}, "cover 6.109, which looks like radians"),
        ({"AngularStep": 20.0}, "go round more than once"),
        ({"DetectorOffsetY": 2.6}, "DetectorOffsetY is 2.6, which moves rays by 1.04 pixels"),
        ({"DetectorOffsetX": "0\nDetectorOffsetX=3"}, "option 'DetectorOffsetX' .* already exists"),
        ({"ObjectTilt": 10.0}, "ObjectTilt is 10, which moves rays"),
        ({"ObjectRoll": -6.0}, "ObjectRoll is -6, which moves rays"),
        ({"CentreOfRotationTop": 5.0}, "CentreOfRotationTop is 5, which moves rays"),
        (
            {"ObjectOffsetX": None, "CentreOfRotationTop": 6.0, "CentreOfRotationBottom": 6.0},
            r"readers differ by 1.8 pixels in where the axis is .* give --data.rotation_center",
        ),
        ({"ObjectOffsetX": 1.0, "CentreOfRotationTop": -1.0, "CentreOfRotationBottom": -1.0}, "readers differ by"),
    ],
)  # fmt: skip
def test_what_nobody_defines_is_refused(written: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words) as caught:
        read_measurement(write(tmp_path, written=written), "ct")
    assert "\n" not in str(caught.value)


def test_what_hardly_matters_is_told(tmp_path: Path) -> None:
    written = {"DetectorOffsetY": 0.5, "CoefX2": 0.3, "CoefX1": 0.7}
    notes = read_measurement(write(tmp_path, written=written), "ct").notes
    for white, words in ((6000, "brighter than the open beam"), (600000, "no ray has a line integral below 2.3")):
        wrong = read_measurement(write(tmp_path, written={"WhiteLevel": white}), "ct")
        assert any(words in note for note in wrong.notes) and not any(words in note for note in notes)
    assert "DetectorOffsetY left out: it moves rays by 0.2 pixels" in notes
    assert "beam hardening by CoefX2 left out; see --data.beam_hardening" in notes


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path)
    with pytest.raises(InputError, match="holds a measurement of ct"):
        read_measurement(path, "mri")
    with pytest.raises(InputError, match=r"--data.slices 0:2: the views of"):
        read_measurement(path, "ct", MeasurementOptions(slices=(0, 2)))
    with pytest.raises(InputError, match=r"--data.rotation_center 99: give a column from 0 to 33"):
        read_measurement(path, "ct", MeasurementOptions(rotation_center=99.0))
    for text, words in (("SrcToObject=3\n", "is no .xtekct file"), ("[Other]\na=b\n", r"lacks the section \[XTekCT\]")):
        other = tmp_path / "other.xtekct"
        other.write_text(text)
        with pytest.raises(InputError, match=words) as caught:
            read_measurement(other, "ct")
        assert "\n" not in str(caught.value)
    seventh = tmp_path / "scan_0007.tif"
    seventh.rename(tmp_path / "scan_0037.tif")
    with pytest.raises(InputError, match=r"after scan_0006\.tif comes number 8; give all projections"):
        read_measurement(path, "ct")
    (tmp_path / "scan_0037.tif").rename(seventh)
    whole = seventh.read_bytes()
    tifffile.imwrite(seventh, np.zeros((ROWS, COLUMNS), np.uint16))
    with pytest.raises(InputError, match=r"view 6 of .* has no counts at all \(1 such views of 36\): the beam was off"):
        read_measurement(path, "ct")
    seventh.write_bytes(whole)
    (tmp_path / "scan_0009.tif").write_bytes((tmp_path / "scan_0009.tif").read_bytes()[:500])
    with pytest.raises(InputError, match=r"scan_0009\.tif: the file cannot be read"):
        read_measurement(path, "ct")
