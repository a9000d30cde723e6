"""What `import lightning_mbir` offers: every name is there, imported when it is asked for, and told in the docs."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lightning_mbir

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("data", "physics", "solvers", "prior", "samplers", "reconstruction")


def test_importing_the_package_imports_nothing_else() -> None:
    code = (
        "import sys; before = set(sys.modules); import lightning_mbir; found = set(sys.modules) - before;"
        "assert found == {'lightning_mbir'}, found;"
        "lightning_mbir.__version__, dir(lightning_mbir), lightning_mbir.__all__, lightning_mbir.InputError;"
        "heavy = {'torch', 'lightning', 'numpy'} & set(sys.modules); assert not heavy, heavy;"
        "lightning_mbir.METHODS; assert 'torch' not in sys.modules;"
        "lightning_mbir.Unit; assert 'torch' in sys.modules and 'monai' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", lightning_mbir.__all__)
def test_each_name_is_that_of_its_room(name: str) -> None:
    found = getattr(lightning_mbir, name)
    rooms = [importlib.import_module(f"lightning_mbir.{room}") for room in ROOMS]
    assert all(getattr(room, name) is found for room in rooms if name in room.__all__)
    assert not (Path(lightning_mbir.__file__).parent / name).exists(), "a room of that name would hide it"


def test_what_is_not_there_is_told() -> None:
    with pytest.raises(AttributeError, match="module 'lightning_mbir' has no attribute 'reconstrukt'"):
        lightning_mbir.reconstrukt  # type: ignore[attr-defined]
    with pytest.raises(ImportError, match="cannot import name 'reconstrukt'"):
        exec("from lightning_mbir import reconstrukt")


def told(page: str) -> set[str]:
    """As they are imported: ``fbp.fbp`` is the function, ``fbp`` would be the file that it is in."""
    found = re.findall(r"^::: lightning_mbir\.(\S+)", (ROOT / "docs" / "api" / page).read_text(), re.MULTILINE)
    assert len(found) == len(set(found))
    return {re.sub(r"\b(\w+)\.\1$", r"\1", name) for name in found}


def test_the_reference_has_every_public_name_once() -> None:
    pages = {path.name: told(path.name) for path in (ROOT / "docs" / "api").glob("*.md")}
    surface = set().union(*(names for page, names in pages.items() if page != "rooms.md"))
    assert surface == set(lightning_mbir.__all__) - {"__version__"}
    assert sum(len(names) for page, names in pages.items() if page != "rooms.md") == len(surface)
    rooms = {f"{room}.{name}" for room in ROOMS for name in importlib.import_module(f"lightning_mbir.{room}").__all__}
    assert pages["rooms.md"] == {name for name in rooms if name.split(".")[1] not in surface}


def test_notebooks_need_nothing_but_the_surface() -> None:
    """Of ours; what they import of others is theirs."""
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        imports = re.findall(r'"(?:from|import) (lightning_mbir\S*) ', path.read_text())
        assert imports and set(imports) == {"lightning_mbir"}, path.name


def test_examples_of_the_docs_import_what_is_there() -> None:
    """Every import of ours in a Python block of the README and the docs."""
    found = 0
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for block in re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL):
            for node in ast.walk(ast.parse(block)):
                if isinstance(node, ast.ImportFrom) and str(node.module).startswith("lightning_mbir"):
                    module = importlib.import_module(str(node.module))
                    assert all(hasattr(module, alias.name) for alias in node.names), f"{path.name}: {block}"
                    found += 1
    assert found > 5
