"""Arguments of another kind than they are annotated, from Python: one line that names function, argument and remedy."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch

import lightning_mbir as m
from lightning_mbir.data.phantoms import leaves_phantom
from lightning_mbir.errors import InputError
from lightning_mbir.kinds import check_kinds

VIEWS = [0.0, 45.0, 90.0, 135.0]
CONE: dict[str, Any] = {"angles": VIEWS, "source_distance": 100.0, "detector_distance": 50.0}
SHAPED: dict[str, Any] = {**CONE, "volume_shape": (4, 16, 16)}
FLAT: dict[str, Any] = {"image_size": 16, "angles": VIEWS}
HELIX = {"angles": VIEWS, "source_distance": 100.0, "detector_distance": 50.0, "detector_spacing": (1.0, 1.0)}
MASK: dict[str, Any] = {"kind": "uniform1d", "shape": (16, 16), "acc": 2}
KSPACE = torch.ones(2, 4, 16, 16, dtype=torch.complex64)

WRONG: list[tuple[Any, dict[str, Any], str, Any, str]] = [
    (m.ConeBeam, CONE, "volume_shape", 16, "ConeBeam: volume_shape is 16; give a tuple of 3 whole numbers (Z, Y, X)"),
    (m.ConeBeam, SHAPED, "detector_shape", 20, "a tuple of 2 whole numbers (rows, columns) or None"),
    (m.ConeBeam, SHAPED, "detector_spacing", 1.0, "a tuple of 2 numbers (rows, columns) or None"),
    (m.ConeBeam, SHAPED, "offsets", "ab", "a tuple of 2 numbers"),
    (m.ConeBeam, SHAPED, "detector_distance", "50", "give a number"),
    (m.FanBeam, {**FLAT, **CONE}, "detector_distance", None, "FanBeam: detector_distance is None; give a number"),
    (m.ParallelBeam, FLAT, "center_offset", (1.0, 2.0), "give a number"),
    (m.ParallelBeam, FLAT, "max_memory_gb", "4", "ParallelBeam: max_memory_gb is '4'; give a number"),
    (m.ParallelBeam, FLAT, "backend", [], "auto or sparse or matrix_free"),
    (m.helical_trajectory, HELIX, "detector_spacing", 1.0, "helical_trajectory: detector_spacing is 1.0; give a tuple"),
    (m.helical_trajectory, HELIX, "pitch", "10", "give a number"),
    (m.make_mask, MASK, "shape", 16, "make_mask: shape is 16; give a tuple of 2 whole numbers"),
    (m.make_mask, MASK, "acc", "8", "make_mask: acc is '8'; give a number"),
    (m.make_mask, MASK, "center_fraction", "0.1", "give a number or None"),
    (m.make_mask, MASK, "seed", 0.5, "give a whole number"),
    (m.chest_phantom, {}, "shape", 16, "shape 16: a phantom needs three positive whole numbers"),
    (m.chest_phantom, {}, "shape", "abc", "shape abc: a phantom needs three positive whole numbers"),
    (m.chest_phantom, {}, "seed", "0", "chest_phantom: seed is '0'; give a whole number"),
    (m.head_phantom, {}, "noise", "0.1", "head_phantom: noise is '0.1'; give a number"),
    (leaves_phantom, {}, "seed", None, "give a whole number"),
    (leaves_phantom, {}, "modality", "pet", "leaves_phantom: modality is 'pet'; give ct or mri"),
    (m.make_mask, MASK, "seed", -1, "make_mask: seed is -1; give a whole number from 0 up"),
    (m.make_mask, MASK, "shape", (0, 16), "make_mask: shape is (0, 16); give (Y, X), each at least 1"),
    (m.radial_trajectory, {"spokes": 4}, "samples", "16", "radial_trajectory: samples is '16'"),
    (m.loop_coil_maps, {"coils": 4}, "image_size", (16, 16), "loop_coil_maps: image_size is (16, 16); give a whole"),
    (m.complex_gaussian, {"kspace": KSPACE}, "snr_db", "20", "complex_gaussian: snr_db is '20'; give a number"),
    (m.poisson_counts, {"sinogram": torch.ones(2, 4, 23)}, "photons", "1e5", "photons is '1e5'; give a number"),
    (m.poisson_counts, {"photons": 1e5}, "sinogram", np.ones((2, 3)), "sinogram is a ndarray of (2, 3); give a tensor"),
    (m.estimate_coil_maps, {"kspace": KSPACE}, "calibration", "8", "a whole number or a tuple of 2 whole numbers"),
    (m.NonCartesianFourier, {"trajectory": torch.zeros(4, 2)}, "image_size", "16", "NonCartesianFourier: image_size"),
    (m.CartesianFourier3D, {"mask": torch.ones(4, 16)}, "volume_shape", 16, "a tuple of 3 whole numbers"),
    (m.image_metrics, {"truth": torch.ones(2, 8, 8), "data_range": 1.0}, "volume", np.ones(3), "image_metrics: volume"),
    (m.image_metrics, {"truth": torch.ones(2, 8, 8), "data_range": 1.0}, "volume", torch.ones(8, 8), "the same of all"),
    (m.calibrate, dict.fromkeys(("mean", "std", "truth"), KSPACE[0].abs()), "samples", 1, "samples is 1; a deviation"),
    (m.montage, {"title": "t", "name": "n", "volume": 3, "direct": None, "truth": None, "place": None, "scale": None},
     "title", "t", "montage: volume is 3; give a tensor"),
    (m.read_volume, {"modality": "ct"}, "path", 3, "read_volume: path is 3; give a text or a path"),
    (m.read_volume, {"path": "a.nii", "modality": "ct"}, "spacing", 3.0, "a tuple of 3 numbers (z, y, x) or None"),
    (m.VolumeDataModule, {}, "demo_volumes", "2", "VolumeDataModule: demo_volumes is '2'; give a whole number"),
    (m.SliceDataModule, {}, "batch_size", 2.5, "SliceDataModule: batch_size is 2.5; give a whole number"),
    (m.ScorePriorModule, {}, "learning_rate", "1e-3", "ScorePriorModule: learning_rate is '1e-3'; give a number"),
    (m.ReconstructionModule, {}, "method_options", 3, "ReconstructionModule: method_options is 3; give a dict or None"),
    (m.Budget, {}, "evaluations", "30", "Budget: evaluations is '30'; give a whole number"),
]  # fmt: skip


@pytest.mark.parametrize(("function", "given", "name", "value", "told"), WRONG)
def test_another_kind_is_told(function: Any, given: dict[str, Any], name: str, value: Any, told: str) -> None:
    with pytest.raises(InputError) as error:
        inspect.unwrap(function)(**{**given, name: value})  # without what checks shapes, which users have not
    assert told in str(error.value) and "\n" not in str(error.value)


def test_numbers_and_tuples_of_every_kind_are_taken() -> None:
    shape = np.array([4, 16, 16])
    given = {**CONE, "source_distance": np.float32(100), "detector_distance": torch.tensor(50)}
    cone = m.ConeBeam(shape, **given, offsets=[0, 0])  # type: ignore[arg-type]
    assert cone.domain_shape == (4, 16, 16)
    assert m.make_mask("uniform1d", torch.Size((16, 16)), np.int64(2)).shape == (16, 16)
    assert m.chest_phantom([np.int64(2), 16, 16]).shape == (2, 16, 16)
    beam = m.ParallelBeam(np.int32(16), np.array(VIEWS))  # type: ignore[arg-type]
    m.reconstruct(torch.ones(2, *beam.range_shape), beam, method="fbp", spacing=torch.ones(3))  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [True, 2, np.int64(2), torch.tensor(2), float("nan"), np.float32(0.5)])
def test_one_number_is_one(value: Any) -> None:
    def takes(number: float) -> None:
        check_kinds(takes, locals())

    takes(value)
    for other in ([value], np.array([value]), {"a": value}, "2", b"2", 1j, None):
        with pytest.raises(InputError, match=r"number is .*; give a number"):
            takes(other)  # type: ignore[arg-type]
