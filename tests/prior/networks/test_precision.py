"""In which precision networks run, on machines of all kinds."""

import os
import subprocess
import sys
from typing import Any

import pytest
import torch

from lightning_mbir.errors import InputError
from lightning_mbir.prior.networks import precision
from lightning_mbir.prior.networks.precision import chosen, chosen_for_training, device_of, has_bfloat16, settled

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))


def machine(
    patch: pytest.MonkeyPatch, capability: str = "AVX512", native: bool = True, mkldnn: bool = True, limit: str = ""
) -> None:
    """A processor with AVX512_BF16, but for what is said."""
    patch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    patch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    patch.setattr(torch.backends.mkldnn, "is_available", lambda: mkldnn)
    patch.delenv("DNNL_MAX_CPU_ISA", raising=False)
    patch.setenv("ONEDNN_MAX_CPU_ISA", limit)


@pytest.mark.parametrize(
    ("changes", "has"),
    [
        ({}, True),
        ({"capability": "AVX2"}, False),  # an older processor, or ATEN_CPU_CAPABILITY
        ({"capability": "DEFAULT"}, False),
        ({"native": False}, False),  # AVX512 alone has it emulated
        ({"mkldnn": False}, False),
        ({"limit": "AVX2"}, False),
        ({"limit": "avx512_core"}, False),
        ({"limit": "AVX512_CORE_VNNI"}, False),
        ({"limit": "AVX512_CORE_BF16"}, True),
        ({"limit": "avx512_core_amx"}, True),
        ({"limit": "ALL"}, True),
        ({"limit": "DEFAULT"}, True),
    ],
)
def test_a_processor_has_bfloat16_where_it_multiplies_in_it(
    changes: dict[str, Any], has: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, **changes)
    assert has_bfloat16(CPU) is has
    assert settled("auto", CPU) == ("bfloat16" if has else "float32")
    assert (settled("float32", CPU), settled("bfloat16", CPU)) == ("float32", "bfloat16")  # what is asked for is given


def test_the_old_name_of_the_limit_holds_too(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch)
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", "AVX512_CORE")
    assert not has_bfloat16(CPU)


@pytest.mark.parametrize(
    ("capability", "native", "has"), [((7, 5), False, False), ((7, 5), True, False), ((8, 0), True, True)]
)
def test_a_gpu_has_bfloat16_from_ampere_on(
    capability: tuple[int, int], native: bool, has: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(torch.cuda, "device", lambda device: torch.no_grad())  # there may be none
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: asked.append(including_emulation) or native
    )
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert has_bfloat16(CUDA) is has and asked == [False]


def test_other_devices_have_none() -> None:
    assert not has_bfloat16(MPS) and settled("auto", MPS) == "float32"


@pytest.mark.parametrize(
    ("has", "asked", "found", "words"),
    [
        (True, "auto", "bfloat16", "precision bfloat16: this processor has bfloat16 in hardware"),
        (False, "auto", "float32", "precision float32: this processor lacks bfloat16 in hardware"),
        (True, "bfloat16", "bfloat16", ""),
        (False, "bfloat16", "float32", "precision bfloat16: this processor lacks it in hardware"),
        (False, "float32", "float32", ""),
        (True, "float32", "float32", ""),
    ],
)
def test_what_is_taken_on_the_command_line_is_told(
    has: bool, asked: str, found: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: has)
    taken, line = chosen(asked, CPU)
    assert taken == found and line.startswith(words) and bool(line) == bool(words) and "\n" not in line


@pytest.mark.parametrize(
    ("has", "asked", "found", "words"),
    [
        (True, None, "bf16-mixed", "precision bf16-mixed: this processor has"),
        (False, None, "32-true", "precision 32-true: this processor lacks"),
        (True, "bf16-mixed", "bf16-mixed", ""),
        (False, "bf16-mixed", "32-true", "precision bf16-mixed: this processor lacks bfloat16"),
        (False, "bf16-true", "32-true", "precision bf16-true: this processor lacks"),
        (False, "32-true", "32-true", ""),
        (False, "16-mixed", "16-mixed", ""),  # which is Lightning's affair
        (True, 32, 32, ""),
    ],
)
def test_what_trainings_take_is_told(
    has: bool, asked: Any, found: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: has)
    taken, line = chosen_for_training(asked, CPU)
    assert taken == found and line.startswith(words) and bool(line) == bool(words)


@pytest.mark.parametrize("asked", ["64", 64, "64-true"])
def test_trainings_are_not_of_double_precision(asked: Any) -> None:
    with pytest.raises(InputError, match=r"precision 64.*single precision"):
        chosen_for_training(asked, CPU)


@pytest.mark.parametrize(
    ("accelerator", "mps", "cuda", "found"),
    [
        ("auto", False, False, "cpu"),
        (None, False, True, "cuda"),
        ("gpu", False, True, "cuda"),
        ("gpu", True, False, "mps"),
        ("auto", True, False, "mps"),
        ("cpu", True, True, "cpu"),
    ],
)
def test_the_device_of_a_training_is_known_before_its_trainer(
    accelerator: str | None, mps: bool, cuda: bool, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    assert device_of(accelerator).type == found


@pytest.mark.parametrize("limit", [{"ATEN_CPU_CAPABILITY": "avx2"}, {"ONEDNN_MAX_CPU_ISA": "AVX2"}])
def test_limits_of_the_environment_are_those_of_a_new_process(limit: dict[str, str]) -> None:
    """No stand-in: torch itself reads the one when it starts, and oneDNN the other."""
    code = "import torch; from lightning_mbir.prior.networks.precision import settled as s"
    code += "; print(s('auto', torch.device('cpu')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **limit})
    assert done.stdout.strip() == "float32", done.stderr
