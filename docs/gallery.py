"""Runs the examples of the gallery, and writes their pages, pictures and notebooks.

    python docs/gallery.py --data ../shared/data/raw
    python docs/gallery.py --only own_operator

An example is a script in docs/gallery, in jupytext's percent format, whose first cell is a question and, in bold, its
answer. It is executed as the notebook that goes to notebooks/, in an empty folder with links to the files of --data;
its page is docs/gallery/NAME.md. Pages and notebooks are to be committed; tests/test_gallery.py holds them against the
scripts.
"""

from __future__ import annotations

import argparse
import base64
import io
import re
import resource
import sys
import tempfile
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
GALLERY, NOTEBOOKS = ROOT / "docs" / "gallery", ROOT / "notebooks"
EXAMPLES = (
    "sparse_views",
    "limited_angle",
    "accelerated_mri",
    "measured_kspace",
    "measured_ct",
    "samples",
    "own_operator",
    "own_denoiser",
    "train_prior",
    "several_processes",
)
COLOURS, THUMBNAIL = 128, 400
"""Of pictures, and the width of small ones in pixels."""
INTRODUCTION = """\
# Gallery

**One question a page, its answer, and the script that gives it.** They run as they stand, on a CPU and without a
network: the volumes are drawn, or yours. Each is a script and a notebook too.

```sh
pip install -c constraints.txt -e '.[docs]'
python docs/gallery.py --only sparse_views   # its page and notebook anew
```

All {count} take {seconds} s of one core, the longest {longest} s. `.ci/run` runs them with
smaller parameters. Seconds were counted beside other work.
"""


def script(name: str) -> NotebookNode:
    """The notebook of an example, without outputs; links lead from notebooks/, not from docs/gallery."""
    notebook = jupytext.read(GALLERY / f"{name}.py")
    for k, cell in enumerate(notebook.cells):
        cell.id = f"{name}-{k}"
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"\]\((\w+)\.md\)", r"](\1.ipynb)", cell.source.replace("](../", "](../docs/"))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = NotebookNode(kernelspec=kernel, language_info={"name": "python"})
    return notebook


