"""A prior as a bundle of MONAI: what is in it, what is refused, and that MONAI runs it to what `reconstruct` gives."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from lightning_mbir import TASKS, ReconstructionModule, export_bundle, read_volume, reconstruct
from lightning_mbir.errors import InputError
from lightning_mbir.prior import load_prior, save_prior
from lightning_mbir.prior.networks.unet import LightUNet
from lightning_mbir.reconstruction.bundle import main
from lightning_mbir.report.metrics import image_metrics

ROOT = Path(__file__).resolve().parents[2]
TENSOR = {
    "type", "format", "num_channels", "spatial_shape", "dtype", "value_range", "is_patch_data", "channel_def",
}  # fmt: skip


def test_the_layout_and_the_metadata_are_those_of_the_specification(tmp_path: Path) -> None:
    folder = export_bundle("mri_complex", tmp_path / "bundle")
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert files == [
        "LICENSE", "configs/inference.json", "configs/metadata.json", "docs/README.md", "models/model.safetensors",
    ]  # fmt: skip
    meta = json.loads((folder / "configs/metadata.json").read_text())
    texts = ("version", "monai_version", "pytorch_version", "numpy_version", "task", "description", "authors")
    assert all(isinstance(meta[key], str) and meta[key] for key in (*texts, "copyright", "schema", "name"))
    assert meta["changelog"] and set(meta["changelog"]) == {meta["version"]}
    assert all(isinstance(text, str) for text in meta["required_packages_version"].values())
    formats = meta["network_data_format"]
    assert set(formats) == {"inputs", "outputs"} and "pred" in formats["outputs"]
    for tensor in (*formats["inputs"].values(), *formats["outputs"].values()):
        assert tensor.keys() >= TENSOR and len(tensor["channel_def"]) == tensor["num_channels"]
        assert len(tensor["value_range"]) == 2 and isinstance(tensor["is_patch_data"], bool)
    assert formats["inputs"]["image"]["num_channels"] == 2  # real and imaginary part
    assert "Apache License" in (folder / "LICENSE").read_text()
    card = (folder / "docs/README.md").read_text()
    assert "# Slice prior: mri, complex" in card and "python -m monai.bundle run" in card
    x = torch.rand(1, 32, 32) + 0j
    assert torch.equal(load_prior(folder / "models/model.safetensors")(x, 0.5), load_prior("mri_complex")(x, 0.5))


@pytest.mark.slow
def test_monai_runs_it_to_what_reconstruct_gives(tmp_path: Path) -> None:
    pytest.importorskip("fire", reason="which MONAI's command line is made with")
    folder = export_bundle("phantom", tmp_path / "bundle", task="sv_ct")
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in (4, 32, 32)), indexing="ij")
    hu = np.where(x**2 + y**2 + 0.2 * z**2 < 0.6, 40.0, -1000.0)
    nib.save(nib.Nifti1Image(hu.T.astype(np.float32), np.diag([10.0, 10.0, 5.0, 1.0])), tmp_path / "ball.nii.gz")
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.json"]
    command += ["--volume", str(tmp_path / "ball.nii.gz"), "--output_dir", str(tmp_path / "out"), "--steps", "3"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=env, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out/sv_ct/ball/metrics.json").read_text())

    task = TASKS["sv_ct"]
    volume = read_volume(tmp_path / "ball.nii.gz", "ct")
    operator = task.build_operator(32, volume.spacing[-1], **task.settings())
    prior = load_prior(folder / "models/model.safetensors", precision="auto")
    options = {**task.tuned("dds"), "steps": 3}
    given = {"seed": 0, "volume": "ball", "spacing": volume.spacing}
    result = reconstruct(operator(volume.data), operator, prior, "dds", modality="ct", **given, **options)
    scores = image_metrics(result.image, volume.data, task.data_range)
    assert found["volume_psnr"] == pytest.approx(scores["volume_psnr"], abs=1e-3) and found["volume_psnr"] > 15


def test_what_a_bundle_cannot_hold_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = LightUNet(channels=[8, 16], attention=False)
    config = {"network": "light", "network_options": {"channels": [8, 16], "attention": False}, "modality": None}
    own = tmp_path / "own.safetensors"
    save_prior(own, network, config)
    terms = tmp_path / "terms.txt"
    terms.write_text("Ours alone.\n")
    refused = {
        ("nowhere", "b"): "under which licence",
        (str(own), "b"): "under which licence are its weights? give a text file with --license",
        (str(own), "b", "--license", str(terms)): "does not say of what modality it is; give --task",
        ("ct", "b", "--task", "pet"): "--task pet: unknown",
        ("ct", "b", "--method", "tpdm"): "needs a prior of coronal slices",
        ("ct", "b", "--license", "nowhere"): "--license nowhere: cannot be read",
        ("ct", str(tmp_path)): "is there already",
    }
    for args, told in refused.items():
        assert main([args[0], str(tmp_path / args[1]), *args[2:]]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert told in line
    assert not (tmp_path / "b").exists()
    assert main([str(own), str(tmp_path / "b"), "--license", str(terms), "--task", "cs_mri"]) == 0
    assert (tmp_path / "b/LICENSE").read_text() == "Ours alone.\n"
    with pytest.raises(InputError, match="is there already"):
        export_bundle("ct", tmp_path / "b")


def test_what_the_configuration_sets_is_there_to_be_set(tmp_path: Path) -> None:
    import inspect

    config = json.loads((export_bundle("ct", tmp_path / "b") / "configs/inference.json").read_text())
    module = {key for key in config["module"] if key != "_target_"}
    assert module <= set(inspect.signature(ReconstructionModule).parameters)
