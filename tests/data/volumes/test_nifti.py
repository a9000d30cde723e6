"""NIfTI files keep their place and their values, or are refused in one line that says why."""

import gzip
import random
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from lightning_mbir.data.units import Modality
from lightning_mbir.data.volumes import nifti, stream, values
from lightning_mbir.data.volumes.reading import read_volume
from lightning_mbir.data.volumes.resample import square_in_plane
from lightning_mbir.data.volumes.volume import Volume
from lightning_mbir.data.volumes.writing import PLACED, write_volume
from lightning_mbir.errors import InputError

OBLIQUE = np.array([[1.9, 0.3, 0, -20], [-0.3, 1.9, 0, 5], [0, 0, 3.0, 7], [0, 0, 0, 1]])
VOXELS = np.random.default_rng(0).random((6, 5, 4)).astype(np.float32) + 1


def image(array: np.ndarray = VOXELS, affine: np.ndarray = OBLIQUE) -> Any:
    made = nib.Nifti1Image(array, affine)
    made.header.set_xyzt_units("mm")
    return made


def save(made: Any, path: Path, **header: Any) -> Path:
    """Write an image, with fields of its header as they are given, whatever they are."""
    nib.save(made, path)
    if header:
        packed = path.name.endswith(".gz")
        data = bytearray(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())
        fields = np.ndarray((), made.header.template_dtype, data)
        for name, value in header.items():
            fields[name] = value
        path.write_bytes(gzip.compress(data) if packed else data)
    return path


def read(path: Path, modality: Modality = "mri") -> Volume:
    return read_volume(path, modality)


def refused(path: Path, modality: Modality = "mri") -> str:
    with pytest.raises(InputError) as caught:
        read_volume(path, modality)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return str(caught.value)


def in_file(volume: Volume) -> np.ndarray:
    """The affine of the file."""
    assert volume.grid is not None
    return volume.grid.affine


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz", "V.NII.GZ"])
def test_an_oblique_sform_is_kept_to_the_bit(name: str, tmp_path: Path) -> None:
    found = read(save(image(), tmp_path / name))
    np.testing.assert_array_equal(in_file(found), OBLIQUE.astype(np.float32))
    assert found.notes == ()


def test_the_sform_is_kept_where_pixdim_and_qform_contradict_it(tmp_path: Path) -> None:
    made = image()
    made.set_qform(np.diag([2.0, 2.0, 2.0, 1.0]), code=1)
    found = read(save(made, tmp_path / "v.nii"))
    np.testing.assert_array_equal(in_file(found), OBLIQUE.astype(np.float32))
    text = "; ".join(found.notes)
    assert "1.924 x 1.924 x 3 mm by its sform, which is taken, of 2 x 2 x 2 mm by pixdim" in text
    corners = [[*np.multiply(index, (5, 4, 3)), 1] for index in np.ndindex(2, 2, 2)]
    apart = max(np.linalg.norm((OBLIQUE - np.diag([2.0, 2.0, 2.0, 1.0])) @ corner) for corner in corners)
    assert f"its qform lies up to {apart:.3g} mm from its sform" in text


@pytest.mark.parametrize(("field", "value"), [("pixdim", [1, 0, -3, np.nan, 0, 0, 0, 0]), ("quatern_b", 5.0)])
def test_a_broken_qform_beside_an_sform_is_told(field: str, value: Any, tmp_path: Path) -> None:
    found = read(save(image(), tmp_path / "v.nii", qform_code=1, **{field: value}))
    np.testing.assert_array_equal(in_file(found), OBLIQUE.astype(np.float32))
    assert any("qform" in note for note in found.notes)


@pytest.mark.parametrize("qfac", [-1, 0, 1])
def test_the_qform_is_taken_without_an_sform(qfac: int, tmp_path: Path) -> None:
    made = image()
    made.set_qform(OBLIQUE, code=1)
    found = read(save(made, tmp_path / "v.nii", sform_code=0, pixdim=[qfac, 1.9235, 1.9235, 3, 0, 0, 0, 0]))
    expected = OBLIQUE.copy()
    expected[2, 2] = -3 if qfac < 0 else 3
    np.testing.assert_allclose(in_file(found), expected, atol=1e-4)
    assert found.notes == ()


