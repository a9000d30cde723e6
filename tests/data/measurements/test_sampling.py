"""K-space that is not where it should be, and masks that are not of it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_mbir.data.measurements.bart import write_cfl
from lightning_mbir.data.measurements.measurement import Measurement, read_measurement
from lightning_mbir.data.measurements.options import MeasurementOptions
from lightning_mbir.data.phantoms import head_phantom
from lightning_mbir.errors import InputError

RNG = np.random.default_rng(0)
IMAGE = np.asarray(head_phantom((3, 32, 48), seed=1))
AXES = (-2, -1)
NOISE = 1e-3 * (RNG.standard_normal(IMAGE.shape) + 1j * RNG.standard_normal(IMAGE.shape))
KSPACE = (np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(IMAGE, AXES), norm="ortho"), AXES) + NOISE).astype(np.complex64)
LINES = np.zeros(48, bool)
LINES[::3] = LINES[20:28] = True


def read(path: Path, **content: np.ndarray) -> Measurement:
    np.savez(path / "k.npz", **content)  # type: ignore[arg-type]
    return read_measurement(path / "k.npz", "mri", MeasurementOptions(axes="slice y x"))


@pytest.mark.parametrize("layout", ["kspace", "measurement"])
@pytest.mark.parametrize(("axes", "named"), [((-2, -1), "y and x"), ((-1,), "x"), ((-2,), "y")])
def test_zero_frequency_at_the_ends_is_refused(layout: str, axes: tuple[int, ...], named: str, tmp_path: Path) -> None:
    """As ``numpy.fft.fft2`` leaves it, on which a mask keeps what is finest, and maps are made of noise."""
    mask = {"mask": np.ones(48)} if layout == "measurement" else {}
    with pytest.raises(InputError, match=rf"k.npz: k-space is strongest at both ends of {named}, .* to {named}"):
        read(tmp_path, **{layout: np.fft.ifftshift(KSPACE, axes)}, **mask)
    np.testing.assert_array_equal(read(tmp_path, **{layout: KSPACE}, **mask).y, KSPACE)


def test_of_bart_too(tmp_path: Path) -> None:
    write_cfl(tmp_path / "k.cfl", np.fft.ifftshift(KSPACE[0], AXES), "y x")
    with pytest.raises(InputError, match=r"k.cfl: k-space is strongest at both ends of y and x"):
        read_measurement(tmp_path / "k.cfl", "mri")


def test_an_image_whose_middle_was_not_shifted_is_told(tmp_path: Path) -> None:
    """``fftshift(fft2(x))`` has zero frequency in the middle, and the halves of the image exchanged."""
    apart = np.fft.fftshift(np.fft.fft2(IMAGE), AXES).astype(np.complex64)
    assert any("the object lies at both ends of " in note for note in read(tmp_path, kspace=apart).notes)
    assert not any("both ends" in note for note in read(tmp_path, kspace=KSPACE).notes)


@pytest.mark.parametrize("layout", ["kspace", "measurement"])
def test_lines_that_are_zero_were_not_measured_whatever_the_mask_says(layout: str, tmp_path: Path) -> None:
    """They would be fitted as data that the image has nothing there."""
    found = read(tmp_path, **{layout: KSPACE * LINES}, mask=np.ones(48))
    assert torch.equal(found.geometry["mask"], torch.from_numpy(LINES).float().expand(32, -1))
    assert any("up to 27 lines are zero though its mask has them" in note for note in found.notes)
    own = read(tmp_path, **{layout: KSPACE}, mask=LINES)
    assert torch.equal(own.geometry["mask"], torch.from_numpy(LINES).float().expand(32, -1))
    assert not any("lines are zero" in note for note in own.notes)


def test_a_slice_of_air_says_nothing_of_the_mask(tmp_path: Path) -> None:
    air = np.where(np.arange(3)[:, None, None] == 1, 0, KSPACE)
    by_slice = np.stack([LINES, np.ones(48, bool), LINES])
    assert torch.equal(
        read(tmp_path, kspace=air, mask=by_slice).geometry["mask"],
        torch.from_numpy(by_slice).float()[:, None].expand(-1, 32, -1),
    )


def test_a_mask_of_another_k_space_is_refused(tmp_path: Path) -> None:
    """Such as one whose middle is at its ends: most of what was measured would be left out."""
    with pytest.raises(InputError, match=r"counts lines as measured that are zero \(up to \d+ a slice\), and"):
        read(tmp_path, kspace=KSPACE * LINES, mask=np.fft.ifftshift(LINES))
    with pytest.raises(InputError, match="is the mask inverted"):
        read(tmp_path, kspace=KSPACE * LINES, mask=~LINES)


def test_padding_beside_a_mask_that_leaves_lines_out_is_no_contradiction(tmp_path: Path) -> None:
    """Scanners pad k-space by zeros at its sides, and a mask for an experiment knows nothing of it."""
    padded = KSPACE.copy()
    padded[..., :2] = padded[..., -1:] = 0
    mask = LINES.copy()
    mask[0] = True
    expected = mask & (np.arange(48) >= 2) & (np.arange(48) < 47)
    found = read(tmp_path, kspace=padded, mask=mask).geometry["mask"]
    assert torch.equal(found, torch.from_numpy(expected).float().expand(32, -1))
