"""Configurations and values as data: what class paths may name, what values may be, how YAML is read."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from inspect import Parameter, isclass, isroutine, signature
from pathlib import Path
from typing import Any

from jsonargparse import Namespace, set_loader, set_parsing_settings
from lightning.fabric.plugins import CheckpointIO, ClusterEnvironment
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins import LayerSync, Precision
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.strategies import Strategy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from yaml import YAMLError

from lightning_mbir.errors import InputError
from lightning_mbir.flags import Flag, seed
from lightning_mbir.lazy import imported, trusted_roots
from lightning_mbir.yaml_text import Loader, read_yaml

PARTS = (
    Callback, Logger, Strategy, Accelerator, Profiler, Precision, CheckpointIO, ClusterEnvironment, LayerSync,
    Optimizer, LRScheduler,
)  # fmt: skip
"""What a configuration may have made: the parts of a ``Trainer``. A function, or a class that is called later, would be
code of the one who wrote the configuration."""
LEAST = {"accumulate_grad_batches": 1, "check_val_every_n_epoch": 1, "log_every_n_steps": 0, "min_steps": 0}
"""Of those arguments of the trainer that it divides by, or takes as they are."""


def keep_to_data(trusted: Iterable[str]) -> None:
    """Have jsonargparse import class paths of trusted packages alone, and read YAML within limits, no addresses.

    These are settings of the whole process.

    Args:
        trusted: packages that the user has named, beside ``lazy.trusted_roots``.
    """
    set_parsing_settings(
        import_path_denylist=["*", *(name for name in _Named.before if name not in trusted)],
        import_path_allowlist=sorted(trusted_roots()),
        instantiate_subclass_spec_in_any=False,
        config_read_mode_fsspec_enabled=False,
        config_read_mode_urls_enabled=False,
    )
    _Named.before = set(trusted)
    set_loader("yaml", read_yaml, exceptions=(YAMLError,))
    # Where a text has to be a number or a truth, jsonargparse reads it by a loader of its own, which nothing else sets.
    vars(sys.modules[set_loader.__module__])["yaml_default_loader"] = Loader


class _Named:
    """What this process has set: packages that were trusted the last time."""

    before: set[str] = set()  # noqa: RUF012


def check_values(config: Namespace, flags: Sequence[Flag]) -> None:
    """Hold the values of a configuration against what the flags may be; those of the command line have been.

    Raises:
        InputError: a value that cannot be.
    """
    for flag in flags:
        value = config.get(flag.target.removeprefix("--"))
        if isinstance(value, str | int | float | Path) and not (flag.name == "--ckpt_path" and "model" in flag.target):
            flag.value(str(value))
    if config.get("seed_everything") is not None:
        Flag("--seed_everything", "", seed).value(str(config["seed_everything"]))
    limit = config.get("trainer.max_time")
    if isinstance(limit, str) and not re.fullmatch(r"\d+(:\d\d){3}", limit):
        raise InputError(f"--trainer.max_time {limit}: give days:hours:minutes:seconds, such as 00:08:00:00")
    if limit is not None and not any(map(int, re.findall(r"\d+", str(limit)))):
        raise InputError(f"--trainer.max_time {limit}: leaves no time; give more, or leave it out for no limit")
    for name, least in LEAST.items():
        given = config.get(f"trainer.{name}")
        if isinstance(given, int) and given < least:
            raise InputError(f"--trainer.{name} {given}: give a whole number of at least {least}")


def check_nulls(config: Namespace, made: Mapping[str, Any]) -> None:
    """Raise where a value is null that an argument cannot be; the parser lets that pass.

    Args:
        config: of all sections.
        made: what is made of each.

    Raises:
        InputError: what the default is.
    """
    for section, kind in made.items():
        for name, parameter in signature(kind).parameters.items():
            default, words = parameter.default, str(parameter.annotation)
            optional = default in (None, Parameter.empty) or any(word in words for word in ("None", "Optional", "Any"))
            if not optional and config.get(f"{section}.{name}", default) is None:
                raise InputError(f"--{section}.{name} null: leave it out for the default, {default}")


def check_classes(config: Any) -> None:
    """Raise where a configuration names anything but the parts of a ``Trainer``.

    Raises:
        InputError: another class, or a function.
    """
    for path in _class_paths(config):
        imported("class_path", path, *PARTS)


def _class_paths(value: Any) -> Iterator[str]:
    if isinstance(value, Namespace):
        value = vars(value)
    if isinstance(value, Mapping):
        if isinstance(value.get("class_path"), str):
            yield value["class_path"]
        for inner in value.values():
            yield from _class_paths(inner)
    elif isinstance(value, list | tuple | set):
        for inner in value:
            yield from _class_paths(inner)
    elif isroutine(value) or isclass(value):
        raise InputError(f"{value.__module__}.{value.__qualname__}: code, and no setting; leave it out")
