"""Projections in the files of others: MATLAB structs, sinograms beside their angles, TIFF stacks."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from lightning_mbir.data.measurements.measurement import read_measurement
from lightning_mbir.data.measurements.options import MeasurementOptions
from lightning_mbir.errors import InputError
from lightning_mbir.physics import FanBeam
from lightning_mbir.reconstruction.measured import measured_operator, part_of
from lightning_mbir.solvers import fbp
from tests.data.measurements.test_measurement import ANGLES, discs

HELSINKI = {
    "type": "2D",
    "sinogram": np.random.default_rng(0).random((721, 560)),
    "parameters": {
        "distanceSourceDetector": 553.74,
        "distanceSourceOrigin": 410.66,
        "distanceUnit": "mm",
        "geometricMagnification": 1.3484,
        "angles": np.arange(0, 360.5, 0.5),
        "pixelSize": 0.05,
        "pixelSizePost": 0.2,
        "numDetectorsPost": 560,
    },
}
"""A struct as the Helsinki Tomography Challenge 2022 has it."""


def changed(**parameters: Any) -> dict[str, Any]:
    return {**HELSINKI, "parameters": {**HELSINKI["parameters"], **parameters}}  # type: ignore[dict-item]


def characters(value: Any) -> Any:
    """Texts are codes of two bytes in that version."""
    return np.array([[ord(one) for one in value]], np.uint16) if isinstance(value, str) else value


def matlab_73(path: Path, name: str, struct: dict[str, Any]) -> None:
    """As MATLAB writes version 7.3: columns first, so axes the other way round, and all arrays of two dimensions."""

    def write(file: h5py.File, at: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                write(file, f"{at}/{key}", inner)
        else:
            file[at] = np.atleast_2d(characters(value)).T

    with h5py.File(path, "w", userblock_size=512) as file:
        write(file, name, struct)


@pytest.mark.parametrize("name", ["CtDataFull", "CtDataLimited"])
@pytest.mark.parametrize("version", ["5", "7.3"])
def test_structs_of_the_helsinki_challenge(name: str, version: str, tmp_path: Path) -> None:
    path = tmp_path / "htc2022_ta_full.mat"
    scipy.io.savemat(path, {name: HELSINKI}) if version == "5" else matlab_73(path, name, HELSINKI)
    found = read_measurement(path, "ct", MeasurementOptions(image_size=256))
    pairs = HELSINKI["sinogram"].reshape(721, 280, 2).mean(-1)  # type: ignore[attr-defined]
    np.testing.assert_allclose(found.y[0], pairs, rtol=1e-6)
    geometry = found.geometry
    assert geometry["beam"] == "fan" and geometry["n_detectors"] == 280 and geometry["angles"][3] == 1.5
    assert geometry["source_distance"] == 410.66 and geometry["detector_distance"] == pytest.approx(143.08)
    assert geometry["detector_spacing"] == 0.4 and geometry["center_offset"] == 0
    # The circle that the fan of 112 mm at 553.74 mm sees.
    assert 256 * geometry["pixel_size"] == pytest.approx(2 * 410.66 * np.sin(np.arctan(56 / 553.74)))
    assert found.calibrated
    operator = measured_operator(part_of(found, angle_range=30))
    assert isinstance(operator, FanBeam) and operator.range_shape == (60, 280)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"CtDataFull": changed(numDetectorsPost=280)}, "tells 280 detectors, CtDataFull/sinogram has 560"),
        ({"CtDataFull": changed(angles=np.arange(720) / 2)}, "720 angles but 721 views"),
        ({"CtDataFull": changed(distanceUnit="cm")}, "distanceUnit is cm; give mm"),
        ({"CtDataFull": changed(distanceSourceOrigin=600.0)}, "600 mm from the axis, 553.74 from the detector"),
        ({"CtDataFull": {**HELSINKI, "type": "3D"}}, "holds a cone beam"),
        ({"CtDataFull": {**HELSINKI, "sinogram": np.full((721, 560), np.nan)}}, "NaN"),
        ({"CtDataFull": HELSINKI, "CtDataLimited": HELSINKI}, "has CtDataFull and CtDataLimited; keep one"),
        ({"sinogram": np.ones((4, 9)), "angles": np.arange(4.0), "distanceSourceOrigin": 4.0}, "give both distances"),
        ({"sinogram": np.ones((4, 9))}, "lacks angles"),
        ({"walnut": np.ones((4, 9))}, "holds none of measurement, kspace, sinogram"),
        (
            {"CtData": {**HELSINKI, "parameters": {"angles": HELSINKI["parameters"]["angles"]}}},
            "is of a fan and lacks dist",
        ),  # type: ignore[index]
        (
            {"CtDataFull": changed(geometricMagnification=2.0)},
            "geometricMagnification is 2, and by its distances 1.348",
        ),
        (
            {"CtDataFull": changed(effectivePixelSizePost=0.0371)},
            "are 0.2 mm, and 0.05003 mm by effectivePixelSizePost",
        ),
        ({"CtDataFull": changed(angles=np.full(721, 7.0))}, "all 721 angles of .* are 7; give that of each view"),
        ({"m": np.ones((9, 4))}, "holds a sinogram m, and neither its sparse matrix A .*; give line integrals"),
        ({"m": np.ones((9, 4)), "A": np.eye(36)}, "neither its sparse matrix A"),
        ({"sinogram120": np.ones((9, 4)), "sinogram1200": np.ones((9, 40))}, "holds sinograms of intensities"),
        ({"sinogram": np.ones((9, 4))}, "lacks angles"),
    ],
)
def test_wrong_structs_are_refused(content: dict[str, Any], words: str, tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "y.mat", content)
    with pytest.raises(InputError, match=words):
        read_measurement(tmp_path / "y.mat", "ct")


@pytest.mark.parametrize(
    ("content", "words"),
    [(changed(distanceUnit="cm"), "distanceUnit is cm; give mm"), ({**HELSINKI, "type": "3D"}, "holds a cone beam")],
)
def test_words_of_version_7_3_are_heeded(content: dict[str, Any], words: str, tmp_path: Path) -> None:
    matlab_73(tmp_path / "y.mat", "CtData", content)
    with pytest.raises(InputError, match=words):
        read_measurement(tmp_path / "y.mat", "ct")


def test_a_struct_as_the_laboratory_s_toolbox_writes_it(tmp_path: Path) -> None:
    """With a unit that its text reader has turned to NaN, and more than is needed; a disc off the axis."""
    angles = np.arange(0.0, 360.0, 4.0)
    lengths = {"source_distance": 410.66, "detector_distance": 143.08}
    operator = FanBeam(64, angles.tolist(), n_detectors=96, pixel_size=1.2, detector_spacing=1.2, **lengths)
    axis = 1.2 * (np.arange(64) - 31.5)
    disc = (axis[None] - 12) ** 2 + (axis[:, None] + 8) ** 2 < 9**2
    parameters = {
        "projectName": "disc",
        "geometryType": "fan",
        "distanceSourceDetector": 553.74,
        "distanceSourceOrigin": 410.66,
        "geometricMagnification": 1.3484,
        "numberImages": 90,
        "angles": angles,
        "binning": "2x2",
        "pixelSize": 0.3,
        "pixelSizeUnit": np.nan,
        "binningPost": 4,
        "pixelSizePost": 1.2,
        "effectivePixelSizePost": 0.89,
        "numDetectorsPost": 96,
    }
    y = operator(torch.from_numpy(disc).float()[None])[0].numpy()
    scipy.io.savemat(tmp_path / "y.mat", {"CtData": {"type": "2D", "sinogram": y, "parameters": parameters}})
    found = read_measurement(tmp_path / "y.mat", "ct", MeasurementOptions(image_size=64))
    assert found.calibrated and found.geometry["detector_spacing"] == 1.2
    image = fbp(found.y, measured_operator(found))[0]  # type: ignore[arg-type]
    at = found.geometry["pixel_size"] * (torch.arange(64) - 31.5)
    mass = (image > 0.5).float()
    place = [float((mass.sum(0) * at).sum() / mass.sum()), float((mass.sum(1) * at).sum() / mass.sum())]
    assert place == pytest.approx([12, -8], abs=0.5)
    inside = (at[None] - 12) ** 2 + (at[:, None] + 8) ** 2 < 6**2
    assert float(image[inside].mean()) == pytest.approx(1, abs=0.03)


def test_a_file_that_is_no_matlab_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "y.mat").write_bytes(b"no such thing" * 99)
    with pytest.raises(InputError, match=r"y.mat.*MATLAB|y.mat.*cannot be read"):
        read_measurement(tmp_path / "y.mat", "ct")


def test_sinograms_beside_their_angles(tmp_path: Path) -> None:
    """Parallel rays in radians, several slices; the axis is searched for."""
    y = discs(ANGLES, 80, 43.27).numpy()
    np.savez(tmp_path / "y.npz", sinogram=np.concatenate((y, 2 * y)), angles_rad=np.deg2rad(ANGLES) + 50)
    found = read_measurement(tmp_path / "y.npz", "ct", MeasurementOptions(slices=(1, 2)))
    np.testing.assert_allclose(found.y, 2 * y, rtol=1e-6)
    assert not found.calibrated and found.geometry["beam"] == "parallel" and found.geometry["image_size"] == 80
    assert found.geometry["center_offset"] == pytest.approx(43.27 - 39.5, abs=0.1)
    np.testing.assert_allclose(found.geometry["angles"], ANGLES + np.rad2deg(50))
    sized = read_measurement(tmp_path / "y.npz", "ct", MeasurementOptions(40, 0.5, 40.0))
    assert sized.calibrated and sized.geometry["pixel_size"] == 1.0 and sized.geometry["center_offset"] == 0.25
    assert sized.y.shape == (2, 90, 40) and "2 bins averaged to one" in sized.notes
    with pytest.raises(InputError, match=r"--data.rotation_center 80: give a bin from 0 to 79"):
        read_measurement(tmp_path / "y.npz", "ct", MeasurementOptions(rotation_center=80))


def test_the_disc_and_the_dendrite_as_they_are(shared: Path) -> None:
    disc = read_measurement(shared / "data/raw/htc2022_ta_fan_60deg.npz", "ct", MeasurementOptions(image_size=128))
    assert disc.y.shape == (1, 121, 140) and disc.calibrated and disc.geometry["detector_spacing"] == 0.8
    with pytest.raises(InputError, match=r"tells 0.2 mm; leave it out"):
        read_measurement(shared / "data/raw/htc2022_ta_fan_60deg.npz", "ct", MeasurementOptions(0, 0.2))
    dendrite = read_measurement(shared / "data/raw/dendrite_parallel_sinogram.npz", "ct", MeasurementOptions(128))
    assert dendrite.y.shape == (1, 360, 140) and not dendrite.calibrated
    assert np.ptp(dendrite.geometry["angles"]) == pytest.approx(179.5, abs=0.1)


tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed")


def stack(folder: Path) -> tuple[dict[str, Any], np.ndarray]:
    """Counts of three rows as pages, and the line integrals that they are of."""
    y = np.concatenate([k * discs(ANGLES, 80, 43.27).numpy() for k in (1, 2, 3)])
    rng = np.random.default_rng(0)
    white, dark = rng.uniform(40000, 50000, (3, 80)), rng.uniform(90, 110, (3, 80))
    counts = dark + (white - dark) * np.exp(-y.transpose(1, 0, 2))
    tifffile.imwrite(folder / "scan.tif", counts.astype(np.float32), photometric="minisblack")
    tifffile.imwrite(
        folder / "white.tif", np.stack((white - 5, white + 5)).astype(np.float32), photometric="minisblack"
    )
    tifffile.imwrite(folder / "dark.tif", dark.astype(np.float32))
    (folder / "angles.txt").write_text("# degrees\n" + "\n".join(f"{a:g}" for a in ANGLES) + "\n")
    options = {"angles": folder / "angles.txt", "flat_field": str(folder / "white.tif")}
    return {**options, "dark_field": folder / "dark.tif"}, y


def test_tiff_pages_become_line_integrals_in_their_place(tmp_path: Path) -> None:
    options, y = stack(tmp_path)
    found = read_measurement(tmp_path / "scan.tif", "ct", MeasurementOptions(80, 0.5, slices=(1, 3), **options))
    np.testing.assert_allclose(found.y, y[1:3], atol=2e-5)
    np.testing.assert_allclose(found.affine[2], [0, 0, 0.5, 0.5])
    assert found.geometry["center_offset"] == pytest.approx(0.5 * (43.27 - 39.5), abs=0.05)
    with pytest.warns(UserWarning, match="^scan: ParallelBeam: the detector cuts off 18 % of the field") as caught:
        operator = measured_operator(found)
    assert caught[0].filename == __file__  # the file is named, and not a line of ours
    image = fbp(found.y, operator)[0]  # type: ignore[arg-type]
    axis = 0.5 * (torch.arange(80) - 39.5)
    inside = (axis[None] - 4.5) ** 2 + (axis[:, None] - 2.0) ** 2 < 4.5**2
    assert float(image[inside].mean()) == pytest.approx(2 * 0.02 / 0.5, rel=0.02)


def test_a_folder_of_tiff_files_is_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    y = discs(ANGLES, 80, 43.27).numpy()[0]
    (tmp_path / "scan").mkdir()
    for k, view in enumerate(y):
        counts = np.round(60000 * np.exp(-view))[None].astype(np.uint16)
        tifffile.imwrite(tmp_path / "scan" / f"view_{k}.tif", counts)  # view_10 comes before view_9 by letters
    (tmp_path / "scan" / "notes.txt").write_text("of no use")
    (tmp_path / "angles.csv").write_text(",".join(str(a) for a in ANGLES))
    options = MeasurementOptions(rotation_center=43.27, angles=tmp_path / "angles.csv", flat_field="60000")
    found = read_measurement(tmp_path / "scan", "ct", options)
    np.testing.assert_allclose(found.y[0], y, atol=1e-4)


def test_line_integrals_in_tiff(tmp_path: Path) -> None:
    y = discs(ANGLES, 80, 43.27).numpy().transpose(1, 0, 2).astype(np.float32)
    tifffile.imwrite(tmp_path / "scan.tiff", y - 0.01, photometric="minisblack")
    (tmp_path / "a.txt").write_text(" ".join(str(a) for a in ANGLES))
    options = MeasurementOptions(rotation_center=40.0, angles=tmp_path / "a.txt", flat_field="none")
    np.testing.assert_allclose(read_measurement(tmp_path / "scan.tiff", "ct", options).y[0], y[:, 0] - 0.01, atol=1e-6)


def test_what_tiff_leaves_open_is_asked_for(tmp_path: Path) -> None:
    given, _ = stack(tmp_path)
    (tmp_path / "short.txt").write_text("\n".join(str(a) for a in ANGLES[:-1]))
    (tmp_path / "view.dcm").write_bytes(b"x")
    (tmp_path / "words.txt").write_text("0 two 4")
    (tmp_path / "broken.tif").write_bytes(b"II*\0 no")
    dark = tifffile.imread(tmp_path / "scan.tif")
    dark[10] = 0
    tifffile.imwrite(tmp_path / "off.tif", dark, photometric="minisblack")
    lzw = [Image.fromarray(np.ones((3, 80), np.uint16))] * 90
    lzw[0].save(tmp_path / "lzw.tif", save_all=True, append_images=lzw[1:], compression="tiff_lzw")
    tifffile.imwrite(tmp_path / "colours.tif", np.zeros((90, 4, 80, 3), np.uint8), photometric="rgb")
    for file, options, words in (
        ("scan.tif", {"angles": None}, "give --data.angles, a text file"),
        ("scan.tif", {"flat_field": None}, "give --data.flat_field"),
        ("scan.tif", {"angles": tmp_path / "short.txt"}, "89 angles but 90 views"),
        ("scan.tif", {"angles": tmp_path / "words.txt"}, "'two'.*give numbers alone"),
        ("scan.tif", {"angles": tmp_path / "nowhere.txt"}, "--data.angles .*nowhere.txt: no such file"),
        ("scan.tif", {"flat_field": "nowhere.tif"}, "--data.flat_field nowhere.tif: no such file"),
        ("scan.tif", {"flat_field": "0"}, "--data.flat_field 0: give more than 0"),
        ("scan.tif", {"flat_field": "none"}, "line integrals are corrected already"),
        ("scan.tif", {"dark_field": tmp_path / "nowhere"}, "--data.dark_field .*nowhere: no such file"),
        ("broken.tif", {}, "broken.tif: .*cannot be read"),
        ("colours.tif", {}, "without colours"),
        ("off.tif", {}, "view 10 of .* has no counts at all"),
        ("view.dcm", {}, "give the folder of all views"),
        *([] if find_spec("imagecodecs") else [("lzw.tif", {}, "pip install imagecodecs, or give it without compr")]),
    ):
        with pytest.raises(InputError, match=words):
            read_measurement(tmp_path / file, "ct", MeasurementOptions(**{**given, **options}))
    np.savez(tmp_path / "y.npz", sinogram=np.ones((4, 9)), angles=np.arange(4.0))
    with pytest.raises(InputError, match=r"--data.flat_field 1: is for TIFF projections, not .*y.npz; leave it out"):
        read_measurement(tmp_path / "y.npz", "ct", MeasurementOptions(flat_field="1"))


@pytest.mark.parametrize("name", ["scan.txrm", "frame.hnc", "frame.XIM", "frame.his", "scan.pca"])
def test_projections_of_other_vendors_are_told(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"of a vendor")
    with pytest.raises(InputError, match="which is not read; export its projections"):
        read_measurement(tmp_path / name, "ct")
