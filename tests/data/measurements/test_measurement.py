"""Measured projections and k-space: layouts, corrections, the rotation centre."""

import tracemalloc
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_mbir.data.measurements.item import PART
from lightning_mbir.data.measurements.kspace import crop_readout
from lightning_mbir.data.measurements.measurement import Measurement, read_measurement
from lightning_mbir.data.measurements.options import MeasurementOptions
from lightning_mbir.data.measurements.rotation_center import find_rotation_center
from lightning_mbir.data.units import Modality
from lightning_mbir.errors import InputError
from lightning_mbir.physics import ConeBeam, FanBeam, ParallelBeam
from lightning_mbir.reconstruction.measured import measured_operator, part_of
from lightning_mbir.solvers import fbp

ANGLES = np.arange(90) * 2.0


def discs(angles: np.ndarray, bins: int, center: float) -> Tensor:
    """Closed-form sinogram of two discs, the rotation axis on bin ``center``: ``(1, views, bins)``."""
    s = np.arange(bins)[None] - center
    theta = np.deg2rad(angles)[:, None]
    sinogram = np.zeros((len(angles), bins))
    for x, y, radius, value in ((9.0, 4.0, 12.0, 0.02), (-14.0, -6.0, 6.0, 0.05)):
        distance = s - x * np.cos(theta) - y * np.sin(theta)
        sinogram += value * 2 * np.sqrt(np.clip(radius**2 - distance**2, 0, None))
    return torch.from_numpy(sinogram)[None]


@pytest.mark.parametrize("center", [39.5, 36.0, 43.27])
@pytest.mark.parametrize("backwards", [False, True])
def test_the_rotation_center_is_found_to_a_tenth_of_a_bin(center: float, backwards: bool) -> None:
    angles = -ANGLES if backwards else ANGLES + 20
    assert find_rotation_center(discs(angles, 80, center), angles) == pytest.approx(center, abs=0.1)


def test_a_rotation_center_that_cannot_be_found_has_to_be_given() -> None:
    for angles in (ANGLES[:45], ANGLES[::18], np.sort(np.random.default_rng(0).uniform(0, 180, 40))):
        with pytest.raises(InputError, match="rotation centre can be searched"):
            find_rotation_center(discs(angles, 80, 40.0), angles)


def data_exchange(folder: Path, **changes: Any) -> Path:
    """Counts of two discs with flat and dark fields; the rotation axis is on bin 43.27 of 80."""
    rng = np.random.default_rng(1)
    white, dark = rng.uniform(900, 1100, (1, 80)), rng.uniform(90, 110, (1, 80))
    transmission = np.exp(-discs(ANGLES, 80, 43.27).numpy()).transpose(1, 0, 2)
    content = {
        "data": dark + (white - dark) * transmission,
        "data_white": white + np.array([-3.0, 3.0])[:, None, None],  # means are what counts
        "data_dark": dark + np.array([-2.0, 2.0])[:, None, None],
        "theta": ANGLES,
        **changes,
    }
    path = folder / "projections.h5"
    with h5py.File(path, "w") as file:
        for key, value in content.items():
            if value is not None:
                file[f"exchange/{key}"] = value
    return path


def test_counts_become_line_integrals_of_the_right_attenuation(tmp_path: Path) -> None:
    found = read_measurement(data_exchange(tmp_path), "ct", MeasurementOptions(image_size=80, detector_spacing=0.5))
    torch.testing.assert_close(found.y.double(), discs(ANGLES, 80, 43.27), atol=2e-6, rtol=1e-5)
    assert found.calibrated and found.geometry["center_offset"] == pytest.approx(0.5 * (43.27 - 39.5), abs=0.05)
    geometry = {key: value for key, value in found.geometry.items() if key != "beam"}
    image = fbp(found.y, ParallelBeam(**geometry))[0]
    yy, xx = (0.5 * (torch.arange(80) - 39.5)[:, None], 0.5 * (torch.arange(80) - 39.5)[None])
    inside = (xx - 4.5) ** 2 + (yy - 2.0) ** 2 < 4.5**2  # the larger disc in mm, its edge left out
    assert float(image[inside].mean()) == pytest.approx(0.02 / 0.5, rel=0.02)


