"""Priors in files: our safetensors files and folders, Lightning checkpoints, released ones, and the bundled ones."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_mbir.errors import InputError
from lightning_mbir.files import sha256, write_whole
from lightning_mbir.packaged import PACKAGE
from lightning_mbir.prior.checkpoints.hub import is_hub, local
from lightning_mbir.prior.checkpoints.score_sde import read_score_sde
from lightning_mbir.prior.checkpoints.weights import (
    CARD,
    CONFIG,
    WEIGHTS,
    check_finite,
    check_network,
    read_safetensors,
    read_torch,
    safetensors_bytes,
)
from lightning_mbir.prior.denoiser import SliceDenoiser, Unit
from lightning_mbir.prior.networks.build import NETWORKS, build_network

ASSETS = PACKAGE / "assets"
FORMAT = "lightning_mbir.prior.1"
KEYS = ("network", "network_options", "modality")
"""What a prior's configuration must have; other entries are free."""
FULL = ("frequencies",)
"""Weights that stay in full precision: NCSN++'s, rounded, shift its phases and change its scores (docs/priors.md)."""


def bundled_sums() -> dict[str, str]:
    """SHA-256 of the bundled priors by name, from ``assets/SHA256SUMS`` (as ``sha256sum *.safetensors`` writes it)."""
    try:
        lines = (ASSETS / "SHA256SUMS").read_text().splitlines()
    except OSError:
        return {}
    pairs = [line.split(maxsplit=1) for line in lines if line.strip()]
    return {name.lstrip("*").strip().removesuffix(".safetensors"): digest for digest, name in pairs}


BUNDLED = tuple(bundled_sums())
BUNDLED_LARGEST = 256
"""Side of the largest slices that the bundled priors were trained on, where their files do not tell."""


def save_prior(
    path: str | Path, network: nn.Module, config: dict[str, Any], half: bool = True, card: str | None = None
) -> str:
    """Write a network with what is needed to build it again; returns the SHA-256 of the safetensors file.

    A path that ends in ``.safetensors`` becomes one file, with the configuration in its metadata. Any other becomes a
    folder to share: ``model.safetensors`` (the same file), ``config.json`` and, with a ``card``, ``README.md``.
    Each file is written whole or not at all, ``config.json`` last, and of the same network the same bytes.

    Args:
        path: the file or folder; what is there is replaced.
        network: its parameters and buffers.
        config: plain data with ``network``, ``network_options`` and ``modality`` (None: of no modality), and free
            entries; ``coarse_size`` among these is for ``denoised``, ``largest_size`` is that of its training's slices,
            ``mirrors`` whether these were mirrored (default true).
        half: store half precision (all but ``FULL``); else everything as it is.
        card: the model card of a folder, in Markdown.

    Raises:
        InputError: an incomplete configuration, weights that are not finite, a path that cannot be written to.
    """
    path = Path(path)
    config = {key: value for key, value in _checked(config, path).items() if key not in ("format", "sha256")}
    tensors = {name: _stored(name, tensor, half) for name, tensor in network.state_dict().items()}
    check_finite(tensors, path)
    data = safetensors_bytes(tensors, {"format": FORMAT, "config": json.dumps(config)})
    digest = hashlib.sha256(data).hexdigest()
    folder = path.parent if path.suffix == ".safetensors" else path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".safetensors":
            write_whole(path, data)
            return digest
        write_whole(path / WEIGHTS, data)
        if card is not None:
            write_whole(path / CARD, card.encode())
        text = json.dumps({"format": FORMAT, **config, "sha256": digest}, indent=2) + "\n"
        write_whole(path / CONFIG, text.encode())
    except FileExistsError as error:
        raise InputError(f"{path}: {folder} is a file; give a folder, or a name that ends in .safetensors") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
    return digest


def _stored(name: str, tensor: Tensor, half: bool) -> Tensor:
    halved = half and tensor.is_floating_point() and name not in FULL
    return (tensor.half() if halved else tensor).detach().cpu().contiguous()


