"""Our NCSN++ is the released one: same outputs from the same checkpoint, and nothing else is taken for one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lightning_mbir.errors import InputError
from lightning_mbir.prior import NCSNpp, import_score_sde, load_prior
from lightning_mbir.prior.networks.ncsnpp import fir_down, fir_up


@pytest.mark.parametrize(("ema", "key"), [(False, "score_raw"), (True, "score_ema")])
def test_released_outputs_are_reproduced(shared: Path, ema: bool, key: str) -> None:
    golden = np.load(shared / "golden/ncsnpp_nf16_64.npz")
    network = import_score_sde(shared / "golden/ncsnpp_nf16_64.pth", ema=ema)
    with torch.no_grad():
        score = network(torch.from_numpy(golden["x"]), torch.from_numpy(golden["sigma"])).numpy()
    for ours, theirs in zip(score, golden[key], strict=True):
        assert np.linalg.norm(ours - theirs) / np.linalg.norm(theirs) < 1e-5


def test_layout_is_read_from_the_names(shared: Path) -> None:
    network = import_score_sde(shared / "golden/ncsnpp_nf16_64.pth")
    assert network.in_channels == 1 and network.stride == 8
    assert [len(stage.blocks) for stage in network.down] == [1, 1, 1, 1]
    assert [len(stage.attentions) for stage in network.down] == [0, 0, 1, 0]
    assert [stage.blocks[0].conv2.out_channels for stage in network.down] == [16, 32, 32, 32]


def test_a_released_file_is_a_prior(shared: Path) -> None:
    path = shared / "golden/ncsnpp_nf16_64.pth"
    x, sigma = torch.rand(2, 64, 64), 0.5
    network = import_score_sde(path)
    with torch.no_grad():
        expected = x + sigma**2 * network(x[:, None], torch.full((2,), sigma))[:, 0]
    torch.testing.assert_close(load_prior(path)(x, sigma), expected, rtol=1e-4, atol=1e-5)


def test_full_size_has_61_43_million_parameters() -> None:
    with torch.device("meta"):
        network = NCSNpp()
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 2) == 61.43


def test_other_layouts_come_back(tmp_path: Path) -> None:
    """Write networks of ours in the released layout, read them again: same outputs."""
    torch.manual_seed(0)
    for options in (
        {"nf": 8, "channel_multipliers": (1, 2), "num_res_blocks": 2, "attention_levels": (1,)},
        {"nf": 8, "channel_multipliers": (1, 1, 2), "num_res_blocks": 1, "attention_levels": (0, 2), "in_channels": 2},
        {"nf": 8, "channel_multipliers": (1, 2, 2), "num_res_blocks": 3, "attention_levels": ()},
    ):
        network = NCSNpp(**options)  # type: ignore[arg-type]
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        torch.save(released(network), tmp_path / "x.pth")
        back = import_score_sde(tmp_path / "x.pth")
        x, sigma = torch.rand(2, network.in_channels, 16, 16), torch.tensor([0.1, 3.0])
        with torch.no_grad():
            torch.testing.assert_close(back(x, sigma), network(x, sigma))


def test_resampling_is_the_adjoint_pair_up_to_gain() -> None:
    x, y = torch.randn(1, 2, 8, 8), torch.randn(1, 2, 4, 4)
    torch.testing.assert_close((fir_down(x) * y).sum(), (x * fir_up(y)).sum() / 4)
    torch.testing.assert_close(fir_up(torch.ones(1, 1, 8, 8))[..., 2:-2, 2:-2], torch.ones(1, 1, 12, 12))
    flat = F.pad(torch.ones(1, 1, 6, 6), (1, 1, 1, 1))
    torch.testing.assert_close(fir_down(flat)[..., 1:3, 1:3], torch.ones(1, 1, 2, 2))


def test_what_is_not_such_a_checkpoint_is_refused(tmp_path: Path) -> None:
    network = NCSNpp(nf=8, channel_multipliers=(1, 2), num_res_blocks=1)
    good = released(network)

    def refused(content: Any, words: str) -> None:
        torch.save(content, tmp_path / "x.pth")
        with pytest.raises(InputError, match=words):
            import_score_sde(tmp_path / "x.pth")

    prefix = "module.all_modules."
    model, ema = good["model"], good["ema"]
    refused({"state": 1}, "not a released checkpoint")
    refused({**good, "model": {"conv.weight": torch.ones(1)}}, "another network")
    refused({**good, "ema": {"shadow_params": ema["shadow_params"][:-1]}}, "averaged weights for")
    refused({**good, "ema": {"shadow_params": ema["shadow_params"][::-1]}}, "averaged .* is")
    extra = {**model, f"{prefix}5.Conv_9.weight": torch.ones(3)}
    refused({**good, "model": extra, "ema": {"shadow_params": trained(extra)}}, "does not fit")
    lacking = {k: v for k, v in model.items() if k != f"{prefix}4.Conv_1.bias"}
    refused({**good, "model": lacking, "ema": {"shadow_params": trained(lacking)}}, "missing")

    torch.save(good, tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:2000])
    with pytest.raises(InputError, match="not a whole"):
        import_score_sde(tmp_path / "cut.pth")
    with pytest.raises(InputError, match="no such file"):
        import_score_sde(tmp_path / "gone.pth")


def trained(model: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    return [v for k, v in model.items() if k not in ("module.sigmas", "module.all_modules.0.W")]


def released(network: NCSNpp) -> dict[str, Any]:
    """A checkpoint of ours in the released layout."""
    from lightning_mbir.prior.checkpoints import score_sde as importer

    blocks = {v: k for k, v in importer.BLOCK_NAMES.items()}
    attention = {v: k for k, v in importer.ATTENTION_NAMES.items()}
    model: dict[str, torch.Tensor] = {"module.sigmas": torch.ones(4)}
    for n, module in importer._released_order(network):
        own = {"W": network.frequencies} if module is network else dict(module.named_parameters())
        for name, value in own.items():
            layer, _, parameter = name.partition(".")
            if isinstance(module, importer.ResidualBlock):
                name = f"{blocks[layer]}.{parameter}"
            elif isinstance(module, importer.Attention):
                name = f"{attention[layer]}.{parameter}"
                if layer != "norm":
                    name = name.replace("weight", "W").replace("bias", "b")
                    value = value[:, :, 0, 0].t() if value.ndim == 4 else value
            elif isinstance(module, importer.PyramidDown):
                name = name.replace("conv", "Conv2d_0")
            model[f"module.all_modules.{n}.{name}"] = value.detach().clone()
    return {"model": model, "ema": {"shadow_params": trained(model)}, "step": 1, "optimizer": {}}
