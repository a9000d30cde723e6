"""The backend ``torch_radon``: against our own projections with a stand-in for the package, and with the package itself
where it and a GPU are there (``pytest -m cuda``)."""

import importlib.util
import logging
import pickle
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.physics import ConeBeam, FanBeam, ParallelBeam
from lightning_mbir.physics.ct.beam import Beam
from lightning_mbir.physics.ct.projectors import torch_radon as backend
from tests.physics.ct import fake_torch_radon as fake
from tests.physics.ct.test_ct import ball_image, ellipse_image, relative

VIEWS = [i * 10.0 + 3.0 for i in range(36)]
FAN: dict[str, Any] = {"source_distance": 150.0, "detector_distance": 100.0}
ELLIPSE = ellipse_image(33, 1.6, ((9.0, -6.0), (13.0, 7.0), 25.0))[None]
BALL = ball_image((12, 18, 18), (3.0, 2.0, 2.0), (6.0, -4.0, 4.0), 9.0)[None]
CASES: dict[str, tuple[Callable[..., Beam], Tensor]] = {
    "parallel": (lambda **options: ParallelBeam(33, VIEWS, pixel_size=1.6, **options), ELLIPSE),
    "parallel_offset": (
        lambda **options: ParallelBeam(
            33, VIEWS, n_detectors=60, pixel_size=1.6, detector_spacing=1.4, center_offset=4.9, **options
        ),
        ELLIPSE,
    ),
    "fan": (lambda **options: FanBeam(33, VIEWS, **FAN, pixel_size=1.6, **options), ELLIPSE),
    "fan_offset": (
        lambda **options: FanBeam(
            33, VIEWS, **FAN, n_detectors=70, pixel_size=1.6, detector_spacing=2.0, center_offset=-5.0, **options
        ),
        ELLIPSE,
    ),
    "fan_axis": (
        lambda **options: FanBeam(33, VIEWS, source_distance=90.0, detector_distance=0.0, pixel_size=1.6, **options),
        ELLIPSE,
    ),
    "cone": (
        lambda **options: ConeBeam((12, 18, 18), VIEWS[::3], **FAN, pixel_size=2.0, slice_thickness=3.0, **options),
        BALL,
    ),
    "cone_offset": (
        lambda **options: ConeBeam(
            (12, 18, 18),
            VIEWS[::3],
            **FAN,
            detector_shape=(20, 30),
            pixel_size=2.0,
            slice_thickness=3.0,
            detector_spacing=(4.0, 3.0),
            offsets=(2.0, -4.5),
            **options,
        ),
        BALL,
    ),
}
EACH = pytest.mark.parametrize("case", CASES)
MOST = 1e-2
"""That the gap may be at these sizes, where a voxel is a large part of the object."""
there = importlib.util.find_spec("torch_radon") is not None and torch.cuda.is_available()
PACKAGES = [
    "stand-in",
    pytest.param(
        "package",
        marks=[pytest.mark.cuda, pytest.mark.skipif(not there, reason="torch-radon 3 and a CUDA device are not here")],
    ),
]


@pytest.fixture
def device(request: pytest.FixtureRequest) -> torch.device:
    """Where the package, or what stands in for it, computes."""
    if request.param == "package":
        return torch.device("cuda")
    request.getfixturevalue("torch_radon_stand_in")
    return torch.device("cpu")


@EACH
@pytest.mark.parametrize("device", PACKAGES, indirect=True)
def test_projections_are_those_of_our_own(
    case: str, device: torch.device, record_property: Callable[[str, object], None]
) -> None:
    """Of an object off centre, so that turned axes, mirrored detectors and lengths in another unit tell."""
    build, x = CASES[case]
    ours, theirs = build(), build(backend="torch_radon").to(device)
    y = ours(x)
    assert relative(theirs(x.to(device)).cpu(), y) < 2e-3
    # Back-projections of what is smooth; they differ more for what changes from bin to bin.
    assert relative(theirs.adjoint(y.to(device)).cpu(), ours.adjoint(y)) < 0.05
    record_property("adjoint_gap", theirs.adjoint_gap)
    print(f"{case}: adjoint gap {theirs.adjoint_gap:.1e}")
    assert 0 < theirs.adjoint_gap < MOST


