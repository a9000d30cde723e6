"""Priors come back from their files, and what is damaged, foreign or newer is refused in one line."""

import hashlib
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from lightning_mbir.data.units import CT_SCALE
from lightning_mbir.errors import InputError
from lightning_mbir.prior import LightUNet, NCSNpp, SliceDenoiser, Unit, load_prior, save_prior
from lightning_mbir.prior.checkpoints import checkpoint
from lightning_mbir.prior.checkpoints.checkpoint import ASSETS, BUNDLED, FORMAT, read_prior
from lightning_mbir.reconstruction.provenance import prior_identity
from tests.prior.conftest import OPTIONS, network

CONFIG = {"network": "light", "network_options": OPTIONS, "modality": "mri"}


def refused(source: Path, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        load_prior(source)
    assert "\n" not in str(caught.value) and source.name in str(caught.value)


def test_the_sums_are_those_of_the_bundled_files() -> None:
    assert set(BUNDLED) >= {"ct", "mri"} and set(BUNDLED) == {path.stem for path in ASSETS.glob("*.safetensors")}
    for name, digest in checkpoint.bundled_sums().items():
        file = ASSETS / f"{name}.safetensors"
        assert hashlib.sha256(file.read_bytes()).hexdigest() == digest
        assert file.stat().st_size <= 8_000_000


@pytest.mark.parametrize("name", checkpoint.BUNDLED)
def test_bundled_priors_denoise(name: str) -> None:
    from lightning_mbir.data import chest_phantom, head_phantom

    prior = load_prior(name).but(spacing=3.0)  # of which priors of single slices make nothing
    modality = {"c": "ct", "m": "mri"}.get(name[0])  # `phantom` and `generic` are of none
    assert prior.modality == modality and prior.complex == (name == "mri_complex")
    assert prior.unit.scale == (CT_SCALE if modality == "ct" else 1.0)
    assert prior.network.coarse_size == (None if name == "ct_coronal" else 128)  # which knows slices of one size
    kind, scale = (head_phantom, 1.0) if modality == "mri" else (chest_phantom, CT_SCALE)
    clean = kind((4, 64, 64), seed=77) / scale
    dtype = torch.complex64 if prior.complex else torch.float32
    clean = clean * torch.tensor(1j).exp() if prior.complex else clean
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    error = (prior(clean + 0.2 * noise, 0.2) - clean).abs().square().mean().sqrt()
    assert float(error) < 0.1  # half the noise is gone, at the least


def test_reading_a_prior_leaves_the_random_numbers_of_the_caller_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    load_prior("ct")
    assert torch.equal(torch.rand(2), expected)


def test_a_damaged_install_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "ASSETS", tmp_path)
    monkeypatch.setattr(checkpoint, "BUNDLED", ("own",))
    digest = save_prior(tmp_path / "own.safetensors", network(), CONFIG)
    (tmp_path / "SHA256SUMS").write_text(f"{digest} *own.safetensors\n")  # as `sha256sum -b` writes it
    assert checkpoint.bundled_sums() == {"own": digest}
    assert load_prior("own").modality == "mri"
    data = bytearray((tmp_path / "own.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "own.safetensors").write_bytes(data)
    with pytest.raises(InputError, match=r"prior own: .*damaged install; reinstall"):
        load_prior("own")
    (tmp_path / "own.safetensors").unlink()
    with pytest.raises(InputError, match="damaged install"):
        load_prior("own")
    (tmp_path / "SHA256SUMS").unlink()
    assert checkpoint.bundled_sums() == {}


@pytest.mark.parametrize("name", ["p.safetensors", "folder"])
def test_priors_come_back(tmp_path: Path, name: str) -> None:
    net, x = network(), torch.rand(1, 16, 16)
    expected = SliceDenoiser(net, Unit())(x, 0.3)
    path = tmp_path / "new" / name
    config = {**CONFIG, "card": {"data": "none"}}
    digest = save_prior(path, net, config, card="# A card\n")
    assert not list(tmp_path.rglob(".partial-*"))
    prior = load_prior(path, slice_batch=3, precision="bfloat16")
    assert (prior.modality, prior.slice_batch, prior.precision) == ("mri", 3, "bfloat16")
    assert load_prior(path).slice_batch is None
    torch.testing.assert_close(load_prior(path)(x, 0.3), expected, rtol=0, atol=2e-3)
    found = read_prior(path)[1]
    assert {key: found[key] for key in config} == config

    again = save_prior(path, *read_prior(path), half=False)  # over itself, in full precision
    torch.testing.assert_close(load_prior(path)(x, 0.3), expected, rtol=0, atol=2e-3)
    file = path if path.suffix else path / "model.safetensors"
    assert again != digest and hashlib.sha256(file.read_bytes()).hexdigest() == again


@pytest.mark.parametrize("name", ["p.safetensors", "folder"])
def test_a_coarse_size_comes_back(tmp_path: Path, name: str) -> None:
    for size in (16, None):
        save_prior(tmp_path / name, network(), {**CONFIG, "coarse_size": size})
        assert load_prior(tmp_path / name).network.coarse_size == size
    for wrong in (0, -16, 16.0, "16", True, 18):
        save_prior(tmp_path / name, network(), {**CONFIG, "coarse_size": wrong})
        with pytest.raises(InputError, match=rf"{name}.*coarse_size {wrong!r}: give an image size of the training"):
            load_prior(tmp_path / name)


def test_a_folder_is_known_by_its_weights_and_its_configuration(tmp_path: Path) -> None:
    """Weights whose metadata were lost are what the configuration says."""
    folder = tmp_path / "p"
    digest = save_prior(folder, network(), CONFIG)
    prior = load_prior(folder)
    first = prior_identity(str(folder), "mri", prior)
    assert first["sha256"] == digest and first["name"] == str(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "coarse_size": 16}))
    second = prior_identity(str(folder), "mri", prior)
    assert second != first and {**second, "config_sha256": first["config_sha256"]} == first


