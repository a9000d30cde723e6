"""Lightning's command line, with our defaults, our errors, and none of its traps."""

from __future__ import annotations

import argparse
import logging
import sys
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import lightning as L
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins import TorchCheckpointIO

from lightning_mbir.cli.configs import check_classes, check_nulls, check_values, keep_to_data
from lightning_mbir.cli.errors import in_short_flags, parser_line, told, with_flags
from lightning_mbir.cli.ranks import finish, first_to_tell, interrupted, look_after_ranks, others_failed
from lightning_mbir.data.units import Modality
from lightning_mbir.errors import InputError, WriteError, fail
from lightning_mbir.files import check_writable, remove_stale, write_whole
from lightning_mbir.flags import SUBCOMMANDS, Flag
from lightning_mbir.interrupts import interrupt_behind, reach_ranks
from lightning_mbir.messages import quiet
from lightning_mbir.methods.settings import SETTINGS, check_task
from lightning_mbir.packaged import config_file, packaged
from lightning_mbir.prior.networks.precision import chosen_for_training, device_of
from lightning_mbir.prior.networks.running import is_out_of_memory

log = logging.getLogger(__name__)


class Parser(LightningArgumentParser):
    """Errors become ``InputError``: one line, no usage text. Arguments are written out: part of a name is none.

    Attributes:
        useless: arguments, or the beginnings of their names, that a subcommand has no use for: not in its help.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)
        self.useless: tuple[str, ...] = ()

    def format_help(self) -> str:
        for action in self._actions:
            if action.dest.startswith(self.useless):
                action.help = argparse.SUPPRESS
        return super().format_help()

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        cause: BaseException | None = ex
        while cause is not None and not isinstance(cause, InputError):
            cause = cause.__cause__ or cause.__context__
        raise InputError(str(cause) if isinstance(cause, InputError) else parser_line(message, self._options())) from ex

    def _options(self) -> set[str]:
        """Of this parser and those of its subcommands."""
        parsers: list[argparse.ArgumentParser] = [
            self,
            *(inner for action in self._actions for inner in _parsers(action)),
        ]
        return {name for parser in parsers for name in parser._option_string_actions}


def _parsers(action: argparse.Action) -> list[argparse.ArgumentParser]:
    found = action.choices.values() if isinstance(action.choices, dict) else ()
    return [parser for parser in found if isinstance(parser, argparse.ArgumentParser)]


OF_TRAINING = tuple(
    f"trainer.{name}"
    for name in (
        "max_", "min_", "limit_train", "overfit", "val_check", "check_val", "num_sanity", "log_every", "enable_check",
        "enable_model", "accumulate", "gradient", "sync_batchnorm", "reload", "detect", "model_registry", "precision",
        "enable_autolog", "barebones",
    )
)  # fmt: skip
NO_OPTIMIZER = ("optimizer", "lr_scheduler", "weights_only", "return_predictions")
USELESS = {
    "fit": ("weights_only",),
    "fit_unet": (*NO_OPTIMIZER, "seed_everything"),
    "validate": (*NO_OPTIMIZER, *OF_TRAINING, "trainer.limit_test", "trainer.limit_predict", "verbose"),
    "predict": (
        *(*NO_OPTIMIZER, *OF_TRAINING, "trainer.limit_val", "trainer.limit_test", "ckpt_path", "seed_everything"),
        "model.methods",
    ),
    "test": (
        *(*NO_OPTIMIZER, *OF_TRAINING, "trainer.limit_val", "trainer.limit_predict", "ckpt_path", "seed_everything"),
        *("model.write", "model.split", "model.off_by", "verbose"),
    ),
}
"""What means nothing to a subcommand, see ``Parser``."""


class SaveConfig(SaveConfigCallback):
    """Saves the configuration with the results instead of into the working folder."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if hasattr(pl_module, "config_yaml"):
            pl_module.config_yaml = self.parser.dump(self.config, skip_none=False)
        elif stage == "fit":
            folder = trainer.log_dir  # asked on every rank: it is broadcast
            if folder is not None and trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
                self._tell_of_others(Path(folder).parent)
                Path(folder).mkdir(parents=True, exist_ok=True)
                write_whole(Path(folder) / "config.yaml", self.parser.dump(self.config, skip_none=False).encode())

    def _tell_of_others(self, runs: Path) -> None:
        """Delete what killed trainings left half written, and say how the last of them is gone on with."""
        from lightning_mbir.prior.training.shared import resumable

        for folder in (*runs.glob("*/"), *runs.glob("*/checkpoints/")):
            remove_stale(folder)
        last = resumable(runs)
        if last is not None and not self.config.get("ckpt_path"):
            log.info("%s is of a training that has not ended; to go on with it: --ckpt_path %s", last.parents[1], last)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        reach_ranks(getattr(trainer.strategy.launcher, "procs", []))

    on_validation_start = on_test_start = on_predict_start = on_train_start

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.batches_before = getattr(pl_module, "batches_seen", None)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        untrained = self.batches_before is not None and self.batches_before == getattr(pl_module, "batches_seen", None)
        if untrained and not 0 < trainer.max_steps <= trainer.global_step:  # which was told before
            log.warning(
                "nothing was trained: --steps, --trainer.max_time (of all that --ckpt_path has taken) or another limit "
                "left no step; what is written has the weights that it began with"
            )

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, KeyboardInterrupt):
            interrupted()
        if hasattr(pl_module, "config_yaml"):
            stopped = isinstance(exception, KeyboardInterrupt)
            told_already = bool(getattr(exception, "__notes__", []))  # by the volume that was worked on
            if (stopped and trainer.predicting and not told_already) or (
                pl_module.compares and (stopped or isinstance(exception, WriteError))
            ):
                exception.add_note("what is finished is kept, and the same command goes on")
            return
        kept = [callback.last_model_path or callback.best_model_path for callback in _checkpoints(trainer)]
        last = next((path for path in reversed(kept) if Path(path).is_file()), "")
        told = f"what was trained is kept; go on with --ckpt_path {last}" if last else "nothing was kept yet"
        if last or isinstance(exception, KeyboardInterrupt):
            exception.add_note(told)