def test_without_either_the_file_has_no_place_in_the_world_and_says_so(tmp_path: Path) -> None:
    path = save(image(affine=np.diag([2.0, 3.0, 4.0, 1.0])), tmp_path / "v.nii", sform_code=0, qform_code=0)
    found = read(path)
    np.testing.assert_array_equal(in_file(found), nib.load(path).affine)
    np.testing.assert_allclose(np.diag(in_file(found)), [-2, 3, 4, 1])
    np.testing.assert_allclose(in_file(found) @ [2.5, 2, 1.5, 1], [0, 0, 0, 1])  # about the centre
    (note,) = found.notes
    assert "no place in the world" in note and "left and right are not known" in note


@pytest.mark.parametrize("codes", [(0, 0), (4, 0), (2, 1), (0, 3), (1, 1)])
def test_results_are_in_the_space_of_the_file_for_other_programs_too(codes: tuple[int, int], tmp_path: Path) -> None:
    """A file without a place that is given one lies elsewhere, mirrored, in what places such files in another way."""
    sitk = pytest.importorskip("SimpleITK")
    affine, (sform, qform) = np.diag([2.0, 3.0, 4.0, 1.0]), codes
    made = nib.Nifti1Image(VOXELS, affine)
    made.set_sform(affine, sform)
    made.set_qform(affine, qform)
    none = dict.fromkeys(PLACED, 0) if codes == (0, 0) else {}
    path, written = save(made, tmp_path / "v.nii", **none), tmp_path / "out.nii"
    write_volume(written, square_in_plane(read(path)))
    given, found = (sitk.ReadImage(str(one)) for one in (path, written))
    for name in ("GetOrigin", "GetSpacing", "GetDirection"):
        np.testing.assert_allclose(getattr(found, name)(), getattr(given, name)(), atol=1e-5)
    header = nib.load(written).header
    assert header["sform_code"] == header["qform_code"] == (sform or qform)
    np.testing.assert_allclose(nib.load(written).affine, nib.load(path).affine)


SINGULAR = {"srow_x": [2, 0, 0, 0], "srow_y": [2, 0, 0, 0]}


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (SINGULAR, "axis without length, or two that are one"),
        ({"srow_x": [0, 0, 0, 0]}, "axis without length"),
        ({"srow_x": [np.nan, 0, 0, 0]}, "NaN or infinite"),
        ({"srow_z": [0, 0, np.inf, 0]}, "NaN or infinite"),
        ({"srow_z": [0, 0, 1e30, 0]}, "cannot be"),
        ({"srow_z": [0, 0, 3, 1e9]}, "mm from the origin"),
        ({"sform_code": 0, "pixdim": [1, 0, 2, 2, 0, 0, 0, 0]}, "voxels of 0 x 2 x 2 mm cannot be"),
        ({"sform_code": 0, "pixdim": [1, 2, -2, 2, 0, 0, 0, 0]}, "pixdim"),
        ({"sform_code": 0, "qform_code": 0, "pixdim": [1, 2, 2, np.nan, 0, 0, 0, 0]}, "pixdim"),
        ({"sform_code": 0, "qform_code": 1, "quatern_b": 3.0}, "no rotation"),
        ({"sform_code": 0, "qform_code": 1, "quatern_b": np.nan}, "NaN"),
        ({"dim": [3, 6, 5, -4, 1, 1, 1, 1]}, "6 x 5 x -4 cannot be"),
        ({"dim": [3, 30000, 30000, 30000, 1, 1, 1, 1]}, "cut short"),
        ({"dim": [0, 6, 5, 4, 1, 1, 1, 1]}, "0 dimensions"),
        ({"dim": [4, 6, 5, 2, 2, 1, 1, 1]}, "array of 6 x 5 x 2 x 2: several volumes"),
        ({"dim": [5, 6, 5, 2, 1, 2, 1, 1]}, "6 x 5 x 2 x 1 x 2"),
        ({"dim": [2, 6, 20, 1, 1, 1, 1, 1]}, "single slice of 6 x 20"),
        ({"dim": [3, 6, 20, 1, 1, 1, 1, 1]}, "single slice of 6 x 20 x 1"),
        ({"datatype": 77}, "unknown type 77"),
        ({"datatype": 128, "bitpix": 24}, "no numbers .R, G, B."),
        ({"datatype": 1}, "no numbers"),
        ({"vox_offset": 8}, "vox_offset"),
        ({"vox_offset": np.nan}, "vox_offset"),
        ({"vox_offset": 1e9}, "vox_offset"),
        ({"vox_offset": 4000}, "cut short"),
        ({"scl_slope": np.inf}, "scl_slope"),
        ({"scl_slope": 2, "scl_inter": np.nan}, "scl_slope"),
        ({"scl_slope": 3e38}, "single precision"),
        ({"magic": b"ni1"}, "voxels lie in a file .img"),
        ({"magic": b"abc"}, "not a NIfTI file"),
        ({"magic": b""}, "Analyze 7.5"),
        ({"sizeof_hdr": 347}, "not a NIfTI file"),
    ],
)
@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
def test_headers_that_cannot_be_are_refused(header: dict[str, Any], words: str, name: str, tmp_path: Path) -> None:
    path = save(image(), tmp_path / name, **header)
    with pytest.raises(InputError, match=words):
        read(path)
    refused(path)