def load_prior(
    source: str | Path,
    slice_batch: int | None = None,
    precision: str = "float32",
    compile: bool = False,
    network: str | None = None,
) -> SliceDenoiser:
    """A denoiser from the name of a bundled prior, or from a file or folder.

    Args:
        source: a bundled name (``"ct"``, ``"mri"``); a ``.safetensors`` file or a folder of ours, or such a folder on
            the Hugging Face hub (``"hub:owner/name@revision#sha256"``, docs/guides/sharing.md); a Lightning ``.ckpt``
            of ``ScorePriorModule`` (EMA weights); or a ``.pth`` in the released score_sde_pytorch layout (EMA weights,
            images in [0, 1]).
        slice_batch: slices that pass the network at once, at most; None: by the machine's memory.
        precision: ``"float32"``, which is the same on every machine, ``"bfloat16"``, or ``"auto"``: the faster of them
            on the device, as the command line takes it.
        compile: run the network through ``torch.compile``.
        network: class path of the network, where it is another package's: what a file names is not imported unless it
            is named here too, since importing runs code.

    Raises:
        InputError: no such prior, a file that is cut short, or that holds something else; a network of another package
            that was not named.
    """
    with torch.random.fork_rng(devices=[]):  # weights are drawn before they are read
        built, config = read_prior(source, network=network)
    modality = config["modality"]
    unit = Unit.of(modality) if modality else Unit()
    prior = SliceDenoiser(built, unit, modality, slice_batch, precision, compile)
    prior.largest = config.get("largest_size", BUNDLED_LARGEST if str(source) in BUNDLED else None)
    prior.mirrors = bool(config.get("mirrors", True))
    return prior


