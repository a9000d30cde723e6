"""Measurements whose views stand anywhere, in our own layout."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from lightning_mbir.data.measurements.measurement import read_measurement
from lightning_mbir.data.measurements.options import MeasurementOptions
from lightning_mbir.errors import InputError
from lightning_mbir.methods.reconstruct import reconstruct
from lightning_mbir.physics import ModularBeam, helical_trajectory
from lightning_mbir.reconstruction.measured import measured_operator, part_of, slices_of
from lightning_mbir.solvers import fbp, fdk
from tests.data.measurements.beads import bead, found

BEAD, RADIUS, VALUE = (6.0, -4.0, 3.0), 3.0, 0.03


def helix(turns: int = 3, views: int = 24) -> np.ndarray:
    angles = np.arange(turns * views) * 360.0 / views
    lengths: dict[str, Any] = {"source_distance": 100.0, "detector_distance": 60.0, "detector_spacing": (2.5, 2.0)}
    return helical_trajectory(angles.tolist(), **lengths, pitch=6.0).numpy()


def bins_of(views: np.ndarray, rows: int, columns: int) -> np.ndarray:
    _, middle, u, v = views.reshape(-1, 4, 3).transpose(1, 0, 2)[:, :, None, None]
    i = (np.arange(columns) - (columns - 1) / 2)[:, None]
    j = (np.arange(rows) - (rows - 1) / 2)[:, None, None]
    return middle + i * u + j * v


def content(**changes: Any) -> dict[str, Any]:
    views = changes.pop("views", helix())
    y = bead(views[:, :3], bins_of(views, 8, 30), BEAD, RADIUS, VALUE)
    own = {"volume_shape": [12, 24, 24], "pixel_size": 1.25, "slice_thickness": 1.5, "beam": "modular"}
    return {"measurement": y.astype(np.float32), "views": views, **own, **changes}


def write(path: Path, **changes: Any) -> Path:
    given = {key: value for key, value in content(**changes).items() if value is not None}
    if path.suffix == ".npz":
        np.savez(path, **given)
    else:
        with h5py.File(path, "w") as file:
            for key, value in given.items():
                file[key] = value
    return path


@pytest.mark.parametrize("name", ["scan.npz", "scan.h5"])
def test_a_bead_of_a_helix_lands_where_it_is(name: str, tmp_path: Path) -> None:
    read = read_measurement(write(tmp_path / name), "ct")
    operator = measured_operator(read)
    assert isinstance(operator, ModularBeam) and operator.range_shape == (72, 8, 30)
    np.testing.assert_allclose(read.affine, np.diag([1.25, 1.25, 1.5, 1.0]))
    place, mass = found(read)
    first = 1.25 * 11.5, 1.25 * 11.5, 1.5 * 5.5  # from the first voxel to the middle of the volume
    assert place == pytest.approx([a + b for a, b in zip(BEAD, first, strict=True)], abs=0.3)
    assert mass == pytest.approx(VALUE * 4 / 3 * np.pi * RADIUS**3, rel=0.05)


def test_positions_may_be_those_of_the_table(tmp_path: Path) -> None:
    moved = helix()
    moved[:, :6] += np.tile([5.0, -3.0, 140.0], 2)
    there = content()
    path = write(tmp_path / "scan.npz", measurement=there["measurement"], views=moved, volume_center=[5.0, -3.0, 140.0])
    np.testing.assert_allclose(read_measurement(path, "ct").geometry["views"], there["views"], atol=1e-9)


def test_fewer_views_are_spread_along_the_helix(tmp_path: Path) -> None:
    read = read_measurement(write(tmp_path / "scan.npz"), "ct")
    part = part_of(read, views=9)
    kept = [read.geometry["views"].index(view) for view in part.geometry["views"]]
    assert kept == list(range(0, 72, 8))  # not those of one turn, whose rays look alike
    torch.testing.assert_close(part.y, read.y[kept])
    assert len(part_of(read, angle_range=180.0).y) == 12
    curved = read_measurement(
        write(tmp_path / "curved.npz", detector="curved", curvature_radius=np.linspace(150, 160, 72)), "ct"
    )
    assert part_of(curved, views=9).geometry["curvature_radius"] == pytest.approx(np.linspace(150, 160, 72)[::8])
    with pytest.raises(InputError, match="modular beam measures all slices together"):
        slices_of(read, 0, 2)


def test_there_is_no_filter_but_a_start(tmp_path: Path) -> None:
    read = read_measurement(write(tmp_path / "scan.npz", views=helix(1, 8), volume_shape=[8, 24, 24]), "ct")
    operator = measured_operator(read)
    with pytest.raises(InputError, match="take sirt, cgls, admm_tv or dds"):
        reconstruct(read.y, operator, method="fbp")
    for solver in (fbp, fdk):
        with pytest.raises(InputError, match="sirt for all"):
            solver(read.y, operator)  # type: ignore[operator]
    assert reconstruct(read.y, operator, method="admm_tv", steps=3).residual < 0.7


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"views": None}, "lacks views"),
        ({"measurement": np.ones((71, 8, 30))}, r"views are \(72, 12\), but the measurement has 71 views"),
        ({"volume_shape": [24, 24]}, "volume_shape has 2 values; give 3"),
        ({"views": np.delete(helix(), slice(20, 30), 0)}, "to 20 the detector turns by 165 degrees, usually 15"),
        ({"views": helix() + 20.0 * (np.arange(72) > 40)[:, None] * np.tile([0, 0, 1.0], 4) * (np.arange(12) < 6)},
         r"from view 40 to 41 the detector moves 20.25 mm along z, usually 0.25"),
        ({"views": np.where(np.arange(12) == 5, np.nan, helix())}, "views has NaN"),
        ({"beam": "helix"}, "there are parallel, fan, cone and modular"),
    ],
)  # fmt: skip
def test_tables_that_cannot_be_are_refused(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    given = {**content(), **changes}
    if "measurement" not in changes and given["views"] is not None:
        given["measurement"] = np.ones((len(given["views"]), 8, 30))
    path = tmp_path / "bad.npz"
    np.savez(path, **{key: value for key, value in given.items() if value is not None})
    with pytest.raises(InputError, match=words) as caught:
        read_measurement(path, "ct")
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"--data.slices 1:3: the views of a modular beam"):
        read_measurement(write(tmp_path / "good.npz"), "ct", MeasurementOptions(slices=(1, 3)))


def test_what_one_view_is_wrong_in_the_operator_tells(tmp_path: Path) -> None:
    inside = helix()
    inside[:, :3] /= 20
    with pytest.raises(InputError, match="is inside of the volume"):
        measured_operator(read_measurement(write(tmp_path / "a.npz", views=inside), "ct"))
