"""Weights from files: plain tensors only, never code, and finite."""

from __future__ import annotations

import pickle
import re
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_mbir.errors import InputError


def read_torch(path: Path) -> Any:
    """The content of a file of ``torch.save``: tensors and plain data, never code.

    Raises:
        InputError: a file that is cut short, is no such file, or holds objects of other kinds.
    """
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
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError, struct.error) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise InputError(f"{path}: not a whole PyTorch checkpoint ({reason}); get the file again") from error


def check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise ``InputError`` where a weight is NaN or infinite: such a prior turns every volume into NaN."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise InputError(
                f"{path}: {name} holds NaN or infinite weights; the training diverged or the file is damaged"
            )