@EACH
@pytest.mark.parametrize("device", PACKAGES, indirect=True)
def test_many_slices_go_over_in_parts(case: str, device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    op = CASES[case][0](backend="torch_radon").to(device)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(5, *op.domain_shape, generator=generator).to(device)
    y = torch.rand(5, *op.range_shape, generator=generator).to(device)
    projected, back = op(x), op.adjoint(y)
    monkeypatch.setattr(backend, "SLICES", 2)
    monkeypatch.setattr(backend, "VIEWS", 7)
    torch.testing.assert_close(op(x), projected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(op.adjoint(y), back, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", ["parallel_offset", "fan_offset", "cone_offset"])
@pytest.mark.parametrize("mistake", ["mirrored", "angles", "spacing", "scale", "offset"])
@pytest.mark.usefixtures("torch_radon_stand_in")
def test_the_stand_in_tells_mistakes(case: str, mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    build, x = CASES[case]
    y = build()(x)
    op = build(backend="torch_radon")
    projector: Any = op._projector
    if mistake == "mirrored":
        plane = case != "cone_offset"
        monkeypatch.setattr(projector, "_mirrored", lambda image: image if plane else image.flip(-2))
    elif mistake == "angles":
        projector.angles = -projector.angles
    elif mistake == "spacing":
        projector._make().cfg.spacing_u = 1.0
    elif mistake == "scale":
        projector.scale = torch.ones(())
    else:
        projector.pads = [(after, before) for before, after in projector.pads]
    assert relative(op(x), y) > 0.05


@pytest.mark.parametrize("case", ["fan", "cone"])
@pytest.mark.usefixtures("torch_radon_stand_in")
def test_a_slant_at_the_detector_is_put_in(case: str) -> None:
    plain, op = (CASES[case][0](backend="torch_radon") for _ in range(2))
    projector: Any = plain._projector
    projector.share = torch.tensor(float(plain.pixel_size))  # as the package has it
    assert plain.adjoint_gap > 3 * op.adjoint_gap


@pytest.mark.usefixtures("torch_radon_stand_in")
def test_voxels_of_its_own_would_displace_the_back_projection() -> None:
    """Why lengths go over in pixels."""
    backs, sizes = [], (1.0, 1.6)
    for size in sizes:
        volume = fake.Volume2D(voxel_size=(size, size))
        volume.set_size(33, 33)
        radon = fake.ParallelBeam(60, torch.deg2rad(torch.tensor(VIEWS)), det_spacing=size, volume=volume)
        y = radon.forward(ELLIPSE)
        backs.append(radon.backward(y / y.norm()))
    # The same object in larger units: the transpose would give the same image. Its own is 0.19 pixels aside ...
    turned = [back / back.norm() for back in backs]
    assert 0.015 < float((turned[1] - turned[0]).norm()) < 0.03
    # ... and it lacks the square of their size: the transpose would be longer by that size, not shorter.
    assert float(backs[1].norm() / backs[0].norm()) == pytest.approx(1 / sizes[1], rel=1e-2)


@pytest.mark.usefixtures("torch_radon_stand_in")
def test_the_gap_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        op = CASES["fan"][0](backend="torch_radon")
        assert "uses backend torch_radon, whose adjoint is not exact" in caplog.text
        op(CASES["fan"][1])
    assert f"the gap is {op.adjoint_gap:.1e}" in caplog.text
    assert (0.5 * op).adjoint_gap == op.H.adjoint_gap == op.adjoint_gap
    assert (op @ op.H).adjoint_gap == 2 * op.adjoint_gap
    assert CASES["fan"][0]().adjoint_gap == 0


@pytest.mark.usefixtures("torch_radon_stand_in")
def test_what_the_package_holds_is_not_pickled() -> None:
    op = CASES["cone"][0](backend="torch_radon")
    y = op(BALL)
    with pytest.raises(TypeError, match="TextureCache"):
        pickle.dumps(op._projector._make())  # type: ignore[attr-defined]
    torch.testing.assert_close(pickle.loads(pickle.dumps(op))(BALL), y)


@pytest.mark.usefixtures("torch_radon_stand_in")
def test_three_views_are_no_range() -> None:
    three = [5.0, 50.0, 110.0]
    assert relative(ParallelBeam(33, three, backend="torch_radon")(ELLIPSE), ParallelBeam(33, three)(ELLIPSE)) < 1e-5


@pytest.mark.usefixtures("torch_radon_stand_in")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused(dtype: torch.dtype) -> None:
    op = CASES["fan"][0](backend="torch_radon")
    with pytest.raises(InputError, match=r"single or double precision, not torch\.b?float16"):
        op(ELLIPSE.to(dtype))


def test_tensors_on_a_cpu_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_radon", fake)
    op = CASES["fan"][0](backend="torch_radon")
    with pytest.raises(InputError, match="on a CUDA device, not on cpu"):
        op(ELLIPSE)
    with pytest.raises(InputError, match="on a CUDA device, not on cpu"):
        _ = op.adjoint_gap


@pytest.mark.usefixtures("torch_radon_stand_in")
@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda **o: FanBeam(33, VIEWS, **FAN, detector="curved", **o), "no curved detectors"),
        (
            lambda **o: ParallelBeam(33, VIEWS, n_detectors=60, center_offset=0.3, **o),
            r"half a bin \(0.5 mm\), not 0.3",
        ),
        (lambda **o: ParallelBeam(33, VIEWS, center_offset=9000.0, n_detectors=90, **o), "up to 16384"),
    ],
)
@pytest.mark.filterwarnings("ignore:ParallelBeam. the detector cuts off")
def test_geometries_that_it_does_not_have_are_refused(build: Callable[..., Beam], words: str) -> None:
    with pytest.raises(InputError, match=words):
        build(backend="torch_radon")


@pytest.mark.parametrize("case", ["parallel", "fan", "cone"])
def test_without_the_package_it_says_what_it_needs(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_radon", None)
    with pytest.raises(InputError, match=r"conda-forge 'carterbox-torch-radon=3'\), which is under the GPL"):
        CASES[case][0](backend="torch_radon")


@pytest.mark.parametrize(
    ("package", "version"),
    [
        ({**vars(fake), "__version__": "2.0.5"}, "2.0.5"),
        ({**vars(fake), "__version__": "4.0.0"}, "4.0.0"),
        ({"Radon": object, "RadonFanbeam": object}, "an older one"),
    ],
)
def test_other_versions_are_refused(package: dict[str, Any], version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("torch_radon")
    vars(module).update(package)
    monkeypatch.setitem(sys.modules, "torch_radon", module)
    with pytest.raises(InputError, match=f"made for torch-radon 3, not {version}"):
        CASES["parallel"][0](backend="torch_radon")


def test_the_stand_in_refuses_what_the_package_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    x, angles = torch.rand(3, 8, 8), torch.deg2rad(torch.arange(6.0))
    with pytest.raises(TypeError, match="incompatible"):
        fake.ParallelBeam(8.0, angles)  # type: ignore[arg-type]
    radon = fake.ParallelBeam(8, angles)
    with pytest.raises(AssertionError, match="Must use forward"):
        radon.backward(torch.rand(3, 6, 8))
    with pytest.raises(RuntimeError, match="expected scalar type Float"):
        radon.forward(x.double())
    with pytest.raises(AssertionError, match="multiple of 4"):
        radon.forward(x.half())
    assert radon.forward(x).shape == (3, 6, 8)
    assert len(fake.ParallelBeam(8, (0.0, 1.0, 7)).angles) == 7
    many = torch.zeros(5000)
    with pytest.raises(RuntimeError, match="4096"):
        radon.backward(torch.rand(1, 5000, 8), angles=many)
    monkeypatch.setattr(fake, "GPU", {"cuda"})
    with pytest.raises(RuntimeError, match="must be a CUDA tensor"):
        radon.forward(x)
