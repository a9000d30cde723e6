"""Files of weights: the same bytes each time, and what is damaged or made to harm is refused in one line."""

import hashlib
import json
import pickle
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.methods.fbp_unet import CorrectionUNet, geometry_of, read_unet, write_unet
from lightning_mbir.physics import ParallelBeam
from lightning_mbir.prior import load_prior, save_prior
from lightning_mbir.prior.checkpoints import weights as module
from lightning_mbir.prior.checkpoints.weights import read_safetensors, read_torch, safetensors_bytes
from tests.helpers import unet_file
from tests.prior.checkpoints.test_checkpoint import CONFIG, lightning
from tests.prior.conftest import OPTIONS, network

WRITE = """
import sys, torch
from lightning_mbir.methods.fbp_unet import CorrectionUNet, write_unet
from lightning_mbir.prior import LightUNet, save_prior
from pathlib import Path
torch.manual_seed(0)
options = {"channels": [8, 16], "attention": False}
config = {"network": "light", "network_options": options, "modality": "ct"}
save_prior(sys.argv[1] + ".safetensors", LightUNet(**options), config)
config = {"task": "sv_ct", "settings": {"views": 4}, "seed": 0, "geometry": {}, "network_options": options, "unit": "1"}
write_unet(Path(sys.argv[1] + ".unet"), CorrectionUNet(**options), config)
"""


def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    """Whose hash maps have other orders."""
    for name in ("a", "b", "c"):
        subprocess.run([sys.executable, "-c", WRITE, str(tmp_path / name)], check=True, timeout=120)
    for suffix in (".safetensors", ".unet"):
        found = {hashlib.sha256((tmp_path / f"{name}{suffix}").read_bytes()).hexdigest() for name in "abc"}
        assert len(found) == 1


def test_the_library_reads_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    tensors = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.ones(3).half(), "empty": torch.ones(0)}
    entries = {f"key {k}": "ä" * k for k in range(8)}
    path.write_bytes(safetensors_bytes(tensors, entries))
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert {key: metadata[key] for key in entries} == entries and len(metadata) == 9
    for found in (safetensors.torch.load_file(path), read_safetensors(path)[0]):
        assert found.keys() == tensors.keys() and all(torch.equal(found[key], tensors[key]) for key in tensors)


def test_files_of_before_have_no_checksum_and_are_read(tmp_path: Path) -> None:
    path = tmp_path / "old.safetensors"
    metadata = {"format": "lightning_mbir.prior.1", "config": json.dumps(CONFIG)}
    safetensors.torch.save_file(network().state_dict(), path, metadata=metadata)
    assert load_prior(path).modality == "mri"


def damages(data: bytes, flips: int, cuts: int) -> list[bytes]:
    """Copies of a file with one bit turned, and such that end early."""
    chance = random.Random(0)
    copies = [bytearray(data) for _ in range(flips)]
    for copy in copies:
        copy[chance.randrange(len(copy))] ^= 1 << chance.randrange(8)
    return [*map(bytes, copies), *(data[: chance.randrange(len(data))] for _ in range(cuts))]


def same(found: dict[str, Tensor], whole: dict[str, Tensor]) -> bool:
    return found.keys() == whole.keys() and all(torch.equal(found[key], whole[key]) for key in whole)


@pytest.mark.parametrize("kind", ["prior.safetensors", "last.ckpt", "unet.safetensors"])
def test_damaged_files_are_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    """Or read as they were, where a bit stands for nothing; but never with other weights."""
    load: Callable[[Path], Any] = load_prior
    good = tmp_path / kind
    if kind == "prior.safetensors":
        save_prior(good, network(), CONFIG)
    elif kind == "last.ckpt":
        torch.save(lightning(network()), good)
    else:
        good = unet_file(tmp_path, ParallelBeam(16, [0.0, 90.0]))
        load = read_unet
    whole = load(good).network.state_dict()
    (tmp_path / "bad").mkdir()
    bad, refused = tmp_path / "bad" / kind, 0
    copies = damages(good.read_bytes(), flips=60, cuts=20)
    for copy in copies:
        bad.write_bytes(copy)
        try:
            assert same(load(bad).network.state_dict(), whole)
        except InputError as error:
            assert kind in str(error) and "\n" not in str(error)
            refused += 1
    assert refused > 0.8 * len(copies)


