"""ESPIRiT on coils that are known, and on a brain that was measured."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.physics import FourierSampling, MultiCoilFourier, estimate_coil_maps, loop_coil_maps, make_mask
from lightning_mbir.physics.mri.coil_maps import sampled_centre


def smooth_maps(n: int = 48, coils: int = 5) -> Tensor:
    """Sensitivities that fall off from coils around the image, of unit power."""
    axis = torch.linspace(-1, 1, n)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    angle = torch.arange(coils)[:, None, None] * 2 * torch.pi / coils
    size = torch.exp(-((x - 1.2 * angle.cos()) ** 2 + (y - 1.2 * angle.sin()) ** 2) / 2)
    maps = torch.polar(size, angle + x * angle.sin() + 0.5 * y)
    return maps / maps.abs().square().sum(0).sqrt()


def disc(n: int = 48) -> Tensor:
    axis = torch.linspace(-1, 1, n)
    radius = (axis[:, None] ** 2 + axis**2).sqrt()
    return torch.sigmoid((0.7 - radius) * 40) * (1 + 0.5 * torch.cos(9 * radius + 4 * axis))


def test_known_maps_are_found_up_to_a_smooth_phase() -> None:
    maps, image = smooth_maps(), disc()
    kspace = MultiCoilFourier(torch.ones(48, 48), maps)(image)
    found = estimate_coil_maps(kspace, calibration=20, kernel=5)
    inside = image > 0.5
    power = found.abs().square().sum(0)
    torch.testing.assert_close(power[inside], torch.ones_like(power[inside]), rtol=0, atol=1e-5)
    overlap = (found.conj() * maps).sum(0)
    assert float(overlap.abs()[inside].min()) > 0.995
    jumps = (overlap[:, 1:] * overlap[:, :-1].conj()).angle().abs()
    assert float(jumps[inside[:, 1:] & inside[:, :-1]].max()) < 0.3
    assert float(power[disc() < 1e-8].mean()) < 0.2  # cropped, where nothing is


def test_the_centre_alone_decides_and_slices_do_not_mix() -> None:
    kspace = MultiCoilFourier(torch.ones(48, 48), smooth_maps())(torch.stack((disc(), disc().flip(1))))
    whole = estimate_coil_maps(kspace, calibration=20)
    assert whole.shape == kspace.shape and whole.dtype == kspace.dtype
    torch.testing.assert_close(whole[1], estimate_coil_maps(kspace[1], calibration=20))
    cut = torch.zeros_like(kspace)
    cut[..., 14:34, 14:34] = kspace[..., 14:34, 14:34]
    torch.testing.assert_close(estimate_coil_maps(cut, calibration=20), whole)


def test_simulated_coils_are_smooth_and_are_what_espirit_finds() -> None:
    maps = loop_coil_maps(8, 48)
    assert maps.shape == (8, 48, 48) and maps.is_complex()
    torch.testing.assert_close(maps.abs().square().sum(0), torch.ones(48, 48))
    assert int(maps[0].abs().argmax()) % 48 == 47  # the first one is where x ends
    assert float((maps[:, :, 1:] - maps[:, :, :-1]).abs().max()) < 0.1
    found = estimate_coil_maps(MultiCoilFourier(torch.ones(48, 48), maps)(disc()))
    inside = disc() > 0.5
    alike = (found.conj() * maps).sum(0).abs()  # 1 where they agree up to a phase that all coils share
    assert float((alike[inside] - 1).abs().max()) < 0.01
    with pytest.raises(InputError, match="at least 1"):
        loop_coil_maps(0, 48)


def test_a_measured_head_of_16_coils_is_its_maps_times_one_image(shared: Path) -> None:
    file = shared / "data" / "raw" / "brain_gre_16ch_128x128.npz"
    kspace = torch.from_numpy(np.load(file)["kspace"])
    maps = estimate_coil_maps(kspace)
    images = FourierSampling(torch.ones(128, 128)).adjoint(kspace)
    magnitude = images.abs().square().sum(0).sqrt()
    head = magnitude > 0.1 * magnitude.max()
    power = maps.abs().square().sum(0)
    inside = head & (power > 0.5)
    assert float(inside.sum() / head.sum()) > 0.98
    assert float((power[power > 0.5] - 1).abs().max()) < 1e-5
    projected = maps * (maps.conj() * images).sum(0)
    # Measured 0.0985; 0.044 of it is noise, as the corners of the images have it.
    assert float(((projected - images) * inside).norm() / (images * inside).norm()) < 0.105


def test_k_space_that_cannot_be_used_is_refused() -> None:
    kspace = MultiCoilFourier(torch.ones(48, 48), smooth_maps())(disc())
    gap = kspace.clone()
    gap[:, :, 22] = 0
    for wrong, options, words in (
        (kspace[0], {}, "coils, Y, X"),
        (kspace.real, {}, "complex"),
        (kspace * float("nan"), {}, "NaN"),
        (kspace * 0, {}, "is zero"),
        (gap, {"calibration": 24}, "not fully sampled"),
        (gap, {}, "calibration 24 x 3, kernel 1"),
        (kspace, {"calibration": 60}, "calibration 60"),
        (kspace, {"calibration": 8, "kernel": 6}, "two kernels"),
        (kspace, {"threshold": 2.0}, "threshold 2"),
    ):
        with pytest.raises(InputError, match=words):
            estimate_coil_maps(wrong, **options)  # type: ignore[arg-type]


def test_the_calibration_region_is_what_was_fully_sampled() -> None:
    kspace = torch.zeros(2, 40, 50, dtype=torch.complex64)
    assert sampled_centre(kspace) == (0, 0)
    kspace[:, :, 20:29] = 1  # whole columns about 25: five before it and three after
    assert sampled_centre(kspace) == (24, 8)
    kspace[:, 15:26, :] = 1
    assert sampled_centre(kspace) in ((11, 24), (10, 24))
    kspace[:] = 0
    kspace[:, 12:28, 19:31] = 1
    assert sampled_centre(kspace) == (16, 12)
    kspace = MultiCoilFourier(torch.ones(48, 48), smooth_maps())(disc()) * make_mask("gaussian1d", (48, 48), 3)
    rows, columns = sampled_centre(kspace)
    assert rows == 24 and 4 <= columns < 24
    whole = estimate_coil_maps(kspace)
    torch.testing.assert_close(whole, estimate_coil_maps(kspace, (rows, columns), min(6, columns // 2)))
