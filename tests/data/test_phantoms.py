"""The demo volumes are what they claim: deterministic, different by seed, plausible, coherent from slice to slice."""

import pytest
import torch

from lightning_mbir.data import chest_phantom, head_phantom
from lightning_mbir.data.volume import mu_to_hu
from lightning_mbir.errors import InputError


@pytest.mark.parametrize("phantom", [chest_phantom, head_phantom])
def test_seeds(phantom) -> None:  # type: ignore[no-untyped-def]
    shape = (12, 48, 48)
    one = phantom(shape, seed=1)
    assert one.shape == shape and one.dtype == torch.float32
    assert bool(torch.isfinite(one).all()) and float(one.min()) >= 0
    assert torch.equal(one, phantom(shape, seed=1))
    assert float((one - phantom(shape, seed=2)).abs().mean()) > 0.02 * float(one.max())


def test_chest_has_air_lung_soft_tissue_and_bone() -> None:
    hu = mu_to_hu(chest_phantom((16, 96, 96), seed=3))
    for low, high, least, most in ((-1001, -950, 0.2, 0.7), (-950, -500, 0.04, 0.35), (-150, 150, 0.15, 0.6)):
        assert least < float(((hu > low) & (hu < high)).float().mean()) < most
    assert 0.003 < float((hu > 250).float().mean()) < 0.08


def test_head_has_the_unit_of_priors() -> None:
    head = head_phantom((16, 96, 96), seed=3)
    assert float(torch.quantile(head.flatten(), 0.995)) == pytest.approx(1.0, abs=0.02)
    assert 0.2 < float((head < 0.05).float().mean()) < 0.8
    contrasts = [head_phantom((6, 48, 48), seed=3, contrast=c) for c in ("t1", "t2", "flair")]
    assert not torch.allclose(contrasts[0], contrasts[1], atol=0.2)


@pytest.mark.parametrize("phantom", [chest_phantom, head_phantom])
def test_neighbouring_slices_resemble_each_other(phantom) -> None:  # type: ignore[no-untyped-def]
    middle = phantom((32, 64, 64), seed=0)[10:22].flatten(1)
    near = [float(torch.corrcoef(middle[i : i + 2])[0, 1]) for i in range(11)]
    assert min(near) > 0.85 and max(near) < 1 - 1e-4
    assert float(torch.corrcoef(torch.stack((middle[0], middle[-1])))[0, 1]) < min(near)


def test_impossible_requests_are_refused() -> None:
    with pytest.raises(InputError, match="shape"):
        chest_phantom((4, 0, 4))
    with pytest.raises(InputError, match="shape"):
        head_phantom((4, 4))
    with pytest.raises(InputError, match="contrast"):
        head_phantom((4, 16, 16), contrast="pd")
