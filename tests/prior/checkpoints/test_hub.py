"""Priors of the Hugging Face hub, without a network: its functions are stood in for by ones of the same signature."""

import builtins
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

import httpx2
import pytest
import torch
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from lightning_mbir.cli import main
from lightning_mbir.errors import InputError
from lightning_mbir.files import sha256
from lightning_mbir.prior import load_prior
from lightning_mbir.prior.checkpoints import hub
from lightning_mbir.prior.checkpoints.weights import CARD, CONFIG, WEIGHTS
from lightning_mbir.prior.convert import convert, push_prior
from lightning_mbir.prior.convert import main as convert_main
from lightning_mbir.reconstruction.provenance import prior_identity

FIRST, SECOND = "1" * 40, "2" * 40


class Store:
    """Repositories as folders, ``snapshots/<commit>``, as the cache of ``huggingface_hub`` has them."""

    def __init__(self, root: Path) -> None:
        self.root, self.branches, self.asked = root, {}, []  # type: ignore[var-annotated]

    def commit(self, commit: str) -> Path:
        return self.root / "snapshots" / commit

    def download(self, repo_id: str, filename: str, *, revision: str | None = None, **_: Any) -> str:
        self.asked.append((filename, revision))
        response = httpx2.Response(404, request=httpx2.Request("GET", "https://hub"))
        if repo_id != "owner/name":
            raise RepositoryNotFoundError("404", response=response)
        commit = self.branches.get(revision or "main", revision)
        if not self.commit(commit).is_dir():
            raise RevisionNotFoundError("404", response=response)
        if not (self.commit(commit) / filename).is_file():
            raise EntryNotFoundError("404")
        return str(self.commit(commit) / filename)

    def upload(self, *, folder_path: Path, revision: str | None, **_: Any) -> Any:
        commit = FIRST if not self.branches else SECOND
        shutil.copytree(folder_path, self.commit(commit))
        self.branches[revision or "main"] = commit
        return SimpleNamespace(oid=commit)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    store = Store(tmp_path / "hub")
    api = create_autospec(HfApi, instance=True)
    api.upload_folder.side_effect = store.upload
    monkeypatch.setattr("huggingface_hub.HfApi", create_autospec(HfApi, return_value=api))
    monkeypatch.setattr("huggingface_hub.hf_hub_download", create_autospec(hf_hub_download, side_effect=store.download))
    hub._fetched.cache_clear()
    yield store
    hub._fetched.cache_clear()