def executed(name: str, data: Path | None) -> NotebookNode:
    """The notebook with its outputs, and in its metadata how many seconds of a core it took."""
    notebook = script(name)
    with tempfile.TemporaryDirectory() as folder:
        for file in data.iterdir() if data else ():
            (Path(folder) / file.name).symlink_to(file.resolve())
        resources = {"metadata": {"path": folder}}
        options = {"timeout": 600, "coalesce_streams": True, "record_timing": False, "resources": resources}
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        NotebookClient(notebook, **options).execute()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    notebook.metadata.gallery = {"seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if shown(output, folder)]
    return notebook


def shown(output: NotebookNode, folder: str) -> bool:
    """Whether an output is kept, all but progress bars and warnings; its picture is made small, its text told."""
    if picture := output.get("data", {}).get("image/png"):
        output.data = NotebookNode({"image/png": base64.b64encode(small(base64.b64decode(picture))).decode()})
        return True
    if output.output_type == "stream":
        output.text = told(output.text, folder)
        return bool(output.text)
    return bool(output.output_type == "execute_result")


def told(text: str, folder: str) -> str:
    """What was printed, without folders of this machine and warnings among other packages."""
    text = re.sub(r"(?m)^/\S+/site-packages/\S+:\d+: .*\n(  .*\n)?", "", text)
    text = re.sub(r"(?m)^/\S+/ipykernel_\d+/\d+\.py:\d+: \w+: (.*\n)(  .*\n)?", r"\1", text)  # a cell's
    return re.sub(r"(?m)^/\S+/(lightning_mbir/\S+:\d+: )", r"\1", text).replace(f"{folder}/", "")


def small(png: bytes, width: int | None = None) -> bytes:
    """A picture in few colours; with a width, one for a card."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    if width is not None:  # what stands at the top, in the shape of a card
        picture = picture.crop((0, 0, picture.width, min(picture.height, picture.width // 2)))
        picture.thumbnail((width, width), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    few = picture.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE)
    few.save(buffer, "png", optimize=True)
    return buffer.getvalue()


def pictures(notebook: NotebookNode) -> list[bytes]:
    """Those of its outputs."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    found = [output.get("data", {}).get("image/png") for output in outputs]
    return [base64.b64decode(picture) for picture in found if picture]


def picture_names(name: str, count: int) -> list[str]:
    """Files of its pictures."""
    return [f"{name}.png", *(f"{name}_{k}.png" for k in range(2, count + 1))]


def title(notebook: NotebookNode) -> str:
    """The question."""
    return notebook.cells[0].source.splitlines()[0].removeprefix("# ")


def answer(notebook: NotebookNode) -> str:
    """What stands in bold below it, in one line."""
    (found,) = re.findall(r"\*\*(.+?)\*\*", notebook.cells[0].source, re.DOTALL)[:1]
    return " ".join(found.split())


def page(name: str, notebook: NotebookNode) -> str:
    """The page of an executed example."""
    parts = [f"<!-- made of {name}.py by docs/gallery.py -->"]
    names = iter(picture_names(name, len(pictures(notebook))))
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(re.sub(r"\]\((\w+)\.ipynb\)", r"](\1.md)", cell.source.replace("](../docs/", "](../")))
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                parts.append(f"![{title(notebook)}]({next(names)})")
            else:
                text = output.text if "text" in output else output.data["text/plain"]
                parts.append(f"```text\n{text.rstrip()}\n```")
    parts.append(
        f"[The script]({name}.py), [the notebook](../../notebooks/{name}.ipynb). "
        f"`python docs/gallery.py --only {name}` took {notebook.metadata.gallery['seconds']} s of one core."
    )
    return "\n\n".join(parts) + "\n"


def start_page(notebooks: dict[str, NotebookNode]) -> str:
    """All examples, with a small picture and a line each."""
    cards = [
        f"-   [![{title(notebook)}]({name}_small.png)]({name}.md)\n\n"
        f"    **[{title(notebook)}]({name}.md)**\n\n"
        f"    {answer(notebook)} {notebook.metadata.gallery['seconds']} s of a core.\n"
        for name, notebook in notebooks.items()
    ]
    taken = [notebook.metadata.gallery["seconds"] for notebook in notebooks.values()]
    introduction = INTRODUCTION.format(count=len(taken), seconds=sum(taken), longest=max(taken))
    return "\n".join([introduction, '<div class="grid cards" markdown>\n', *cards, "</div>\n"])


def write(name: str, notebook: NotebookNode) -> None:
    """The notebook, its page and its pictures; pictures of before go."""
    nbformat.write(notebook, NOTEBOOKS / f"{name}.ipynb")
    (GALLERY / f"{name}.md").write_text(page(name, notebook))
    for old in [GALLERY / f"{name}.png", *GALLERY.glob(f"{name}_[0-9s]*.png")]:
        old.unlink(missing_ok=True)
    found = pictures(notebook)
    for file, picture in zip(picture_names(name, len(found)), found, strict=True):
        (GALLERY / file).write_bytes(picture)
    (GALLERY / f"{name}_small.png").write_bytes(small(found[0], THUMBNAIL))


def main(args: list[str] | None = None) -> None:
    """Run what is asked for, and write the start page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=EXAMPLES, default=EXAMPLES, metavar="NAME", help="these alone")
    parser.add_argument("--data", type=Path, help="folder with measurements, for the examples that take one")
    given = parser.parse_args(args)
    if given.data is not None and not given.data.is_dir():
        parser.error(f"--data {given.data}: no such folder")
    for name in given.only:
        print(f"{name}: ", end="", flush=True)
        started = time.monotonic()
        notebook = executed(name, given.data)
        write(name, notebook)
        size, seconds = sum(map(len, pictures(notebook))) / 1e3, notebook.metadata.gallery["seconds"]
        print(f"{time.monotonic() - started:.0f} s, of a core {seconds} s, pictures {size:.0f} kB", flush=True)
    files = {name: NOTEBOOKS / f"{name}.ipynb" for name in EXAMPLES}
    there = {name: nbformat.read(file, as_version=4) for name, file in files.items() if file.is_file()}
    (GALLERY / "index.md").write_text(start_page(there))


if __name__ == "__main__":
    sys.exit(main())
