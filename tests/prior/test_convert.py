"""`python -m lightning_mbir.prior.convert`: what comes out is what went in, and what cannot be converted is told."""

import hashlib
import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.prior import NCSNpp, import_score_sde, load_prior, save_prior
from lightning_mbir.prior.checkpoints.checkpoint import read_prior
from lightning_mbir.prior.convert import main
from tests.prior.checkpoints.test_checkpoint import CONFIG, lightning, network
from tests.prior.checkpoints.test_score_sde import released, trained

TINY = {"nf": 8, "channel_multipliers": (1, 2), "num_res_blocks": 1, "attention_levels": (1,)}


def ncsnpp(**options: Any) -> NCSNpp:
    torch.manual_seed(0)
    net = NCSNpp(**{**TINY, **options})
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return net.eval()


def renamed(model: dict[str, Tensor], prefix: str = "all_modules.") -> dict[str, Tensor]:
    """A state dict without ``module.`` and without the noise levels."""
    return {key.replace("module.all_modules.", prefix): v for key, v in model.items() if key != "module.sigmas"}


@pytest.mark.parametrize("target", ["out.safetensors", "out"])
@pytest.mark.parametrize("raw", [False, True])
def test_a_released_file_is_kept_exactly(shared: Path, tmp_path: Path, target: str, raw: bool, capsys: Any) -> None:
    source = shared / "golden/ncsnpp_nf16_64.pth"
    out = tmp_path / "new" / target
    assert main([str(source), str(out), "--modality", "ct", *(["--raw"] if raw else [])]) == 0
    file = out / "model.safetensors" if target == "out" else out
    line = capsys.readouterr().out
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert line.count("\n") == 1 and digest in line and "ncsnpp, 0.46 M parameters, modality ct, float32" in line

    golden = np.load(shared / "golden/ncsnpp_nf16_64.npz")
    x, sigma = torch.from_numpy(golden["x"]), torch.from_numpy(golden["sigma"])
    prior = load_prior(out)
    assert prior.modality == "ct"
    with torch.no_grad():
        score = prior.network(x, sigma)
    imported = import_score_sde(source, ema=not raw).state_dict()
    assert all(torch.equal(value, imported[name]) for name, value in prior.network.state_dict().items())
    expected = golden["score_raw" if raw else "score_ema"]
    assert np.linalg.norm(score.numpy() - expected) / np.linalg.norm(expected) < 1e-5

    origin = read_prior(out)[1]["converted_from"]
    sha = hashlib.sha256(source.read_bytes()).hexdigest()
    assert origin == {"file": source.name, "sha256": sha, "weights": "raw" if raw else "averaged"}


def test_half_precision_is_half_the_size_and_close(shared: Path, tmp_path: Path) -> None:
    source = str(shared / "golden/ncsnpp_nf16_64.pth")
    full, half = tmp_path / "full.safetensors", tmp_path / "half.safetensors"
    assert main([source, str(full)]) == main([source, str(half), "--half"]) == 0
    assert half.stat().st_size < 0.55 * full.stat().st_size
    golden = np.load(shared / "golden/ncsnpp_nf16_64.npz")
    with torch.no_grad():
        score = load_prior(half).network(torch.from_numpy(golden["x"]), torch.from_numpy(golden["sigma"])).numpy()
    for ours, theirs in zip(score, golden["score_ema"], strict=True):
        assert np.linalg.norm(ours - theirs) / np.linalg.norm(theirs) < 5e-3


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("prefix", ["module.all_modules.", "all_modules."])
def test_the_names_of_all_three_projects(tmp_path: Path, channels: int, prefix: str) -> None:
    """Saved inside ``DataParallel`` or not, with or without the buffer of noise levels, real or complex."""
    net = ncsnpp(in_channels=channels)
    content = released(net)
    content["model"] = renamed(content["model"], prefix)
    content["model"]["sigmas"] = torch.ones(4)
    torch.save(content, tmp_path / "x.pth")
    assert main([str(tmp_path / "x.pth"), str(tmp_path / "out"), "--modality", "mri"]) == 0
    prior = load_prior(tmp_path / "out")
    assert prior.complex == (channels == 2) and prior.modality == "mri"
    x, sigma = torch.rand(2, channels, 16, 16), torch.tensor([0.1, 3.0])
    with torch.no_grad():
        torch.testing.assert_close(prior.network(x, sigma), net(x, sigma))