def test_what_is_pushed_is_pulled(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At the commit and with the SHA-256 that pushing tells; the very weights, and the card."""
    name = push_prior("phantom", "hub:owner/name", private=True)
    digest = sha256(store.commit(FIRST) / WEIGHTS)
    assert name == f"hub:owner/name@{FIRST}#{digest}"
    assert sorted(path.name for path in store.commit(FIRST).iterdir()) == sorted([WEIGHTS, CONFIG, CARD])
    assert "license: apache-2.0" in (store.commit(FIRST) / CARD).read_text()
    pulled, own = load_prior(name), load_prior("phantom")
    x = torch.rand(2, 32, 32)
    assert torch.equal(pulled(x, 0.5), own(x, 0.5)) and pulled.unit == own.unit
    assert prior_identity(name, "ct", pulled)["sha256"] == digest
    assert convert_main([name, str(tmp_path / "mine")]) == 0  # to a folder, card and all
    assert sha256(tmp_path / "mine" / CONFIG) and (tmp_path / "mine" / CARD).is_file()
    assert convert_main(["phantom", "hub:owner/name@other", "--private"]) == 0
    assert f"-> hub:owner/name@{SECOND}#" in capsys.readouterr().out and store.branches["other"] == SECOND


def test_weights_are_of_the_commit_that_the_configuration_is_of(store: Store, caplog: Any) -> None:
    caplog.set_level("INFO", "lightning_mbir")
    push_prior("phantom", "hub:owner/name")
    load_prior("hub:owner/name")
    assert store.asked == [(CONFIG, None), (WEIGHTS, FIRST)]
    assert f"--prior hub:owner/name@{FIRST} stays there" in caplog.text
    load_prior("hub:owner/name")
    assert len(store.asked) == 2, "one process asks once"


def broken(path: str) -> Callable[[Store], None]:
    def change(store: Store) -> None:
        (store.commit(FIRST) / path).unlink()

    return change


def other_weights(store: Store) -> None:
    shutil.copy(Path(hub.__file__).parents[2] / "assets" / "ct.safetensors", store.commit(FIRST) / WEIGHTS)


def no_sum(store: Store) -> None:
    path = store.commit(FIRST) / CONFIG
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "sha256"}))


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("hub:owner/gone", None, "no such repository"),
        ("hub:owner/name@gone", None, "no revision gone"),
        (f"hub:owner/name@{SECOND}", None, f"no revision {SECOND}"),
        ("hub:owner/name", broken(WEIGHTS), f"has no {WEIGHTS}; a prior has {WEIGHTS} (no pickle)"),
        ("hub:owner/name", broken(CONFIG), f"has no {CONFIG}"),
        (f"hub:owner/name#{'0' * 64}", None, "ask its owner which is right"),
        ("hub:owner/name", other_weights, "not the file of which config.json gives the SHA-256"),
        ("hub:owner/name", no_sum, "has no sha256"),
        ("hub:owner", None, "give hub:owner/name"),
        ("hub:owner/name#12", None, "give hub:owner/name"),
    ],
)
def test_what_is_missing_or_another_is_told_in_one_line(
    name: str, change: Callable[[Store], None] | None, told: str, store: Store
) -> None:
    push_prior("phantom", "hub:owner/name")
    if change is not None:
        change(store)
    with pytest.raises(InputError) as error:
        load_prior(name)
    assert told in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("error", [LocalEntryNotFoundError("no way"), OfflineModeIsEnabled("offline mode")])
def test_without_a_network_the_cache_serves_or_a_line_tells(
    error: Exception, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.hf_hub_download", create_autospec(hf_hub_download, side_effect=error))
    with pytest.raises(InputError, match=r"--prior hub:owner/name: (no network, and|cannot be fetched)"):
        load_prior("hub:owner/name")


def test_the_cache_of_the_package_is_read_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not stood in for: the layout that it keeps, and its own switch."""
    hub._fetched.cache_clear()
    repo = tmp_path / "models--owner--name"
    convert("phantom", repo / "snapshots" / FIRST, half=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(FIRST)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("hub:owner/name", f"hub:owner/name@{FIRST}"):
        assert hub.local(name) == repo / "snapshots" / FIRST
    hub._fetched.cache_clear()


def test_without_the_extra_a_line_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("huggingface_hub"):
            raise ImportError("No module named 'huggingface_hub'")
        return plain(name, *args, **kwargs)

    hub._fetched.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"needs the extra hub, pip install 'lightning-mbir\[hub\]'"):
        load_prior("hub:owner/name")


def test_the_command_line_takes_it(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    push_prior("phantom", "hub:owner/name")
    run = ["predict", "--task", "sv_ct", "--method", "dds", "--steps", "2", "--data.image_size", "32"]
    run += ["--data.slices", "12:14", "--output_dir", str(tmp_path / "out"), "--trainer.accelerator", "cpu"]
    assert main([*run, "--prior", "hub:owner/name"]) == 0
    metrics = json.loads(next((tmp_path / "out").rglob("metrics.json")).read_text())
    assert metrics["prior"]["name"] == "hub:owner/name"
    assert metrics["prior"]["sha256"] == sha256(store.commit(FIRST) / WEIGHTS)
    capsys.readouterr()
    assert main([*run, "--prior", "hub:owner"]) == 2
    assert "--prior hub:owner: give hub:owner/name" in capsys.readouterr().err