def test_a_folder_holds_plain_files(tmp_path: Path) -> None:
    digest = save_prior(tmp_path / "p", network(), {**CONFIG, "modality": None, "licence": "CC0"}, card="# A card\n")
    assert {path.name for path in (tmp_path / "p").iterdir()} == {"model.safetensors", "config.json", "README.md"}
    config = json.loads((tmp_path / "p/config.json").read_text())
    assert config == {**CONFIG, "modality": None, "licence": "CC0", "format": FORMAT, "sha256": digest}
    with safetensors.safe_open(tmp_path / "p/model.safetensors", framework="pt") as file:
        inside = json.loads(file.metadata()["config"])
    assert inside == {key: value for key, value in config.items() if key not in ("format", "sha256")}
    prior = load_prior(tmp_path / "p")
    assert prior.modality is None and prior.unit == Unit()


def test_full_precision_is_exact_and_half_keeps_the_frequencies(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = NCSNpp(nf=8, channel_multipliers=(1, 2), num_res_blocks=1)
    options = {"nf": 8, "channel_multipliers": [1, 2], "num_res_blocks": 1}
    config = {"network": "ncsnpp", "network_options": options, "modality": "ct"}
    save_prior(tmp_path / "full.safetensors", net, config, half=False)
    save_prior(tmp_path / "half.safetensors", net, config)
    own = net.state_dict()
    full, half = (read_prior(tmp_path / f"{name}.safetensors")[0].state_dict() for name in ("full", "half"))
    assert all(torch.equal(full[name], own[name]) for name in own)
    assert torch.equal(half.pop("frequencies"), own["frequencies"])
    assert all(torch.equal(half[name], own[name].half().float()) for name in half)


def test_wrong_folders_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder).mkdir()
    refused(folder, "a folder without config.json")
    save_prior(folder, network(), CONFIG)
    good = json.loads((folder / "config.json").read_text())

    def with_config(text: str | bytes, words: str) -> None:
        data = text if isinstance(text, bytes) else text.encode()
        (folder / "config.json").write_bytes(data)
        with pytest.raises(InputError, match=words):
            load_prior(folder)

    with_config("{not json", "config.json: the configuration is not JSON")
    with_config(b"\xff\xfe\x00", "config.json: cannot be read as text")
    with_config("[1]", "config.json: the configuration must be a JSON object")
    for key in CONFIG:
        lacking = {name: value for name, value in good.items() if name != key}
        with_config(json.dumps(lacking), f"config.json: the configuration lacks {key}")
    with_config(json.dumps({**good, "format": "lightning_mbir.prior.2"}), "of a newer lightning_mbir; update")
    with_config(json.dumps({**good, "format": "diffusers"}), "something else")
    with_config(json.dumps({"architectures": ["Bert"]}), "something else")
    with_config(json.dumps({**good, "modality": "pet"}), "modality 'pet' .* must be ct, mri or null")
    with_config(json.dumps({**good, "modality": "ct"}), "modality is 'ct', but 'mri' in model.safetensors")
    with_config(json.dumps({**good, "coarse_size": 16}), "coarse_size is 16, but None in model.safetensors")
    with_config(json.dumps({**good, "network": ["light"]}), "network must be a name")
    with_config(json.dumps({**good, "sha256": "0" * 64}), "not the file of which config.json gives the SHA-256")

    unsummed = {key: value for key, value in good.items() if key != "sha256"}
    (folder / "config.json").write_text(json.dumps(unsummed))
    assert load_prior(folder).modality == "mri"
    safetensors.torch.save_file(network().state_dict(), folder / "model.safetensors")  # without metadata
    assert load_prior(folder).modality == "mri"
    with_config(json.dumps({**unsummed, "network": "resnet"}), "network 'resnet' is unknown")
    with_config(json.dumps({**unsummed, "network_options": {"channels": "ab"}}), "cannot be built")
    with_config(json.dumps({**unsummed, "network_options": {"colours": 3}}), "does not take these options")
    (folder / "model.safetensors").unlink()
    with_config(json.dumps(good), "a folder without model.safetensors")


