"""Configurations are data: what they may hold, what they may name, and what is refused before it does anything."""

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from jsonargparse import Namespace

from lightning_mbir.cli import main
from lightning_mbir.cli.configs import check_classes
from lightning_mbir.errors import InputError
from lightning_mbir.lazy import imported, trusting
from lightning_mbir.methods.catalog import get_method
from lightning_mbir.physics import LinearOperator
from lightning_mbir.yaml_text import ALIASES, DEEPEST, LONGEST, check_value, check_yaml, read_yaml
from tests.cli.test_errors import PREDICT, refused

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + k)}: &{chr(98 + k)} [{', '.join([f'*{chr(97 + k)}'] * 9)}]\n" for k in range(9)
)


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with a module that tells when it is imported."""
    (tmp_path / "evil.py").write_text(
        "from pathlib import Path\nfrom lightning.pytorch.callbacks import Callback\nPath('pwned').touch()\n"
        "class Thing(Callback): ...\ndef run(p):\n    'Runs.'\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "evil", raising=False)
    yield tmp_path


def config(text: str | bytes) -> list[str]:
    Path("c.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return [*PREDICT, "--trainer.accelerator=cpu", "--config", "c.yaml"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (bytes(range(256)), "no text in UTF-8 (invalid start byte at byte 128)"),
        ("model:\n  views: 8\n".encode("utf-16"), "no text in UTF-8"),
        (b"model:\n  views: 8\x00\n", "control characters are not allowed"),
        ("", "holds nothing"),
        ("# only a word\n", "holds nothing"),
        ("- 1\n- 2\n", "holds a list"),
        ("5\n", "holds a int"),
        ("a: [1, 2\nb: }", "no YAML"),
        ("a: 1\n---\nb: 2\n", "another document"),
        ("model:\n  views: 8\n  views: 9\n", "views stands there twice (line 2)"),
        ("model:\n  views: 8\ndata: {}\nmodel:\n  steps: 3\n", "model stands there twice"),
        ("modell:\n  views: 8\n", "modell.views: no setting of this command (did you mean model.views?)"),
        ("model:\n  vews: 8\n", "model.vews: no setting of this command (did you mean model.views?)"),
        ("views: 8\n", "views: no setting of this command"),
        ("model:\n  objective: edm\n", "model.objective: no setting of this command"),
        ("predict:\n  model:\n    views: 8\n", "predict.model.views: no setting of this command"),
        ("model: null\n", "model is None; give its settings below it"),
        ("model: 5\n", "model is 5"),
        ("data: [1]\n", "data is [1]"),
        ("trainer:\n", "trainer is None"),
        ("model:\n  views: abc\n", "--views abc: give a whole number"),
        ("model:\n  views: 8.5\n", "--views 8.5: give a whole number"),
        ("model:\n  steps: 1000000000\n", "--steps 1000000000: give a whole number of at most 100000"),
        ("model:\n  seed: -1\n", "--seed -1: give a whole number of at least 0"),
        ("data:\n  path: nowhere.nii\n", "--data.path nowhere.nii: no such file"),
        ("seed_everything: -1\n", "--seed_everything -1"),
        ("1: 2\n", "1 is no name of a setting"),
        ("? [1, 2]\n: 3\n", "no YAML"),
        ("config: other.yaml\n", "names another configuration"),
        ("default_config_files: [x]\n", "default_config_files: no setting"),
        ("trust: evil\n", "trust: no setting of this command"),
        ("weights_only: false\n", "weights_only false: code in a checkpoint would run"),
        ("model: !!python/object/apply:os.system ['touch pwned']\n", "could not determine a constructor for the tag"),
        (BOMB, f"more than {ALIASES} references"),
        ("model: " + "[" * 100_000 + "]" * 100_000, f"more than {DEEPEST} deep"),
        ("model:\n" + "  # a word\n" * LONGEST, f"give a YAML file of at most {LONGEST}"),
        (f"model:\n  method_options: '{{a: &a [x], b: [{'*a, ' * 20}]}}'\n", f"more than {ALIASES} references"),
    ],
)  # fmt: skip
def test_what_is_no_configuration_is_refused_in_one_line(
    text: str | bytes, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refused(config(text), capsys)


@pytest.mark.parametrize("name", [".", "/dev/null", "/dev/zero", "http://localhost:1/x.yaml", "nowhere"])
def test_what_is_no_file_is_no_configuration(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"--config {name}: " in refused([*PREDICT, "--config", name], capsys)


def test_values_are_read_within_limits_too(capsys: pytest.CaptureFixture[str]) -> None:
    for value in ("{a: &a [x], b: [" + "*a, " * 20 + "]}", "[" * 200, "x" * (LONGEST + 1)):
        assert "--model.method_options" in refused([*PREDICT, "--model.method_options", value], capsys)[:100]
    check_value({"a": ["{not: [yaml", "*", 3, None, {"b": "x*y"}]})
    check_yaml("a: &a {b: 1}\nc:\n  <<: *a\n  d: 2\n")
    with pytest.raises(InputError, match="b stands there twice"):
        check_yaml("a: [{b: 1, b: 2}]")


def test_text_between_braces_is_text(work: Path) -> None:
    """No file that a value might name is read, and no variable."""
    assert main(config("model:\n  output_dir: ${oc.env:HOME}/x\n")) == 0
    assert next(Path("${oc.env:HOME}/x").rglob("metrics.json")).is_file()


def test_scalars_are_what_they_look_like() -> None:
    """Where YAML 1.1 has base 60, octal numbers that begin with 0, ``no`` as false, and dates that may not be."""
    texts = ["20:44", "1:00:30:00", "1:30.5", "0100", "001", "no", "on", "y", "2026-13-45", "2026-01-02", "=", "1__0"]
    texts += ["0,1", "1.2.3", "1e", "e5", "+", ".", "0x", "9" * 5000, "abc"]
    assert read_yaml("\n".join(f"- {text}" for text in texts)) == texts
    numbers = {"0": 0, "-7": -7, "+12": 12, "1_000": 1000, "0x10": 16, "0o17": 15, "1e-4": 1e-4, "1E5": 1e5}
    numbers |= {"1.5": 1.5, ".5": 0.5, "5.": 5.0, "-0.5e-3": -5e-4, "012.5": 12.5, ".inf": math.inf, "1_0.5": 10.5}
    found = read_yaml("\n".join(f"- {text}" for text in numbers))
    assert found == list(numbers.values())
    assert [type(value) for value in found] == [type(value) for value in numbers.values()]
    assert read_yaml("[true, False, null, ~, ]") == [True, False, None, None] and read_yaml("a:") == {"a": None}
    assert math.isnan(read_yaml(".nan"))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("trainer: {max_time: 00:00:30:00}\n", "max_time: 00:00:30:00"),
        ("trainer: {max_time: 1:00:30:00}\n", "max_time: '1:00:30:00'"),
        ("trainer: {max_steps: 0100}\n", "max_steps: 100"),
        ("data: {held_out: 001}\n", "held_out: '001'"),
        ("data: {held_out: no}\n", "held_out: 'no'"),
        ("data: {held_out: 2026-13-45}\n", "held_out: '2026-13-45'"),
        ("data: {image_size: [064, 128]}\n", "- 64"),
        ("model: {learning_rate: 1e-4}\n", "learning_rate: 0.0001"),
    ],
)
def test_a_configuration_says_what_was_written(text: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("c.yaml").write_text(text)
    assert main(["fit", "--config", "c.yaml", "--print_config"]) == 0
    assert line in [said.strip() for said in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("trainer: {max_time: 00:30:00}\n", "--trainer.max_time 00:30:00: give days:hours:minutes:seconds"),
        ("trainer: {max_time: 1:30:00}\n", "--trainer.max_time 1:30:00: give days:hours:minutes:seconds"),
        ("trainer: {max_time: 00:00:00:00}\n", "--trainer.max_time 00:00:00:00: leaves no time"),
        ("trainer: {max_time: {minutes: 0}}\n", "leaves no time"),
        ("trainer: {max_steps: 1:30}\n", "--steps 1:30: give a whole number"),
        ("model: {learning_rate: 1:30.5}\n", "--model.learning_rate 1:30.5: give a number"),
        ("model: {compile: on}\n", "--model.compile on: give true or false"),
    ],
)
def test_what_would_be_another_value_is_refused(text: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("c.yaml").write_text(text)
    assert words in refused(["fit", "--config", "c.yaml"], capsys)


EVIL = [
    "trainer:\n  callbacks: evil.Thing\n",
    "trainer:\n  callbacks:\n    - class_path: evil.Thing\n",
    "trainer:\n  callbacks:\n    class_path: evil.Thing\n",
    "trainer:\n  logger: evil.Thing\n",
    "trainer:\n  plugins: [evil.Thing]\n",
    "trainer:\n  strategy: {class_path: evil.Thing}\n",
    "trainer:\n  profiler: {class_path: evil.Thing}\n",
    "trainer:\n  accelerator: {class_path: evil.Thing}\n",
    "trainer:\n  callbacks:\n    - class_path: lightning.pytorch.callbacks.LambdaCallback\n"
    "      init_args: {setup: evil.run}\n",
    "trainer:\n  callbacks:\n    - class_path: lightning.pytorch.callbacks.LambdaCallback\n"
    "      init_args: {setup: {class_path: evil.Thing}}\n",
    "model:\n  method: evil.run\n",
    "model:\n  operator: evil.Thing\n",
    "model:\n  prior: evil.run\n",
    "model:\n  prior_network: evil.Thing\n",
]


@pytest.mark.parametrize("text", EVIL)
def test_class_paths_of_others_are_not_imported(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    args = [arg for arg in config(text) if arg not in ("--method", "fbp")]  # which would come before that of the text
    assert "if you trust it, add --trust evil" in refused(args, capsys)
    assert not Path("pwned").exists() and "evil" not in sys.modules


@pytest.mark.parametrize("text", ["optimizer: evil.Thing\n", "lr_scheduler: {class_path: evil.Thing}\n"])
def test_optimizers_of_others_mean_nothing_where_nothing_is_trained(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"--{text.partition(':')[0]}: " in (told := refused(config(text), capsys))
    assert "means nothing here, where nothing is trained; leave it out" in told
    assert not Path("pwned").exists() and "evil" not in sys.modules


@pytest.mark.parametrize("key", ["callbacks", "logger", "strategy", "plugins", "profiler", "callbacks.class_path"])
@pytest.mark.parametrize("joint", ["=", " "])
def test_class_paths_of_flags_are_not_imported(key: str, joint: str, capsys: pytest.CaptureFixture[str]) -> None:
    refused([*PREDICT, *f"--trainer.{key}{joint}evil.Thing".split(" ")], capsys)
    refused([*PREDICT, *f"--trainer.callbacks.help{joint}evil.Thing".split(" ")], capsys)
    assert not Path("pwned").exists() and "evil" not in sys.modules


def test_a_package_that_is_trusted_where_it_is_typed_is_imported(capsys: pytest.CaptureFixture[str]) -> None:
    args = config("trainer:\n  callbacks: [{class_path: evil.Thing}]\n")
    assert main([*args, "--trust", "other,evil"]) == 0
    assert Path("pwned").exists()
    sys.modules.pop("evil")
    Path("pwned").unlink()
    assert main([*args, "--output_dir", "again"]) == 2  # the next time it is not
    assert "add --trust evil" in capsys.readouterr().err and not Path("pwned").exists()
    for value in ("", "a b", "jsonargparse", "../x"):
        assert "--trust" in refused([*PREDICT, "--trust", value], capsys)


@pytest.mark.parametrize(
    "path",
    ["torch.hub.load", "torch.load", "torch.os.system", "os.system", "subprocess.Popen", "builtins.exec",
     "torch.nn.Linear", "lightning_mbir.cli.main", "monai.bundle.ConfigParser", "torch.utils.data.DataLoader"],
)  # fmt: skip
def test_what_is_no_part_of_a_trainer_is_not_called(
    path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def called(*args: object, **options: object) -> None:
        raise SystemExit("called")

    monkeypatch.setattr("torch.hub.load", called)
    for key in ("callbacks", "logger", "profiler", "strategy"):
        refused(config(f"trainer:\n  {key}:\n    class_path: {path}\n    init_args: {{}}\n"), capsys)
    callback = "class_path: lightning.pytorch.callbacks.LambdaCallback"
    for setup in (path, f"{{class_path: {path}}}"):
        refused(config(f"trainer:\n  callbacks:\n  - {callback}\n    init_args:\n      setup: {setup}\n"), capsys)
    for flag in ("--method", "--operator"):
        assert flag in refused([*PREDICT[:3], flag, path], capsys)
    assert "--prior" in refused([*PREDICT[:3], "--prior", path, "--method", "dds", *PREDICT[5:]], capsys)


def test_parts_of_the_trainer_may_be_chosen() -> None:
    callbacks = "[{class_path: lightning.pytorch.callbacks.DeviceStatsMonitor}]"
    logger = "{class_path: lightning.pytorch.loggers.CSVLogger, init_args: {save_dir: logs}}"
    assert main(config(f"trainer:\n  callbacks: {callbacks}\n  logger: {logger}\n")) == 0


def test_classes_of_a_configuration_are_parts_of_a_trainer() -> None:
    with trusting(["tests"]):
        check_classes(Namespace(a=[{"class_path": "lightning.pytorch.callbacks.Timer"}], b=Path("x"), c=torch.float32))
        check_classes({"class_path": "tests.helpers.gaussian_prior"})  # whoever trusts a package trusts all of it
        for value in (print, torch.load, torch.nn.Linear):
            with pytest.raises(InputError, match="code, and no setting"):
                check_classes({"a": [value]})
        with pytest.raises(InputError, match=r"class_path torch.nn.Linear: no Callback or Logger"):
            check_classes({"a": {"class_path": "torch.nn.Linear"}})


def test_what_a_library_passes_on_is_of_the_one_who_defines_it() -> None:
    """``lightning_mbir.packaged.Path`` is pathlib's, and no method."""
    with trusting([]), pytest.raises(InputError, match="no LinearOperator, so it is not called"):
        imported("--operator", "lightning_mbir.packaged.Path", LinearOperator)


def test_in_python_all_class_paths_go() -> None:
    """They are the user's own code; the command line is asked for trust while it runs alone."""
    assert main([*PREDICT[:3], "--method", "evil.run"]) == 2
    assert not Path("pwned").exists()
    assert get_method("evil.run").run.__doc__ == "Runs."
    assert Path("pwned").exists()


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("scatter: 0.02", "--data.scatter 0.02: tells about the file of --data.measurement"),
        ("scatter: 1.5", "--data.scatter 1.5: give a share of the open beam"),
        ("series: 3", "--data.series 3: tells about a DICOM folder"),
    ],
)
def test_numbers_may_stand_unquoted_where_a_text_is_taken(
    setting: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """YAML makes numbers of them; ``--data.scatter 0.02`` is a text on the command line."""
    config = tmp_path / "config.yaml"
    config.write_text(f"data:\n  {setting}\n")
    assert main(["predict", "--task", "sv_ct", "--config", str(config), "--output_dir", str(tmp_path / "out")]) == 2
    assert line in capsys.readouterr().err
