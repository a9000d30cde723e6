"""The gallery: pages and notebooks are what its scripts say, and every script runs and shows what it answers."""

import ast
import functools
import importlib.util
import itertools
import re
import subprocess
from pathlib import Path
from types import CodeType
from typing import Any

import nbformat
import pytest
import torch

from lightning_mbir.cli import main

ROOT = Path(__file__).resolve().parents[1]
spec = importlib.util.spec_from_file_location("gallery", ROOT / "docs" / "gallery.py")
assert spec is not None and spec.loader is not None
gallery = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gallery)


@functools.cache
def committed(name: str) -> Any:
    return nbformat.read(gallery.NOTEBOOKS / f"{name}.ipynb", as_version=4)


def test_every_example_has_all_of_its_files_and_nothing_is_left_of_others() -> None:
    names = set(gallery.EXAMPLES)
    assert {path.stem for path in gallery.GALLERY.glob("*.py")} == names
    assert {path.stem for path in gallery.GALLERY.glob("*.md")} == names | {"index"}
    assert {path.stem for path in gallery.NOTEBOOKS.glob("*.ipynb")} == names
    files = {file for name in names for file in gallery.picture_names(name, len(gallery.pictures(committed(name))))}
    assert {path.name for path in gallery.GALLERY.glob("*.png")} == files | {f"{name}_small.png" for name in names}
    listed = re.findall(r" gallery/(\w+)\.md$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert listed == ["index", *gallery.EXAMPLES]


@pytest.mark.parametrize("name", gallery.EXAMPLES)
def test_page_and_notebook_are_those_of_the_script(name: str) -> None:
    """Where this fails: python docs/gallery.py --only NAME."""
    notebook = committed(name)
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == [
        (cell.cell_type, cell.source) for cell in gallery.script(name).cells
    ]
    assert (gallery.GALLERY / f"{name}.md").read_text() == gallery.page(name, notebook)
    drawn = gallery.pictures(notebook)
    assert drawn
    for file, picture in zip(gallery.picture_names(name, len(drawn)), drawn, strict=True):
        assert (gallery.GALLERY / file).read_bytes() == picture


def test_the_start_page_is_that_of_the_notebooks() -> None:
    text = (gallery.GALLERY / "index.md").read_text()
    assert text == gallery.start_page({name: committed(name) for name in gallery.EXAMPLES})


@pytest.mark.parametrize("name", gallery.EXAMPLES)
def test_an_example_is_a_question_its_answer_and_what_it_cannot_tell(name: str) -> None:
    notebook = committed(name)
    assert gallery.title(notebook).endswith("?") and len(gallery.answer(notebook)) > 20
    assert "**What this cannot tell:**" in notebook.cells[-1].source
    said = (gallery.GALLERY / f"{name}.md").read_text() + str(notebook)
    assert not re.search(r"site-packages|(?<![\w.])/(tmp|home|root|work|usr)/|Traceback|Warning", said)


def test_what_is_printed_is_told_without_the_folders_of_a_machine() -> None:
    printed = "/x/lib/site-packages/torch/a.py:3: Warning: old\n  line\n/x/lightning_mbir/b.py:4: cuts\nin /y/z/out\n"
    assert gallery.told(printed, "/y/z") == "lightning_mbir/b.py:4: cuts\nin out\n"
    cell = "/tmp/ipykernel_11/22.py:3: UserWarning: tooth: the detector cuts\n  operator = measured_operator(part)\n"
    assert gallery.told(cell, "/y/z") == "tooth: the detector cuts\n"


def compiled(source: str, name: str) -> tuple[CodeType, CodeType | None]:
    """A cell, and the expression in its last line, whose value a notebook shows."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    shown = None if last is None else compile(ast.Expression(last.value), name, "eval")  # type: ignore[attr-defined]
    return compile(tree, name, "exec"), shown


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the cells of an example in this process, in an empty folder, with other parameters."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, **parameters: Any) -> dict[str, Any]:
        given: dict[str, Any] = {}
        for cell in gallery.script(name).cells:
            if cell.cell_type != "code":
                continue
            code, shown = compiled(cell.source, f"{name}.py")
            exec(code, given)
            if shown is not None:
                given["shown"] = eval(shown, given)
            if "parameters" in cell.metadata.get("tags", []):
                assert set(parameters) <= set(given)
                given |= parameters
        shown = given["shown"]  # a figure, or an image from a file
        assert (shown.data if hasattr(shown, "data") else shown._repr_png_())[1:4] == b"PNG"
        return given

    return run


def psnr(given: dict[str, Any], *names: str) -> list[float]:
    """Of these volumes, in the plane that was measured."""
    assert all(bool(torch.isfinite(result.volume).all()) for result in given["results"].values())
    return [given["scores"][name]["axial"]["psnr"] for name in names]


def rises(values: list[float]) -> bool:
    return all(a + 0.5 < b for a, b in itertools.pairwise(values))


def test_sparse_views(ran: Any) -> None:
    given = ran("sparse_views", slices="15:17", size=96, steps=10)
    assert rises(psnr(given, "FBP", "ADMM-TV", "dds"))


def test_limited_angle(ran: Any) -> None:
    given = ran("limited_angle", slices="15:17", size=64, steps=8, views=15)
    assert rises(psnr(given, "FBP", "ADMM-TV", "dds"))


def test_accelerated_mri(ran: Any) -> None:
    given = ran("accelerated_mri", slices="15:17", size=64, steps=8)
    assert rises(psnr(given, "zero-filled", "wavelets", "dds"))


def test_measured_kspace_without_a_file(ran: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ran("measured_kspace", steps=4)
    assert "a simulated scan" in capsys.readouterr().out.splitlines()[0] and (tmp_path / "simulated.npz").is_file()
    assert given["measurement"].y.shape == (1, 8, 128, 128)
    assert min(psnr(given, *given["results"])) > 20


def test_measured_kspace(ran: Any, shared: Path) -> None:
    given = ran("measured_kspace", path=str(shared / "data" / "raw" / "brain_gre_16ch_128x128.npz"), steps=10)
    sense, tv, wavelets = psnr(given, "SENSE", "ADMM-TV", "wavelets")
    assert wavelets == max(psnr(given, *given["results"])) and min(sense, tv) > 25


def test_measured_ct_without_a_file(ran: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ran("measured_ct", steps=4)
    assert "a simulated scan" in capsys.readouterr().out.splitlines()[0] and (tmp_path / "simulated.npz").is_file()
    assert given["calibrated"] and given["everything"].shape == (1, 128, 128)
    assert rises(psnr(given, "FBP", "ADMM-TV"))


@pytest.mark.filterwarnings("ignore:.*the detector cuts off")  # the page has it
def test_measured_ct(ran: Any, shared: Path) -> None:
    given = ran("measured_ct", path=str(shared / "data" / "raw" / "tooth_parallel_projections.h5"), size=96, steps=8)
    assert not given["calibrated"]
    residual = {name: result.residual for name, result in given["results"].items()}
    chests, none = "dds, chests", "dds, no anatomy"
    assert 2 * max(residual[chests], residual[none]) < residual["ADMM-TV"]  # the noise, whichever prior
    assert psnr(given, chests) == pytest.approx(psnr(given, none), abs=1)


def test_samples(ran: Any) -> None:
    given = ran("samples", slices="15:17", size=64, samples=3, steps=5)
    raw = given["calibrate"](given["result"].volume, given["result"].std, given["volume"].data, 3)
    assert given["factor"] > 1.5 and abs(given["judged"].ratio - 1) < 0.3 < abs(raw.ratio - 1)
    assert raw.within_90 < given["judged"].within_90


def test_own_operator(ran: Any) -> None:
    given = ran("own_operator", slices="15:17", size=64, steps=8)
    assert given["gap"] < 1e-12
    assert rises(psnr(given, "as measured", "ADMM-TV", "dds"))


def test_own_denoiser(ran: Any) -> None:
    given = ran("own_denoiser", slices="15:17", size=64, steps=8)
    assert rises(psnr(given, "FBP", "dds, wavelets", "dds, ct"))


def test_train_prior(ran: Any, tmp_path: Path) -> None:
    """Three batches teach nothing, but what they are is what the file has."""
    given = ran("train_prior", size=32, batches=3, steps=2)
    assert (tmp_path / "prior.safetensors").is_file() and given["module"].slices_seen == 24
    trained = given["module"].ema.module.state_dict()
    for name, value in given["prior"].network.state_dict().items():
        torch.testing.assert_close(value, trained[name], rtol=1e-3, atol=1e-3)
    assert psnr(given, "dds, one minute") != psnr(given, "dds, ct")


@pytest.mark.slow
def test_several_processes(ran: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    start = subprocess.run

    def alone(words: list[str], **options: Any) -> Any:
        """One process needs no other one."""
        if "--trainer.devices 1" not in " ".join(words):
            return start(words, **options)
        assert main(words[3:]) == 0
        return subprocess.CompletedProcess(words, 0, "")

    monkeypatch.setattr(subprocess, "run", alone)
    task = "--task sv_ct --views 8 --method admm_tv --steps 4"
    given = ran("several_processes", task=task, data="--data.image_size 32 --data.slices 12:20")
    assert given["one"].shape == (8, 32, 32)
    assert float((given["one"] - given["two"]).abs().max()) < 1e-4 * float(given["one"].max())
    assert "2 --output_dir two" in capsys.readouterr().out


@pytest.mark.slow
def test_the_command_writes_what_it_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a kernel, into the folders of pages and notebooks; with the files of --data beside it."""
    folders = {name: tmp_path / name for name in ("pages", "notebooks", "data")}
    for folder in folders.values():
        folder.mkdir()
    (folders["data"] / "scan.txt").write_text("measured")
    (folders["pages"] / "tiny.py").write_text(
        '# %% [markdown]\n# # Is it one?\n#\n# **Yes, and it says so.**\n\n# %%\nfrom pathlib import Path\n\n'
        'print(Path("scan.txt").read_text(), Path("scan.txt").absolute())\n\n# %%\n'
        "from lightning_mbir.report.sheet import new_figure\n\nnew_figure((1, 1))\n"
    )  # fmt: skip
    monkeypatch.setattr(gallery, "GALLERY", folders["pages"])
    monkeypatch.setattr(gallery, "NOTEBOOKS", folders["notebooks"])
    monkeypatch.setattr(gallery, "EXAMPLES", ("tiny",))
    gallery.main(["--only", "tiny", "--data", str(folders["data"])])
    page = (folders["pages"] / "tiny.md").read_text()
    assert "```text\nmeasured scan.txt\n```" in page and "![Is it one?](tiny.png)" in page
    assert (folders["pages"] / "tiny.png").read_bytes()[1:4] == b"PNG" and (
        folders["notebooks"] / "tiny.ipynb"
    ).is_file()
    assert "**[Is it one?](tiny.md)**\n\n    Yes, and it says so." in (folders["pages"] / "index.md").read_text()
