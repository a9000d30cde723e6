"""Geometries of RTK: its published matrices, and a bead that lands where it is."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from lightning_mbir.data.measurements.measurement import read_measurement
from lightning_mbir.data.measurements.options import MeasurementOptions
from lightning_mbir.data.measurements.rtk import AXES, read_rtk_geometry, rtk_views
from lightning_mbir.errors import InputError
from lightning_mbir.physics import ModularBeam
from lightning_mbir.reconstruction.measured import measured_operator, part_of
from tests.data.measurements.beads import bead, found

PUBLISHED = """<?xml version="1.0"?>
<!DOCTYPE RTKGEOMETRY>
<RTKThreeDCircularGeometry version="3">
  <SourceToIsocenterDistance>1000</SourceToIsocenterDistance>
  <SourceToDetectorDistance>1536</SourceToDetectorDistance>
  <Projection>
    <GantryAngle>271.847274780273</GantryAngle>
    <ProjectionOffsetX>-117.056503295898</ProjectionOffsetX>
    <ProjectionOffsetY>-1.01195001602173</ProjectionOffsetY>
  </Projection>
</RTKThreeDCircularGeometry>
"""
MATRIX = np.array(
    [
        [-166.5093078829, 0, -1531.42837748039, -117056.503295898],
        [-1.01142410874151, -1536, 0.0326206557691505, -1011.95001602173],
        [-0.999480303105996, 0, 0.0322354417240802, -1000],
    ]
)
"""What RTK says of those parameters on its page about geometry: from a point to the detector."""
LENGTHS = {"SourceToIsocenterDistance": 100.0, "SourceToDetectorDistance": 160.0}


def geometry(views: list[dict[str, float]], shared: dict[str, float]) -> str:
    def tags(values: dict[str, float]) -> str:
        return "".join(f"<{name}>{value}</{name}>" for name, value in values.items())

    body = "".join(f"<Projection>{tags(view)}</Projection>" for view in views)
    return (
        f'<?xml version="1.0"?><RTKThreeDCircularGeometry version="3">{tags(shared)}{body}</RTKThreeDCircularGeometry>'
    )


def matrix(values: dict[str, float]) -> np.ndarray:
    """``M_P`` of RTK's page, written out as it stands there."""
    given = dict.fromkeys(("GantryAngle", "OutOfPlaneAngle", "InPlaneAngle"), 0.0)
    given |= {f"{what}Offset{axis}": 0.0 for what in ("Source", "Projection") for axis in "XY"}
    given |= values
    g, o, i = (-np.deg2rad(given[f"{name}Angle"]) for name in ("Gantry", "OutOfPlane", "InPlane"))
    turn = (
        np.array([[np.cos(i), -np.sin(i), 0], [np.sin(i), np.cos(i), 0], [0, 0, 1]])
        @ np.array([[1, 0, 0], [0, np.cos(o), -np.sin(o)], [0, np.sin(o), np.cos(o)]])
        @ np.array([[np.cos(g), 0, np.sin(g)], [0, 1, 0], [-np.sin(g), 0, np.cos(g)]])
    )
    sid, sdd = given["SourceToIsocenterDistance"], given["SourceToDetectorDistance"]
    x, y = given["SourceOffsetX"], given["SourceOffsetY"]
    shift = np.array([[1, 0, x - given["ProjectionOffsetX"]], [0, 1, y - given["ProjectionOffsetY"]], [0, 0, 1]])
    project = np.array([[-sdd, 0, 0, 0], [0, -sdd, 0, 0], [0, 0, 1, -sid]])
    source = np.array([[1, 0, 0, -x], [0, 1, 0, -y], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    whole = np.eye(4)
    whole[:3, :3] = turn
    return np.asarray(shift @ project @ source @ whole)


def through(views: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Where the ray through a point in RTK's axes meets the detector: ``(columns, rows)`` from the middle."""
    source, middle, u, v = views[0].reshape(4, 3)
    ray = AXES @ point - source
    _, column, row = np.linalg.solve(np.stack((ray, -u, -v), 1), middle - source)
    return np.array([column, row])


def test_the_published_matrix_is_ours(tmp_path: Path) -> None:
    path = tmp_path / "scan.xml"
    path.write_text(PUBLISHED)
    views = rtk_views(read_rtk_geometry(path)[0], (0.0, 0.0), (1.0, 1.0))
    for point in ((0.0, 0.0, 0.0), (30.0, -20.0, 50.0), (-80.0, 60.0, -10.0)):
        u, v, w = MATRIX @ np.array([*point, 1.0])
        assert through(views, np.array(point)) == pytest.approx([u / w, v / w], abs=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_all_nine_parameters_are_those_of_the_matrix(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    values = {"SourceToIsocenterDistance": 1000.0, "SourceToDetectorDistance": 1500.0}
    values |= {f"{name}Angle": float(rng.uniform(-180, 360)) for name in ("Gantry", "OutOfPlane", "InPlane")}
    values |= {f"{what}Offset{axis}": float(rng.uniform(-90, 90)) for what in ("Source", "Projection") for axis in "XY"}
    path = tmp_path / "scan.xml"
    path.write_text(geometry([values], {}))
    views = rtk_views(read_rtk_geometry(path)[0], (0.0, 0.0), (1.0, 1.0))
    for point in rng.uniform(-100, 100, (5, 3)):
        u, v, w = matrix(values) @ np.array([*point, 1.0])
        assert through(views, point) == pytest.approx([u / w, v / w], rel=1e-9, abs=1e-9)
    numbers = " ".join(f"{number:.12g}" for number in matrix(values).ravel())
    path.write_text(path.read_text().replace("</Projection>", f"<Matrix>\n{numbers}\n</Matrix></Projection>"))
    assert read_rtk_geometry(path)[0].shape == (1, 9)
    path.write_text(re.sub("(?<=<GantryAngle>)[^<]*", str(values["GantryAngle"] + 1), path.read_text()))
    with pytest.raises(InputError, match="the matrix of view 0 is not the one of its parameters"):
        read_rtk_geometry(path)


def test_names_are_compared_as_rtk_compares_them(tmp_path: Path) -> None:
    """Whatever their letters' size, with the older name of the angle, and jaws told of."""
    path = tmp_path / "scan.xml"
    path.write_text(PUBLISHED)
    expected = read_rtk_geometry(path)[0]
    text = PUBLISHED.replace("GantryAngle", "angle").replace("ProjectionOffsetX", "PROJECTIONOFFSETX")
    path.write_text(text.replace("<Projection>", "<CollimationUInf>20</CollimationUInf><Projection><!-- a view -->"))
    values, _, notes = read_rtk_geometry(path)
    np.testing.assert_array_equal(values, expected)
    assert notes == ("collimation left out: bins behind the jaws count as measured",)


def write(folder: Path, views: list[dict[str, float]], place: Any, arc: float = 0.0, **shared: float) -> Path:
    """A scan of a bead at a place in RTK's axes, each bin looked for by RTK's own page."""
    origin, spacing, rows, columns = (-33.0, -20.5), (2.0, 2.5), 18, 34
    sources, bins = [], []
    for view in views:
        given = {**LENGTHS, **shared, **view}
        turn = matrix({**given, "SourceOffsetX": 0, "SourceOffsetY": 0, "ProjectionOffsetX": 0, "ProjectionOffsetY": 0})
        rotation = np.stack((turn[0] + 0 * turn[2], turn[1], turn[2]))[:, :3] / np.array([[-160.0], [-160.0], [1.0]])
        x = given.get("ProjectionOffsetX", 0.0) + origin[0] + spacing[0] * np.arange(columns)
        y = given.get("ProjectionOffsetY", 0.0) + origin[1] + spacing[1] * np.arange(rows)
        depth = np.full(columns, 100.0 - 160.0)
        if arc:
            x, depth = arc * np.sin(x / arc), depth + arc * (1 - np.cos(x / arc))
        grid = np.stack(np.broadcast_arrays(x, y[:, None], depth), -1)
        bins.append(grid @ rotation)  # back from the detector's axes
        source = np.array([given.get("SourceOffsetX", 0.0), given.get("SourceOffsetY", 0.0), 100.0])
        sources.append(source @ rotation)
    y = bead(np.array(sources), np.array(bins), place, 3.0, 0.03)
    image = sitk.GetImageFromArray(y.astype(np.float32))
    image.SetOrigin((*origin, 0.0))
    image.SetSpacing((*spacing, 1.0))
    sitk.WriteImage(image, str(folder / "scan.mha"))
    path = folder / "scan.xml"
    path.write_text(geometry(views, {**LENGTHS, **shared, **({"RadiusCylindricalDetector": arc} if arc else {})}))
    return path


@pytest.mark.parametrize("kind", ["circle", "offsets", "tilted", "curved"])
def test_a_bead_lands_where_it_is(kind: str, tmp_path: Path) -> None:
    views: list[dict[str, float]] = [{"GantryAngle": i * 10.0} for i in range(36)]
    shared: dict[str, float] = {}
    if kind == "offsets":
        shared = {"ProjectionOffsetX": 3.0, "ProjectionOffsetY": -2.0, "SourceOffsetX": 1.5, "SourceOffsetY": 2.5}
    if kind == "tilted":
        views = [{**view, "InPlaneAngle": 2.0, "OutOfPlaneAngle": float(np.sin(i))} for i, view in enumerate(views)]
    place = (6.0, 3.0, -4.0)
    path = write(tmp_path, views, place, 160.0 if kind == "curved" else 0.0, **shared)
    read = read_measurement(path, "ct", MeasurementOptions(image_size=26))
    operator = measured_operator(read)
    assert isinstance(operator, ModularBeam) and operator.range_shape == (36, 18, 34)
    assert operator.domain_shape[1:] == (26, 26)
    at, mass = found(read)
    assert at == pytest.approx((6.0, 4.0, 3.0), abs=0.35)  # (x, -z, y)
    assert mass == pytest.approx(0.03 * 4 / 3 * np.pi * 27, rel=0.15)
    assert "line integrals of scan.mha" in read.notes
    assert len(part_of(read, views=12).y) == 12


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text[:-30], "is no XML"),
        (lambda text: text.replace("RTKThreeD", "Other"), "give a geometry of RTK"),
        (lambda text: text.replace(">100.0<", ">x<"), "SourceToIsocenterDistance is 'x'; give a number"),
        (lambda text: text.replace(">100.0<", ">nan<"), "give a finite number"),
        (lambda text: text.replace(">160.0<", ">0<"), "view 0 has parallel rays"),
        (lambda text: text.replace("SourceToDetectorDistance", "Other"), "the file has <Other>, which no geometry"),
        (lambda text: re.sub("<SourceToDet.*?/SourceToDet[^>]*>", "", text), "view 0 lacks SourceToDetectorDistance"),
        (lambda text: text.replace("<GantryAngle>50.0</GantryAngle>", ""), "view 5 lacks GantryAngle; give it in each"),
        (lambda text: re.sub("<GantryAngle>.*?</GantryAngle>", "", text), "view 0 lacks GantryAngle"),
        (lambda text: re.sub("<(/?)GantryAngle>", r"<\1Gantry>", text), "view 0 has <Gantry>, which no"),
        (lambda text: re.sub("(<GantryAngle>)[^<]*", r"\g<1>30", text), "all 36 views look in one direction"),
        (lambda text: re.sub("(?<=<GantryAngle>)[^<]*", lambda a: str(float(a[0]) / 57.29578), text), "like radians"),
        (lambda text: text.replace("<GantryAngle>", "<InPlaneAngle>1</InPlaneAngle><GantryAngle>", 1), "view 1 lacks"),
        (lambda text: text.replace("<GantryAngle>", "<GantryAngle>7</GantryAngle><GantryAngle>", 1), "Angle twice"),
        (lambda text: text.replace("<GantryAngle>", "<Matrix>1 2</Matrix><GantryAngle>", 1), "is no 3 x 4 numbers"),
        (lambda text: text.replace('version="3"', 'version="1"'), "is of version '1', 2 and 3 are read"),
        (lambda text: text[: text.index("<Projection>")] + "</RTKThreeDCircularGeometry>", "has no <Projection>"),
        (lambda text: text.replace("<Projection><GantryAngle>0.0</GantryAngle></Projection>", ""), "has 35 views"),
        (lambda text: "<!DOCTYPE a [<!ENTITY b 'c'>]>" + text, "define entities"),
        (lambda text: text.replace("<Proj", "<ProjectionOffsetX>90</ProjectionOffsetX><Proj", 1), "lies beside"),
    ],
)  # fmt: skip
def test_other_files_are_refused(change: Any, words: str, tmp_path: Path) -> None:
    path = write(tmp_path, [{"GantryAngle": i * 10.0} for i in range(36)], (0, 0, 0))
    path.write_text(change(path.read_text()))
    with pytest.raises(InputError, match=words) as caught:
        measured_operator(read_measurement(path, "ct"))
    assert "\n" not in str(caught.value)


def test_the_projections_have_to_be_there(tmp_path: Path) -> None:
    path = write(tmp_path, [{"GantryAngle": 0.0}, {"GantryAngle": 90.0}], (0, 0, 0))
    with pytest.raises(InputError, match="holds a measurement of ct"):
        read_measurement(path, "mri")
    with pytest.raises(InputError, match=r"--data.slices 0:2: the views of"):
        read_measurement(path, "ct", MeasurementOptions(slices=(0, 2)))
    with pytest.raises(InputError, match=r"--data.rotation_center: .* tells its geometry by itself"):
        read_measurement(path, "ct", MeasurementOptions(rotation_center=3.0))
    (tmp_path / "scan.mha").write_bytes((tmp_path / "scan.mha").read_bytes()[:400])
    with pytest.raises(InputError, match=r"scan\.mha: cannot be read"):
        read_measurement(path, "ct")
    (tmp_path / "scan.mha").unlink()
    with pytest.raises(InputError, match="the projections belong beside it"):
        read_measurement(path, "ct")
    with pytest.raises(InputError, match="no such file"):
        read_measurement(tmp_path / "other.xml", "ct")
