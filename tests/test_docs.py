"""The site builds without a warning, its tables are tables, what it quotes is in the code, and its Python runs."""

import ast
import functools
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lightning_mbir

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. ``strict`` of mkdocs.yml makes an error of each link or anchor that leads nowhere."""
    pytest.importorskip("mkdocs", reason="the site is built by the docs extra, which the test extra brings")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, env=env)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr + done.stdout
    return out


def prose(text: str) -> str:
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def page(site: Path, path: Path) -> str:
    name = path.relative_to(DOCS).with_suffix("")
    return (site / (name.parent if name.name == "index" else name) / "index.html").read_text()


def test_tables_and_equations_of_the_site_are_some(site: Path) -> None:
    """Markdown of GitHub and of the site differ in what may stand before a table or a list."""
    for path in DOCS.rglob("*.md"):
        text, html = prose(path.read_text()), page(site, path)
        assert html.count("<table>") == len(re.findall(r"^\|(?:-+\|)+$", text, re.MULTILINE)), path.name
        assert html.count("<math") == len(re.findall(r"\$\$[^$]+\$\$|\$[^$\n]+\$", text)), path.name
        bare = re.sub(r"<(pre|code|script)\b.*?</\1>", "", html, flags=re.DOTALL)
        assert not re.findall(r"^- .*", bare, re.MULTILINE), path.name


def test_the_site_asks_nobody_else_for_anything(site: Path) -> None:
    for path in site.rglob("*.html"):
        loaded = re.findall(r'<(?:script|img|link|iframe)\b[^>]*?(?:src|href)="(https?://[^"]+)"', path.read_text())
        assert not loaded, path


def test_every_page_is_in_the_navigation() -> None:
    listed = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    pages = [str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")]
    assert not [name for name in pages if f" {name}\n" not in listed]


def test_the_site_has_all_options_of_all_methods(site: Path) -> None:
    html = page(site, DOCS / "options.md")
    for name, method in lightning_mbir.METHODS.items():
        section = re.search(rf'<h2 id="{name}">.*?(?=<h2|</article>)', html, re.DOTALL)
        assert section is not None, name
        rows = re.findall(r"<tr>\s*<td><code>(\w+)</code></td>\s*<td>([^<]+)</td>\s*<td>([^<]+)</td>", section[0])
        assert [row[0] for row in rows] == list(method.signature)
        assert [row[1:] for row in rows] == [(option.text, option.range) for option in method.signature.values()]


def test_the_reference_shows_arguments_and_errors(site: Path) -> None:
    html = page(site, DOCS / "api" / "reconstruction.md")
    for anchor in ("reconstruct", "Problem", "METHODS"):
        assert f'id="lightning_mbir.{anchor}"' in html
    assert "Raises:" in html and "weights" in html


def test_each_public_name_of_the_reference_has_a_heading_an_anchor_and_words_of_its_own(site: Path) -> None:
    for path in (DOCS / "api").glob("*.md"):
        html = page(site, path).partition("<article")[2]
        entry = r'<h3 id="lightning_mbir\.([\w.]+)".*?>(.*?)</h3>(.*?)(?=<h[23] |</article>)'
        found = re.findall(entry, html, re.DOTALL)
        asked = re.findall(r"^::: lightning_mbir\.(\S+)$", path.read_text(), re.MULTILINE)
        assert [name for name, *_ in found] == asked
        for name, heading, body in found:
            own = name.rpartition(".")[2]
            assert re.findall(r'doc-object-name [\w-]+">(\w+)<', heading) == [own], name
            words = re.sub(r"<[^>]+>", "", body.partition("doc-contents")[2].partition(">")[2])
            assert len(words.split()) > 5, name
            assert f'<h4 id="lightning_mbir.{name}.{own}"' not in body, f"{name} is the file; {name}.{own} is meant"


def messages() -> set[str]:
    """The texts of the package, with ``…`` for what is put into them."""

    def text(node: ast.AST) -> str:
        if isinstance(node, ast.JoinedStr):
            return "".join(text(value) for value in node.values)
        return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else "…"

    trees = [ast.parse(path.read_text()) for path in (ROOT / "lightning_mbir").rglob("*.py")]
    return {text(node) for tree in trees for node in ast.walk(tree) if isinstance(node, ast.JoinedStr | ast.Constant)}


def test_messages_that_are_quoted_are_in_the_code() -> None:
    table = (DOCS / "troubleshooting.md").read_text().split("## Flags")[1]
    quoted = [found.replace("\\`", "`") for found in re.findall(r"^\| `((?:[^`\\]|\\.)+)` \|", table, re.MULTILINE)]
    quoted += [found.strip() for found in re.findall(r"^\| `` (.+?) `` \|", table, re.MULTILINE)]
    there = "\n".join(messages())
    assert len(quoted) > 45
    assert not [message for message in quoted if message not in there]


def tiny(z: int, *shape: int) -> torch.Tensor:
    return torch.rand(z, *shape, generator=torch.Generator().manual_seed(0))


def run(name: str, block: int, given: dict[str, Any]) -> dict[str, Any]:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / name).read_text(), re.DOTALL)
    exec(blocks[block], given)
    return given


def test_the_file_that_the_guide_writes_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    degrees = torch.arange(12) * 15.0
    line_integrals = lightning_mbir.ParallelBeam(256, degrees.tolist(), pixel_size=0.7)(tiny(2, 256, 256) * 0.01)
    run("guides/ct.md", 0, {"line_integrals": line_integrals.numpy(), "degrees": degrees.numpy()})
    measured = lightning_mbir.read_measurement("scan.npz", "ct")
    operator = lightning_mbir.measured_operator(measured)
    assert float((operator.adjoint(measured.y) - operator.adjoint(line_integrals)).abs().max()) < 1e-5


@pytest.mark.filterwarnings("ignore")
def test_the_guide_from_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("scans").mkdir()
    affine = np.diag([4.0, 4.0, 5.0, 1.0])
    for k in range(2):
        volume = lightning_mbir.Volume(0.02 * tiny(3, 32, 32), affine, f"p{k}", "ct")
        lightning_mbir.write_volume(f"scans/p{k}.nii.gz", volume)
    found: dict[str, Any] = {}
    for block in range(3):
        found = run("guides/python.md", block, found)
        assert [record.name for record in found["records"]] == ["p0", "p1"]
    ours, monai = (Path(folder, "sv_ct/p1/recon.nii.gz") for folder in ("outputs", "monai"))
    assert read(ours) == read(monai)  # bit for bit, as it says
    assert "sv_ct/fbp/volume_psnr" in found["scores"]


def read(path: Path) -> bytes:
    return lightning_mbir.read_volume(path, "ct").data.numpy().tobytes()


@pytest.mark.slow
def test_the_guides_reconstruct(monkeypatch: pytest.MonkeyPatch) -> None:
    """As they stand there, but in three levels."""
    monkeypatch.setattr(lightning_mbir, "reconstruct", functools.partial(lightning_mbir.reconstruct, steps=3))
    operator = lightning_mbir.ParallelBeam(128, [i * 22.5 for i in range(8)], pixel_size=2.7)
    found = run("guides/ct.md", 1, {"sinogram": operator(tiny(2, 128, 128) * 0.02)})
    assert found["result"].volume.shape == (2, 128, 128) and found["result"].residual < 0.5
    maps = lightning_mbir.loop_coil_maps(4, 32)
    everything = lightning_mbir.MultiCoilFourier(torch.ones(32, 32), maps)
    mask = torch.ones(32, 32)
    mask[:, :4] = 0
    found = run("guides/kspace.md", 0, {"kspace": everything(tiny(2, 32, 32) + 0j), "mask": mask})
    assert found["result"].volume.shape == (2, 32, 32)
