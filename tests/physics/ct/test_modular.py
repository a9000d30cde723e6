"""Views that stand anywhere: special cases against the other beams, all others against closed forms."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.physics import ConeBeam, FanBeam, ModularBeam, helical_trajectory
from lightning_mbir.physics.ct.projectors.joseph_3d import Joseph3D
from tests.physics.ct.test_ct import FAN, VIEWS, ball_image, relative
from tests.physics.registry import OPERATORS, wobbling

HELIX = [i * 30.0 for i in range(30)]


def random(*shape: int) -> Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def turned(views: Tensor, rotation: Tensor) -> Tensor:
    """All of the scan turned about the middle of the volume."""
    return (views.view(-1, 4, 3) @ rotation.T).flatten(1)


def rotation(degrees: float, axis: int) -> Tensor:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    matrix = torch.eye(3, dtype=torch.float64)
    a, b = [i for i in range(3) if i != axis]
    matrix[a, a], matrix[a, b], matrix[b, a], matrix[b, b] = cos, -sin, sin, cos
    return matrix


def chords(views: Tensor, shape: tuple[int, int], center: Any, radius: float, arc: float | None = None) -> Tensor:
    """Of a ball in mm, ``(views, rows, columns)``; each bin is looked for by itself, as the docstring has it."""
    out = torch.zeros(len(views), *shape)
    for view, row in enumerate(views.view(-1, 4, 3).numpy()):
        source, middle, u, v = row
        width, inward = np.linalg.norm(u), np.cross(u, v)
        inward = inward / np.linalg.norm(inward) * np.sign((source - middle) @ inward)
        for j in range(shape[0]):
            for i in range(shape[1]):
                s = i - (shape[1] - 1) / 2
                point = middle + (j - (shape[0] - 1) / 2) * v
                if arc is None:
                    point = point + s * u
                else:
                    turn = s * width / arc
                    point = point + arc * (math.sin(turn) * u / width + (1 - math.cos(turn)) * inward)
                ray = (point - source) / np.linalg.norm(point - source)
                to_center = np.asarray(center) - source
                out[view, j, i] = 2 * math.sqrt(max(0.0, radius**2 - to_center @ to_center + (ray @ to_center) ** 2))
    return out


def test_a_circle_of_cones_is_the_cone_beam() -> None:
    """To rounding: both have the same rays and sample them alike."""
    given: dict[str, Any] = {"detector_spacing": (2.1, 1.9), "offsets": (1.3, -2.2)}
    cone = ConeBeam((9, 20, 17), VIEWS, **FAN, **given, detector_shape=(12, 30), pixel_size=1.4, slice_thickness=1.7)
    same = ModularBeam(
        (9, 20, 17),
        helical_trajectory(VIEWS, **FAN, **given),
        detector_shape=(12, 30),
        pixel_size=1.4,
        slice_thickness=1.7,
    )
    x = random(9, 20, 17)
    y = cone.double()(x)
    torch.testing.assert_close(same.double()(x), y, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(same.adjoint(y), cone.adjoint(y), rtol=1e-10, atol=1e-9)
    assert same.angles == pytest.approx([(angle + 180) % 360 - 180 for angle in VIEWS])
    assert same.outer_bins == cone.outer_bins


@pytest.mark.parametrize("detector", ["flat", "curved"])
def test_one_row_through_one_slice_is_the_fan_beam(detector: Any) -> None:
    """To the float32 of the fan's matrix."""
    fan = FanBeam(
        24,
        VIEWS,
        **FAN,
        n_detectors=44,
        detector_spacing=1.5,
        center_offset=1.1 * (detector == "flat"),
        detector=detector,
    )
    views = helical_trajectory(VIEWS, **FAN, detector_spacing=(1.0, 1.5), offsets=(0.0, fan.center_offset))
    one = ModularBeam((1, 24, 24), views, detector_shape=(1, 44), detector=detector)
    x = random(1, 24, 24).float()
    torch.testing.assert_close(one(x)[:, 0], fan(x[0]), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("scan", ["helix", "tilted", "wobbling", "curved", "steep"])
def test_a_ball_is_its_chords_and_ever_more_so(scan: str) -> None:
    center, radius, arc = (7.0, -5.0, 4.0), 15.0, None
    angles = HELIX[::5]
    views = helical_trajectory(angles, **FAN, detector_spacing=(3.0, 3.2), pitch=12.0)
    if scan == "tilted":
        views = turned(views, rotation(35.0, 0) @ rotation(20.0, 1))
    if scan == "steep":  # the axis of the scan is that of rows, so that rays follow z in some views
        views = turned(views, rotation(90.0, 0) @ rotation(10.0, 2))
    if scan == "wobbling":
        views = wobbling(views, 0.1)
    if scan == "curved":
        arc = 400.0
    exact = chords(views, (24, 40), center, radius, arc)
    errors = []
    for n in (16, 32, 64):
        voxel = (60.0 / (n * 3 // 4), 64.0 / n, 64.0 / n)
        shape = (n * 3 // 4, n, n)
        op = ModularBeam(
            shape,
            views,
            detector_shape=(24, 40),
            pixel_size=voxel[1],
            slice_thickness=voxel[0],
            detector="flat" if arc is None else "curved",
            curvature_radius=arc,
        )
        y = op(ball_image(shape, voxel, center, radius))
        errors.append(relative(y, exact))
        assert float(y.sum() / exact.sum()) == pytest.approx(1, abs=0.3 / n)
    assert errors[2] < 2.5 / 64
    assert errors[2] < errors[0] / 3


def test_no_axis_is_another_than_the_others() -> None:
    """Volume and scan turned by the same quarter turns give the same projections, whichever axis the rays follow."""
    x = random(12, 12, 12)
    views = wobbling(helical_trajectory(HELIX, **FAN, detector_spacing=(1.7, 1.6), pitch=4.0), 0.1)
    expected = ModularBeam((12, 12, 12), views, detector_shape=(12, 14)).double()(x)
    # (x, y, z) becomes (y, z, x), so the new volume has at (z, y, x) what the old one had at (y, x, z).
    cyclic = torch.tensor([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]], dtype=torch.float64)
    moved = ModularBeam((12, 12, 12), turned(views, cyclic), detector_shape=(12, 14)).double()(x.permute(2, 0, 1))
    torch.testing.assert_close(moved, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["modular_beam_wobbling", "modular_beam_steep", "modular_beam_curved"])
def test_parts_of_the_work_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    op = OPERATORS[name]().double()
    x = random(2, *op.domain_shape)
    y, back = op(x), op.adjoint(op(x))
    monkeypatch.setattr(Joseph3D, "VIEW_RAYS", 1)
    monkeypatch.setattr(Joseph3D, "RAYS", 5)
    monkeypatch.setattr(Joseph3D, "STEPS", 1)
    torch.testing.assert_close(op(x), y)
    torch.testing.assert_close(op.adjoint(y), back)


def test_an_arc_stays_where_it_is_when_the_focal_spot_flies() -> None:
    views = helical_trajectory([0.0, 40.0], **FAN, detector_spacing=(1.0, 1.2))
    flown = views.clone()
    flown[:, 0] += 1.5
    bins = [
        ModularBeam((2, 8, 8), table, detector_shape=(2, 60), detector="curved", curvature_radius=480.0)._geometry.rays(
            0, 2
        )
        for table in (views, flown)
    ]
    torch.testing.assert_close(bins[0][1], bins[1][1])
    assert not torch.equal(bins[0][0], bins[1][0])
    distance = torch.linalg.vector_norm(bins[0][1][:2] - bins[0][0][:2, :, None, None], dim=0)
    torch.testing.assert_close(distance, torch.full_like(distance, 480.0))  # about the source that has not flown


def test_views_of_a_helix_lie_along_it() -> None:
    views = helical_trajectory(HELIX, **FAN, detector_spacing=(2.0, 1.5), pitch=6.0)
    op = ModularBeam((6, 12, 12), views, detector_shape=(4, 40))
    assert op.parts.place.tolist() == pytest.approx(HELIX)
    assert not op.parts.open
    flying = views.clone()
    flying[1::2, :2] += 0.7 * views[1::2, :2].flip(1) * torch.tensor([-1.0, 1.0])  # by more than a step
    assert ModularBeam((6, 12, 12), flying, detector_shape=(4, 90)).parts.place.tolist() == pytest.approx(HELIX)
    part = op.of_parts(torch.tensor([3, 20]))
    x = random(6, 12, 12).float()
    torch.testing.assert_close(part(x), op(x)[[3, 20]])
    arc = ModularBeam((2, 12, 12), views[:4], detector_shape=(9, 40)).parts
    assert arc.open  # of one turn it is the wedge that counts
    assert arc.place.tolist() == pytest.approx([0.0, 30.0, 60.0, 90.0])


def test_what_the_detector_does_not_show_is_told() -> None:
    views = helical_trajectory(HELIX, **FAN, detector_spacing=(2.0, 1.5), pitch=6.0)
    with pytest.warns(UserWarning, match="cuts off") as caught:
        ModularBeam((6, 16, 16), views, detector_shape=(4, 10))
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match=r"no view shows .* mm of the 60 mm of slices"):
        ModularBeam((60, 12, 12), views, detector_shape=(4, 40))


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (lambda t: t[:, :11], {}, r"views are \(30, 11\); give \(views, 12\)"),
        (lambda t: t[:0], {}, r"views are \(0, 12\)"),
        (lambda t: [[1.0, 2.0], [3.0]], {}, "no table of numbers"),
        (lambda t: torch.cat((t[:4], t[4:] * math.nan)), {}, "view 4 has NaN"),
        (lambda t: torch.cat((t[:, :6], 0 * t[:, 6:9], t[:, 9:]), 1), {}, "view 0 has bins without a size"),
        (lambda t: torch.cat((t[:, :9], t[:, 9:] + 0.1 * t[:, 6:9]), 1), {}, "not at right angles"),
        (lambda t: torch.cat((t[:, 3:6] + 5 * t[:, 6:9], t[:, 3:]), 1), {}, "source in the plane of the detector"),
        (lambda t: torch.cat((t[:, :3] / 100, t[:, 3:]), 1), {}, r"view 0 the source, at .* is inside of the volume"),
        (lambda t: torch.cat((t[:, :3], 2 * t[:, :3] - t[:, 3:6], t[:, 6:]), 1), {}, "the other side of the source"),
        (lambda t: t * 1e9, {}, "positions beyond"),
        (lambda t: t, {"detector_shape": (0, 5)}, r"give \(rows, columns\)"),
        (lambda t: t, {"volume_shape": (8, 8)}, r"a tuple of 3 whole numbers \(Z, Y, X\)"),
        (lambda t: t, {"pixel_size": 0.0}, "pixel_size is 0"),
        (lambda t: t, {"detector": "round"}, "flat or curved"),
        (lambda t: t, {"curvature_radius": 480.0}, "leave it out"),
        (lambda t: t, {"detector": "curved", "curvature_radius": [480.0, 3.0]}, r"one a view \(30\)"),
        (lambda t: t, {"detector": "curved", "curvature_radius": 5.0}, "goes half around an arc"),
        (lambda t: t, {"backend": "sparse"}, "auto, matrix_free"),
    ],
)  # fmt: skip
def test_wrong_views_are_refused(change: Any, options: dict[str, Any], words: str) -> None:
    table = helical_trajectory(HELIX, **FAN, detector_spacing=(2.0, 1.5), pitch=6.0)
    with pytest.raises(InputError, match=words) as caught:
        ModularBeam(**{"volume_shape": (6, 12, 12), "detector_shape": (4, 40), "views": change(table), **options})
    assert "\n" not in str(caught.value)


def test_states_of_other_views_are_refused() -> None:
    table = helical_trajectory(HELIX, **FAN, detector_spacing=(2.0, 1.5))
    one = ModularBeam((2, 12, 12), table, detector_shape=(4, 40))
    with pytest.raises(InputError, match="another geometry"):
        one.load_state_dict(ModularBeam((2, 12, 12), table * 1.01, detector_shape=(4, 40)).state_dict())
