"""Older sets of the Finnish Inverse Problems Society: a sinogram and the sparse matrix that makes it of an image."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse
import torch

from lightning_mbir.data import VolumeDataModule
from lightning_mbir.data.measurements.measurement import read_measurement
from lightning_mbir.data.measurements.options import MeasurementOptions
from lightning_mbir.errors import InputError
from lightning_mbir.methods.fbp_unet import geometry_of
from lightning_mbir.methods.held_out import hold_out
from lightning_mbir.physics import FanBeam, LinearOperator, MatrixOperator, ParallelBeam
from lightning_mbir.reconstruction import METHODS, ReconstructionModule, reconstruct
from lightning_mbir.reconstruction.measured import measured_operator, part_of
from lightning_mbir.reconstruction.provenance import volume_identity
from tests.helpers import gaussian_prior
from tests.reconstruction.test_module import predict

SIZE, VIEWS, BINS = 24, 20, 34
ANGLES = [18.0 * k + 7 for k in range(VIEWS)]
FAN = FanBeam(SIZE, ANGLES, source_distance=60.0, detector_distance=30.0, n_detectors=BINS, detector_spacing=1.6)


def image() -> torch.Tensor:
    """A block off the middle, wider than high, with one bright pixel."""
    x = torch.zeros(1, SIZE, SIZE)
    x[0, 4:9, 12:20] = 0.02
    x[0, 5, 17] = 0.05
    return x


def as_matlab(operator: LinearOperator) -> tuple[scipy.sparse.csc_matrix, np.ndarray]:
    """``A``, made column by column of unit images, rows of pixels first, and ``m = reshape(A * x(:), bins, views)``."""
    columns = []
    for column in range(SIZE):
        units = torch.zeros(SIZE, SIZE, SIZE)
        units[torch.arange(SIZE), torch.arange(SIZE), column] = 1
        columns.append(operator(units).numpy().reshape(SIZE, -1))  # bins first, then views
    matrix = scipy.sparse.csc_matrix(np.concatenate(columns).T.astype(np.float64))
    m = matrix @ image()[0].numpy().ravel(order="F")
    return matrix, m.reshape(operator.range_shape[::-1], order="F")


def write(path: Path, version: str, matrix: scipy.sparse.csc_matrix, m: np.ndarray, **more: Any) -> Path:
    if version == "5":
        scipy.io.savemat(path, {"A": matrix, "m": m, "normA": 3.0, **more}, do_compression=True)
        return path
    with h5py.File(path, "w", userblock_size=512) as file:
        group = file.create_group("A")
        group.attrs["MATLAB_sparse"] = np.uint64(matrix.shape[0])
        group["data"], group["ir"], group["jc"] = matrix.data, matrix.indices.astype("u8"), matrix.indptr.astype("u8")
        file["m"] = m.T
        for name, value in more.items():
            file[name] = np.atleast_2d(value).T
    return path


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_values_and_places(version: str, tmp_path: Path) -> None:
    found = read_measurement(write(tmp_path / "LotusData.mat", version, *as_matlab(FAN)), "ct")
    expected = FAN(image())
    torch.testing.assert_close(found.y, expected, rtol=1e-5, atol=1e-7)
    operator = measured_operator(found)
    assert isinstance(operator, MatrixOperator) and operator.domain_shape == (SIZE, SIZE)
    torch.testing.assert_close(operator(image()), expected, rtol=1e-5, atol=1e-7)
    assert not found.calibrated and not found.sized and found.name == "LotusData"
    assert "directions of the 20 views found from it" in found.notes[1]
    place = int(reconstruct(found.y, operator, method="sirt", steps=300).volume[0].argmax())
    assert (place // SIZE, place % SIZE) == (5, 17)


@pytest.mark.parametrize(
    "operator",
    [FAN, ParallelBeam(SIZE, [7.5 * k + 100 for k in range(VIEWS)], n_detectors=BINS)],
    ids=["fan", "parallel"],
)
def test_the_matrix_tells_the_directions_of_views(operator: FanBeam | ParallelBeam, tmp_path: Path) -> None:
    found = read_measurement(write(tmp_path / "y.mat", "5", *as_matlab(operator)), "ct")
    off = np.array(found.geometry["angles"]) - np.array(operator.angles)
    assert np.abs((off + 90) % 180 - 90).max() < 1.5
    assert np.ptp(off) < 3  # no jumps
    assert measured_operator(found).parts.open is operator.parts.open  # 150 degrees, of parallel rays


def test_some_views_are_those_of_the_whole(tmp_path: Path) -> None:
    whole = read_measurement(write(tmp_path / "y.mat", "5", *as_matlab(FAN)), "ct")
    part = part_of(whole, views=5)
    assert part.notes[-1] == "5 of 20 views" and part.y.shape == (1, 5, BINS)
    torch.testing.assert_close(part.y, whole.y[:, ::4])
    torch.testing.assert_close(measured_operator(part)(image()), whole.y[:, ::4], rtol=1e-5, atol=1e-7)
    assert part_of(whole, angle_range=90.0).y.shape[1] == 5
    identities = [volume_identity(one)["geometry"]["matrix"] for one in (whole, part)]
    assert identities[0]["shape"] == [VIEWS * BINS, SIZE**2] and identities[0]["values"] != identities[1]["values"]


def test_views_are_held_out(tmp_path: Path) -> None:
    found = read_measurement(write(tmp_path / "y.mat", "5", *as_matlab(FAN)), "ct")
    operator = measured_operator(found)
    folds = hold_out(operator, found.y)
    assert len(folds) == 4 and operator.parts.what == "views"
    assert all(sum(fold.errors(image())) < 1e-10 for fold in folds)
    assert all(sum(fold.errors(torch.zeros_like(image()))) == pytest.approx(1) for fold in folds)
    unknown = MatrixOperator(scipy.sparse.eye(6).tocsr(), (2, 3), (2, 3)).parts
    assert unknown.place.tolist() == [0, 1] and not unknown.open


INVERTING = {"fbp", "fbp_unet"}


def test_every_method_without_a_direct_inversion(tmp_path: Path) -> None:
    found = read_measurement(write(tmp_path / "y.mat", "5", *as_matlab(FAN)), "ct")
    operator, prior = measured_operator(found), gaussian_prior("ct")
    names = {name for name in METHODS if "ct" in METHODS[name].modalities} - INVERTING
    assert len(names) >= 10
    for name in names:
        more: dict[str, Any] = {"second_prior": prior} if "second_prior" in METHODS[name].needs else {}
        result = reconstruct(found.y, operator, prior, name, steps=3, calibrated=False, **more)
        assert result.volume.shape == (1, SIZE, SIZE) and bool(torch.isfinite(result.volume).all()), name
    for start in ("direct", "admm_tv"):
        result = reconstruct(found.y, operator, prior, "dds", steps=3, start=start, calibrated=False)
        assert bool(torch.isfinite(result.volume).all())
    with pytest.raises(InputError, match=r"fbp has no filter for a geometry that only a matrix tells"):
        reconstruct(found.y, operator, method="fbp")
    with pytest.raises(InputError, match="fbp_unet is for ParallelBeam"):
        geometry_of(operator)


def test_the_whole_way_from_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "walnut.mat", "7.3", *as_matlab(FAN))
    data = VolumeDataModule(measurement=path, modality="ct")
    module = ReconstructionModule(task="sv_ct", method="admm_tv", views=10, output_dir=tmp_path / "out")
    predict(module, data, tmp_path)
    assert (tmp_path / "out/sv_ct/walnut/montage.png").exists()
    with pytest.raises(InputError, match="fbp has no filter"):
        predict(ReconstructionModule(task="sv_ct", method="fbp", output_dir=tmp_path / "fbp"), data, tmp_path)
    assert not (tmp_path / "fbp/sv_ct/walnut").exists()


def changed(**changes: Any) -> dict[str, Any]:
    matrix, m = scipy.sparse.eye(36, 25, format="csc"), np.ones((9, 4))
    return {"matrix": matrix, "m": m, **changes}


@pytest.mark.parametrize("version", ["5", "7.3"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (changed(m=np.ones((9, 5))), r"A is of 36 rays, the sinogram m of 9 x 5 = 45; they must agree"),
        (changed(matrix=scipy.sparse.eye(36, 26, format="csc")), "has 26 pixels, which are no square image"),
        (changed(m=np.ones((36, 1))), r"m is \(36, 1\) .*; give real line integrals \(bins, views\)"),
        (changed(m=np.full((9, 4), np.nan)), "m has NaN"),
        (changed(matrix=scipy.sparse.eye(36, 25, format="csc") * np.inf), "A has NaN or infinite"),
        (changed(matrix=1j * scipy.sparse.eye(36, 25, format="csc")), "A (is of type complex128|cannot be read)"),
        (changed(), "view 3 of 4 sees nothing by the matrix A"),
    ],
)
def test_what_does_not_go_together_is_refused(
    version: str, content: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words):
        read_measurement(write(tmp_path / "y.mat", version, **content), "ct")


def test_a_damaged_matrix_is_told(tmp_path: Path) -> None:
    matrix, m = as_matlab(FAN)
    write(tmp_path / "y.mat", "7.3", matrix, m)
    with h5py.File(tmp_path / "y.mat", "r+") as file:
        file["A/ir"][0] = matrix.shape[0] + 5
    with pytest.raises(InputError, match=r"y.mat: A cannot be read"):
        read_measurement(tmp_path / "y.mat", "ct")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"image_size": 64}, "--data.image_size 64: .* tells its size by itself"),
        ({"rotation_center": 9.0}, "--data.rotation_center: .* by a matrix"),
        ({"detector_spacing": 0.1}, "--data.detector_spacing"),
        ({"slices": (0, 2)}, "--data.slices 0:2"),
    ],
)
def test_options_that_a_matrix_has_no_use_for(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = write(tmp_path / "y.mat", "5", *as_matlab(FAN))
    with pytest.raises(InputError, match=words):
        read_measurement(path, "ct", MeasurementOptions(**options))
    with pytest.raises(InputError, match="the task is of mri"):
        read_measurement(path, "mri")