def test_without_a_length_the_bin_is_the_unit(tmp_path: Path) -> None:
    found = read_measurement(data_exchange(tmp_path), "ct", MeasurementOptions(image_size=20, rotation_center=43.27))
    assert not found.calibrated
    geometry = {key: value for key, value in found.geometry.items() if key not in ("angles", "beam")}
    # Four bins are averaged to one: bin 43.27 lies 3.77 from the middle, as before.
    assert geometry == {
        "image_size": 20,
        "n_detectors": 20,
        "pixel_size": 4.0,
        "detector_spacing": 4.0,
        "center_offset": pytest.approx(3.77),
    }
    assert "4 bins averaged to one" in found.notes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data_white": None}, "lacks exchange/data_white"),
        ({"theta": ANGLES[:-1]}, "89 angles but 90 views"),
        ({"data_white": np.ones((2, 1, 79))}, "same rows and bins"),
        ({"data_white": np.full((2, 1, 80), 50.0)}, "80 of 80 bins of a row are no brighter"),
        ({"data": np.full((90, 1, 80), np.nan)}, "NaN"),
    ],
)
def test_wrong_projections_are_refused(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        read_measurement(data_exchange(tmp_path, **changes), "ct")


def test_counts_are_converted_in_parts(tmp_path: Path) -> None:
    """Memory is that of what is kept, and little more."""
    shape = (90, 40, 800)
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file.create_dataset("exchange/data", data=np.full(shape, 30000, np.uint16), chunks=(1, 40, 800))
        file["exchange/data_white"], file["exchange/theta"] = np.full((2, 40, 800), 60000, np.uint16), ANGLES
    tracemalloc.start()
    found = read_measurement(tmp_path / "y.h5", "ct", MeasurementOptions(image_size=400, rotation_center=399.5))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_allclose(found.y, np.log(2), rtol=1e-6)
    assert found.y.shape == (40, 90, 400)
    assert peak < found.y.nbytes + 8 * 4 * PART + 8 * 40 * 800 * 8  # a part and what it is worked out by, the fields


def test_bins_that_are_left_out_are_told(tmp_path: Path) -> None:
    found = read_measurement(data_exchange(tmp_path), "ct", MeasurementOptions(image_size=30, rotation_center=43.27))
    assert found.y.shape == (1, 90, 40) and not any("left out" in note for note in found.notes)
    found = read_measurement(data_exchange(tmp_path), "ct", MeasurementOptions(image_size=25, rotation_center=43.27))
    assert found.y.shape == (1, 90, 26)
    assert "the last 2 bins, which do not fill a wider one, left out" in found.notes


def test_rows_that_are_chosen_are_in_their_place(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    counts, white, dark = (
        rng.uniform(100, 900, (90, 6, 80)),
        rng.uniform(1000, 1100, (6, 80)),
        rng.uniform(0, 9, (6, 80)),
    )
    path = data_exchange(tmp_path, data=counts, data_white=white, data_dark=dark[None])
    found = read_measurement(path, "ct", MeasurementOptions(0, 0.5, 40.0, slices=(2, 5)))
    expected = -np.log((counts - dark) / (white - dark)).transpose(1, 0, 2)[2:5]
    np.testing.assert_allclose(found.y, expected, rtol=1e-5)
    np.testing.assert_array_equal(found.affine[2], [0, 0, 0.5, 1.0])
    assert found.notes[0] == "slices 2:5 of 6"
    for slices in ((4, 7), (6, 7)):
        with pytest.raises(InputError, match=rf"--data.slices {slices[0]}:{slices[1]}: .*.h5 has slices 0:6"):
            read_measurement(path, "ct", MeasurementOptions(slices=slices))


@pytest.mark.parametrize("beam", ["parallel", "fan"])
def test_slices_of_our_own_layout_are_in_their_place(beam: str, tmp_path: Path) -> None:
    measurement = np.random.default_rng(6).random((4, 5, 30))
    own = {**CT, "measurement": measurement, "beam": beam, "source_distance": 100.0, "detector_distance": 50.0}
    np.savez(tmp_path / "y.npz", **own, spacing=[3.0, 2.0, 2.0])  # type: ignore[arg-type]
    found = read_measurement(tmp_path / "y.npz", "ct", MeasurementOptions(slices=(1, 3)))
    np.testing.assert_allclose(found.y, measurement[1:3], rtol=1e-6)
    np.testing.assert_array_equal(found.affine[2], [0, 0, 3, 3])
    assert found.notes == ("slices 1:3 of 4",)
    with pytest.raises(InputError, match=r"--data.slices 1:5: .*y.npz has slices 0:4"):
        read_measurement(tmp_path / "y.npz", "ct", MeasurementOptions(slices=(1, 5)))
    np.savez(tmp_path / "cone.npz", **{**own, "beam": "cone", "angles": np.arange(4.0)}, volume_shape=[4, 20, 20])  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"--data.slices 1:3: the views of a cone beam show all slices at once"):
        read_measurement(tmp_path / "cone.npz", "ct", MeasurementOptions(slices=(1, 3)))


def test_projections_in_another_order_are_refused(tmp_path: Path) -> None:
    path = data_exchange(tmp_path)
    with h5py.File(path, "a") as file:
        file["exchange/data"].attrs["axes"] = "y:theta:x"
    with pytest.raises(InputError, match="the axes of exchange/data are y:theta:x; give theta:y:x"):
        read_measurement(path, "ct")


def test_the_tooth_turns_about_where_it_is_known_to(shared: Path) -> None:
    found = read_measurement(
        shared / "data/raw/tooth_parallel_projections.h5", "ct", MeasurementOptions(image_size=256)
    )
    assert found.y.shape == (2, 181, 320) and not found.calibrated
    assert found.geometry["detector_spacing"] == 2.0
    assert 295 < found.geometry["center_offset"] + 319.5 < 297


HEADER = """<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>
<encodedSpace><matrixSize><x>32</x><y>12</y><z>1</z></matrixSize>
<fieldOfView_mm><x>64</x><y>30</y><z>4.5</z></fieldOfView_mm></encodedSpace>
<reconSpace><matrixSize><x>16</x><y>16</y><z>1</z></matrixSize>
<fieldOfView_mm><x>32</x><y>32</y><z>4.5</z></fieldOfView_mm></reconSpace>
</encoding></ismrmrdHeader>"""


def fastmri(folder: Path, **changes: Any) -> tuple[Path, np.ndarray]:
    """K-space of random images at twice the field of view along the readout, three slices of two coils."""
    rng = np.random.default_rng(2)
    images = rng.standard_normal((3, 2, 32, 12)) + 1j * rng.standard_normal((3, 2, 32, 12))
    axes = (-2, -1)
    kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(images, axes), norm="ortho"), axes)
    path = folder / "file.h5"
    with h5py.File(path, "w") as file:
        for key, value in {"kspace": kspace.astype(np.complex64), "ismrmrd_header": HEADER, **changes}.items():
            file[key] = value
    return path, images


