"""NRRD, MetaImage, FreeSurfer and NumPy: voxels and places as their own libraries give them, or a refusal in a line."""

import gzip
import random
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from lightning_mbir.data import VolumeDataModule
from lightning_mbir.data.volumes.reading import read_volume
from lightning_mbir.data.volumes.volume import Volume
from lightning_mbir.errors import InputError

sitk: Any = pytest.importorskip("SimpleITK")
VOXELS = np.random.default_rng(0).integers(-800, 1500, (4, 5, 6)).astype(np.int16)  # slices, rows, columns
ANGLES = (0.3, -0.2, 1.9)
ITK_NAMES = ["v.nrrd", "v.nhdr", "v.mha", "v.mhd"]


def turned() -> np.ndarray:
    """An oblique direction, of which no axis is nearest to that of the same number."""
    matrix = np.eye(3)
    for axis, angle in enumerate(ANGLES):
        turn, (a, b) = np.eye(3), [i for i in range(3) if i != axis]
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    return matrix


def itk_image(voxels: np.ndarray = VOXELS, direction: np.ndarray | None = None) -> Any:
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin((-101.5, 33.25, 7.0))
    image.SetDirection((turned() if direction is None else direction).ravel().tolist())
    return image


def check_same(found: Volume, image: Any, atol: float = 1e-4) -> None:
    """Every voxel lies where SimpleITK has one of the same value."""
    assert found.grid is not None and found.grid.shape == image.GetSize()
    flip = np.diag([-1.0, -1.0, 1.0])  # left and posterior to right and anterior
    values = sitk.GetArrayFromImage(image).astype(np.float32)
    to_file = np.linalg.inv(found.grid.affine) @ found.affine
    for z, y, x in np.ndindex(*found.data.shape):
        i, j, k = np.rint(to_file @ [x, y, z, 1])[:3].astype(int).tolist()
        assert float(found.data[z, y, x]) == values[k, j, i]
        place = flip @ image.TransformIndexToPhysicalPoint((i, j, k))
        np.testing.assert_allclose((found.affine @ [x, y, z, 1])[:3], place, atol=atol)


def refused(path: Path, words: str, capfd: pytest.CaptureFixture[str] | None = None, **options: Any) -> None:
    with pytest.raises(InputError, match=words) as caught:
        read_volume(path, "mri", **options)
    assert "\n" not in str(caught.value)
    if capfd is not None:
        assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ITK_NAMES)
def test_voxels_lie_where_simpleitk_has_them(name: str, packed: bool, tmp_path: Path) -> None:
    sitk.WriteImage(itk_image(), str(tmp_path / name), useCompression=packed)
    found = read_volume(tmp_path / name, "mri")
    check_same(found, itk_image())
    assert found.notes == () and found.name == "v"


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz", "v.mgz"])
def test_those_that_nibabel_unpacks_lie_there_too(name: str, tmp_path: Path) -> None:
    affine = np.eye(4)
    affine[:3, :3] = np.diag([-1.0, -1, 1]) @ turned() * [0.7, 0.8, 2.5]
    affine[:3, 3] = [101.5, -33.25, 7.0]
    kind = nib.MGHImage if name.endswith("mgz") else nib.Nifti1Image
    nib.save(kind(VOXELS.T.astype(np.int16), affine), tmp_path / name)
    check_same(read_volume(tmp_path / name, "mri"), itk_image())


@pytest.mark.slow
def test_a_real_head_lies_where_simpleitk_has_it(shared: Path) -> None:
    path = shared / "data/mri/train/saganon_T1.nii.gz"
    found, image = read_volume(path, "mri"), sitk.ReadImage(str(path))
    assert found.grid is not None and found.grid.shape == image.GetSize()
    values = sitk.GetArrayViewFromImage(image)
    to_file = np.linalg.inv(found.grid.affine) @ found.affine
    chance = np.random.default_rng(0)
    for z, y, x in zip(*(chance.integers(0, n, 500) for n in found.data.shape), strict=True):
        i, j, k = np.rint(to_file @ [x, y, z, 1])[:3].astype(int).tolist()
        assert float(found.data[z, y, x]) == np.float32(values[k, j, i])
        place = np.multiply(image.TransformIndexToPhysicalPoint((i, j, k)), (-1, -1, 1))
        np.testing.assert_allclose((found.affine @ [x, y, z, 1])[:3], place, atol=1e-2)