def test_bare_parameters_are_raw_weights(tmp_path: Path, capsys: Any) -> None:
    net = ncsnpp()
    source, out = tmp_path / "x.pth", tmp_path / "out.safetensors"
    for content in (renamed(released(net)["model"]), {"model": released(net)["model"], "step": 3}):
        torch.save(content, source)
        assert main([str(source), str(out)]) == 2
        assert "no averaged weights; take the raw ones (convert with --raw" in capsys.readouterr().err
        assert not out.exists()
    assert main([str(source), str(out), "--raw"]) == 0
    assert torch.equal(load_prior(out).network.state_dict()["conv_in.weight"], net.conv_in.weight)


def test_checkpoints_of_fit_and_priors_of_ours(tmp_path: Path) -> None:
    net = network()
    torch.save(lightning(net), tmp_path / "fit.ckpt")
    assert main([str(tmp_path / "fit.ckpt"), str(tmp_path / "a")]) == 0
    assert main([str(tmp_path / "a"), str(tmp_path / "b.safetensors")]) == 0
    assert main([str(tmp_path / "b.safetensors"), str(tmp_path / "c"), "--modality", "ct"]) == 0
    assert main([str(tmp_path / "fit.ckpt"), str(tmp_path / "raw.safetensors"), "--raw"]) == 0
    for name, add, modality in (
        ("a", 0, "mri"),
        ("b.safetensors", 0, "mri"),
        ("c", 0, "ct"),
        ("raw.safetensors", 1, "mri"),
    ):
        prior = load_prior(tmp_path / name)
        assert prior.modality == modality
        for key, value in prior.network.state_dict().items():
            assert torch.equal(value, net.state_dict()[key] + add)
    assert read_prior(tmp_path / "c")[1]["converted_from"]["file"] == "fit.ckpt"  # the origin stays


def test_a_bundled_prior_and_its_card_can_be_shared(tmp_path: Path) -> None:
    assert main(["ct", str(tmp_path / "mine"), "--half"]) == 0
    x = torch.rand(1, 32, 32)
    torch.testing.assert_close(load_prior(tmp_path / "mine")(x, 0.3), load_prior("ct")(x, 0.3))
    card = (tmp_path / "mine/README.md").read_text()
    assert card.startswith("---\nlibrary_name: lightning_mbir\n") and "# Slice prior: ct" in card
    assert main([str(tmp_path / "mine"), str(tmp_path / "again")]) == 0
    again = (tmp_path / "again/README.md").read_text()
    training = card.partition("## Training")[2]
    assert "- trained: " in training and again.partition("## Training")[2] == training  # kept, not nested
    assert "half precision" in card.partition("## Training")[0] and "float32" in again.partition("## Training")[0]
    assert all("used with coarse_size 128" in text.partition("## Training")[0] for text in (card, again))


def test_nothing_is_replaced_without_force(tmp_path: Path, capsys: Any) -> None:
    save_prior(tmp_path / "p.safetensors", network(), CONFIG)
    before = (tmp_path / "p.safetensors").read_bytes()
    (tmp_path / "folder").mkdir()
    for target in ("p.safetensors", "folder"):
        assert main([str(tmp_path / "p.safetensors"), str(tmp_path / target)]) == 2
        assert "is there already; give another name, or --force" in capsys.readouterr().err
    assert (tmp_path / "p.safetensors").read_bytes() == before and not list((tmp_path / "folder").iterdir())
    for target in ("folder", "p.safetensors"):  # the last one over itself
        assert main([str(tmp_path / "p.safetensors"), str(tmp_path / target), "--force", "--modality", "ct"]) == 0
        assert load_prior(tmp_path / target).modality == "ct"


