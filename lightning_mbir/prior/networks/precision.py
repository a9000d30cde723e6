"""In which precision a network runs: bfloat16 where the device has it in hardware, else float32."""

from __future__ import annotations

import os
from typing import Any

import torch

from lightning_mbir.errors import InputError

PRECISIONS = ("auto", "float32", "bfloat16")
"""What ``--model.precision`` may be."""

WITHOUT = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")
"""Values of ``ONEDNN_MAX_CPU_ISA`` that keep oneDNN from multiplying in bfloat16, whatever the processor has."""

HALF = ("bf16-mixed", "bf16-true", "bf16")
"""Lightning's names of trainings in bfloat16."""

DOUBLE = ("64", "64-true")
"""Those of trainings in double precision."""


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies in bfloat16 in hardware.

    CUDA: from compute capability 8 on. CPU: AVX512_BF16 (which every processor with AMX_BF16 has too), unless
    ``ATEN_CPU_CAPABILITY`` or ``ONEDNN_MAX_CPU_ISA`` forbid it. Without it bfloat16 works, 6 to 8 times slower than
    float32. Other devices count as having none.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        return native and torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and _processor_has_bfloat16()


def _processor_has_bfloat16() -> bool:
    limits = (os.environ.get(name) for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"))
    limit = next((text for text in limits if text), "")
    return (
        limit.upper() not in WITHOUT
        and torch.backends.cpu.get_cpu_capability() == "AVX512"  # what torch uses, and not only what there is
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and bool(torch.cpu._is_avx512_bf16_supported())
    )


def settled(asked: str, device: torch.device) -> str:
    """``"float32"`` or ``"bfloat16"``, of what is in ``PRECISIONS``; ``auto`` is the faster one on the device."""
    if asked == "auto":
        return "bfloat16" if has_bfloat16(device) else "float32"
    return asked


def chosen(asked: str, device: torch.device) -> tuple[str, str]:
    """The precision of a prior on the command line, where bfloat16 is never taken if the device lacks it.

    Returns:
        ``"float32"`` or ``"bfloat16"``, and a line to tell of it: none where it is what was asked for.
    """
    has, name = has_bfloat16(device), _name(device)
    if asked == "auto":
        reason = f"{name} {'has' if has else 'lacks'} bfloat16 in hardware"
        return settled(asked, device), f"precision {settled(asked, device)}: {reason} (auto)"
    if asked == "bfloat16" and not has:
        return "float32", f"precision bfloat16: {name} lacks it in hardware and would be slower; taking float32"
    return asked, ""


def chosen_for_training(asked: Any, device: torch.device) -> tuple[Any, str]:
    """Lightning's precision of a training, likewise: of None the faster one, and bfloat16 only where the device has it.

    Returns:
        ``"bf16-mixed"``, ``"32-true"`` or what was asked for, and a line to tell of it, or none.

    Raises:
        InputError: double precision, which slices and noise are not drawn in.
    """
    has, name = has_bfloat16(device), _name(device)
    if str(asked) in DOUBLE:
        raise InputError(f"--trainer.precision {asked}: trainings are of single precision; give 32-true or bf16-mixed")
    if asked is None:
        found = "bf16-mixed" if has else "32-true"
        return found, f"precision {found}: {name} {'has' if has else 'lacks'} bfloat16 in hardware"
    if asked in HALF and not has:
        return "32-true", f"precision {asked}: {name} lacks bfloat16 in hardware and would be slower; taking 32-true"
    return asked, ""


def device_of(accelerator: str | None) -> torch.device:
    """The kind of device that Lightning takes for an ``accelerator``, before there is a trainer to ask."""
    if accelerator in (None, "auto", "gpu", "mps") and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cuda" if accelerator in (None, "auto", "gpu", "cuda") and torch.cuda.is_available() else "cpu")


def _name(device: torch.device) -> str:
    return {"cuda": "this GPU", "cpu": "this processor"}.get(device.type, f"device {device.type}")
