"""What ships: one version, a conda recipe and an image that linters take, an sdist that holds its tests."""

import contextlib
import importlib
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet
from packaging.version import Version

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


def test_no_pin_asks_for_another_python_than_the_project() -> None:
    """The first patch of each minor version that is told, since Debian 12 has 3.11.2; of pins that are installed."""
    minor = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if "Python :: 3." in line]
    pythons = {PROJECT["requires-python"].removeprefix(">="), *minor}
    looked_at, refused = [], {}
    for line in (ROOT / "constraints.txt").read_text().split():
        name, _, version = line.partition("==")
        with contextlib.suppress(metadata.PackageNotFoundError):
            package = metadata.metadata(name)
            if Version(package["Version"]).public == version:
                looked_at.append(name)
                asked = SpecifierSet(package.get("Requires-Python", ""))
                refused |= {line: str(asked)} if not all(f"{python}.0" in asked for python in pythons) else {}
    if len(looked_at) < 20:
        pytest.skip("other versions are installed than constraints.txt has")
    assert not refused


def test_the_page_on_installing_has_each_extra_with_its_packages() -> None:
    table = (ROOT / "docs" / "install.md").read_text().partition("## Extras")[2]
    told: dict[str, set[str]] = {}
    names: list[str] = []
    for extra, packages in re.findall(r"^\| (?:`([\w]+)`)? ?\| ([\w`, -]+) \|", table, re.MULTILINE):
        names.append(extra or names[-1])  # a row without is of the extra above
        told.setdefault(names[-1], set()).update(packages.lower().replace("`", "").split(", "))
    wanted: dict[str, set[str]] = {}
    for extra, lines in PROJECT["optional-dependencies"].items():
        for line in lines:
            name, inside = re.match(r"([\w-]+)(?:\[([\w,]+)\])?", line.lower()).groups()  # type: ignore[union-attr]
            wanted.setdefault(extra, set()).update(inside.split(",") if name == PROJECT["name"] else [name])
    assert told == wanted


def test_what_the_image_copies_is_there_and_not_ignored() -> None:
    copied = re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    names = {name for line in copied for name in line.split()}
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert names == kept and all((ROOT / name).exists() for name in names)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """What the image copies; unlike an sdist without ``PKG-INFO``, whose addresses are those of who built it."""
    for line in re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE):
        for name in line.split():
            found = ROOT / name
            copy = shutil.copytree if found.is_dir() else shutil.copy2
            copy(found, tmp_path / name)
    return tmp_path


def test_what_the_image_copies_makes_the_wheel_of_the_checkout(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``pip install .`` builds it, from nothing but that."""
    wheel = pytest.importorskip("hatchling.builders.wheel", reason="hatchling is in the test extra")
    monkeypatch.delenv("PROJECT_URL", raising=False)
    ours, theirs = (wheel.WheelBuilder(str(root)) for root in (ROOT, copied))
    assert theirs.metadata.core.readme == (ROOT / "README.md").read_text()
    files = [{file.distribution_path for file in builder.recurse_included_files()} for builder in (ours, theirs)]
    assert files[0] == files[1] and "lightning_mbir/configs/prior_ct.yaml" in files[0]


def test_a_linter_takes_the_dockerfile() -> None:
    beside = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    hadolint = beside or shutil.which("hadolint") or pytest.skip("hadolint is in the test extra, for Linux on x86-64")
    done = subprocess.run([hadolint, str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_rattler_build_renders_the_conda_recipe() -> None:
    """Without a build: fields that are none, versions that are none, and what is not filled in are errors."""
    rattler = pytest.importorskip("rattler_build", reason="py-rattler-build is in the test extra, for Linux on x86-64")
    (variant,) = rattler.Stage0Recipe.from_file(ROOT / "conda" / "recipe.yaml").render()
    recipe = variant.recipe
    assert (str(recipe.package.name), str(recipe.package.version)) == ("lightning-mbir", __version__)
    text = (ROOT / "conda" / "recipe.yaml").read_text()
    with pytest.raises(rattler.RecipeParseError, match="noarchy"):
        rattler.Stage0Recipe.from_yaml(text.replace("noarch:", "noarchy:"))


def test_the_sdist_holds_what_its_tests_read() -> None:
    hatchling = pytest.importorskip("hatchling.builders.sdist", reason="hatchling is in the test extra")
    names = {file.distribution_path for file in hatchling.SdistBuilder(str(ROOT)).recurse_included_files()}
    wanted = ["pyproject.toml", "constraints.txt", "mkdocs.yml", "CHANGELOG.md", "CITATION.cff", "conda/recipe.yaml"]
    for folder in ("lightning_mbir", "docs", "tests", "benchmarks", "notebooks", "configs"):
        read = (file for file in (ROOT / folder).rglob("*") if file.suffix in (".md", ".py", ".yaml", ".ipynb", ".png"))
        wanted += [str(file.relative_to(ROOT)) for file in read]
    assert not set(wanted) - names
    assert not [name for name in names if "_cache/" in name]  # what tools leave in a checkout


@pytest.mark.parametrize("address", ["", "https://example.org/us/project/"])
def test_a_package_has_the_addresses_of_who_publishes_it(
    address: str, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = pytest.importorskip("hatchling.metadata.core", reason="hatchling is in the test extra")
    manager = importlib.import_module("hatchling.plugin.manager")
    monkeypatch.setenv("PROJECT_URL", address)
    core = metadata.ProjectMetadata(str(copied), manager.PluginManager()).core
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
