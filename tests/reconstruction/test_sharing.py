"""Which processes share a volume, and what they cannot share."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from lightning_mbir.data.measurements.measurement import Measurement
from lightning_mbir.errors import InputError
from lightning_mbir.methods.method import Method
from lightning_mbir.methods.plans import Plan
from lightning_mbir.reconstruction.measured import measured_operator, slices_of
from lightning_mbir.reconstruction.split import Sharing, check_split, processes_a_volume
from tests.helpers import gaussian_prior, smooth_volume
from tests.physics.mri.test_coil_maps import smooth_maps


@pytest.mark.parametrize(
    ("split", "volumes", "processes", "each"),
    [
        ("auto", 1, 1, 1), ("auto", 1, 4, 4), ("auto", 2, 4, 2), ("auto", 3, 4, 2), ("auto", 3, 8, 4),
        ("auto", 3, 7, 7), ("auto", 4, 4, 1), ("auto", 9, 4, 1), ("slices", 9, 4, 4), ("volumes", 1, 4, 1),
    ],
)  # fmt: skip
def test_processes_a_volume(split: str, volumes: int, processes: int, each: int) -> None:
    assert processes_a_volume(split, volumes, processes) == each
    groups = [Sharing(each, processes, own) for own in range(processes)]
    assert [sharing.number for sharing in groups] == [own // each for own in range(processes)]
    assert sum(sharing.first for sharing in groups) == groups[0].groups == processes // each


def measurement(**geometry: Any) -> Measurement:
    y = geometry.pop("y", torch.zeros(6, 4, 4))
    return Measurement(y, geometry, np.eye(4), "m", geometry.pop("modality", "ct"))


@pytest.mark.parametrize(
    ("each", "method", "options", "slices", "geometry", "words"),
    [
        (7, "dds", {}, 1, {}, "7 processes for a volume of 6 slices"),
        (2, "tpdm", {}, 3, {}, "second prior is of neighbouring slices"),
        (2, "l1_wavelet", {"axes": "zyx"}, 1, {}, "wavelets along z"),
        (2, "dds", {}, 1, {"beam": "cone"}, "cone beam measures all slices together; give --split volumes"),
        (2, "dds", {}, 1, {"beam": "modular"}, "modular beam measures all slices together; give --split volumes"),
    ],
)
def test_what_cannot_be_shared_is_refused(
    each: int, method: str, options: dict[str, Any], slices: int, geometry: dict[str, Any], words: str
) -> None:
    prior = gaussian_prior("ct")
    prior.slices = slices
    with pytest.raises(InputError, match=words):
        check_split(each, [6], measurement(**geometry), [Plan(method, options)], prior)


def test_a_method_has_to_say_that_it_splits() -> None:
    def own(p: Any) -> Any:
        """One of a user's."""

    assert not Method(own).splits and Plan("dds", {}).chosen.splits


def test_some_slices_of_kspace_keep_what_all_tell() -> None:
    maps = torch.stack([smooth_maps(24).roll(k, -1) for k in range(6)])
    x = smooth_volume((6, 24, 24)).to(torch.complex64)
    mask = torch.zeros(24, 24)
    mask[:, 6:18] = 1
    k = torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(maps * x[:, None], (-2, -1)), norm="ortho"), (-2, -1))
    y = k * mask
    y[4, :, :, 6] = 0  # what is sampled of one slice alone
    whole = replace(measurement(y=y, mask=mask), modality="mri")
    part = slices_of(whole, 1, 3)
    assert len(part.y) == 2 and part.noise_std == slices_of(whole, 0, 6).noise_std
    expected, some = measured_operator(whole), measured_operator(part)
    own = expected.of_slices(1, 3)
    assert own is not None
    torch.testing.assert_close(some(x[1:3]), own(x[1:3]))
