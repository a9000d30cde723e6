"""What ships: one version, a conda recipe that asks for what pyproject.toml does, an sdist that holds its tests."""

import importlib
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from lightning_mbir.version import __version__

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
"""Packages that conda-forge has under another name."""


def test_the_version_stands_in_one_place_and_what_repeats_it_agrees() -> None:
    assert "version" in PROJECT["dynamic"] and re.fullmatch(r"\d+\.\d+\.\d+(?:[a-z.]+\d+)?", __version__)
    assert yaml.safe_load((ROOT / "conda" / "recipe.yaml").read_text())["context"]["version"] == __version__
    assert str(yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]) == __version__


def test_the_conda_recipe_asks_for_what_pip_asks_for() -> None:
    recipe = yaml.safe_load((ROOT / "conda" / "recipe.yaml").read_text())
    asked = dict(line.split(" ", 1) for line in recipe["requirements"]["run"])
    pip = {"python": PROJECT["requires-python"]}
    for line in PROJECT["dependencies"]:
        name, versions = re.fullmatch(r"([\w-]+)(?:\[\w+\])?(.*)", line.lower()).groups()  # type: ignore[union-attr]
        pip[CONDA.get(name, name)] = versions
    assert asked == pip
    (script,) = recipe["build"]["python"]["entry_points"]
    assert script == "lightning-mbir = " + PROJECT["scripts"]["lightning-mbir"]


def test_what_the_image_copies_is_there_and_not_ignored() -> None:
    copied = re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    names = {name for line in copied for name in line.split()}
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert names == kept and all((ROOT / name).exists() for name in names)


def test_the_sdist_holds_what_its_tests_read() -> None:
    hatchling = pytest.importorskip("hatchling.builders.sdist", reason="hatchling is in the test extra")
    names = {file.distribution_path for file in hatchling.SdistBuilder(str(ROOT)).recurse_included_files()}
    wanted = ["pyproject.toml", "constraints.txt", "mkdocs.yml", "CHANGELOG.md", "CITATION.cff", "conda/recipe.yaml"]
    for folder in ("lightning_mbir", "docs", "tests", "benchmarks", "notebooks", "configs"):
        read = (file for file in (ROOT / folder).rglob("*") if file.suffix in (".md", ".py", ".yaml", ".ipynb", ".png"))
        wanted += [str(file.relative_to(ROOT)) for file in read]
    assert not set(wanted) - names


@pytest.mark.parametrize("address", ["", "https://example.org/us/project/"])
def test_a_package_has_the_addresses_of_who_publishes_it(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = pytest.importorskip("hatchling.metadata.core", reason="hatchling is in the test extra")
    manager = importlib.import_module("hatchling.plugin.manager")
    monkeypatch.setenv("PROJECT_URL", address)
    core = metadata.ProjectMetadata(str(ROOT), manager.PluginManager()).core
    links = re.findall(r"\]\(([^)\s]+)\)", core.readme)
    assert len(links) > 15
    if not address:
        assert core.urls == {} and core.readme == (ROOT / "README.md").read_text()
        return
    at = f"https://example.org/us/project/blob/v{__version__}"
    assert core.urls["Homepage"] == address.rstrip("/") and core.urls["Changelog"] == f"{at}/CHANGELOG.md"
    assert all(link.startswith("https://") for link in links)
    own = [link.removeprefix(f"{at}/").partition("#")[0] for link in links if link.startswith(at)]
    assert own and all((ROOT / path).is_file() for path in own)
    assert f"https://example.org/us/project/raw/v{__version__}/docs/figures/start.png" in links
