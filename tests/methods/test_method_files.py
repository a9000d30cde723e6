"""A method is one file: what is found of it, by whom, and what is refused."""

import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from lightning_mbir import methods
from lightning_mbir.cli import main
from lightning_mbir.errors import InputError
from lightning_mbir.flags import DEFAULT_TASKS, MASKS, SUBCOMMANDS
from lightning_mbir.methods import catalog
from lightning_mbir.methods.method import Count, Method, method
from lightning_mbir.methods.settings import SETTINGS
from lightning_mbir.physics import make_mask
from lightning_mbir.reconstruction import METHODS, TASKS, ReconstructionModule
from lightning_mbir.reconstruction.unet_training import FBPUNetModule

ROOT = Path(__file__).resolve().parents[2]
TOY = '''
from lightning_mbir.methods.method import method


@method(modalities=("ct",))
def {name}(p, *, steps: int = 30, gain: float = 1.0):
    """Landweber's iteration, as a toy.

    Args:
        p: the problem.
        gain: length of a step.
    """
    x = 0 * p.operator.adjoint(p.y)
    for _ in range(steps):
        x = x - gain * p.operator.adjoint(p.operator(x) - p.y)
    return x
'''


@pytest.fixture
def fresh() -> Iterator[None]:
    """Nothing is remembered of which methods there are."""
    for found in (catalog.own_cards, catalog._foreign):
        found.cache_clear()
    yield
    for found in (catalog.own_cards, catalog._foreign):
        found.cache_clear()


def run_it(name: str, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By ``METHODS``, by both helps, and by ``predict``."""
    assert name in METHODS and METHODS[name].options == {"gain": 1.0} and METHODS[name].steps == 30
    assert main(["predict", "--help"]) == 0
    assert f"  {name} " in capsys.readouterr().out
    assert main(["predict", "--method", name, "--help"]) == 0
    assert "length of a step [1.0]" in capsys.readouterr().out
    args = ["predict", "--task", "sv_ct", "--method", name, "--data.image_size", "32", "--data.slices", "12:16"]
    assert main([*args, "--trainer.accelerator", "cpu", "--output_dir", str(out)]) == 0
    assert next(out.rglob("metrics.json")).is_file()
    assert main([*args, "--model.method_options", '{"gian": 2}']) == 2
    assert f"{name} has no option gian; it has gain" in capsys.readouterr().err


@pytest.mark.usefixtures("fresh")
def test_a_file_in_the_folder_is_a_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "toy.py").write_text(TOY.format(name="toy"))
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    run_it("toy", tmp_path / "out", capsys)
    for module in [name for name in sys.modules if name.endswith("methods.toy")]:
        monkeypatch.delitem(sys.modules, module)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package that is installed, with an entry point."""
    plain = '\n\ndef plain(p):\n    """The back-projection."""\n    return p.operator.adjoint(p.y)\n'
    (tmp_path / "toy_package.py").write_text(TOY.format(name="toy_of_others") + plain)
    info = tmp_path / "toy_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-package\nVersion: 1.0\n")
    text = f"[{catalog.GROUP}]\ntoy_of_others = toy_package:toy_of_others\nfbp = toy_package:toy_of_others\n"
    text += "plain = toy_package:plain\nbroken = package_that_is_gone:method\n"
    (info / "entry_points.txt").write_text(text)
    return tmp_path