def test_fastmri_readouts_are_cut_to_the_field_of_view(tmp_path: Path) -> None:
    path, images = fastmri(tmp_path)
    found = read_measurement(path, "mri")
    assert found.y.shape == (3, 2, 16, 12) and bool((found.geometry["mask"] == 1).all())
    axes = (-2, -1)
    back = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(found.y.numpy(), axes), norm="ortho"), axes)
    np.testing.assert_allclose(back, images[:, :, 8:24], atol=1e-5)
    np.testing.assert_allclose(found.affine, np.diag([2.5, 2.0, 4.5, 1.0]))


def test_masks_are_those_of_the_file_or_of_what_is_not_zero(tmp_path: Path) -> None:
    mask = np.zeros(12)
    mask[[1, 5, 6, 7]] = 1
    path, _ = fastmri(tmp_path, mask=mask)
    np.testing.assert_array_equal(read_measurement(path, "mri").geometry["mask"], np.tile(mask, (16, 1)))
    path, _ = fastmri(tmp_path, kspace=np.ones((3, 2, 32, 12), np.complex64) * mask)
    found = read_measurement(path, "mri")
    np.testing.assert_array_equal(found.geometry["mask"], np.tile(mask, (16, 1)))
    assert "3-fold undersampled" in found.notes


def test_what_the_mask_leaves_out_is_not_there(tmp_path: Path) -> None:
    """Whole k-space beside a mask is that of the mask, as where zeros were written."""
    kspace = np.random.default_rng(0).standard_normal((3, 2, 32, 12)).astype(np.complex64)
    mask = np.zeros(12)
    mask[[1, 5, 6, 7]] = 1
    found = read_measurement(fastmri(tmp_path, kspace=kspace, mask=mask)[0], "mri")
    zeros = read_measurement(fastmri(tmp_path, kspace=kspace * mask.astype(np.float32), mask=mask)[0], "mri")
    assert torch.equal(found.y, zeros.y) and float(found.y.abs().max()) > 1
    np.savez(tmp_path / "own.npz", measurement=kspace, mask=mask)
    found = read_measurement(tmp_path / "own.npz", "mri")
    np.testing.assert_array_equal(found.y, kspace * mask.astype(np.float32))


