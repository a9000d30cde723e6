"""A field map and sampling times from a file, to the operator, to the image."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from lightning_mbir.data.measurements.measurement import read_measurement
from lightning_mbir.data.measurements.options import MeasurementOptions
from lightning_mbir.errors import InputError
from lightning_mbir.methods.reconstruct import reconstruct
from lightning_mbir.physics import FourierSampling, OffResonance
from lightning_mbir.reconstruction.measured import measured_operator, part_of, slices_of
from tests.data.measurements.test_scanners import HEADER, fft, write_mrd

FIELD = 60 * np.linspace(-1, 1, 24) ** 2 * np.ones((3, 20, 1)) * np.array([1, 0.5, -1])[:, None, None]
TIMES = np.arange(24) / 24 * 0.03


def scan() -> tuple[dict[str, Any], torch.Tensor]:
    """Echo-planar k-space of three slices, each in a field of its own, and the images that it is of."""
    x = torch.zeros(3, 20, 24, dtype=torch.complex64)
    x[:, 5:15, 4:20] = 1
    x[:, 8:11, 8:11] = 0.3
    sampling = FourierSampling(torch.ones(20, 24))
    y = OffResonance(sampling, torch.from_numpy(FIELD).float(), torch.from_numpy(TIMES).float())(x)
    return {"measurement": y.numpy(), "mask": np.ones(24), "b0": FIELD, "times": TIMES}, x


def test_slices_come_back_in_a_field_of_their_own(tmp_path: Path) -> None:
    content, x = scan()
    np.savez(tmp_path / "y.npz", **content)
    found = read_measurement(tmp_path / "y.npz", "mri")
    assert any(note.startswith("field off by -60 to 60 Hz") for note in found.notes)
    operator = measured_operator(found)
    assert isinstance(operator, OffResonance) and operator.domain_shape == (3, 20, 24)
    image = reconstruct(found.y, operator, method="cgls", steps=60).volume
    plain = measured_operator(read_measurement(_without(tmp_path, content), "mri")).adjoint(found.y)
    assert float((plain - x).norm() / x.norm()) > 0.3
    assert float((image - x).norm() / x.norm()) < 0.03
    some = slices_of(found, 1, 3)
    torch.testing.assert_close(some.geometry["b0"], found.geometry["b0"][1:3])
    chosen = read_measurement(tmp_path / "y.npz", "mri", MeasurementOptions(slices=(1, 3)))
    torch.testing.assert_close(chosen.geometry["b0"], some.geometry["b0"])


def _without(folder: Path, content: dict[str, Any]) -> Path:
    np.savez(folder / "plain.npz", measurement=content["measurement"], mask=content["mask"])
    return folder / "plain.npz"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"b0": FIELD[:2]}, r"b0 is \(2, 20, 24\) of float64, k-space \(20, 24\)"),
        ({"b0": FIELD[0].T}, r"b0 is \(24, 20\)"),
        ({"b0": FIELD * 1j}, "b0 is .*complex128"),
        ({"b0": FIELD * np.nan}, "b0 has NaN"),
        ({"times": TIMES[:-1]}, r"times is \(23,\)"),
        ({"times": 1000 * TIMES}, "times reach 28.75; give seconds"),
        ({"times": None}, "lacks times"),
        ({"b0": None}, "lacks b0"),
    ],
)
def test_a_field_that_does_not_fit_is_refused(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    content = {key: value for key, value in {**scan()[0], **changes}.items() if value is not None}
    np.savez(tmp_path / "y.npz", **content)
    with pytest.raises(InputError, match=words):
        read_measurement(tmp_path / "y.npz", "mri")


def maps(folder: Path, **other: Any) -> Path:
    np.savez(folder / "map.npz", **{"b0": FIELD, **other})
    return folder / "map.npz"


def test_a_map_of_its_own_file_beside_raw_kspace(tmp_path: Path) -> None:
    """An echo train along x: the same operator and image as from the file that has all."""
    content, x = scan()
    np.savez(tmp_path / "k.npz", kspace=content["measurement"])
    np.savez(tmp_path / "whole.npz", **content)
    whole = read_measurement(tmp_path / "whole.npz", "mri")
    given: dict[str, Any] = {"axes": "slice y x", "field_map": maps(tmp_path)}
    found = read_measurement(tmp_path / "k.npz", "mri", MeasurementOptions(**given, echo_spacing=0.03 / 24))
    # From zero frequency on, not from the first line: the field's phase at that time belongs to the image.
    torch.testing.assert_close(found.geometry["times"], (whole.geometry["times"] - 0.015).expand(20, 24))
    torch.testing.assert_close(found.geometry["b0"], whole.geometry["b0"])
    assert "field off by -60 to 60 Hz by map.npz, voxel by voxel" in found.notes
    assert "samples taken over 28.7 ms" in found.notes
    operator = measured_operator(found)
    assert isinstance(operator, OffResonance)
    image = reconstruct(found.y, operator, method="cgls", steps=60).volume
    assert float((image.abs() - x.abs()).norm() / x.norm()) < 0.03
    told = maps(tmp_path, times=TIMES)
    same = read_measurement(tmp_path / "k.npz", "mri", MeasurementOptions(axes="slice y x", field_map=told))
    torch.testing.assert_close(same.geometry["times"], whole.geometry["times"])


def test_a_scanner_s_file_tells_its_times(tmp_path: Path) -> None:
    """Readouts of 24 samples of 5 us, cut to 12 pixels, of which the volume turns axes and directions; two slices."""
    kspace = fft(np.random.default_rng(1).standard_normal((1, 2, 3, 24, 10)))
    path = write_mrd(tmp_path / "a.h5", kspace)
    plain = read_measurement(path, "mri")
    assert plain.y.shape == (2, 3, 10, 12) and "times" not in plain.geometry
    np.savez(tmp_path / "map.npz", b0=np.ones((10, 12)))
    found = read_measurement(path, "mri", MeasurementOptions(field_map=tmp_path / "map.npz"))
    # The readout runs towards the left, x of the volume towards the right.
    expected = -(torch.arange(12) - 6) * (24 * 5e-6 / 12)
    expected[0] *= -1  # the first sample of an even number stays where it is
    torch.testing.assert_close(found.geometry["times"], expected.expand(10, 12))
    with pytest.raises(InputError, match=r"--data.readout_time 0.001: .*a\.h5 tells its own"):
        read_measurement(path, "mri", MeasurementOptions(field_map=tmp_path / "map.npz", readout_time=1e-3))
    with pytest.raises(InputError, match=r"--data.echo_spacing 0.001: the lines of .*a\.h5 are no echo train"):
        read_measurement(path, "mri", MeasurementOptions(field_map=tmp_path / "map.npz", echo_spacing=1e-3))
    part = part_of(found, acc=2.0)
    assert part.geometry["times"] is found.geometry["times"] and part.geometry["mask"].mean() < 1


def test_echo_trains_of_a_scanner_go_as_their_lines_were_taken(tmp_path: Path) -> None:
    epi = HEADER.replace(">cartesian<", ">epi<")
    kspace = fft(np.random.default_rng(1).standard_normal((1, 1, 1, 24, 10)))
    np.savez(tmp_path / "map.npz", b0=np.ones((10, 12)))
    given = MeasurementOptions(field_map=tmp_path / "map.npz", echo_spacing=1e-3)
    odd = range(1, 10, 2)
    found = read_measurement(write_mrd(tmp_path / "up.h5", kspace, reverse=odd, header=epi), "mri", given)
    times = found.geometry["times"]
    # Of the volume, y runs against the lines: line 5 + m is row 5 - m; those of odd numbers were read backwards.
    assert float(times[4, 6]) == pytest.approx(1e-3) and float(times[8, 6]) == pytest.approx(-3e-3)
    steps = times[:, 7] - times[:, 6]
    torch.testing.assert_close(steps[[5, 3]], torch.full((2,), 1e-5), rtol=1e-4, atol=0)  # lines 5, 7: to the right
    torch.testing.assert_close(steps[[6, 4]], torch.full((2,), -1e-5), rtol=1e-4, atol=0)  # lines 4, 6: to the left
    every_other = write_mrd(tmp_path / "down.h5", kspace, lines=(range(9, 0, -2),), header=epi)
    down = read_measurement(every_other, "mri", given).geometry["times"]
    assert float(down[3, 6]) == pytest.approx(-1e-3)  # line 7, one before line 5
    with pytest.raises(InputError, match="not taken in one train, evenly"):
        read_measurement(write_mrd(tmp_path / "shots.h5", kspace, lines=((1, 5, 2, 6),), header=epi), "mri", given)
    with pytest.raises(InputError, match=r"of echo-planar lines --data.echo_spacing"):
        read_measurement(tmp_path / "up.h5", "mri", MeasurementOptions(field_map=tmp_path / "map.npz"))


def test_a_map_in_nifti_is_put_to_where_the_slices_lie(tmp_path: Path) -> None:
    """Other voxels, turned and mirrored, of a field that is linear in the patient."""
    kspace = fft(np.random.default_rng(1).standard_normal((1, 2, 3, 24, 10)))
    scanned = write_mrd(tmp_path / "a.h5", kspace)
    plain = read_measurement(scanned, "mri")
    slope = np.array([1.5, -0.7, 2.0, 40.0])
    affine = np.array([[0, -3.0, 0, 60], [2.5, 0, 0, -60], [0, 0, 4.0, -30], [0, 0, 0, 1]])
    i = np.stack([*np.meshgrid(*(np.arange(n) for n in (48, 40, 20)), indexing="ij"), np.ones((48, 40, 20))])
    nib.save(nib.Nifti1Image(np.tensordot(slope @ affine, i, 1), affine), tmp_path / "map.nii.gz")
    found = read_measurement(scanned, "mri", MeasurementOptions(field_map=tmp_path / "map.nii.gz"))
    z, y, x = np.meshgrid(*(np.arange(n) for n in (2, 10, 12)), indexing="ij")
    expected = np.tensordot(slope @ plain.affine, np.stack([x, y, z, np.ones_like(x)]), 1)
    np.testing.assert_allclose(found.geometry["b0"], expected, atol=1e-3)
    assert any("put to where the slices lie" in note for note in found.notes)
    far = affine.copy()
    far[2, 3] = 900
    nib.save(nib.Nifti1Image(np.ones((48, 40, 20)), far), tmp_path / "far.nii")
    with pytest.raises(InputError, match="lies elsewhere than the slices"):
        read_measurement(scanned, "mri", MeasurementOptions(field_map=tmp_path / "far.nii"))
    # Raw k-space has no place: voxel by voxel, of the same voxels.
    content, _ = scan()
    np.savez(tmp_path / "k.npz", kspace=content["measurement"])
    nib.save(nib.Nifti1Image(FIELD.T, np.eye(4)), tmp_path / "same.nii")
    given: dict[str, Any] = {"axes": "slice y x", "readout_time": 0.01}
    raw = read_measurement(tmp_path / "k.npz", "mri", MeasurementOptions(field_map=tmp_path / "same.nii", **given))
    np.testing.assert_allclose(raw.geometry["b0"], FIELD, rtol=1e-6)
    assert float(raw.geometry["times"][0, 0]) == pytest.approx(-0.005)
    with pytest.raises(InputError, match=r"is of \(48, 40, 20\) voxels, the volume of \(24, 20, 3\)"):
        read_measurement(tmp_path / "k.npz", "mri", MeasurementOptions(field_map=tmp_path / "far.nii", **given))


def test_the_brain_s_twix_file_tells_its_times(shared: Path, tmp_path: Path) -> None:
    pytest.importorskip("twixtools")
    y, x = np.mgrid[-64:64, -64:64] / 64
    np.savez(tmp_path / "map.npz", b0=100 * (x**2 - y**2))
    given = MeasurementOptions(oversampling=1.0, field_map=tmp_path / "map.npz")
    found = read_measurement(shared / "data/raw/brain_gre_16ch_siemens_twix.dat", "mri", given)
    assert "samples taken over 2.54 ms" in found.notes  # 128 samples of 20 us, from the first to the last
    times = found.geometry["times"]
    assert bool((times == times[:1]).all()) and float(times[0, 64]) == 0  # phase was encoded along y
    operator = measured_operator(found)
    assert isinstance(operator, OffResonance)
    x0 = operator.adjoint(found.y)
    assert float((operator(x0)).abs().square().sum()) > 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "does not tell when its samples were taken; give --data.readout_time"),
        ({"readout_time": 10.0}, "times reach 5; give seconds"),
        ({"readout_time": float("nan")}, "times reach nan; give seconds"),
        ({"field_map": None, "readout_time": 0.01}, "--data.readout_time: tells when .* give that too"),
        ({"field_map": "nowhere.nii"}, "nowhere.nii: no such file"),
        ({"field_map": "broken.nii"}, "broken.nii: cannot be read as NIfTI|broken.nii: the file cannot be read"),
        ({"field_map": "cut.nii.gz"}, "cut.nii.gz: the file cannot be read"),
        ({"field_map": "two.nii"}, r"two.nii: is \(24, 20, 3, 2\) of float64; give one real map"),
        ({"field_map": "holes.nii"}, "holes.nii: the map has NaN"),
        ({"field_map": "times.npz", "echo_spacing": 1e-3}, "has times of its own; leave"),
        ({"field_map": "plain.npz"}, "lacks b0"),
    ],
)
def test_a_map_that_cannot_be_is_refused(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    content, _ = scan()
    np.savez(tmp_path / "k.npz", kspace=content["measurement"])
    (tmp_path / "broken.nii").write_bytes(b"no" * 400)
    nib.save(nib.Nifti1Image(FIELD.T, np.eye(4)), tmp_path / "cut.nii.gz")
    (tmp_path / "cut.nii.gz").write_bytes((tmp_path / "cut.nii.gz").read_bytes()[:-100])
    nib.save(nib.Nifti1Image(np.ones((24, 20, 3, 2)), np.eye(4)), tmp_path / "two.nii")
    nib.save(nib.Nifti1Image(np.full((24, 20, 3), np.nan), np.eye(4)), tmp_path / "holes.nii")
    np.savez(tmp_path / "times.npz", b0=FIELD, times=TIMES)
    _without(tmp_path, content)
    given: dict[str, Any] = {"axes": "slice y x", "field_map": maps(tmp_path), **options}
    if isinstance(given["field_map"], str):
        given["field_map"] = tmp_path / given["field_map"]
    with pytest.raises(InputError, match=words) as caught:
        read_measurement(tmp_path / "k.npz", "mri", MeasurementOptions(**given))
    assert "\n" not in str(caught.value)


def test_a_map_is_for_kspace_without_one(tmp_path: Path) -> None:
    content, _ = scan()
    np.savez(tmp_path / "whole.npz", **content)
    with pytest.raises(InputError, match="has a map b0 of its own; leave it out"):
        read_measurement(tmp_path / "whole.npz", "mri", MeasurementOptions(field_map=maps(tmp_path)))
    np.savez(tmp_path / "y.npz", sinogram=np.ones((4, 9)), angles=np.arange(4.0))
    with pytest.raises(InputError, match=r"--data.field_map: is for k-space, .*y.npz holds projections; leave it out"):
        read_measurement(tmp_path / "y.npz", "ct", MeasurementOptions(field_map=maps(tmp_path)))