@pytest.mark.usefixtures("fresh")
def test_an_entry_point_of_another_package_is_a_method(
    package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(package))
    run_it("toy_of_others", package / "out", capsys)
    assert METHODS["plain"].name == "plain" and METHODS["plain"].options == {}  # a function that declares nothing
    assert main(["predict", "--help"]) == 0  # one that cannot be imported does no harm to the others
    said = " ".join(capsys.readouterr().out.split())  # broken into lines
    assert "broken" in said and "No module named 'package_that_is_gone'" in said
    assert main(["predict", "--method", "broken"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "method broken package_that_is_gone.method: cannot be imported" in line
    assert METHODS["fbp"].ours and list(METHODS).count("fbp") == 1  # our own names go before theirs


@pytest.mark.slow
def test_the_suite_takes_up_a_method_by_its_name(package: Path) -> None:
    paths = os.pathsep.join([str(package), str(ROOT)])
    suite = [sys.executable, "-m", "pytest", "tests/methods/test_reconstruct.py", "-n", "0", "-vv"]
    suite += ["-k", "toy_of_others"]
    info = package / "toy_package-1.0.dist-info" / "entry_points.txt"
    info.write_text(f"[{catalog.GROUP}]\ntoy_of_others = toy_package:toy_of_others\n")
    env = {**os.environ, "PYTHONPATH": paths, "PYTEST_XDIST_WORKER": "", "PYTEST_ADDOPTS": ""}
    done = subprocess.run(suite, capture_output=True, text=True, cwd=ROOT, env=env, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for task in ("sv_ct", "la_ct"):
        assert f"test_every_method_explains_the_measurement[{task}-toy_of_others] PASSED" in done.stdout


def test_methods_are_the_files() -> None:
    files = {path.stem for path in Path(catalog.__file__).parent.glob("*.py")}
    assert len(METHODS) >= 15 and set(METHODS) <= files
    assert all(METHODS[name].name == name and METHODS[name].ours for name in METHODS)


@pytest.mark.parametrize("name", list(METHODS))
def test_what_help_reads_is_what_runs(name: str) -> None:
    """The text of a file says what its function is; every option has a default and a word on what it is."""
    card, found = catalog.describe(name), METHODS[name]
    assert card.modalities == found.modalities
    assert card.summary == inspect.getdoc(found.run).splitlines()[0]  # type: ignore[union-attr]
    assert card.summary.endswith(".") and "`" not in card.summary, f"{name}: help shows its first line as it is"
    assert [option.name for option, _ in card.options] == list(found.signature)
    for option, text in card.options:
        runs = found.signature[option.name]
        assert (option.default, option.choices, option.range, option.unit, option.search) == (
            runs.default, runs.choices, runs.range, runs.unit, runs.search,
        )  # fmt: skip
        assert text, f"{name}: its docstring says nothing of {option.name}"
        runs.check(name, runs.default)
    texts = [text for _, text in card.options]
    assert len(set(texts)) == len(texts), f"{name}: options share their words"


@pytest.mark.parametrize("name", list(METHODS))
def test_every_option_has_a_default_a_range_and_a_unit(name: str) -> None:
    """In help, where a user reads of them; numbers with a fraction are of something, be it a ratio."""
    for option, _ in catalog.describe(name).options:
        assert option.default is not None and option.text, f"{name}: {option.name} has no default"
        assert option.range, f"{name}: {option.name} says nothing of what it may be"
        assert option.unit or option.plain is not float, f"{name}: {option.name} says nothing of its unit"
        if option.search is not None and not isinstance(option.default, bool):
            assert option.search.least < option.search.most
            for value in (option.search.least, option.search.most):
                METHODS[name].signature[option.name].check(name, int(value) if option.whole else float(value))


def test_a_method_without_a_word_on_it_is_refused() -> None:
    with pytest.raises(InputError, match="method silent: has no docstring; its first line is what help says of it"):

        @method()
        def silent(p: Any, *, steps: Count = 3) -> None: ...


def test_an_option_without_a_default_is_refused() -> None:
    with pytest.raises(InputError, match="method bare: option rho has no default; its signature is where that is"):

        @method()
        def bare(p: Any, *, rho: float) -> None:
            """Something."""

    with pytest.raises(InputError, match=r"method unnamed: rho: .* is no option; options come after \*"):

        @method()
        def unnamed(p: Any, rho: float = 1.0) -> None:
            """Something."""


def test_needs_and_modalities_that_there_are_not_are_refused() -> None:
    def something(p: Any) -> None:
        """Something."""

    with pytest.raises(InputError, match="needs has 'priors'; there are prior, second_prior"):
        Method(something, needs=("priors",))
    with pytest.raises(InputError, match="modalities has 'pet'; there are ct, mri"):
        Method(something, modalities=("pet",))


def test_options_of_a_foreign_function_are_checked_by_its_types() -> None:
    def mine(p: Any, *, kind: Literal["a", "b"] = "a", share: float = 0.5, on: bool = True, untyped=3) -> None:  # type: ignore[no-untyped-def]
        """Something."""

    found = Method(mine)
    for options, words in [
        ({"kind": "c"}, "kind is 'c'; give a or b"),
        ({"share": "x"}, "give a number"),
        ({"share": -1.0}, "at least 0"),
        ({"on": 1}, "true or false"),
        ({"untyped": 2.5}, "whole number"),
        ({"other": 1}, "has no option other; it has kind, share, on, untyped"),
    ]:
        with pytest.raises(InputError, match=words):
            found.check(options, None)
    found.check({"kind": "b", "share": 2, "on": False, "untyped": 4}, None)


def test_flags_say_what_the_code_says() -> None:
    """What the light front knows of tasks, masks and defaults is what the rest knows."""
    assert set(TASKS) == set(SETTINGS) and all(TASKS[name].modality == SETTINGS[name][0] for name in TASKS)
    for name in MASKS:
        assert make_mask(name, (32, 32), 2.0).shape == (32, 32)
    classes = {"predict": ReconstructionModule, "test": ReconstructionModule, "fit_unet": FBPUNetModule}
    for subcommand, task in DEFAULT_TASKS.items():
        assert inspect.signature(classes[subcommand]).parameters["task"].default == task
        assert any(flag.name == "--task" for flag in SUBCOMMANDS[subcommand][1])