def test_what_a_layout_does_not_take_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "ct.npz", **CT, center_offset=0.0)  # type: ignore[arg-type]
    np.savez(tmp_path / "mri.npz", **MRI)  # type: ignore[arg-type]
    for options, words in (
        (MeasurementOptions(detector_spacing=1.0), "--data.detector_spacing: .*ct.npz tells its geometry"),
        (MeasurementOptions(rotation_center=3.0), "--data.rotation_center"),
        (MeasurementOptions(image_size=64), "--data.image_size 64: .*ct.npz tells its size"),
        (MeasurementOptions(axes="coil y x"), "--data.axes 'coil y x': .*projections"),
    ):
        with pytest.raises(InputError, match=words):
            read_measurement(tmp_path / "ct.npz", "ct", options)
    with pytest.raises(InputError, match=r"--data.rotation_center: .*mri.npz"):
        read_measurement(tmp_path / "mri.npz", "mri", MeasurementOptions(rotation_center=3.0))


def test_dimensions_are_named_where_they_are_not_clear(tmp_path: Path) -> None:
    kspace = np.random.default_rng(3).standard_normal((4, 6, 8)).astype(np.complex64)
    np.savez(tmp_path / "raw.npz", kspace=kspace)
    read = lambda axes: read_measurement(tmp_path / "raw.npz", "mri", MeasurementOptions(axes=axes))  # noqa: E731
    assert read("coil y x").y.shape == (1, 4, 6, 8)
    np.testing.assert_array_equal(read("x coil y").y.numpy()[0], kspace.transpose(1, 2, 0))
    assert read("slice y x").y.shape == (4, 6, 8)
    for axes, words in (
        (None, "'coil y x' or 'slice y x'"),
        ("coil y", "give y and x"),
        ("y y x", "each once"),
        ("y x", "3 dimensions"),
        ("coil y z", "give y and x"),
    ):
        with pytest.raises(InputError, match=words):
            read(axes)


def test_kspace_without_a_value_is_refused(tmp_path: Path) -> None:
    for value, words in ((0.0, "zero everywhere"), (np.nan, "NaN")):
        np.savez(tmp_path / "raw.npz", kspace=np.full((6, 8), value, np.complex64))
        with pytest.raises(InputError, match=words):
            read_measurement(tmp_path / "raw.npz", "mri")
    np.savez(tmp_path / "raw.npz", kspace=np.ones((6, 8), np.complex64))
    with pytest.raises(InputError, match="holds a measurement of mri"):
        read_measurement(tmp_path / "raw.npz", "ct")