@pytest.mark.parametrize(("unit", "scale"), [("micron", 1e-3), ("meter", 1e3), ("mm", 1), ("unknown", 1)])
def test_lengths_are_scaled_to_mm(unit: str, scale: float, tmp_path: Path) -> None:
    affine = np.diag([1 / scale, 1 / scale, 2 / scale, 1])
    affine[0, 3] = 7 / scale
    made = nib.Nifti1Image(VOXELS, affine)
    made.header.set_xyzt_units(unit)
    found = read(save(made, tmp_path / "v.nii"))
    np.testing.assert_allclose(in_file(found), [[1, 0, 0, 7], [0, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]], rtol=1e-6)
    assert any("scaled to mm" in note for note in found.notes) == (scale != 1)


def test_voxels_whose_unit_cannot_be_mm_are_remarked_on(tmp_path: Path) -> None:
    found = read(save(image(affine=np.diag([50.0, 50.0, 50.0, 1.0])), tmp_path / "v.nii"))
    assert any("50 x 50 x 50 mm" in note and "unit" in note for note in found.notes)


def test_complex_voxels_become_magnitudes_and_are_no_ct(tmp_path: Path) -> None:
    array = (VOXELS * np.exp(1j * VOXELS)).astype(np.complex64)
    path = save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "v.nii.gz")
    found = read(path)
    np.testing.assert_allclose(found.data.numpy().transpose(2, 1, 0), np.abs(array), rtol=1e-6)
    assert found.notes == ("complex values: their magnitudes are taken",)
    assert "complex" in refused(path, "ct")


def test_a_last_axis_of_one_is_left_out(tmp_path: Path) -> None:
    found = read(save(image(VOXELS[..., None]), tmp_path / "v.nii"))
    np.testing.assert_array_equal(found.data.numpy().transpose(2, 1, 0), VOXELS)