def read_prior(source: str | Path, ema: bool = True, network: str | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """The network and the configuration of whatever ``load_prior`` takes.

    Args:
        source: see ``load_prior``.
        ema: of a checkpoint of a training, the averaged weights, or the raw ones.
        network: see ``load_prior``.

    Returns:
        The network with its weights, and plain data with ``network``, ``network_options`` and ``modality`` at least.

    Raises:
        InputError: no such prior, a file that is cut short, or that holds something else.
    """
    path = Path(local(source))
    if str(source) in BUNDLED:
        built, config = _read_bundled(str(source))
    elif path.is_dir():
        built, config = _read_folder(path, network)
        if is_hub(source) and "sha256" not in config:
            raise InputError(f"--prior {source}: its {CONFIG} has no sha256; have it pushed anew by its owner")
    elif not path.exists():
        known = ", ".join(BUNDLED) or "none, which is a damaged install: reinstall lightning_mbir"
        raise InputError(f"--prior {source}: no such file or folder, and no bundled prior ({known})")
    elif path.suffix == ".safetensors":
        built, config = _read_file(path, network)
    elif path.suffix in (".ckpt", ".pth", ".pt"):
        content = read_torch(path)
        if isinstance(content, dict) and "state_dict" in content:
            built, config = _from_lightning(content, path, ema, network)
        else:
            built, options = read_score_sde(content, path, ema)
            config = {"network": "ncsnpp", "network_options": options, "modality": None}
        ema = True
    else:
        kind = path.suffix or "this"
        raise InputError(f"--prior {source}: give a .safetensors, .ckpt or .pth file or a folder, not {kind}")
    if not ema:
        raise InputError(f"{source}: holds one set of weights; raw ones are in checkpoints of a training alone")
    channels = int(getattr(built, "in_channels", 1))
    if channels not in (1, 2):
        raise InputError(f"{source}: a network of {channels} channels; a prior has 1, or 2 (real and imaginary part)")
    return built, config


def _read_bundled(name: str) -> tuple[nn.Module, dict[str, Any]]:
    path = ASSETS / f"{name}.safetensors"
    if not path.is_file() or sha256(path) != bundled_sums().get(name):
        raise InputError(f"prior {name}: {path} is not what was shipped, a damaged install; reinstall lightning_mbir")
    return _read_file(path)


def _read_file(path: Path, network: str | None = None) -> tuple[nn.Module, dict[str, Any]]:
    tensors, metadata = read_safetensors(path)
    _check_format(metadata.get("format"), path)
    config = _checked(_json(metadata.get("config", ""), path), path)
    return _build(config, tensors, path, network), config


def _read_folder(folder: Path, network: str | None) -> tuple[nn.Module, dict[str, Any]]:
    """``config.json`` rules; the metadata of the weights may be lost, but must not say anything else."""
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise InputError(f"{folder}: a folder without {name}; give one with {CONFIG} and {WEIGHTS}, or a file")
    try:
        text = (folder / CONFIG).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{folder / CONFIG}: cannot be read as text ({error})") from error
    config = _json(text, folder / CONFIG)
    if isinstance(config, dict):
        _check_format(config.get("format"), folder / CONFIG)
    config = _checked(config, folder / CONFIG)
    weights = folder / WEIGHTS
    if config.get("sha256") not in (None, sha256(weights)):
        raise InputError(f"{weights}: not the file of which {CONFIG} gives the SHA-256; get both again")
    tensors, metadata = read_safetensors(weights)
    if "config" in metadata:
        inside = _checked(_json(metadata["config"], weights), weights)
        for key in (*KEYS, "coarse_size"):
            here, there = config.get(key), inside.get(key)
            if here != there:
                raise InputError(f"{folder / CONFIG}: {key} is {here!r}, but {there!r} in {WEIGHTS}")
    return _build(config, tensors, weights, network), config


def _from_lightning(
    content: dict[str, Any], path: Path, ema: bool, network: str | None
) -> tuple[nn.Module, dict[str, Any]]:
    hyper = content.get("hyper_parameters")
    state = content["state_dict"]
    if not isinstance(hyper, dict) or not isinstance(state, dict) or not set(KEYS) <= hyper.keys():
        raise InputError(f"{path}: a Lightning checkpoint of another module; give one that ScorePriorModule wrote")
    config = _checked({key: hyper[key] for key in (*KEYS, "coarse_size") if key in hyper}, path)
    data = content.get("datamodule_hyper_parameters")
    if isinstance(data, dict) and data.get("data/axis") == "sagittal":
        config["mirrors"] = False
    prefix = "ema.module." if ema else "network."
    weights = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    return _build(config, weights, path, network), config


def _json(text: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path}: the configuration is not JSON ({error}); get the file again") from error


def _check_format(found: object, path: Path) -> None:
    family, _, version = FORMAT.rpartition(".")
    start, _, number = str(found).rpartition(".")
    if start == family and number.isdigit() and int(number) > int(version):
        raise InputError(f"{path}: format {found}, of a newer lightning_mbir; update the package")
    if found != FORMAT:
        raise InputError(f"{path}: a file of something else; a prior of ours says format {FORMAT}")


def _checked(config: object, path: Path) -> dict[str, Any]:
    """The configuration, if a network can be built of it."""
    if not isinstance(config, dict):
        raise InputError(f"{path}: the configuration must be a JSON object with {', '.join(KEYS)}")
    missing = [key for key in KEYS if key not in config]
    if missing:
        raise InputError(f"{path}: the configuration lacks {', '.join(missing)}")
    if not isinstance(config["network"], str) or not isinstance(config["network_options"], dict | None):
        raise InputError(f"{path}: in the configuration, network must be a name and network_options an object or null")
    if config["modality"] not in (None, "ct", "mri"):
        raise InputError(f"{path}: modality {config['modality']!r} in the configuration; it must be ct, mri or null")
    return config


def _build(config: dict[str, Any], tensors: dict[str, Tensor], path: Path, trusted: str | None) -> nn.Module:
    """Every weight, and no other, or an error: a prior that is partly untrained must never run."""
    check_finite(tensors, path)
    if config["network"] in NETWORKS:  # first without memory: what a file says of its network may be anything
        check_network(lambda: _built(config, path, trusted), config["network_options"] or {}, tensors, path)
    network = _built(config, path, trusted)
    try:
        network.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        first = next((line.strip() for line in str(error).splitlines()[1:]), str(error))
        raise InputError(f"{path}: the weights do not fit the network that the file names ({first[:160]})") from error
    return network


def _built(config: dict[str, Any], path: Path, trusted: str | None) -> nn.Module:
    try:
        return build_network(config["network"], config["network_options"], config.get("coarse_size"), trusted)
    except (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:240]
        raise InputError(f"{path}: the network cannot be built ({reason})") from error
