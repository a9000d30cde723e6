"""The rooms are what docs/architecture.md says, no import runs back, there is no circle, and no file is too long."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


def test_imports_keep_the_contracts() -> None:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0 and f"{len(CONTRACTS)} kept, 0 broken" in done.stdout, done.stdout


def test_the_map_is_that_of_the_contracts() -> None:
    rooms = next(contract["layers"] for contract in CONTRACTS if contract["containers"] == ["lightning_mbir"])
    order = [room for layer in rooms for room in re.findall(r"\w+", layer)]
    told = (ROOT / "docs" / "architecture.md").read_text().split("## ")[0]
    drawn = [re.findall(r"`(\w+)/?`", line.split("|")[1]) for line in told.splitlines() if line.startswith("| `")]
    assert [name for names in drawn for name in names] == order
    there = {path.stem for path in (ROOT / "lightning_mbir").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert set(order) == there - {"__init__", "__pycache__", "assets", "py"}


@pytest.mark.parametrize("folder", ["lightning_mbir", "tests", "benchmarks"])
def test_no_file_is_over_400_lines(folder: str) -> None:
    long = {path: n for path in (ROOT / folder).rglob("*.py") if (n := len(path.read_text().splitlines())) > 400}
    assert not long


def test_prose_can_be_scanned() -> None:
    """Lines of 120, and no paragraph of more than four decibel triples."""
    triple = re.compile(r"[-+]?\d+\.\d\d?[ ,/]+[-+]?\d+\.\d\d?(?:[ ,/]+|,? and )[-+]?\d+\.\d\d?")
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        prose = re.sub(r"```.*?```|<!--.*?-->", "", path.read_text(), flags=re.DOTALL)
        for block in re.split(r"\n\s*\n", prose):
            lines = [line for line in block.splitlines() if not line.startswith(("|", "    "))]
            assert all(len(line) <= 120 for line in lines if "](" not in line), f"{path.name}: {block[:200]}"
            assert len(triple.findall("\n".join(lines))) <= 4, f"{path.name}: {block[:200]}"


def test_files_that_prose_names_are_there() -> None:
    named = re.compile(
        r"\b(?:tests|benchmarks|lightning_mbir|configs|notebooks|docs)/[\w/.-]+\.(?:py|md|yaml|ipynb|csv|png)"
    )
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        gone = [name for name in named.findall(path.read_text()) if not (ROOT / name).exists()]
        assert not [name for name in gone if not (ROOT / "docs" / name).exists()], f"{path.name}: {gone}"
