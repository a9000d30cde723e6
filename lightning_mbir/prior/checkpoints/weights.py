"""Weights in files: plain tensors only, never code, finite, and the same bytes each time that they are written."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from lightning_mbir.errors import InputError
from lightning_mbir.free_memory import check_fits

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
"""The files of a folder that holds a prior."""

METADATA, SUM = "__metadata__", "sum"
"""Of a safetensors header: where free entries stand, and which of them is the checksum of all the rest."""

DAMAGED = (
    *(RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError),
    *(ArithmeticError, MemoryError, struct.error, tarfile.TarError),
)
"""What ``torch.load`` raises of bytes that are no checkpoint, according to where they are wrong."""


def safetensors_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file of tensors and free entries, with a checksum among these; the same bytes each time.

    The library alone would write the entries in an order of chance, and has no checksum.
    """
    data = safetensors.torch.save(dict(tensors))
    start = 8 + int.from_bytes(data[:8], "little")
    header = {METADATA: dict(sorted(metadata.items())), **json.loads(data[8:start])}
    header[METADATA][SUM] = _sum(header, data[start:])
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[start:]


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and free entries of a safetensors file; the checksum of one of ours is looked at, if it has one.

    Raises:
        InputError: a file that is cut short, damaged or of something else, or larger than the free memory.
    """
    try:
        check_fits(f"{path}", 2 * path.stat().st_size, "free some, or take another machine")
        with safetensors.safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            metadata = file.metadata() or {}
        if SUM in metadata:
            data = path.read_bytes()
            start = 8 + int.from_bytes(data[:8], "little")
            if _sum(json.loads(data[8:start]), data[start:]) != metadata[SUM]:
                raise InputError(f"{path}: damaged, its checksum is another; get it again")
    except (safetensors.SafetensorError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{path}: not a whole safetensors file ({reason}); get it again") from error
    return tensors, metadata


def _sum(header: Mapping[str, Any], data: bytes) -> str:
    """SHA-256 of a header but for its checksum, and of the tensors."""
    entries = {key: value for key, value in header[METADATA].items() if key != SUM}
    text = json.dumps({**header, METADATA: entries}, sort_keys=True)
    return hashlib.sha256(text.encode() + data).hexdigest()


def read_torch(path: Path) -> Any:
    """The content of a file of ``torch.save``: tensors and plain data, never code.

    Raises:
        InputError: a file that is cut short, damaged, no such file, larger than the free memory, or that holds objects
            of other kinds.
    """
    _check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols; the error says what matters
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        if foreign:
            raise InputError(
                f"{path}: holds {foreign[1]} objects, which could run code and are not loaded; save the weights alone"
            ) from error
        raise InputError(f"{path}: not a whole PyTorch checkpoint, or of something else; get the file again") from error
    except DAMAGED as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise InputError(f"{path}: not a whole PyTorch checkpoint ({reason}); get the file again") from error


def _check_archive(path: Path) -> None:
    """Raise where a file of ``torch.save``, which is a zip archive, has damaged parts (torch looks at no checksum), or
    parts that are too large once they are unpacked."""
    try:
        if not zipfile.is_zipfile(path):
            return  # of old versions of torch, or damaged, which reading tells
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(part.file_size for part in archive.infolist())
            check_fits(f"{path}", max(unpacked, path.stat().st_size), "free some, or take another machine")
            damaged = archive.testzip()
    except InputError:
        raise
    except (zipfile.BadZipFile, zlib.error, *DAMAGED) as error:
        raise InputError(f"{path}: not a whole PyTorch checkpoint ({error}); get the file again") from error
    if damaged is not None:
        raise InputError(f"{path}: damaged, the checksum of {damaged} is another; get the file again")


def check_network(
    build: Callable[[], nn.Module], options: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path
) -> None:
    """Raise where the network that a file tells of is not that of its weights, before it takes any memory.

    Args:
        build: makes the network.
        options: of its constructor. More levels or blocks than there are weights would take for ever to make.
        tensors: the weights.
        path: for the message.
    """
    for name, value in options.items():
        depth = len(value) if isinstance(value, list) else value if "blocks" in name else 0
        if isinstance(depth, int) and depth > len(tensors):
            raise InputError(f"{path}: the weights do not fit the network that the file names ({name} asks for more)")
    with torch.device("meta"):
        own = build().state_dict()
    names = sorted(own.keys() ^ tensors.keys()) or [name for name in own if own[name].shape != tensors[name].shape]
    if names:
        raise InputError(f"{path}: the weights do not fit the network that the file names (as {names[0]} shows)")


def check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise ``InputError`` where a weight is NaN or infinite: such a prior turns every volume into NaN."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise InputError(
                f"{path}: {name} holds NaN or infinite weights; the training diverged or the file is damaged"
            )