@pytest.mark.parametrize("dtype", ["u1", "i1", "<u2", ">i2", "<i4", ">u4", "<f4", ">f4", "<f8", ">f8"])
@pytest.mark.parametrize("version", [1, 2])
def test_every_type_and_byte_order_gives_the_same_values(dtype: str, version: int, tmp_path: Path) -> None:
    array = np.arange(120).reshape(6, 5, 4).astype(dtype)
    header = {1: nib.Nifti1Header, 2: nib.Nifti2Header}[version](endianness=">" if dtype[0] == ">" else "<")
    header.set_data_dtype(array.dtype)
    made = {1: nib.Nifti1Image, 2: nib.Nifti2Image}[version](array, OBLIQUE, header)
    path = tmp_path / "v.nii"
    nib.save(made, path)
    np.testing.assert_array_equal(read(path).data.numpy().transpose(2, 1, 0), np.arange(120).reshape(6, 5, 4))


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.float64, np.complex128])
def test_wide_types_are_rounded_or_refused(dtype: type, tmp_path: Path) -> None:
    array = np.arange(120).reshape(6, 5, 4).astype(dtype)
    path = tmp_path / "v.nii"
    nib.save(nib.Nifti1Image(array, OBLIQUE, dtype=dtype), path)
    np.testing.assert_array_equal(read(path).data.numpy().transpose(2, 1, 0), np.arange(120).reshape(6, 5, 4))
    array[1, 2, 3] = 2**40 + 1 if np.issubdtype(dtype, np.integer) else 1e300
    nib.save(nib.Nifti1Image(array, OBLIQUE, dtype=dtype), path)
    if np.issubdtype(dtype, np.integer):
        assert read(path).notes == ("1 whole numbers beyond 2^24 are rounded to single precision",)
    else:
        assert "single precision" in refused(path)


@pytest.mark.parametrize(("slope", "intercept"), [(0.0, 5.0), (np.nan, 5.0), (1.0, 0.0), (0.5, -3.0), (-2.0, 1.0)])
def test_values_are_scaled_by_the_standard(slope: float, intercept: float, tmp_path: Path) -> None:
    array = np.arange(120, dtype=np.int16).reshape(6, 5, 4)
    path = save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "v.nii", scl_slope=slope, scl_inter=intercept)
    expected = array * slope + intercept if slope and np.isfinite(slope) else array
    np.testing.assert_array_equal(read(path).data.numpy().transpose(2, 1, 0), expected.astype(np.float32))


def test_the_bits_of_single_precision_are_kept(tmp_path: Path) -> None:
    found = read(save(image(), tmp_path / "v.nii.gz"))
    np.testing.assert_array_equal(found.data.numpy().transpose(2, 1, 0).view(np.int32), VOXELS.view(np.int32))


def test_voxels_that_are_not_finite_are_counted(tmp_path: Path) -> None:
    array = VOXELS.copy()
    array[0, 0, :2], array[1, 1, 1] = np.nan, -np.inf
    assert "3 voxels are NaN or infinite" in refused(save(image(array), tmp_path / "v.nii.gz"))


def test_types_that_contradict_their_bits_are_told(tmp_path: Path) -> None:
    found = read(save(image(), tmp_path / "v.nii", bitpix=16))
    assert found.notes == ("its header says 16 bits a voxel, but float32, which is taken",)


@pytest.mark.parametrize("packed", [False, True])
def test_pairs_are_read_through_their_header(packed: bool, tmp_path: Path) -> None:
    made = nib.Nifti1Pair(VOXELS, OBLIQUE)
    made.header.set_xyzt_units("mm")
    nib.save(made, tmp_path / "v.img")
    voxels = tmp_path / "v.img"
    if packed:
        voxels.with_name("v.img.gz").write_bytes(gzip.compress(voxels.read_bytes()))
        voxels.unlink()
    found = read(tmp_path / "v.hdr")
    np.testing.assert_array_equal(found.data.numpy().transpose(2, 1, 0), VOXELS)
    np.testing.assert_array_equal(in_file(found), OBLIQUE.astype(np.float32))
    assert found.name == "v" and found.notes == ()
    for left in tmp_path.glob("v.img*"):
        left.unlink()
    assert "do not lie beside it" in refused(tmp_path / "v.hdr")


def test_analyze_which_has_no_orientation_is_refused(tmp_path: Path) -> None:
    nib.save(nib.AnalyzeImage(VOXELS, np.eye(4)), tmp_path / "v.img")
    assert "does not tell left from right" in refused(tmp_path / "v.hdr")


