"""Raw k-space: its numbers, its dimensions, its masks and its header."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from lightning_mbir.data.measurements.measurement import Measurement, read_measurement
from lightning_mbir.data.measurements.options import MeasurementOptions
from lightning_mbir.errors import InputError
from lightning_mbir.reconstruction.measured import measured_operator, part_of
from tests.data.measurements.test_measurement import HEADER, fastmri

RNG = np.random.default_rng(0)
KSPACE = (RNG.standard_normal((4, 3, 16, 12)) + 1j * RNG.standard_normal((4, 3, 16, 12))).astype(np.complex64)
MASKS = RNG.random((4, 12)) < 0.4
MASKS[:, 4:8] = True
NAMED = "slice coil y x"


def read(path: Path, axes: str | None = NAMED, slices: tuple[int, int] | None = None, **content: Any) -> Measurement:
    with h5py.File(path / "k.h5", "w") as file:
        for key, value in content.items():
            file[key] = value
    return read_measurement(path / "k.h5", "mri", MeasurementOptions(axes=axes, slices=slices))


@pytest.mark.parametrize("names", [("real", "imag"), ("r", "i"), ("re", "im"), ("Real", "Imag")])
@pytest.mark.parametrize("kind", ["<f4", ">f8", "<i2"])
def test_compounds_of_real_and_imaginary_part_are_complex(names: tuple[str, str], kind: str, tmp_path: Path) -> None:
    """As MATLAB 7.3 and Julia write them, of any byte order."""
    values = np.round(KSPACE * 100) if kind == "<i2" else KSPACE
    compound = np.zeros(KSPACE.shape, dtype=[(name, kind) for name in names])
    compound[names[0]], compound[names[1]] = values.real, values.imag
    found = read(tmp_path, kspace=compound)
    assert found.y.dtype == torch.complex64
    np.testing.assert_array_equal(found.y, values)


@pytest.mark.parametrize(
    ("array", "axes", "words"),
    [
        (KSPACE.real, NAMED, r"kspace is \(4, 3, 16, 12\) of float32, without an imaginary part"),
        (np.stack([KSPACE[0].real, KSPACE[0].imag], -1), "coil y x slice", r"store its \[..., 0\] \+ 1j"),
        (np.stack([KSPACE.real, KSPACE.imag], -1), None, r"\(4, 3, 16, 12, 2\); give two to four dimensions"),
        (np.ones((4, 3, 16, 12), int), NAMED, "of int64, without an imaginary part"),
        (np.zeros((16, 12), [("real", "f4"), ("phase", "f4")]), None, "compound of real, phase"),
        (np.zeros((16, 12), [("real", "f4", 2), ("imag", "f4", 2)]), None, "compound of real, imag"),
        (np.full((16, 12), 1e39 + 0j), None, "NaN or infinite"),
    ],
)
def test_what_is_no_complex_number_is_refused(array: np.ndarray, axes: str | None, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        read(tmp_path, axes, kspace=array)
    if axes == NAMED:
        np.savez(tmp_path / "own.npz", measurement=array, mask=np.ones(12))
        with pytest.raises(InputError, match="without an imaginary part"):
            read_measurement(tmp_path / "own.npz", "mri")


def test_four_dimensions_are_named_before_anything_is_reconstructed(tmp_path: Path) -> None:
    """Coils first, as many write it, would come out as slices of other coils."""
    unnamed = read(tmp_path, None, kspace=KSPACE)
    for use in (measured_operator, part_of):
        with pytest.raises(InputError, match=r"k.h5: kspace is \(4, 3, 16, 12\); say what that is with --data.axes"):
            use(unnamed)
    named = read(tmp_path, "coil slice y x", kspace=KSPACE)
    np.testing.assert_array_equal(named.y, KSPACE.transpose(1, 0, 2, 3))
    assert not named.question and not read(tmp_path, None, kspace=KSPACE[:, :, :, :], ismrmrd_header=TRUE).question


TRUE = (
    HEADER.replace("<x>32</x><y>12</y>", "<x>16</x><y>12</y>", 1).replace("<x>64</x>", "<x>32</x>", 1).replace("\n", "")
)


@pytest.mark.parametrize("axes", [NAMED, "coil slice y x"])
@pytest.mark.parametrize("given", ["none", "lines", "points"])
def test_masks_by_slice_are_kept_by_slice(axes: str, given: str, tmp_path: Path) -> None:
    kspace = KSPACE * (1 if given == "lines" else MASKS[:, None, None])
    order = [NAMED.split().index(name) for name in axes.split()]
    mask = {"none": {}, "lines": {"mask": MASKS}, "points": {"mask": np.repeat(MASKS[:, None], 16, 1)}}[given]
    found = read(tmp_path, axes, kspace=kspace.transpose(order), **mask)
    np.testing.assert_array_equal(found.geometry["mask"], np.repeat(MASKS[:, None], 16, 1))
    np.testing.assert_array_equal(found.y, KSPACE * MASKS[:, None, None])
    fold = MASKS.size / MASKS.sum()
    assert found.notes == (f"{fold:.3g}-fold undersampled, each slice in its own way",)
    with pytest.raises(InputError, match=f"undersampled {fold:.3g}-fold already"):
        part_of(found, acc=2.0)


@pytest.mark.parametrize("coils", [True, False])
def test_a_slice_is_reconstructed_from_what_was_measured_of_it(coils: bool, tmp_path: Path) -> None:
    """As it would be by itself: what other slices sampled are no measured zeros of this one."""
    array = (KSPACE if coils else KSPACE[:, 0]) * (MASKS[:, None, None] if coils else MASKS[:, None])
    maps = (RNG.standard_normal((3, 16, 12)) + 1j).astype(np.complex64)
    names = "slice coil y x" if coils else "slice y x"
    found = read(tmp_path, names, kspace=array)
    alone = read(tmp_path, names, (2, 3), kspace=array)
    for one in (found, alone):
        if coils:
            one.geometry["coil_maps"] = torch.from_numpy(maps)
    whole, single = measured_operator(found), measured_operator(alone)
    assert not whole.separable and single.separable
    x = torch.randn(4, 16, 12, dtype=torch.complex64)
    torch.testing.assert_close(whole(x)[2:3], single(x[2:3]))
    torch.testing.assert_close(whole.adjoint(found.y)[2:3], single.adjoint(alone.y))
    assert whole.acceleration == pytest.approx(MASKS.size / MASKS.sum())


def test_slices_of_equal_masks_have_one(tmp_path: Path) -> None:
    for mask in (np.repeat(MASKS[:1], 4, 0), MASKS[0]):
        assert read(tmp_path, kspace=KSPACE, mask=mask).geometry["mask"].shape == (16, 12)
    array = KSPACE * MASKS[0]
    array[1, :, 5, 5] = 0  # by chance
    found = read(tmp_path, kspace=array)
    np.testing.assert_array_equal(found.geometry["mask"], np.tile(MASKS[0], (16, 1)))


def test_masks_that_cannot_be_are_refused(tmp_path: Path) -> None:
    square = KSPACE[:, :, :4]
    for array, mask, words in (
        (square, RNG.random((4, 12)) < 0.5, r"which is \(Y, X\) or \(Z, X\); give it as \(Z, Y, X\)"),
        (KSPACE, np.zeros((4, 12)), "samples nothing"),
        (KSPACE, MASKS * np.array([1, 1, 0, 1])[:, None], "samples nothing of a slice"),
        (KSPACE, MASKS * 0.5, "values other than 0 and 1"),
        (KSPACE, np.full(12, np.nan), "values other than 0 and 1"),
        (KSPACE, np.full(12, b"x"), "the mask is of type"),
        (KSPACE, np.ones((3, 12)), r"the mask is \(3, 12\)"),
    ):
        with pytest.raises(InputError, match=words):
            read(tmp_path, kspace=array, mask=mask)
    empty = KSPACE.copy()
    empty[2] = 0
    with pytest.raises(InputError, match="kspace is zero in slice 2; leave those out"):
        read(tmp_path, kspace=empty)
    with pytest.raises(InputError, match="kspace is zero in slice 2"):
        read(tmp_path, slices=(1, 3), kspace=empty)
    assert read(tmp_path, kspace=empty, mask=np.ones(12)).y.shape == (
        4,
        3,
        16,
        12,
    )  # the mask says that it was measured


def test_slices_are_read_with_their_masks_and_places(tmp_path: Path) -> None:
    found = read(tmp_path, slices=(1, 3), kspace=KSPACE, mask=MASKS)
    np.testing.assert_array_equal(found.y, (KSPACE * MASKS[:, None, None])[1:3])
    assert found.notes[0] == "slices 1:3 of 4" and found.affine[2, 3] == 1
    np.savez(tmp_path / "own.npz", measurement=KSPACE, mask=MASKS, coil_maps=KSPACE, spacing=[4.0, 1, 1])
    own = read_measurement(tmp_path / "own.npz", "mri", MeasurementOptions(slices=(2, 4)))
    np.testing.assert_array_equal(own.geometry["coil_maps"], KSPACE[2:])
    np.testing.assert_array_equal(own.geometry["mask"], np.repeat(MASKS[2:, None], 16, 1))
    np.testing.assert_array_equal(own.affine[2], [0, 0, 4, 8])
    for slices, axes in (((3, 5), NAMED), ((0, 2), "coil y x")):
        with pytest.raises(InputError, match=rf"--data.slices {slices[0]}:{slices[1]}: .*k.h5 has slices 0:"):
            read(tmp_path, axes, slices, kspace=KSPACE if axes == NAMED else KSPACE[0])


def image(kspace: np.ndarray) -> np.ndarray:
    axes = (-2, -1)
    return np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, axes), norm="ortho"), axes)


def changed(*pairs: tuple[str, str]) -> str:
    text = HEADER
    for old, new in pairs:
        text = text.replace(old, new, 1)
    return text


@pytest.mark.parametrize(
    ("header", "rows", "size"),
    [
        (HEADER, 16, 2.0),
        # A matrix that is interpolated tells nothing about where the data are.
        (changed(("<x>16</x><y>16</y>", "<x>64</x><y>64</y>")), 16, 2.0),
        (changed(("<x>16</x><y>16</y>", "<x>32</x><y>32</y>")), 16, 2.0),
        (changed(("<x>32</x><y>32</y>", "<x>64</x><y>32</y>")), 32, 2.0),  # all of the field of view
        (changed(("<x>32</x><y>32</y>", "<x>80</x><y>32</y>")), 32, 2.0),  # more than was encoded
        (changed(("<x>64</x><y>30</y>", "<x>65</x><y>30</y>")), 16, 65 / 32),
        (changed(("<x>32</x><y>32</y>", "<x>22</x><y>32</y>")), 11, 2.0),  # an odd part
    ],
)
def test_pixels_are_those_that_were_encoded(header: str, rows: int, size: float, tmp_path: Path) -> None:
    path, images = fastmri(tmp_path, ismrmrd_header=header)
    found = read_measurement(path, "mri")
    start = 16 - rows // 2
    np.testing.assert_allclose(image(found.y.numpy()), images[:, :, start : start + rows], atol=1e-5)
    np.testing.assert_allclose(found.affine, np.diag([2.5, size, 4.5, 1.0]))


@pytest.mark.parametrize(("rows", "kept"), [(33, 16), (31, 16), (33, 33)])
def test_odd_readouts_keep_their_middle(rows: int, kept: int, tmp_path: Path) -> None:
    middle = np.zeros((1, 1, rows, 12), complex)
    middle[..., rows // 2, 6] = 1
    axes = (-2, -1)
    kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(middle, axes), norm="ortho"), axes).astype(np.complex64)
    header = changed(
        ("<x>32</x><y>12</y>", f"<x>{rows}</x><y>12</y>"),
        ("<x>64</x><y>30</y>", f"<x>{2 * rows}</x><y>30</y>"),
        ("<x>32</x><y>32</y>", f"<x>{2 * kept}</x><y>32</y>"),
    )
    path, _ = fastmri(tmp_path, kspace=kspace, ismrmrd_header=header)
    found = image(read_measurement(path, "mri").y.numpy())
    assert found.shape[-2] == kept and abs(found[0, 0, kept // 2, 6] - 1) < 1e-5


def test_readouts_with_masks_by_slice_are_cut(tmp_path: Path) -> None:
    masks = RNG.random((3, 12)) < 0.6
    masks[:, 5:7] = True
    path, _ = fastmri(tmp_path, mask=masks)
    found = read_measurement(path, "mri")
    assert found.y.shape == (3, 2, 16, 12)
    np.testing.assert_array_equal(found.geometry["mask"], np.repeat(masks[:, None], 16, 1))
    assert float(np.abs(found.y.numpy() * ~masks[:, None, None]).max()) < 1e-6


def test_a_header_of_another_array_is_told(tmp_path: Path) -> None:
    path, _ = fastmri(tmp_path, ismrmrd_header=changed(("<x>32</x><y>12</y>", "<x>32</x><y>10</y>")))
    found = read_measurement(path, "mri")
    assert "header of 10 columns, kspace of 12 over the same field of view" in found.notes
    assert found.affine[0, 0] == 2.5
    path, _ = fastmri(tmp_path, ismrmrd_header=changed(("<x>32</x><y>12</y>", "<x>16</x><y>12</y>")))
    with pytest.raises(InputError, match="says 16 points along the readout, kspace has 32 rows"):
        read_measurement(path, "mri")


LAUGHS = '<!DOCTYPE lolz [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (LAUGHS + "]><ismrmrdHeader>&i;</ismrmrdHeader>", "DOCTYPE"),
        (HEADER.replace("</encoding>", "<trajectory>radial</trajectory></encoding>"), "trajectory is radial"),
        (changed(("<z>1</z>", "<z>24</z>")), "24 partitions"),
        (changed(("<x>64</x>", "<x>0</x>")), "says 0 for encodedSpace/fieldOfView_mm/x"),
        (changed(("<x>64</x>", "<x>nan</x>")), "says nan for encodedSpace"),
        (changed(("<x>64</x>", "<x>inf</x>")), "says inf for encodedSpace"),
        (changed(("<y>30</y>", "<y>-30</y>")), "says -30 for encodedSpace"),
        (changed(("<x>32</x>", "<x>32.5</x>")), "says 32.5 for encodedSpace/matrixSize/x"),
        (changed(("<x>64</x>", "<x>wide</x>")), "cannot be read .*could not convert"),
        ("<ismrmrdHeader/>", "no encoding"),
        ("<ismrmrdHeader>", "cannot be read"),
        (3.0, "give one piece of text"),
        ([HEADER, HEADER], "give one piece of text"),
    ],
)
def test_headers_that_cannot_be_are_refused(header: Any, words: str, tmp_path: Path) -> None:
    path, _ = fastmri(tmp_path, ismrmrd_header=header)
    with pytest.raises(InputError, match=words):
        read_measurement(path, "mri")


def test_slices_of_which_no_gap_is_told_are_said_to_lie_on_each_other(tmp_path: Path) -> None:
    """fastMRI's header has the thickness of a slice, not the distance to the next."""
    found = read_measurement(fastmri(tmp_path)[0], "mri")
    assert "slices taken to be 4.5 mm apart, their thickness: no gap is told" in found.notes