def test_variants_are_refused_by_name(tmp_path: Path) -> None:
    """What the configurations of score_sde_pytorch offer, and what our NCSN++ is not."""
    good = renamed(released(ncsnpp())["model"], "")
    kinds = {"R": "Conv_0.weight", "P": "Conv2d_0.weight", "A": "NIN_0.W"}
    first = {kind: min(int(k.partition(".")[0]) for k in good if k.endswith(name)) for kind, name in kinds.items()}
    n_modules = 1 + max(int(key.partition(".")[0]) for key in good)

    def refused(words: str, **changes: Tensor | None) -> None:
        model = {key: value for key, value in {**good, **changes}.items() if value is not None}
        model = {f"module.all_modules.{key}": value for key, value in model.items()}
        torch.save({"model": model, "ema": {"shadow_params": trained(model)}}, tmp_path / "x.pth")
        with pytest.raises(InputError, match=words):
            load_prior(tmp_path / "x.pth")

    one = torch.ones(8, 8, 3, 3)
    r, p = first["R"], first["P"]
    pyramids = {key: None for key in good if "Conv2d_0" in key}
    refused("embedding_type 'positional', or a DDPM", **{"0.W": None, "0.weight": torch.ones(32, 8), "0.bias": one[0]})
    refused("conditional False", **{"1.weight": one})
    refused("resblock_type 'ddpm'", **{f"{r}.NIN_0.W": torch.ones(8, 8)})
    for name in ("Conv", "Conv_0"):  # in forks, and in score_sde_pytorch
        input_skip = {f"{p}.{name}.weight": one[..., :1, :1], f"{p}.{name}.bias": torch.ones(8)}
        refused("progressive_input 'input_skip'", **{**pyramids, **input_skip})
    refused("progressive 'output_skip' or 'residual'", **{f"{n_modules - 3}.weight": torch.ones(8)})
    refused("fir False", **{**pyramids, f"{p}.Conv_0.weight": one, f"{p}.Conv_0.bias": torch.ones(8)})
    refused("progressive_input 'none'", **pyramids)
    refused("not an NCSN", **{"x.weight": one})
    refused("holds NaN or infinite", **{f"{r}.Conv_0.bias": torch.full((8,), float("nan"))})
    with pytest.raises(InputError, match="a network of 3 channels"):
        torch.save(released(ncsnpp(in_channels=3)), tmp_path / "rgb.pth")
        load_prior(tmp_path / "rgb.pth")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["gone.pth", "out"], "gone.pth: no such file or folder"),
        (["text.pth", "out"], "text.pth: not a whole PyTorch checkpoint"),
        (["cut.pth", "out"], "cut.pth: not a whole PyTorch checkpoint"),
        (["empty", "out"], "empty: a folder without config.json"),
        (["scan.nii.gz", "out"], "scan.nii.gz: give a .safetensors, .ckpt or .pth file or a folder"),
        (["good.pth", "out.ckpt"], "out.ckpt: give a name that ends in .safetensors, or a folder"),
        (["good.pth", "text.pth/out"], "text.pth/out: "),
        (["good.pth", "out", "--modality", "pet"], "argument --modality: invalid choice: 'pet'"),
        (["good.pth"], "the following arguments are required: OUT"),
        (["p.safetensors", "out", "--raw"], "p.safetensors: holds one set of weights"),
    ],
)
def test_errors_take_one_line(
    tmp_path: Path, args: list[str], words: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(released(ncsnpp()), "good.pth")
    whole = Path("good.pth").read_bytes()
    Path("cut.pth").write_bytes(whole[:-2000])
    Path("text.pth").write_text("weights, one day")
    Path("scan.nii.gz").write_bytes(b"\x1f\x8b")
    Path("empty").mkdir()
    save_prior("p.safetensors", network(), CONFIG)
    before = sorted(path.name for path in tmp_path.iterdir())
    assert main(args) == 2
    captured = capsys.readouterr()
    assert (
        captured.err.startswith("lightning_mbir: error: ") and captured.err.count("\n") == 1 and words in captured.err
    )
    assert not captured.out and sorted(path.name for path in tmp_path.iterdir()) == before


def test_it_runs_as_a_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    save_prior(tmp_path / "p.safetensors", network(), CONFIG)
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "lightning_mbir.prior.convert", str(tmp_path / "p.safetensors")]
    done = subprocess.run([*command, str(tmp_path / "out")], cwd=root, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((tmp_path / "out/config.json").read_text())["sha256"] in done.stdout
    # Again, in this process, which has imported all.
    monkeypatch.setattr("sys.argv", [*command[2:], str(tmp_path / "out")])
    monkeypatch.delitem(sys.modules, command[2])
    with pytest.raises(SystemExit) as left:
        runpy.run_module(command[2], run_name="__main__")
    said = capfd.readouterr()
    assert left.value.code == 2 and said.err.startswith("lightning_mbir: error: ") and not said.out