def test_cutting_a_readout_keeps_an_odd_field_of_view_in_place() -> None:
    image = torch.zeros(1, 12, 5, dtype=torch.complex128)
    image[0, 6, 2] = 1  # the middle stays the middle
    axes = (-2, -1)
    kspace = torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(image, axes), norm="ortho"), axes)
    cut = crop_readout(kspace, 7)
    back = torch.fft.fftshift(torch.fft.ifft2(torch.fft.ifftshift(cut, axes), norm="ortho"), axes)
    assert abs(complex(back[0, 3, 2]) - 1) < 1e-12 and float(back.abs().sum()) == pytest.approx(1)


CT = {"measurement": np.ones((2, 5, 30)), "angles": np.arange(5.0), "image_size": 20, "pixel_size": 2.0}
MRI = {"measurement": np.ones((2, 20, 24), complex), "mask": np.ones(24)}
COILS = {**MRI, "measurement": np.ones((2, 3, 20, 24), complex)}


def test_measurements_bring_their_geometry(tmp_path: Path) -> None:
    np.savez(tmp_path / "ct.npz", **CT, spacing=[3.0, 2.0, 2.0])  # type: ignore[arg-type]
    found = read_measurement(tmp_path / "ct.npz", "ct")
    assert isinstance(found, Measurement)
    assert found.geometry["n_detectors"] == 30 and found.geometry["detector_spacing"] == 2.0
    np.testing.assert_allclose(found.affine, np.diag([2.0, 2.0, 3.0, 1.0]))
    with h5py.File(tmp_path / "mri.h5", "w") as file:
        for key, value in MRI.items():
            file[key] = value
    found = read_measurement(tmp_path / "mri.h5", "mri")
    assert found.geometry["mask"].shape == (20, 24) and found.y.dtype == torch.complex64
    np.savez(tmp_path / "coils.npz", **COILS, coil_maps=np.ones((3, 20, 24), complex))  # type: ignore[arg-type]
    found = read_measurement(tmp_path / "coils.npz", "mri")
    np.savez(tmp_path / "slice.npz", measurement=np.ones((20, 24), complex), mask=np.ones(20))
    turned = read_measurement(tmp_path / "slice.npz", "mri", MeasurementOptions(axes="x y"))
    assert turned.y.shape == (1, 24, 20)
    assert found.y.shape == (2, 3, 20, 24) and found.geometry["coil_maps"].shape == (3, 20, 24)


