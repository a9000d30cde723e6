"""Priors in repositories of the Hugging Face hub: ``hub:owner/name``, at a revision, by a SHA-256 (extra ``hub``).

Safetensors and JSON alone are taken from there, never a pickle: what is downloaded holds numbers and no code.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lightning_mbir.errors import InputError
from lightning_mbir.files import sha256
from lightning_mbir.flags import HUB
from lightning_mbir.prior.checkpoints.weights import CARD, CONFIG, WEIGHTS
from lightning_mbir.version import __version__

log = logging.getLogger(__name__)

COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubPrior:
    """What ``hub:owner/name@revision#sha256`` names.

    Attributes:
        repo: ``owner/name``.
        revision: a branch, a tag or a commit; none for the newest.
        digest: SHA-256 of ``model.safetensors``, in hexadecimal; none where the user does not insist on one.
    """

    repo: str
    revision: str | None = None
    digest: str | None = None

    @classmethod
    def of(cls, source: str) -> HubPrior:
        """Of what a user has written.

        Raises:
            InputError: it is written otherwise.
        """
        found = HUB.fullmatch(source)
        if found is None:
            raise InputError(f"--prior {source}: give hub:owner/name, with @revision and #sha256 behind it as you like")
        return cls(*found.groups())

    def __str__(self) -> str:
        behind = ((mark, text) for mark, text in (("@", self.revision), ("#", self.digest)) if text)
        return "".join(("hub:", self.repo, *(mark + text for mark, text in behind)))


def is_hub(source: object) -> bool:
    """Whether this names a prior of the hub."""
    return isinstance(source, str) and source.startswith("hub:")


def local(source: str | Path) -> str | Path:
    """The folder that a prior of the hub is in on this machine; any other source as it is.

    What is there already is not asked for again where the revision is a commit; without a network, the files of the
    last time serve, as ``huggingface_hub`` keeps them (``HF_HUB_CACHE``, ``HF_HUB_OFFLINE``).

    Args:
        source: what ``load_prior`` takes.

    Raises:
        InputError: the extra ``hub`` is not installed; no such repository, revision or file; neither network nor cache;
            weights of another SHA-256 than the user, or ``config.json``, says.
    """
    if not is_hub(source):
        return source
    return _fetched(str(source))


@cache
def _fetched(source: str) -> Path:
    """Once a process: what it names stays the same while it runs."""
    wanted = HubPrior.of(source)
    config = _file(wanted, CONFIG, wanted.revision)
    commit = config.parent.name if COMMIT.fullmatch(config.parent.name) else wanted.revision
    weights = _file(wanted, WEIGHTS, commit)  # of the same commit, whatever has been pushed since
    if wanted.digest is not None and sha256(weights) != wanted.digest:
        raise InputError(f"--prior {wanted}: {WEIGHTS} has SHA-256 {sha256(weights)}; ask its owner which is right")
    if wanted.revision != commit:
        log.info("hub:%s is at %s; --prior hub:%s@%s stays there", wanted.repo, commit, wanted.repo, commit)
    return config.parent


def push_folder(folder: Path, repo: str, revision: str | None, private: bool) -> str:
    """Upload the folder of a prior, as ``save_prior`` makes it; returns the commit.

    Args:
        folder: with ``model.safetensors``, ``config.json`` and ``README.md``.
        repo: ``owner/name``; made where it is not there.
        revision: branch; none for the main one.
        private: of a repository that is made here.

    Raises:
        InputError: the extra ``hub`` is not installed; no network, no permission.
    """
    hub = _package()
    api = hub.HfApi(library_name="lightning_mbir", library_version=__version__)
    files = [WEIGHTS, CONFIG, CARD]
    message = f"A prior of lightning_mbir {__version__}"
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        made = api.upload_folder(
            repo_id=repo, folder_path=folder, revision=revision, commit_message=message, allow_patterns=files
        )
    except hub.errors.LocalTokenNotFoundError as error:
        raise InputError(f"hub:{repo}: not logged in; `hf auth login`, or set HF_TOKEN") from error
    except (OSError, hub.errors.HFValidationError) as error:  # as errors of the network and of the server are
        raise InputError(f"hub:{repo}: cannot be pushed to ({_first(error)})") from error
    return str(made.oid)


def _file(wanted: HubPrior, name: str, revision: str | None) -> Path:
    """A file of the repository, from the cache where it is there."""
    hub = _package()
    errors = hub.errors
    told = {"library_name": "lightning_mbir", "library_version": __version__}
    try:
        return Path(hub.hf_hub_download(wanted.repo, name, revision=revision, **told))
    except errors.RepositoryNotFoundError as error:
        raise InputError(f"--prior {wanted}: no such repository, or a private one; `hf auth login` if it is") from error
    except errors.RevisionNotFoundError as error:
        raise InputError(f"--prior {wanted}: no revision {revision}; give a branch, a tag or a commit of it") from error
    except errors.LocalEntryNotFoundError as error:
        raise InputError(f"--prior {wanted}: no network, and {name} is not in the cache of before") from error
    except errors.EntryNotFoundError as error:
        raise InputError(f"--prior {wanted}: has no {name}; a prior has {WEIGHTS} (no pickle) and {CONFIG}") from error
    except (OSError, errors.HFValidationError) as error:
        raise InputError(f"--prior {wanted}: cannot be fetched ({_first(error)})") from error


def _package() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise InputError(f"hub: needs the extra hub, pip install 'lightning-mbir[hub]' ({error})") from error
    return huggingface_hub


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