def _checkpoints(trainer: L.Trainer) -> list[ModelCheckpoint]:
    return [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]


def modules(subcommand: str) -> tuple[type[L.LightningModule], type[L.LightningDataModule]]:
    """What a subcommand runs; the others are not imported."""
    if subcommand in ("predict", "test"):
        from lightning_mbir.data.volumes.datamodule import VolumeDataModule
        from lightning_mbir.reconstruction.module import ReconstructionModule

        return ReconstructionModule, VolumeDataModule
    if subcommand == "fit_unet":
        from lightning_mbir.reconstruction.unet_training import FBPUNetModule, PairDataModule

        return FBPUNetModule, PairDataModule
    from lightning_mbir.data.slices.datamodule import SliceDataModule
    from lightning_mbir.prior.training.module import ScorePriorModule

    return ScorePriorModule, SliceDataModule


class CLI(LightningCLI):
    """One of the three command lines: training of priors, training of U-Nets, or reconstruction."""

    def __init__(self, subcommand: str, args: list[str]) -> None:
        self.defaults = subcommand
        self.chosen = "fit" if subcommand == "fit_unet" else subcommand  # Lightning's name of it
        self.reconstructs = subcommand in ("predict", "test")
        super().__init__(
            *modules(subcommand),
            save_config_callback=SaveConfig,
            parser_class=Parser,
            args=[self.chosen, *args],
            auto_configure_optimizers=self.chosen == "fit",
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        return {self.chosen: LightningCLI.subcommands()[self.chosen]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        # Set here rather than as a default config file: that one would reach the main parser alone, before the links.
        parser.set_defaults(_flat(yaml.safe_load(packaged("LightningCLI.yaml").read_text())[self.defaults]))
        parser.useless, parser.usage = USELESS[self.defaults], f"python -m lightning_mbir {self.defaults} [flags]"
        parser.description = SUBCOMMANDS[self.defaults][0]
        if self.chosen != "fit":  # null, in configurations of before
            for name in ("optimizer", "lr_scheduler"):
                parser.add_argument(f"--{name}", type=_of_fit, default=None)
        if self.defaults in ("predict", "test", "fit_unet"):
            parser.link_arguments("model.task", "data.modality", compute_fn=_modality)
        else:
            parser.link_arguments("data.modality", "model.modality")
            parser.link_arguments("data.complex", "model.complex")
            parser.link_arguments("data.slices", "model.slices")

    def _parse_ckpt_path(self) -> None:
        """Nothing: hyper-parameters stored in a checkpoint never come before the command line."""

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Look at all values, from wherever they come, before anything is made of them."""
        self.config = parser.parse_args(args)  # as Lightning does, that warns of arguments beside those of the process
        config = self.config[self.chosen]
        check_values(config, SUBCOMMANDS[self.defaults][1])
        check_nulls(config, {"trainer": L.Trainer, "model": self._model_class, "data": self._datamodule_class})
        check_classes(config)
        if config.get("weights_only") is False:
            raise InputError("weights_only false: code in a checkpoint would run; leave it out")

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        told = {"verbose": False} if subcommand == "test" else {}  # the table of the module says it
        return {**super()._prepare_subcommand_kwargs(subcommand), "weights_only": True, **told}

    def after_instantiate_classes(self) -> None:
        """Refuse a checkpoint that the module cannot take, before any volume is read."""
        path = self.config[self.chosen].get("ckpt_path")
        if path and not self.reconstructs:
            from lightning_mbir.prior.training.shared import check_checkpoint

            step = check_checkpoint(Path(path), self.model, goes_on=self.chosen == "fit")
            if self.chosen == "fit" and 0 <= self.trainer.max_steps <= step:
                log.warning(
                    "--ckpt_path %s: at step %d, and --steps %d is no more: nothing is trained, and the best so far is "
                    "written as the result; give more --steps to go on",
                    *(path, step, self.trainer.max_steps),
                )
        elif self.chosen == "validate" and not self.config[self.chosen]["model"].get("init"):
            raise InputError("validate: say of which training, with --ckpt_path, or of which prior, with --model.init")

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        config = self._get(self.config_init, "trainer")
        if self.reconstructs and config.get("logger") in (None, True):
            folder = Path(self._get(self.config_init, "model").output_dir)
            kwargs["logger"] = TensorBoardLogger(folder / "tensorboard", name="", version="", default_hp_metric=False)
        if quiet() or (self.chosen == "validate" and not sys.stdout.isatty()):  # a bar among results
            kwargs["enable_progress_bar"] = False
        told = ""
        if self.chosen == "fit" and not config.get("fast_dev_run"):  # which writes nothing
            check_writable(Path(config.get("default_root_dir") or "."))
        if self.chosen == "fit" and not config.get("plugins"):  # which may bring a precision of their own
            device = device_of(config.get("accelerator"))
            kwargs["precision"], told = chosen_for_training(config.get("precision"), device)
        trainer = super().instantiate_trainer(**kwargs)
        look_after_ranks(trainer, config.get("num_nodes") or 1, config.get("devices"))
        if self.chosen == "fit" and type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # none of the user's own
            from lightning_mbir.prior.training.shared import WholeCheckpoints

            trainer.strategy.checkpoint_io = WholeCheckpoints()
        if told and trainer.is_global_zero:
            log.info("%s", told)
        if self.chosen == "fit" and config.get("enable_progress_bar") in (None, True) and not quiet():
            from lightning_mbir.prior.training.progress import StepProgress

            own = [callback for callback in trainer.callbacks if not isinstance(callback, ProgressBar)]  # type: ignore[attr-defined]
            trainer.callbacks = [*own, StepProgress()]  # type: ignore[attr-defined]
        return trainer


def _of_fit(value: object) -> None:
    raise ValueError(f"{value} means nothing here, where nothing is trained; leave it out")


def run(subcommand: str, args: Sequence[str], flags: Sequence[Flag], trusted: Iterable[str] = ()) -> int:
    """Run a subcommand with Lightning's arguments; returns the exit status.

    Whatever ends it comes by here: what a user has caused is told in one line (see ``cli.errors``), by the first of
    several processes; a bug of ours goes on as it is, with its traceback.
    """
    _quiet()
    keep_to_data(trusted)
    before, threading.excepthook = threading.excepthook, _thread_ended
    try:
        configured = [_config_name(arg) for arg in args]
        configured.sort(key=lambda arg: not arg.startswith("--config="))  # flags come over it, wherever they stand
        if subcommand == "predict" and not any(arg.startswith("--return_predictions") for arg in configured):
            configured.append("--return_predictions=false")  # else every volume stays in memory
        cli = CLI(subcommand, configured)
    except BaseException as error:
        if not isinstance(error, InputError) and others_failed():  # which this one has followed from
            return 2
        if interrupt_behind(error):
            raise
        if isinstance(error, SystemExit):  # of --help_all and --print_config
            return error.code if isinstance(error.code, int) else 2
        line = told(error) or (_lack_of_memory(error, subcommand) if is_out_of_memory(error) else None)
        if not first_to_tell():
            return 2
        if line is None:
            raise
        notes = getattr(error, "__notes__", [])
        return fail("; ".join([in_short_flags(with_flags(line, configured), flags), *notes]))
    finally:
        threading.excepthook = before
        finish()
    failures = getattr(cli.model, "failures", [])
    if failures and cli.trainer.is_global_zero:  # what did not fail is in the tables, with the reasons of what did
        fail(f"failed: {'; '.join(failures)}")
        return 1
    return 0


def _lack_of_memory(error: BaseException, subcommand: str) -> str:
    less = "a smaller --slice_batch or --data.image_size"
    if subcommand.startswith("fit"):
        less = "a smaller --data.batch_size, with --trainer.accumulate_grad_batches to make up for it"
    reason = (str(error).splitlines() or [type(error).__name__])[0].split(". ")[0]
    return f"out of memory ({reason}); give {less}"


def _flat(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted ones."""
    flat: dict[str, Any] = {}
    for key, value in section.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat


def _modality(task: str) -> Modality:
    check_task(task)
    return SETTINGS[task][0]


def _config_name(arg: str) -> str:
    """``--config=sv_ct`` is configs/sv_ct.yaml where there is no such file."""
    name, _, value = arg.partition("=")
    if name != "--config":
        return arg
    try:
        return f"--config={config_file(value)}"
    except InputError as error:
        raise InputError(f"--config {value}: {error}") from error


def _quiet() -> None:
    """No tips and no device chatter; warnings of our own remain."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)


def _thread_ended(args: threading.ExceptHookArgs) -> None:
    """What the disk refuses TensorBoard's thread is raised again where it is written to, and told there."""
    if not issubclass(args.exc_type, OSError):
        threading.__excepthook__(args)