@pytest.mark.parametrize("name", ITK_NAMES)
@pytest.mark.parametrize("kind", [sitk.sitkUInt8, sitk.sitkUInt16, sitk.sitkInt32, sitk.sitkFloat32, sitk.sitkFloat64])
def test_every_type_gives_the_same_values(kind: int, name: str, tmp_path: Path) -> None:
    voxels = np.arange(120).reshape(4, 5, 6)
    sitk.WriteImage(sitk.Cast(itk_image(voxels, np.eye(3)), kind), str(tmp_path / name))
    found = read_volume(tmp_path / name, "mri")
    np.testing.assert_array_equal(found.data.numpy()[:, ::-1, ::-1], voxels)  # from left and posterior


@pytest.mark.parametrize("name", ITK_NAMES)
def test_several_values_a_voxel_and_more_axes_are_refused(name: str, tmp_path: Path) -> None:
    colours = sitk.GetImageFromArray(np.zeros((4, 5, 6, 3), np.uint8), isVector=True)
    sitk.WriteImage(colours, str(tmp_path / name))
    refused(tmp_path / name, "several values a voxel|not one 3D volume")
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((3, 4, 5, 6), np.int16), isVector=False), str(tmp_path / name))
    refused(tmp_path / name, "not one 3D volume")
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((5, 6), np.int16)), str(tmp_path / name))
    refused(tmp_path / name, "not one 3D volume|single slice")


def header_of(name: str, folder: Path, packed: bool = False) -> tuple[Path, bytes, bytes]:
    """A file of SimpleITK, its header and its voxels."""
    path = folder / name
    sitk.WriteImage(itk_image(), str(path), useCompression=packed)
    data = path.read_bytes()
    end = data.index(b"LOCAL\n") + 6 if name.endswith("mha") else data.index(b"\n\n") + 2
    return path, data[:end], data[end:]


NRRD = {
    "type": "short",
    "dimension": "3",
    "sizes": "6 5 4",
    "space": "RAS",
    "space directions": "(2,0,0) (0,3,0) (0,0,4)",
    "space units": "",
    "space origin": "(10,20,30)",
    "spacings": "",
    "endian": "little",
    "encoding": "raw",
}


def nrrd(path: Path, **changed: str) -> Path:
    """An NRRD file with some fields that are others; empty ones are left out."""
    fields = NRRD | {name.replace("_", " "): text for name, text in changed.items()}
    header = "".join(f"{name}: {text}\n" for name, text in fields.items() if text)
    path.write_bytes(f"NRRD0004\n{header}\n".encode() + VOXELS.tobytes())
    return path


@pytest.mark.parametrize(("space", "signs"), [("RAS", (1, 1)), ("LPS", (-1, -1)), ("left-anterior-superior", (-1, 1))])
def test_the_space_of_nrrd_is_turned_to_ras(space: str, signs: tuple[int, int], tmp_path: Path) -> None:
    found = read_volume(nrrd(tmp_path / "v.nrrd", space=f"{space}"), "mri")
    x, y = signs
    assert found.grid is not None
    np.testing.assert_allclose(
        found.grid.affine, [[2 * x, 0, 0, 10 * x], [0, 3 * y, 0, 20 * y], [0, 0, 4, 30], [0, 0, 0, 1]]
    )
    assert found.notes == ()