def test_extensions_and_what_follows_the_voxels_are_passed_by(tmp_path: Path) -> None:
    made = image()
    made.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"words" * 100))
    path = save(made, tmp_path / "v.nii")
    np.testing.assert_array_equal(read(path).data.numpy().transpose(2, 1, 0), VOXELS)
    whole = path.read_bytes()
    for name, data in (("t.nii", whole + bytes(77)), ("t.nii.gz", gzip.compress(whole + bytes(77)))):
        (tmp_path / name).write_bytes(data)
        found = read(tmp_path / name)
        np.testing.assert_array_equal(found.data.numpy().transpose(2, 1, 0), VOXELS)
        assert found.notes == ("77 bytes behind its voxels are left out",)


def test_a_file_packed_unlike_its_name_is_read_and_told(tmp_path: Path) -> None:
    whole = save(image(), tmp_path / "v.nii").read_bytes()
    (tmp_path / "packed.nii").write_bytes(gzip.compress(whole))
    (tmp_path / "plain.nii.gz").write_bytes(whole)
    for name, words in (("packed.nii", "is packed by gzip"), ("plain.nii.gz", "is not packed by gzip")):
        found = read(tmp_path / name)
        np.testing.assert_array_equal(found.data.numpy().transpose(2, 1, 0), VOXELS)
        assert found.notes == (f"{name} {words}, unlike its name",)


def test_gzip_that_goes_on_is_stopped_and_what_needs_too_much_memory_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = save(image(), tmp_path / "v.nii").read_bytes()
    bomb = tmp_path / "bomb.nii.gz"
    bomb.write_bytes(gzip.compress(whole + bytes(8 << 20)))
    read_bytes = 0
    read_part = stream.Stream.read

    def counted(self: stream.Stream, count: int) -> bytes:
        nonlocal read_bytes
        part = read_part(self, count)
        read_bytes += len(part)
        return part

    monkeypatch.setattr(stream.Stream, "read", counted)
    assert "more than 1 MiB follow the voxels" in refused(bomb)
    assert read_bytes < 4 << 20

    def full(what: str, size: float, right: str) -> None:
        raise InputError(f"{what}: takes {size} bytes")

    monkeypatch.setattr(values, "check_fits", full)
    monkeypatch.setattr(np, "empty", lambda *_, **__: pytest.fail("room was made before the memory was looked at"))
    assert "6 x 5 x 4: takes 960 bytes" in refused(tmp_path / "v.nii")


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
def test_damaged_files_are_never_a_traceback_and_packed_ones_never_read(name: str, tmp_path: Path) -> None:
    """300 bytes changed and 100 cuts."""
    whole = save(image(VOXELS.repeat(4, 0)), tmp_path / name).read_bytes()
    true = read(tmp_path / name)
    chance, damaged = random.Random(0), tmp_path / f"damaged_{name}"
    for trial in range(400):
        data = bytearray(whole)
        if trial < 300:
            data[chance.randrange(len(data) if trial % 2 else 400)] ^= chance.randrange(1, 256)
        else:
            del data[chance.randrange(len(data)) :]
        damaged.write_bytes(data)
        try:
            found = read_volume(damaged, "mri")
        except InputError as error:
            assert "\n" not in str(error)
            continue
        assert trial < 300  # nothing that is cut short is read
        if name.endswith(".gz"):  # the time and the system in the header of gzip are no data
            assert torch.equal(found.data, true.data) and np.array_equal(found.affine, true.affine)


def test_files_without_a_unit_of_length_are_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nifti._Told, "unitless_yet", False)
    for name in ("a", "b"):
        made = nib.Nifti1Image(np.ones((4, 4, 4), np.float32), np.eye(4))
        made.header["xyzt_units"] = 0
        nib.save(made, tmp_path / f"{name}.nii.gz")
    with caplog.at_level("INFO", "lightning_mbir"):
        notes = [read_volume(tmp_path / f"{name}.nii.gz", "mri").notes for name in ("a", "b")]
    (line,) = [record.message for record in caplog.records if "unit of length" in record.message]
    assert line == (
        f"{tmp_path / 'a.nii.gz'}: its header gives no unit of length (xyzt_units); mm is taken, of all such files"
    )
    assert not any("unit of length" in note for found in notes for note in found)