def test_fans_and_cones_come_with_their_distances(tmp_path: Path) -> None:
    distances = {"source_distance": 500.0, "detector_distance": 300.0}
    with h5py.File(tmp_path / "fan.h5", "w") as file:
        fan = {"pixel_size": 1.0, "detector_spacing": 2.0, "beam": "fan", "detector": "curved"}
        for key, value in {**CT, **distances, **fan}.items():
            file[key] = value
    found = read_measurement(tmp_path / "fan.h5", "ct")
    operator = measured_operator(found)
    assert isinstance(operator, FanBeam) and operator.detector == "curved" and operator.range_shape == (5, 30)
    with h5py.File(tmp_path / "fan.h5", "a") as file:
        del file["detector_spacing"]
    operator = measured_operator(read_measurement(tmp_path / "fan.h5", "ct"))
    assert isinstance(operator, FanBeam) and operator.detector_spacing == pytest.approx(800 / 500)  # a pixel, magnified
    cone = {
        "measurement": np.ones((5, 6, 30)),
        "angles": np.arange(5) * 72.0,
        "volume_shape": [4.0, 20.0, 20.0],  # as MATLAB writes all numbers
        "pixel_size": 1.0,
        "slice_thickness": 2.0,
        "detector_spacing": [4.0, 2.0],
    }
    np.savez(tmp_path / "cone.npz", **cone, **distances, beam="cone")  # type: ignore[arg-type]
    found = read_measurement(tmp_path / "cone.npz", "ct")
    operator = measured_operator(part_of(found, views=3))
    assert isinstance(operator, ConeBeam) and operator.domain_shape == (4, 20, 20) and operator.norm() > 0
    assert operator.range_shape == (3, 6, 30) and operator.angles == (0.0, 144.0, 216.0)
    np.testing.assert_allclose(found.affine, np.diag([1.0, 1.0, 2.0, 1.0]))
    for content, words in (
        ({**CT, "beam": "fan"}, "lacks source_distance, detector_distance"),
        ({**CT, "beam": "pencil"}, "beam is pencil"),
        ({**cone, **distances, "beam": "cone", "volume_shape": [20, 20]}, "volume_shape has 2 values; give 3"),
        ({**cone, **distances, "beam": "cone", "angles": np.arange(6.0)}, "6 angles but 5 views"),
    ):
        np.savez(tmp_path / "bad.npz", **content)  # type: ignore[arg-type]
        with pytest.raises(InputError, match=words):
            read_measurement(tmp_path / "bad.npz", "ct")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({**CT, "angles": np.arange(4.0)}, "4 angles but 5 views"),
        ({**CT, "measurement": np.ones(5)}, "1 dimensions"),
        ({**CT, "measurement": np.full((2, 5, 30), np.nan)}, "NaN"),
        ({**CT, "pixel_size": [2.0, 2.0]}, "pixel_size has 2 values; give 1"),
        ({**CT, "spacing": [3.0, 1.0, 1.0]}, "must agree"),
        ({**CT, "spacing": [3.0]}, "spacing has 1 values; give 3"),
        ({key: value for key, value in CT.items() if key != "angles"}, "lacks angles"),
        ({**MRI, "mask": np.ones(20)}, r"give \(Y, X\) or \(X,\)"),
        ({**MRI, "mask": np.ones((24, 20))}, "the mask is"),
        ({**MRI, "spacing": [3.0, -1.0, 1.0]}, "voxel size"),
        ({**MRI, "measurement": np.ones((2, 2, 3, 20, 24), complex)}, "5 dimensions"),
        ({**COILS, "coil_maps": np.ones((2, 20, 24))}, "coil_maps are"),
        ({**COILS, "coil_maps": np.full((3, 20, 24), np.inf)}, "coil_maps have"),
        ({**MRI, "noise_std": -1.0}, "noise_std is"),
        ({**MRI, "noise_std": [0.1, 0.2]}, "noise_std has 2 values; give 1"),
        ({**MRI, "noise_std": "loud"}, "noise_std is"),
        ({**MRI, "noise_std": 0.1 + 0.1j}, "noise_std is"),
        ({**CT, "noise_std": 0.1}, "noise_std is for k-space"),
    ],
)
def test_wrong_measurements_are_refused(content: dict[str, Any], words: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "y.npz", **content)
    with pytest.raises(InputError, match=words):
        read_measurement(tmp_path / "y.npz", "mri" if "mask" in content else "ct")


@pytest.mark.parametrize(
    ("content", "modality", "sized"),
    [
        (CT, "ct", False),
        ({**CT, "spacing": [3.0, 2.0, 2.0]}, "ct", True),
        (MRI, "mri", False),
        ({**MRI, "spacing": [3.0, 2.0, 2.0]}, "mri", True),
        ({"kspace": np.ones((2, 3, 20, 24), complex)}, "mri", False),
    ],
)
def test_whether_the_distance_of_the_slices_is_known(
    content: dict[str, Any], modality: Modality, sized: bool, tmp_path: Path
) -> None:
    """1 mm stands for what a file does not tell, which a prior of neighbouring slices must not take for the truth."""
    np.savez(tmp_path / "y.npz", **content)
    assert read_measurement(tmp_path / "y.npz", modality).sized == sized