def test_wrong_safetensors_are_refused(tmp_path: Path) -> None:
    good, path = tmp_path / "good.safetensors", tmp_path / "bad.safetensors"
    save_prior(good, network(), CONFIG)
    for size in (0, 4, 1000, good.stat().st_size - 1):
        path.write_bytes(good.read_bytes()[:size])
        refused(path, "not a whole safetensors")
    save_prior(path, network(), {**CONFIG, "network_options": {"channels": [8, 32], "blocks": 1}})
    refused(path, "do not fit")
    save_prior(path, LightUNet(**OPTIONS, in_channels=3), {**CONFIG, "network_options": {**OPTIONS, "in_channels": 3}})  # type: ignore[arg-type]
    refused(path, "3 channels")

    def with_metadata(metadata: dict[str, str] | None, words: str) -> None:
        safetensors.torch.save_file(network().state_dict(), path, metadata=metadata)
        refused(path, words)

    with_metadata(None, "something else")
    with_metadata({"format": "pt"}, "something else")
    with_metadata({"format": "lightning_mbir.prior.17", "config": "{}"}, "newer lightning_mbir; update")
    with_metadata({"format": FORMAT}, "not JSON")
    with_metadata({"format": FORMAT, "config": "{}"}, "lacks network, network_options, modality")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    net = network()
    net.state_dict()["first.weight"][0, 0, 0, 0] = value
    with pytest.raises(InputError, match=r"first.weight holds NaN or infinite"):
        save_prior(tmp_path / "p.safetensors", net, CONFIG)
    assert not list(tmp_path.iterdir())
    metadata = {"format": FORMAT, "config": json.dumps(CONFIG)}
    safetensors.torch.save_file(net.state_dict(), tmp_path / "p.safetensors", metadata=metadata)
    refused(tmp_path / "p.safetensors", "first.weight holds NaN or infinite")
    torch.save(lightning(net), tmp_path / "p.ckpt")
    refused(tmp_path / "p.ckpt", "first.weight holds NaN or infinite")