@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_files_of_torch_are_an_input_error(zipped: bool, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.pth", tmp_path / "bad.pth"
    torch.save({"model": {"a": torch.ones(40, 4)}, "step": 3}, good, _use_new_zipfile_serialization=zipped)
    assert read_torch(good)["step"] == 3
    for copy in damages(good.read_bytes(), flips=150, cuts=40):
        bad.write_bytes(copy)
        try:
            read_torch(bad)
        except InputError as error:
            assert str(bad) in str(error) and "\n" not in str(error)


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("run",))


@pytest.mark.parametrize("suffix", [".pth", ".ckpt"])
@pytest.mark.parametrize("way", ["torch", "pickle", "legacy"])
def test_code_in_a_checkpoint_is_not_run(
    suffix: str, way: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"bad{suffix}"
    content = {"state_dict": {"a": torch.ones(2)}, "model": Harmful()}
    if way == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=way == "torch")
    with pytest.raises(InputError, match=r"could run code and are not loaded|not a whole PyTorch checkpoint"):
        load_prior(path)
    assert "run" not in capsys.readouterr().out.split()


def test_what_unpacks_to_more_than_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.ckpt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
        with archive.open("archive/data/0", "w", force_zip64=True) as part:
            for _ in range(64):
                part.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 20
    monkeypatch.setattr("lightning_mbir.free_memory.free_memory", lambda device: 32 << 20)
    with pytest.raises(InputError, match=r"bomb.ckpt: takes 0.1 GiB of memory, of which 0.0 are free"):
        load_prior(path)


def header(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A prior whose header says something else, without a checksum."""
    save_prior(path, network(), CONFIG)
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    entries = json.loads(data[8:start])
    entries[module.METADATA].pop(module.SUM)
    change(entries)
    text = json.dumps(entries).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[start:])
    return path


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F64"},
        {"dtype": "F8_E4M3"},
        {"dtype": "X9"},
        {"shape": [2**40, 2**40]},
        {"shape": [-1]},
        {"shape": "many"},
        {"data_offsets": [0, 2**62]},
        {"data_offsets": [5, 3]},
    ],
)
def test_sizes_that_a_header_makes_up_are_refused(entry: dict[str, Any], tmp_path: Path) -> None:
    path = header(tmp_path / "p.safetensors", lambda entries: entries["first.weight"].update(entry))
    with pytest.raises(InputError, match="not a whole safetensors file") as caught:
        load_prior(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", [2**40, 2**63, 2**64 - 1])
def test_a_header_longer_than_its_file_is_refused(length: int, tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + b"{}")
    with pytest.raises(InputError, match="not a whole safetensors file"):
        load_prior(path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"channels": [10**9, 10**9]}, "do not fit|cannot be built"),
        ({"channels": [30000, 30000]}, "do not fit"),  # 30 GB
        ({"channels": [8] * 10**5}, "channels asks for more"),
        ({"blocks": 10**9}, "blocks asks for more"),
        ({"blocks": 2.5}, "cannot be built"),
        ({"channels": "ab"}, "cannot be built"),
        ({"sigma_data": float("inf")}, "sigma_data inf: give a positive number"),
        ({"mean": float("nan")}, "mean nan: give a number"),
    ],
)
def test_networks_that_a_file_makes_up_are_refused_before_they_are_made(
    options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    config = json.dumps({**CONFIG, "network_options": {**OPTIONS, **options}})
    path = header(tmp_path / "p.safetensors", lambda entries: entries[module.METADATA].update(config=config))
    with pytest.raises(InputError, match=words) as caught:
        load_prior(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_network_for_a_measurement_is_looked_at_alike(tmp_path: Path) -> None:
    options: dict[str, Any] = {"channels": [8, 16], "attention": False}
    geometry = geometry_of(ParallelBeam(16, [0.0, 90.0]))
    config = {"task": "sv_ct", "settings": {}, "seed": 0, "geometry": geometry, "unit": ""}
    for wrong, words in (({"channels": [30000, 30000]}, "do not fit"), ([1], "must be JSON objects")):
        write_unet(tmp_path / "unet", CorrectionUNet(**options), {**config, "network_options": wrong})
        with pytest.raises(InputError, match=words):
            read_unet(tmp_path / "unet")
