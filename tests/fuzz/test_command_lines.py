"""Command lines and configurations made at random of good, bad and odd flags and values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from lightning_mbir.flags import SUBCOMMANDS
from tests.fuzz.running import command, folder

ODD = (
    "", " ", "abc", "-1", "0", "1", "2.5", "1e9", "nan", ".inf", "-.inf", "null", "None", "~", "true", "FALSE", "yes",
    "[1,2]", "[", "{", "{a: 1}", "*a", "&a x", "é", "\u202e", "a\0b", "x" * 3000, "1:2", "2:1", "-3:4", "-", "%s",
    "${HOME}", "os.system", "torch.load", "evil.Thing", "99999999999999999999", "0x10", "1_0", "1\n2", "!!python/x 1",
    "/dev/zero", "/dev/null", "nowhere.nii", "a,b", "'", '"', "=", "--views", "\udcff",
)  # fmt: skip
"""Values that no flag, or few, would take."""
GOOD = {
    "--task": ("sv_ct", "la_ct", "cs_mri"), "--views": ("1", "5", "12"), "--angle_range": ("30", "180"),
    "--acc": ("2", "4.5"), "--mask": ("uniform1d", "poisson2d"), "--photons": ("1e5",), "--snr": ("30",),
    "--coils": ("3",), "--phase": ("true",), "--steps": ("1", "2"),
    "--method": ("fbp", "zero_filled", "admm_tv", "dds"),
    "--samples": ("1", "2"), "--seed": ("7",), "--data.image_size": ("16", "24"), "--data.slices": ("0:2", "3:5"),
    "--trainer.devices": ("1", "auto"), "--methods": ("fbp", "fbp,zero_filled"), "--model.method_options": ("{}",),
}  # fmt: skip
TRAINER = (
    "--trainer.strategy", "--trainer.num_nodes", "--trainer.precision", "--trainer.limit_predict_batches",
    "--trainer.limit_test_batches", "--trainer.max_steps", "--trainer.max_epochs", "--trainer.max_time",
    "--trainer.callbacks", "--trainer.logger", "--trainer.plugins", "--trainer.profiler", "--trainer.inference_mode",
    "--trainer.barebones", "--trainer.benchmark", "--trainer.deterministic", "--model.method_options",
    "--model.operator_options", "--data.demo_volumes", "--seed_everything", "--return_predictions", "--model", "--data",
)  # fmt: skip
UNKNOWN = ("--view", "--model.vews", "--data.slice", "--x", "--", "-v", "--trainer", "--model.", "extra")
SMALL = ["--data.image_size", "16", "--data.slices", "0:2", "--trainer.accelerator", "cpu"]
"""First, so that what comes later may say otherwise."""


@st.composite
def flags(draw: st.DrawFn, subcommand: str) -> list[str]:
    """A few flags of a subcommand, mostly with values; results go where the test says."""
    known = [flag.name for flag in SUBCOMMANDS[subcommand][1] if flag.name not in ("--output_dir", "--trust")]
    arguments: list[str] = []
    for _ in range(draw(st.integers(1, 4))):
        name = draw(st.sampled_from([*known, *known, *TRAINER, *UNKNOWN]))
        value = draw(st.one_of(st.sampled_from(GOOD.get(name, ODD)), st.sampled_from(ODD), st.text(max_size=8)))
        how = draw(st.sampled_from(["apart", "apart", "joint", "joint", "none"]))
        arguments += {"apart": [name, value], "joint": [f"{name}={value}"], "none": [name]}[how]
    return arguments


@given(st.data())
def test_command_lines_of_reconstructions(data: st.DataObject) -> None:
    subcommand = data.draw(st.sampled_from(["predict", "test"]))
    method = data.draw(st.sampled_from([["--task", "sv_ct", "--method", "fbp"], ["--method", "zero_filled"]]))
    with folder() as here:
        command([subcommand, *SMALL, *method, *data.draw(flags(subcommand))], here / "out")


@given(st.data())
def test_command_lines_of_trainings(data: st.DataObject) -> None:
    """None is begun: the last argument is refused by Lightning, after everything else."""
    subcommand = data.draw(st.sampled_from(["fit", "validate", "fit_unet"]))
    with folder() as here:
        arguments = [subcommand, *data.draw(flags(subcommand)), "--trainer.fast_dev_run=-1"]
        assert command([*arguments, "--trainer.accelerator", "cpu"], here / "out") == 2


KEYS = {
    "model": ("task", "method", "views", "acc", "mask", "seed", "steps", "samples", "prior", "method_options",
              "methods", "operator", "operator_options", "photons", "phase", "slice_batch", "precision", "vews",
              "class_path"),
    "data": ("path", "measurement", "modality", "slices", "series", "demo_volumes", "axes", "spacing", "pixels"),
    "trainer": ("accelerator", "strategy", "precision", "callbacks", "logger", "plugins", "profiler", "max_steps",
                "limit_predict_batches", "inference_mode", "max_time", "fast_dev_run", "num_nodes", "callback"),
    "": ("seed_everything", "return_predictions", "weights_only", "ckpt_path", "config", "trust", "optimizer", "x"),
}  # fmt: skip
PLAIN: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 4), st.sampled_from([1e9, -1.5, float("inf"), float("nan"), 10**20]),
    st.sampled_from([value for value in ODD if value != "/dev/zero" and value.isprintable()]), st.text(max_size=6),
    st.sampled_from(["sv_ct", "cs_mri", "fbp", "lightning.pytorch.callbacks.Timer", "torch.hub.load", "nn.Module"]),
)  # fmt: skip
CLASSES = st.fixed_dictionaries(
    {"class_path": st.sampled_from(["lightning.pytorch.callbacks.Timer", "torch.load", "evil.Thing", "Timer", ""])},
    optional={"init_args": st.dictionaries(st.sampled_from(["duration", "interval", "x"]), PLAIN, max_size=2)},
)
VALUES = st.one_of(
    PLAIN, PLAIN, CLASSES, st.lists(st.one_of(PLAIN, CLASSES), max_size=3), st.dictionaries(st.text(max_size=4), PLAIN)
)


@st.composite
def configurations(draw: st.DrawFn) -> bytes:
    """YAML that is a configuration, nearly one, or none."""
    content: dict[Any, Any] = {}
    for section in draw(st.lists(st.sampled_from(list(KEYS)), min_size=1, max_size=3, unique=True)):
        given = draw(st.dictionaries(st.sampled_from(KEYS[section]), VALUES, min_size=1, max_size=2))
        content |= given if not section else {section: given if draw(st.integers(0, 9)) else draw(VALUES)}
    text = yaml.safe_dump(content, allow_unicode=True).encode(errors="replace")
    if draw(st.integers(0, 3)):
        return text
    place = draw(st.integers(0, len(text)))
    noise = draw(
        st.one_of(st.binary(min_size=1, max_size=3), st.sampled_from([b"*a", b"&a ", b"\t", b"- ", b": ", b"{"]))
    )
    return text[:place] + noise + text[place + draw(st.integers(0, 5)) :]


@given(configurations())
def test_configurations(text: bytes) -> None:
    """What is typed keeps the work small, wherever a configuration would have it otherwise."""
    with folder() as here:
        path = Path(here / "c.yaml")
        path.write_bytes(text)
        command(["predict", *SMALL, "--task", "sv_ct", "--method", "fbp", "--config", str(path)], here / "out")