def test_what_half_precision_cannot_hold_is_refused(tmp_path: Path) -> None:
    net = network()
    net.state_dict()["first.weight"][0, 0, 0, 0] = 1e6
    with pytest.raises(InputError, match="infinite"):
        save_prior(tmp_path / "p.safetensors", net, CONFIG)
    save_prior(tmp_path / "p.safetensors", net, CONFIG, half=False)
    assert float(read_prior(tmp_path / "p.safetensors")[0].state_dict()["first.weight"][0, 0, 0, 0]) == 1e6


def lightning(net: LightUNet) -> dict[str, Any]:
    state = {f"ema.module.{name}": value for name, value in net.state_dict().items()}
    raw = {f"network.{name}": value + 1 for name, value in net.state_dict().items()}
    return {
        "state_dict": {**raw, **state, "ema.n_averaged": torch.tensor(3)},
        "hyper_parameters": {**CONFIG, "seed": 1},
    }


def test_lightning_checkpoints(tmp_path: Path) -> None:
    net, path = network(), tmp_path / "p.ckpt"
    torch.save(lightning(net), path)
    averaged, config = read_prior(path)
    raw = read_prior(path, ema=False)[0].state_dict()
    assert config == CONFIG
    for name, value in net.state_dict().items():
        assert torch.equal(averaged.state_dict()[name], value) and torch.equal(raw[name], value + 1)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(path, "not a whole PyTorch checkpoint")
    torch.save({"state_dict": {}, "hyper_parameters": {}}, path)
    refused(path, "another module")
    torch.save({"state_dict": {}, "hyper_parameters": CONFIG}, path)
    refused(path, "do not fit")
    torch.save({"state_dict": {}}, path)
    refused(path, "another module")


def test_what_is_no_prior_is_refused(tmp_path: Path) -> None:
    save_prior(tmp_path / "p.safetensors", network(), CONFIG)
    with pytest.raises(InputError, match="one set of weights"):
        read_prior(tmp_path / "p.safetensors", ema=False)
    words = r"--prior .*gone.ckpt: no such file or folder, and no bundled prior \(ct, ct3, ct_coronal, generic, mri"
    refused(tmp_path / "gone.ckpt", words)
    (tmp_path / "scan.nii.gz").write_bytes(b"\x1f\x8b")
    refused(tmp_path / "scan.nii.gz", r"give a .safetensors, .ckpt or .pth file or a folder, not .gz")
    path = tmp_path / "x.pth"
    for content in (b"", b"no checkpoint", b"\x00" * 64, b"(lp0\n.", bytes(range(256))):
        path.write_bytes(content)
        refused(path, "not a whole PyTorch checkpoint|not a released checkpoint")
    path.write_bytes(pickle.dumps(Path("x"), protocol=4))
    refused(path, "not a whole PyTorch checkpoint, or of something else")
    path.write_bytes(pickle.dumps(Path("x"), protocol=2))
    refused(path, "holds pathlib.*Path objects, which could run code")
    torch.save({"model": network()}, path)
    refused(path, "holds lightning_mbir.prior.networks.unet.LightUNet objects, which could run code")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "text")
    refused(path, "not a whole PyTorch checkpoint")
    torch.save([1, 2], path)
    refused(path, "not a released checkpoint")


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "p.safetensors", tmp_path / "file" / "deeper" / "folder"):
        with pytest.raises(InputError, match=r"is a file|cannot be written"):
            save_prior(path, network(), CONFIG)
    with pytest.raises(InputError, match="lacks modality"):
        save_prior(tmp_path / "p.safetensors", network(), {"network": "light", "network_options": OPTIONS})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