def test_lengths_of_nrrd_and_metaimage_are_scaled_to_mm(tmp_path: Path) -> None:
    units = '"um" "um" "um"'
    found = read_volume(nrrd(tmp_path / "v.nrrd", space_units=units), "mri")
    np.testing.assert_allclose(found.affine[:3], [[0.002, 0, 0, 0.01], [0, 0.003, 0, 0.02], [0, 0, 0.004, 0.03]])
    assert found.notes == ("lengths in um are scaled to mm",)
    refused(nrrd(tmp_path / "w.nrrd", space_units='"um" "mm" "mm"'), "different units")
    refused(nrrd(tmp_path / "w.nrrd", space_units='"in" "in" "in"'), "no unit known here")
    path, header, voxels = header_of("v.mha", tmp_path)
    path.write_bytes(header.replace(b"ElementSpacing", b"DistanceUnits = um\nElementSpacing") + voxels)
    small = read_volume(path, "mri")
    assert small.notes == ("lengths in um are scaled to mm", *small.notes[1:])
    assert sorted(small.spacing) == pytest.approx([0.0007, 0.0008, 0.0025])


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ({"space": "scanner-xyz"}, "space scanner-xyz is not known here"),
        ({"space_directions": ""}, "has no voxel size"),
        ({"space_directions": "(2,0,0) (0,nan,0) (0,0,4)"}, "no list of finite numbers"),
        ({"space_directions": "(2,0,0) (2,0,0) (0,0,4)"}, "ITK cannot read it"),
        ({"space_origin": "(nan,0,0)"}, "no list of finite numbers"),
        ({"encoding": "bzip2"}, "stored as bzip2"),
        ({"encoding": "ascii"}, "stored as ascii"),
        ({"encoding": "gzip"}, "cannot be read"),
        ({"sizes": "6 5 9"}, "cut short: 540 bytes"),
        ({"sizes": "6 5 x"}, "6 5 x"),
        ({"sizes": "99999 99999 99999"}, "memory|cut short"),
        ({"type": "block"}, "ITK cannot read it"),
        ({"endian": "little\nno field at all"}, "is no field"),
        ({"endian": "little\nsizes: 6 5 4"}, "sizes twice"),
    ],
)
def test_headers_of_nrrd_that_cannot_be_are_refused(
    lines: dict[str, str], words: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    refused(nrrd(tmp_path / "v.nrrd", **lines), words, capfd)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"NDims = 3", b"NDims = 300", "not one 3D volume"),
        (b"DimSize = 6 5 4", b"DimSize = 6 5 -4", "not one 3D volume"),
        (b"DimSize = 6 5 4", b"DimSize = 6 5 9", "cut short"),
        (b"ElementSpacing = 0.69999999999999996", b"ElementSpacing = 0", "no voxel size"),
        (b"ElementSpacing = 0.69999999999999996", b"ElementSpacing = nan", "finite"),
        (b"ElementSpacing", b"ElementSizes", "no voxel size"),
        (b"BinaryData = True", b"BinaryData = False", "stored as text"),
        (b"ElementType = MET_SHORT", b"ElementType = MET_WORD", "ITK cannot read it"),
        (b"ElementType", b"ElementNumberOfChannels = 3\nElementType", "several values a voxel"),
        (b"ObjectType = Image", b"ObjectType = Scene", "not a MetaImage"),
        (b"CompressedData = False", b"CompressedData = True\nCompressedDataSize = 7x", "no number of bytes"),
    ],
)
def test_headers_of_metaimage_that_cannot_be_are_refused(
    old: bytes, new: bytes, words: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, header, voxels = header_of("v.mha", tmp_path)
    assert old in header
    path.write_bytes(header.replace(old, new) + voxels)
    refused(path, words, capfd)


@pytest.mark.parametrize("name", ["v.nhdr", "v.mhd"])
@pytest.mark.parametrize("elsewhere", ["/etc/passwd", "../secret.raw", "deep/../../secret.raw", "C:\\secret.raw"])
def test_a_header_reads_no_file_outside_its_folder(elsewhere: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "secret.raw").write_bytes(VOXELS.tobytes())
    (tmp_path / "in").mkdir()
    sitk.WriteImage(itk_image(), str(tmp_path / "in" / name))
    path = tmp_path / "in" / name
    path.write_text(path.read_text().replace("v.raw", elsewhere))
    refused(path, "outside its folder")


@pytest.mark.parametrize("name", ["v.nhdr", "v.mhd"])
def test_voxels_beside_a_header_have_to_be_there_and_whole(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sitk.WriteImage(itk_image(), str(tmp_path / name))
    raw = tmp_path / "v.raw"
    raw.write_bytes(raw.read_bytes()[:-20])
    refused(tmp_path / name, "v.raw: cut short: 240 bytes of voxels are declared, 220 are there", capfd)
    raw.unlink()
    refused(tmp_path / name, "its voxels, v.raw, are not there", capfd)
    path = tmp_path / name
    path.write_text(path.read_text().replace("v.raw", "slice%03d.raw 1 4 1"))
    refused(path, "several files", capfd)
    path.write_text(path.read_text().replace("slice%03d.raw 1 4 1", "LIST\na.raw\nb.raw"))
    refused(path, "several files", capfd)


@pytest.mark.parametrize("name", ["v.mha", "v.nrrd"])
def test_packed_voxels_that_are_damaged_or_cut_short_are_refused(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """ITK reads them: half of the voxels, or those of a wrong checksum."""
    path, header, voxels = header_of(name, tmp_path, packed=True)
    chance = random.Random(0)
    for _ in range(60):
        place = chance.randrange(10, len(voxels))  # behind the header of gzip
        damaged = bytearray(voxels)
        damaged[place] ^= chance.randrange(1, 256)
        path.write_bytes(header + damaged)
        refused(path, "damaged or cut short|cut short|MiB follow")
        path.write_bytes(header + voxels[:place])
        refused(path, "cut short")
    assert capfd.readouterr() == ("", "")


def test_what_is_not_said_of_the_place_is_told(tmp_path: Path) -> None:
    path = nrrd(tmp_path / "v.nrrd", space="", space_directions="", spacings="2 3 4", space_origin="")
    found = read_volume(path, "mri")
    assert found.spacing == (4, 3, 2)
    (note,) = found.notes
    assert "does not say how it lies" in note
    path, header, voxels = header_of("v.mha", tmp_path)
    path.write_bytes(header.replace(b"AnatomicalOrientation = ", b"AnatomicalOrientation = RAI\nOld = ") + voxels)
    assert "AnatomicalOrientation RAI contradicts its axes" in "; ".join(read_volume(path, "mri").notes)


@pytest.mark.parametrize("name", ["v.mgh", "v.mgz", "v.mgh.gz"])
def test_volumes_of_freesurfer(name: str, tmp_path: Path) -> None:
    affine = np.array([[0, 0, 2.0, -20], [-1.5, 0, 0, 30], [0, 1, 0, 5], [0, 0, 0, 1]])
    nib.save(nib.MGHImage(VOXELS.T.astype(np.float32), affine), tmp_path / "v.mgh")
    whole = (tmp_path / "v.mgh").read_bytes()
    path = tmp_path / name
    path.write_bytes(whole if name.endswith("mgh") else gzip.compress(whole))
    found = read_volume(path, "mri")
    assert found.grid is not None and found.notes == () and found.name == "v"
    np.testing.assert_allclose(found.grid.affine, affine, atol=1e-5)
    x, y, z = np.rint(np.linalg.solve(found.affine, affine @ [1, 2, 3, 1])[:3]).astype(int)
    assert float(found.data[z, y, x]) == VOXELS[3, 2, 1]
    for data, words in (
        (whole[:300], "cut short"),
        (b"\0\0\0\2" + whole[4:], "not a file of FreeSurfer"),
        (whole[:20] + b"\0\0\0\x4d" + whole[24:], "unknown type 77"),
        (whole[:16] + b"\0\0\0\2" + whole[20:], "several volumes"),
        (whole[:30] + bytes(4) + whole[34:], "cannot be"),
    ):
        path.write_bytes(data if name.endswith("mgh") else gzip.compress(data))
        refused(path, words)
    path.write_bytes(whole[:28] + b"\0\0" + whole[30:])
    assert "goodRASFlag" in "; ".join(read_volume(path, "mri").notes)


def test_arrays_need_a_voxel_size_and_lie_as_dicom(tmp_path: Path) -> None:
    path = tmp_path / "v.npy"
    np.save(path, VOXELS)
    refused(path, "such as --data.spacing 3,0.8,0.8")
    found = read_volume(path, "mri", spacing=(3.0, 0.8, 0.7))
    assert found.spacing == pytest.approx((3.0, 0.8, 0.7)) and nib.aff2axcodes(found.affine) == ("R", "A", "S")
    np.testing.assert_array_equal(found.data.numpy()[:, ::-1, ::-1], VOXELS)  # rows from the front, columns from right
    assert found.grid is not None and found.grid.shape == (6, 5, 4)
    np.testing.assert_allclose(np.diag(found.grid.affine), [-0.7, -0.8, 3, 1])
    assert "from foot to head" in found.notes[0]
    by_flag = VolumeDataModule(path, modality="mri", spacing="3,0.8,0.7").scan(0)
    assert isinstance(by_flag, Volume) and by_flag.spacing[0] == 3.0


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_archives_bring_their_spacing_or_affine(save: Any, tmp_path: Path) -> None:
    path = tmp_path / "v.npz"
    save(path, volume=VOXELS, spacing=np.array([3.0, 0.8, 0.7]))
    found = read_volume(path, "mri")
    assert found.spacing == pytest.approx((3.0, 0.8, 0.7))
    np.testing.assert_array_equal(found.data.numpy()[:, ::-1, ::-1], VOXELS)
    affine = np.array([[0.7, 0, 0, 5], [0, 0.8, 0, 6], [0, 0, 3, 7], [0, 0, 0, 1.0]])
    save(path, data=VOXELS, affine=affine)
    placed = read_volume(path, "mri")
    np.testing.assert_array_equal(placed.affine, affine)
    np.testing.assert_array_equal(placed.data.numpy(), VOXELS)
    refused(path, "has its own voxel size", spacing=(3.0, 0.8, 0.7))
    save(path, volume=VOXELS)
    assert read_volume(path, "mri", spacing=(3.0, 0.8, 0.7)).spacing == pytest.approx((3.0, 0.8, 0.7))
    for arrays, words in (
        ({"volume": VOXELS}, "no array 'spacing'"),
        ({"volume": VOXELS, "spacing": np.array([3.0, 0.0, 1.0])}, "not positive"),
        ({"volume": VOXELS, "spacing": np.array([3.0, np.nan, 1.0])}, "NaN"),
        ({"volume": VOXELS, "spacing": np.array([3.0, 1.0])}, "shape"),
        ({"volume": VOXELS, "affine": affine, "spacing": np.ones(3)}, "contradicts"),
        ({"volume": VOXELS[None, None].repeat(2, 0), "spacing": np.ones(3)}, "several volumes"),
        ({"kspace": VOXELS}, "--data.measurement"),
        ({"image": VOXELS}, "no array 'volume' or 'data'"),
        ({"volume": np.array([["text"]]), "spacing": np.ones(3)}, "no numbers"),
    ):
        save(path, **arrays)
        refused(path, words)


def test_arrays_that_are_none_are_refused(tmp_path: Path) -> None:
    path, given = tmp_path / "v.npy", {"spacing": (1.0, 1.0, 1.0)}
    np.save(path, np.array([[["a", None]]], dtype=object), allow_pickle=True)
    refused(path, "not a whole .npy file", **given)
    np.save(path, VOXELS)
    whole = path.read_bytes()
    for data in (whole[:-5], whole[:50], b"", b"text", whole.replace(b"(4, 5, 6)", b"(-4,-5,6)")):
        path.write_bytes(data)
        refused(path, "not a whole .npy file|cannot be", **given)
    path.write_bytes(whole + bytes(9))
    assert "9 bytes behind its voxels are left out" in read_volume(path, "mri", spacing=(1, 1, 1)).notes
    np.save(path, VOXELS[0])
    refused(path, "single slice of 5 x 6", **given)
    np.save(path, VOXELS[None])
    assert read_volume(path, "mri", spacing=(1, 1, 1)).data.shape == (4, 5, 6)
    np.save(path, np.asfortranarray(VOXELS.astype(">f4")))
    np.testing.assert_array_equal(read_volume(path, "mri", spacing=(1, 1, 1)).data.numpy()[:, ::-1, ::-1], VOXELS)


@pytest.mark.parametrize("text", ["3", "3,1", "3,1,0", "3,1,nan", "3,1,inf", "a,b,c", ""])
def test_spacings_are_three_lengths(text: str, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", VOXELS)
    with pytest.raises(InputError, match=r"--data\.spacing.*such as 3,0\.8,0\.8"):
        VolumeDataModule(tmp_path / "v.npy", modality="mri", spacing=text)
    with pytest.raises(InputError, match=r"--data\.path"):
        VolumeDataModule(modality="mri", spacing="3,1,1")
