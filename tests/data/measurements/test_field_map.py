"""A field map and sampling times from a file, to the operator, to the image."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_mbir.data.measurements.measurement import MeasurementOptions, read_measurement
from lightning_mbir.errors import InputError
from lightning_mbir.methods.reconstruct import reconstruct
from lightning_mbir.physics import FourierSampling, OffResonance
from lightning_mbir.reconstruction.measured import measured_operator, slices_of

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
