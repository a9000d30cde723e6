"""Volumes that stay in host memory and pass through a device: the same result, and nothing at the wrong place."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.host_slabs import HostSlabs
from lightning_mbir.methods.run import Reconstruction, run_method
from lightning_mbir.physics import ConeBeam, InSlabs, Weighted
from lightning_mbir.prior import SliceDenoiser, Unit
from lightning_mbir.reconstruction import METHODS
from tests import card
from tests.helpers import OfThree, gaussian_prior, unet_file
from tests.ranks import on_ranks
from tests.test_devices import DEPTH, problem, relative

CPU = torch.device("cpu")


def run(method: str, kind: str, slabs: HostSlabs | None, folder: Path | None = None, **more: Any) -> Reconstruction:
    operator, y = problem(kind)
    modality: Any = "ct" if kind == "ct" else "mri"
    device, needs = CPU if slabs is None else slabs.device, METHODS[method].needs
    if "network" in needs:
        assert folder is not None
        more |= {"network": unet_file(folder, operator), "slice_batch": 2}
    if "second_prior" in needs:
        more["second_prior"] = gaussian_prior(modality, complex=operator.domain_complex).to(device)
    prior = more.pop("prior", gaussian_prior(modality, 4, operator.domain_complex)).to(device)
    steps = 2 if METHODS[method].steps else None
    return run_method(y, operator, prior, method, modality=modality, steps=steps, host_slabs=slabs, **more)


@pytest.mark.parametrize("slices", [1, 3, DEPTH])
@pytest.mark.parametrize(
    ("method", "kind"), [("dds", "ct"), ("admm_tv", "ct"), ("fbp", "ct"), ("dds", "coils"), ("sense", "coils")]
)
def test_slabs_of_any_size_give_the_same(method: str, kind: str, slices: int) -> None:
    whole, slabs = run(method, kind, None), run(method, kind, HostSlabs(CPU, slices))
    assert relative(slabs.volume, whole.volume) < 1e-5
    assert slabs.residual == pytest.approx(whole.residual, rel=1e-4)


def on_card(
    folder: Path, cases: list[tuple[str, str]]
) -> dict[tuple[str, str], tuple[float, str, set[tuple[int, ...]]]]:
    """Of each case how far the result is from that of the CPU, where it is, and the shapes of what was on the card."""
    torch.set_num_threads(1)
    slabs, found = HostSlabs(card.insert(), 2), {}
    for method, kind in cases:
        whole = run(method, kind, None, folder)
        card.seen.clear()
        passed = run(method, kind, slabs, folder)
        apart, place = relative(passed.volume, whole.volume), passed.volume.device.type
        found[method, kind] = apart, place, set(card.seen)
    return found


@pytest.mark.skipif(not card.THERE, reason="this torch knows no devices of others")
def test_all_methods_keep_volumes_in_host_memory_and_work_on_the_device(tmp_path: Path) -> None:
    kinds = {"ct": "ct", "mri": "coils"}
    cases = [(name, kinds[m]) for name, one in METHODS.items() for m in one.modalities if (name, m) != ("sense", "ct")]
    cases = [case for case in cases if case != ("fbp_unet", "coils")]
    (found,) = on_ranks(on_card, tmp_path, 1, cases)
    for case, (apart, place, shapes) in found.items():
        assert apart < 1e-4, case  # the norm of an operator is found to 1e-5, and methods differ by more
        assert place == "cpu", case
        assert shapes, case  # something was worked out there
        stacks = [shape for shape in shapes if len(shape) > 2]
        assert not [shape for shape in stacks if shape[0] == DEPTH or shape[:2] == (1, DEPTH)], case


@pytest.mark.skipif(not card.THERE, reason="this torch knows no devices of others")
def test_a_prior_takes_slices_to_where_it_is_and_brings_them_back(tmp_path: Path) -> None:
    for apart, place in on_ranks(priors_on_card, tmp_path, 1)[0]:
        assert apart < 1e-5
        assert place == "cpu"


def priors_on_card(folder: Path) -> list[tuple[float, str]]:
    device, found = card.insert(), []
    x, v = (torch.randn(9, 16, 16, generator=torch.Generator().manual_seed(k)) for k in (1, 2))
    for prior in (gaussian_prior("ct", 4), SliceDenoiser(OfThree(), Unit.of("ct"), "ct", 2)):
        prior.spacing = 2.0
        expected = prior(x, 0.7), prior.vjp(x, 0.7, v)
        prior.to(device)
        for one, other in zip((prior(x, 0.7), prior.vjp(x, 0.7, v)), expected, strict=True):
            found.append((relative(one, other), one.device.type))
    return found


def test_what_cannot_pass_is_told() -> None:
    with pytest.raises(InputError, match="at least 1"):
        HostSlabs(CPU, 0)
    cone = ConeBeam((4, 7, 7), [0.0, 40.0], source_distance=20.0, detector_distance=10.0)
    with pytest.raises(InputError, match="ConeBeam measures slices together"):
        InSlabs(cone, HostSlabs(CPU, 2))
    operator, y = problem("ct")
    with pytest.raises(InputError, match="in host memory; leave it out"):
        run_method(y.to("meta"), operator.to("meta"), method="fbp", host_slabs=HostSlabs(CPU, 2))


def test_slices_that_are_best_together_are_known_through_what_wraps_an_operator() -> None:
    operator, y = problem("ct")
    passing = InSlabs(operator, HostSlabs(CPU, 3))
    assert operator.at_once == 1
    assert (Weighted(passing, torch.ones_like(y[0])) / 2.0).at_once == 3


def test_weights_stay_with_the_measurement() -> None:
    y = problem("ct")[1]
    weights: Tensor = torch.rand(y.shape, generator=torch.Generator().manual_seed(1))
    runs = [run("admm_tv", "ct", slabs, weights=weights) for slabs in (None, HostSlabs(CPU, 2))]
    assert relative(runs[1].volume, runs[0].volume) < 1e-5
