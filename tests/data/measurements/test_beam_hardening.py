"""Beam hardening and scatter, simulated and taken away again: cupping and PSNR before and after."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_mbir.data.measurements.beam_hardening import linearised, read_curve, subtract_scatter
from lightning_mbir.data.measurements.measurement import read_measurement
from lightning_mbir.data.measurements.options import MeasurementOptions
from lightning_mbir.errors import InputError
from lightning_mbir.physics import ParallelBeam
from lightning_mbir.solvers import fbp

SIZE, PIXEL = 96, 2.5
ANGLES = np.arange(0, 180, 1.5)
ENERGY = np.arange(30.0, 125.0, 5.0)
PHOTONS = (ENERGY - 25) * (125 - ENERGY)
ATTENUATION = 0.012 + 0.2 * (30 / ENERGY) ** 3
"""1/mm, falling as that of soft tissue does, more steeply."""
MEAN = float((PHOTONS * ATTENUATION).sum() / PHOTONS.sum())
GEOMETRY = {"beam": "parallel", "angles": ANGLES.tolist(), "detector_spacing": PIXEL, "center_offset": 0.0}
OPERATOR = ParallelBeam(SIZE, ANGLES.tolist(), n_detectors=SIZE, pixel_size=PIXEL)
FILE = Path("scan.h5")


def lengths() -> np.ndarray:
    """``(1, views, bins)`` mm of the one material of an ellipse with a hole, in closed form."""
    s = (np.arange(SIZE) - (SIZE - 1) / 2) * PIXEL
    theta = np.deg2rad(ANGLES)[:, None]
    total = np.zeros((len(ANGLES), SIZE))
    for x, y, a, b, sign in ((0.0, 0.0, 95.0, 55.0, 1), (40.0, 10.0, 15.0, 15.0, -1)):
        distance = s - x * np.cos(theta) - y * np.sin(theta)
        square = (a * np.cos(theta)) ** 2 + (b * np.sin(theta)) ** 2
        total += sign * 2 * a * b * np.sqrt(np.clip(square - distance**2, 0, None)) / square
    return total[None]


def measured() -> np.ndarray:
    """What a detector that counts photons of all energies sees, as line integrals."""
    weight = PHOTONS / PHOTONS.sum()
    return -np.log((weight * np.exp(-lengths()[..., None] * ATTENUATION)).sum(-1)).astype(np.float32)


def image(y: np.ndarray) -> Tensor:
    return fbp(torch.from_numpy(np.asarray(y, np.float32)), OPERATOR, filter="hann")[0]


def cupping(y: np.ndarray) -> float:
    """How much lower the middle is than the rim, over the middle."""
    found = image(y)
    axis = (torch.arange(SIZE) - (SIZE - 1) / 2) * PIXEL
    # The ellipse of which a pixel is on the rim, 1 at the edge.
    level = ((axis[None] / 95) ** 2 + (axis[:, None] / 55) ** 2).sqrt()
    middle = float(found[(level < 0.2)].mean())
    rim = float(found[(level > 0.75) & (level < 0.9)].mean())
    return (rim - middle) / middle


def psnr(y: np.ndarray) -> float:
    """Against the image of one energy, after the best scale: what beam hardening bends, not what it takes."""
    truth, found = image(MEAN * lengths()), image(y)
    scale = float((truth * found).sum() / found.square().sum())
    return float(-10 * torch.log10((scale * found - truth).square().mean() / MEAN**2))


def spectrum(folder: Path) -> Path:
    rows = zip(ENERGY, PHOTONS, ATTENUATION, strict=True)
    path = folder / "spectrum.txt"
    path.write_text("# keV, photons, 1/mm\n" + "\n".join(f"{e:g}, {p:g}, {m:.8g}" for e, p, m in rows))
    return path


def test_the_views_of_a_parallel_beam_tell_the_polynomial() -> None:
    y = measured()
    note = linearised(FILE, y, "consistency", GEOMETRY)
    assert note.startswith("beam hardening: y becomes y + 0.181 y^2 - 0.0154 y^3, by which 94% of the views")
    assert cupping(measured()) > 0.08 and abs(cupping(y)) < 0.005
    assert psnr(measured()) < 30 and psnr(y) > 50


def test_a_spectrum_is_turned_around(tmp_path: Path) -> None:
    y = measured()
    note = linearised(FILE, y, str(spectrum(tmp_path)), GEOMETRY)
    assert note.startswith("beam hardening: a spectrum of 19 energies, 30 to 120 keV")
    np.testing.assert_allclose(y, MEAN * lengths(), rtol=2e-3, atol=2e-3)
    assert psnr(y) > psnr(measured()) + 15


def test_a_polynomial_is_that_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("1 0.1, 0.02  # of water")
    y = np.array([[[0.0, 1.0, 2.0, -0.1]]], np.float32)
    assert linearised(FILE, y, str(tmp_path / "p.txt"), GEOMETRY) == "beam hardening: a polynomial of degree 3"
    np.testing.assert_allclose(y[0, 0], [0, 1.12, 2.56, -0.1 + 0.001 - 0.00002], rtol=1e-5)


def test_data_of_one_energy_are_left_as_they_are() -> None:
    """There is nothing that a polynomial could explain, which is told, not guessed."""
    y = (MEAN * lengths()).astype(np.float32)
    kept = y.copy()
    try:
        linearised(FILE, y, "consistency", GEOMETRY)
    except InputError as error:
        assert "do not tell a polynomial" in str(error)
    assert float(np.abs(y - kept).max()) < 0.02 * float(kept.max())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no numbers"),
        ("1 two", "'two'"),
        ("1 nan", "not finite"),
        ("40 1 0.02\n50 1", r"lines of \[2, 3\] numbers"),
        ("40 1 0.02\n30 1 0.03", "energies have to rise"),
        ("40 1 0.02\n50 -1 0.03", "photons be 0 or more"),
        ("40 1 0.02\n50 1 0", "attenuation above 0"),
        ("1 -1", "the polynomial falls"),
    ],
)
def test_a_file_of_a_wrong_form_is_refused(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text(text)
    with pytest.raises(InputError, match=words):
        read_curve(tmp_path / "s.txt", 2.0)
    with pytest.raises(InputError, match=r"nowhere.txt: no such file"):
        read_curve(tmp_path / "nowhere.txt", 2.0)


def test_consistency_has_its_limits() -> None:
    y = measured()
    with pytest.raises(InputError, match="has a fan beam, that is for parallel rays"):
        linearised(FILE, y, "consistency", {**GEOMETRY, "beam": "fan"})
    some = {**GEOMETRY, "angles": ANGLES[:60].tolist()}
    with pytest.raises(InputError, match=r"60 views over 88.5 degrees, that takes 16 or more over 180"):
        linearised(FILE, y[:, :60], "consistency", some)
    with pytest.raises(InputError, match="reaches beyond the detector"):
        linearised(FILE, y[..., 40:60], "consistency", GEOMETRY)
    alike = np.repeat(y[:, :1], len(ANGLES), 1)
    with pytest.raises(InputError, match="do not tell a polynomial"):
        linearised(FILE, alike, "consistency", GEOMETRY)


def test_scatter_is_taken_from_the_intensities(tmp_path: Path) -> None:
    """A constant is taken away exactly; air stays air, and rays below it are told."""
    y = (MEAN * lengths()).astype(np.float32)
    scattered = -np.log((np.exp(-y) + 0.02) / 1.02)  # the flat field has it too
    before, found = psnr(scattered), scattered.copy()
    note = subtract_scatter(found, 0.02 / 1.02)
    assert note == "scatter: 0.0196078 of the open beam taken from each ray"
    np.testing.assert_allclose(found, y, rtol=1e-3, atol=1e-4)
    assert psnr(found) > before + 20
    assert "2 rays had less than that" in subtract_scatter(np.array([[[0.1, 5.0, 6.0]]], np.float32), 0.02)
    np.savez(tmp_path / "y.npz", sinogram=scattered, angles=ANGLES)
    options = MeasurementOptions(rotation_center=47.5, scatter=(0.02 / 1.02, 0.0))
    np.testing.assert_allclose(read_measurement(tmp_path / "y.npz", "ct", options).y, found, rtol=1e-6)


def test_smooth_scatter_follows_the_object() -> None:
    """That of the intensity around, which is less behind the object; cupping goes with it."""
    from scipy import ndimage

    y = MEAN * lengths()
    intensity = np.exp(-y)
    scattered = intensity + 0.05 * ndimage.gaussian_filter1d(intensity, 15, axis=-1, mode="nearest")
    found = (np.log(1.05) - np.log(scattered)).astype(np.float32)
    before = abs(cupping(found))
    assert subtract_scatter(found, 0.05, 15).startswith("scatter: 0.05 of the intensity, smoothed over 15 bins,")
    assert abs(cupping(found)) < 0.02 * before and psnr(found) > 60
