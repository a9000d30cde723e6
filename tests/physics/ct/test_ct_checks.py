"""What CT geometries warn of and what they refuse."""

import math
import sys
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from lightning_mbir.errors import InputError
from lightning_mbir.physics import ConeBeam, FanBeam, ParallelBeam
from lightning_mbir.physics.ct.geometry import warn_edge_bins
from tests.physics.ct.test_ct import FAN, VIEWS, ellipse_image

SHORT = [i * 10.0 for i in range(22)]


def test_angles_in_radians_are_noticed() -> None:
    radians = [i * math.pi / 9 for i in range(9)]
    for build in (
        lambda: ParallelBeam(8, radians),
        lambda: FanBeam(8, radians, **FAN),
        lambda: ConeBeam((2, 8, 8), radians, **FAN),
    ):
        with pytest.warns(UserWarning, match="radians; give degrees") as caught:
            build()
        assert caught[0].filename == __file__  # it points at who built the operator


def test_a_short_detector_is_noticed() -> None:
    with pytest.warns(UserWarning, match="cuts off 75 % of the field of view") as caught:
        ParallelBeam(16, VIEWS, n_detectors=8, pixel_size=0.5)
    assert caught[0].filename == __file__
    told = str(caught[0].message)  # in pixels: there are scans of which no length is known
    assert "4 pixels from the axis, the circle inscribed in the image goes to 8" in told and "mm" not in told
    with pytest.warns(UserWarning, match="cuts off"):
        FanBeam(16, SHORT, **FAN, n_detectors=18, center_offset=3.0)
    with pytest.warns(UserWarning, match="cuts off"):
        ConeBeam((4, 16, 16), VIEWS, **FAN, detector_shape=(8, 10))
    with pytest.warns(UserWarning, match="50 % of the height"):
        ConeBeam((4, 16, 16), VIEWS, **FAN, detector_shape=(2, 40))


def test_an_axis_a_fraction_of_a_bin_off_is_nothing_to_warn_of(recwarn: pytest.WarningsRecorder) -> None:
    half_turn = [0.0, 60.0, 120.0]
    ParallelBeam(256, half_turn, n_detectors=256, center_offset=0.3)
    assert not recwarn.list
    with pytest.warns(UserWarning, match="cuts off 2 % of the field of view"):
        ParallelBeam(256, half_turn, n_detectors=256, center_offset=1.0)


def test_a_detector_moved_aside_sees_more_in_a_full_turn(recwarn: pytest.WarningsRecorder) -> None:
    turn = [i * 10.0 for i in range(36)]
    fan = FanBeam(16, turn, **FAN, n_detectors=18, center_offset=6.0)
    cone = ConeBeam((2, 16, 16), turn, **FAN, detector_shape=(8, 18), offsets=(0.0, -6.0))
    assert not recwarn.list
    assert fan.outer_bins == (0,)
    assert cone.outer_bins == (-1,)
    disc = fan(ellipse_image(16, 1.0, ((0, 0), (7, 7), 0.0)))
    warn_edge_bins(disc, fan.outer_bins)
    assert not recwarn.list
    with pytest.warns(UserWarning, match="of the views"):
        warn_edge_bins(disc)
    with pytest.warns(UserWarning, match="cuts off 100 %"):  # the axis is beside it
        FanBeam(16, turn, **FAN, n_detectors=18, center_offset=60.0)


def test_an_object_beyond_the_detector_is_noticed(recwarn: pytest.WarningsRecorder) -> None:
    op = ParallelBeam(64, VIEWS, n_detectors=64)
    warn_edge_bins(op(ellipse_image(64, 1.0, ((0, 0), (25, 25), 0.0))))
    assert not recwarn.list
    with pytest.warns(UserWarning, match="100 % of the views"):
        warn_edge_bins(op(torch.ones(64, 64)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"source_distance": 5.0}, "must be outside"),
        ({"source_distance": float("nan")}, "source_distance"),
        ({"detector_distance": -1.0}, "detector_distance is -1"),
        ({"detector_spacing": 0.0}, "detector_spacing is 0"),
        ({"pixel_size": -1.0}, "pixel_size is -1"),
        ({"n_detectors": 0}, "n_detectors is 0"),
        ({"center_offset": float("inf")}, "center_offset is inf"),
        ({"detector": "round"}, "flat or curved"),
        ({"backend": "cuda"}, "auto, sparse, matrix_free, astra"),
        ({"backend": "sparse", "max_memory_gb": 1e-6}, "max_memory_gb=1e-06"),
        ({"angles": []}, "no angles"),
        ({"angles": [0.0, float("nan")]}, "NaN"),
    ],
)
def test_wrong_fans_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        FanBeam(16, **{"angles": VIEWS, **FAN, **options})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"volume_shape": (8, 8)}, r"\(Z, Y, X\)"),
        ({"volume_shape": (0, 8, 8)}, r"\(Z, Y, X\)"),
        ({"source_distance": 5.0}, "must be outside"),
        ({"slice_thickness": 0.0}, "slice_thickness is 0"),
        ({"detector_shape": (0, 5)}, r"\(rows, columns\)"),
        ({"detector_spacing": (1.0, -1.0)}, "column_spacing is -1"),
        ({"offsets": (float("nan"), 0.0)}, "row_offset is nan"),
        ({"backend": "sparse"}, "auto, matrix_free, diffct"),
    ],
)
def test_wrong_cones_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        ConeBeam(**{"volume_shape": (4, 8, 8), "angles": VIEWS, **FAN, **options})


def test_sizes_are_whole_numbers_of_any_kind() -> None:
    for build in (
        lambda size: ParallelBeam(size, VIEWS, n_detectors=size),
        lambda size: FanBeam(size, VIEWS, **FAN, n_detectors=size),
        lambda size: ConeBeam((size, size, size), VIEWS, **FAN, detector_shape=(size, size)),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what the detector cuts off
            assert build(np.int64(8)).geometry == build(8).geometry
            assert type(build(np.int64(8)).domain_shape[-1]) is int
        with pytest.raises(InputError, match=r"8\.0.*; give a .*whole number"):
            build(8.0)


def test_states_of_other_geometries_are_refused() -> None:
    for one, other in (
        (FanBeam(8, VIEWS, **FAN), FanBeam(8, VIEWS, **FAN, detector="curved")),
        (ConeBeam((2, 8, 8), VIEWS, **FAN), ConeBeam((2, 8, 8), VIEWS, **FAN, offsets=(0.0, 1.0))),
    ):
        with pytest.raises(InputError, match="another geometry"):
            one.load_state_dict(other.state_dict())


def test_optional_backends_say_what_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "astra", None)
    with pytest.raises(InputError, match="GPL"):
        ParallelBeam(16, VIEWS, backend="astra")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="diffct"):
            ConeBeam((2, 8, 8), VIEWS, **FAN, backend="diffct")


def test_astra_has_no_curved_detectors() -> None:
    pytest.importorskip("astra")
    with pytest.raises(InputError, match="curved"):
        FanBeam(16, VIEWS, **FAN, detector="curved", backend="astra")
