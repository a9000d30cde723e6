"""The state of a reconstruction, kept while it runs, so that one that was stopped goes on.

What iterates says in two lines what it goes on from, and is a plain loop where nothing is kept (``UNKEPT``)::

    done, x, shared = checkpoint.resume(x, ADMMState())
    for i, sigma in enumerate(sigmas[done:], done):
        checkpoint.reached(i, x, shared)
        ...

Of processes that share a volume each keeps its slab, in a file of its own. A state counts where the files of all are
there; older ones are deleted after that. So whatever is killed when, there is the old state, the new one, or none.
"""

from __future__ import annotations

import json
import math
import re
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVarTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lightning_mbir.errors import WriteError
from lightning_mbir.files import remove_stale, write_whole, writing
from lightning_mbir.slabs import bounds, current, from_first, of_all

S = TypeVarTuple("S")
Settled = dict[tuple[int, int, str, bool], int]
"""What ``SliceDenoiser.chosen`` is."""


class Checkpoint:
    """Keeps nothing, and goes on from nothing.

    Attributes:
        found: whether there is a state to go on from.
        seconds: that went into it.
    """

    found: bool = False
    seconds: float = 0.0

    def begin(self, sample: int, device: torch.device, settled: Sequence[Settled] = ()) -> None:
        """Look for the state of a run, before all of its work.

        Args:
            sample: number of the posterior sample.
            device: where its tensors go.
            settled: slices at once of its priors, which are to be the same when it goes on: kept, and filled in.
        """

    def resume(self, *state: *S) -> tuple[int, *S]:
        """How many steps are done and the state after them; 0 and the state that is given, the first, where none is.

        Args:
            *state: tensors, slices first (of less than two dimensions: numbers of the whole volume), data classes and
                tuples of these, plain numbers.
        """
        return 0, *state

    def reached(self, step: int, *state: object) -> None:
        """Called before each step, with how many are done and what ``resume`` is to give back; kept where it is time.

        All processes that share a volume come here at the same steps.
        """


UNKEPT = Checkpoint()


class StateFolder(Checkpoint):
    """Keeps the state in a folder, every few minutes.

    Files are ``<key>-<sample>-<step>-<rank>of<ranks>.safetensors``, with checksums of all slices.

    Args:
        folder: for these files alone; made with the first of them. Processes that share a volume have to see the same.
        identity: plain data that the state depends on; ``key`` is its checksum. A state of another one is not used,
            and stays until there is one of this.
        key: see there.
        minutes: between two states; 0 for none (one that is there is used all the same).
        name: of the volume, which stands before what is told.
        tell: takes a line for the user, in the first of the processes.
    """

    def __init__(
        self,
        folder: Path,
        identity: dict[str, Any],
        key: str,
        minutes: float,
        name: str,
        tell: Callable[[str], None] = print,
    ) -> None:
        self.folder, self.identity, self.key, self.name, self._tell = folder, identity, key[:16], name, tell
        self.interval = 60 * minutes if minutes > 0 else math.inf
        self.sample, self._settled = 0, list[Settled]()
        self._read: tuple[dict[str, Any], dict[str, Tensor]] | None = None
        self._first = 0
        self._look: float = math.inf
        self._began = self._resumed = self._kept = 0.0

    @property
    def kept(self) -> bool:
        """Whether a state of these settings lies there."""
        return any(self.folder.glob(f"{self.key}-*.safetensors"))

    def begin(self, sample: int, device: torch.device, settled: Sequence[Settled] = ()) -> None:
        self.sample, self._settled, self._read, self.seconds = sample, list(settled), None, 0.0
        self._began = time.monotonic()
        names, other = from_first(self._newest() if current().first else ([], None))
        problem = ""
        if names:
            try:
                self._read = _read([self.folder / name for name in names], device)
            except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
                problem = " ".join(str(error).split()) or type(error).__name__
        damaged = [told for told in of_all(problem) if told]
        if damaged:
            self._read = None
            self.tell(f"the state that was kept is damaged ({damaged[0]}); starting again")
        elif other is not None:
            self.tell(f"the state that was kept is of other settings ({other}) and not used; starting again")
        self.found = self._read is not None
        if self._read is not None:
            plain = self._read[0]
            self.seconds = plain["seconds"]
            for chosen, batches in zip(self._settled, plain["settled"], strict=False):
                chosen |= {(rows, columns, where, way): size for rows, columns, where, way, size in batches}
            self._delete_but(names)

    def resume(self, *state: *S) -> tuple[int, *S]:
        done, found = 0, tuple[Any, ...](state)
        if self._read is not None:
            plain, tensors = self._read
            done, self._read = plain["step"], None  # what is used up need not be held
            found = tuple(_rebuilt(like, item, tensors) for like, item in zip(found, plain["state"], strict=True))
            self.tell(f"goes on after {done} steps, as they were kept {plain['at']}")
        self._first, self._look = done, math.inf if math.isinf(self.interval) else done + 1
        self._resumed = self._kept = time.monotonic()
        return done, *found

    def reached(self, step: int, *state: object) -> None:
        if step < self._look:
            return
        due, self._look = from_first(self._due(step))
        if due:
            self._save(step, state)
            self._kept = time.monotonic()

    def tell(self, line: str) -> None:
        """A line for the user, told once."""
        if current().first:
            self._tell(f"{self.name}: {line}")

    def _due(self, step: int) -> tuple[bool, int]:
        """Whether it is time, and at which step to look again. Looking takes a message where processes share a volume,
        so that it is done by the pace of the steps so far, after twice as many of them at most."""
        now = time.monotonic()
        left = self.interval - (now - self._kept)
        if not current().split:
            return left <= 0, step + 1
        pace = (now - self._resumed) / (step - self._first)
        fitting = (left if left > 0 else self.interval) / max(pace, 1e-6)
        return left <= 0, step + max(1, min(int(fitting), step - self._first))

    def _newest(self) -> tuple[list[str], str | None]:
        """The files of the state to go on from, by rank; without any, how the settings of another one differ."""
        groups: dict[tuple[int, int], list[str]] = defaultdict(list)
        others = []
        for path in sorted(self.folder.glob("*.safetensors")):
            if (named := NAME.fullmatch(path.name)) is None:
                continue
            key, *numbers = named.groups()
            sample, step, _, ranks = map(int, numbers)
            if key != self.key:
                others.append(path)
            elif sample == self.sample:  # else of one that is finished
                groups[step, ranks].append(path.name)
        whole = [found for found in groups if len(groups[found]) == found[1]]
        if whole:
            return sorted(groups[max(whole)], key=lambda name: int(NAME.fullmatch(name)[4])), None  # type: ignore[index]
        return [], self._difference(others[-1]) if others and not groups else None

    def _difference(self, path: Path) -> str:
        """Which settings of a state are other ones."""
        try:
            with safe_open(path, framework="pt") as file:
                there = _plain_data(file)["identity"]
        except (SafetensorError, OSError, ValueError, KeyError, TypeError):
            return "which cannot be read"
        mine = json.loads(json.dumps(self.identity, default=str))
        names = sorted(name for name in mine.keys() | there if mine.get(name) != there.get(name))
        return ", ".join(names) or "none that is told"

    def _save(self, step: int, state: tuple[object, ...]) -> None:
        slab = current()
        tensors: dict[str, Tensor] = {}
        plain: dict[str, Any] = {
            "state": [_plain(item, str(k), tensors) for k, item in enumerate(state)],
            "sums": {name: [zlib.crc32(row) for row in _rows(tensor)] for name, tensor in tensors.items()},
            "step": step,
            "depth": slab.depth if slab.split else None,
            "at": time.strftime("%Y-%m-%d %H:%M:%S"),
            "seconds": self.seconds + time.monotonic() - self._began,
            "settled": [[[*key, size] for key, size in chosen.items()] for chosen in self._settled],
            "identity": self.identity,
        }
        names = [f"{self.key}-{self.sample}-{step}-{rank}of{slab.ranks}.safetensors" for rank in range(slab.ranks)]
        problem = ""
        try:
            with writing(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(self.folder / names[slab.rank], _packed(plain, tensors))
        except WriteError as error:
            problem = str(error)
        problems = [told for told in of_all(problem) if told]  # where all have come, all files are there
        if not problems and not from_first(all((self.folder / name).is_file() for name in names)):
            problems = [f"{self.folder}: is not one folder for all processes; give an --output_dir that they share"]
        if problems:
            (self.folder / names[slab.rank]).unlink(missing_ok=True)
            self._look = math.inf
            self.tell(f"{problems[0]}; the run goes on, and no state of it is kept from here")
        else:
            self._delete_but(names)

    def _delete_but(self, names: Sequence[str]) -> None:
        """Delete all files but these, which are a state; by the first process."""
        if current().first:
            remove_stale(self.folder)
            for path in self.folder.glob("*.safetensors"):
                if path.name not in names:
                    path.unlink(missing_ok=True)


NAME = re.compile(r"([0-9a-f]+)-(\d+)-(\d+)-(\d+)of(\d+)\.safetensors")


def _plain(value: object, name: str, tensors: dict[str, Tensor]) -> Any:
    """A state as plain data; its tensors go among ``tensors``, complex numbers as pairs."""
    if isinstance(value, Tensor):
        found = value.detach().resolve_conj().resolve_neg().cpu()
        tensors[name] = (torch.view_as_real(found) if found.is_complex() else found).contiguous()
        return {"tensor": name, "complex": found.is_complex()}
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name), f"{name}.{f.name}", tensors) for f in fields(value)}
    if isinstance(value, tuple):
        return [_plain(item, f"{name}.{k}", tensors) for k, item in enumerate(value)]
    return value


def _packed(plain: dict[str, Any], tensors: dict[str, Tensor]) -> bytes:
    """A file."""
    text = json.dumps(plain, default=str)
    return bytes(save(tensors, {"plain": text, "sum": str(zlib.crc32(text.encode()))}))


def _plain_data(file: Any) -> dict[str, Any]:
    """What is plain in a file."""
    found = file.metadata()
    if str(zlib.crc32(found["plain"].encode())) != found["sum"]:
        raise ValueError("its header has other bytes than were written")
    return dict(json.loads(found["plain"]))


def _rebuilt(like: Any, value: Any, tensors: dict[str, Tensor]) -> Any:
    """The reverse of ``_plain``; ``like`` tells which data class it is, not which tensors there are."""
    if isinstance(value, list):
        return tuple(_rebuilt(None, item, tensors) for item in value)
    if not isinstance(value, dict):
        return value
    if is_dataclass(like) and not isinstance(like, type):
        return replace(like, **{name: _rebuilt(None, item, tensors) for name, item in value.items()})
    found = tensors[value["tensor"]]
    return torch.view_as_complex(found) if value["complex"] else found


def _rows(tensor: Tensor) -> Iterator[memoryview]:
    """The bytes of each slice, or of numbers of the whole volume."""
    for row in tensor if tensor.ndim > 1 else tensor[None]:
        yield row.contiguous().numpy().reshape(-1).data.cast("B")


def _read(paths: Sequence[Path], device: torch.device) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Of the files of a state, by rank, the slices that this process has, and the plain data of the first.

    Raises:
        ValueError, KeyError, TypeError, OSError, SafetensorError: a file that is not whole or not right.
    """
    slab = current()
    parts: dict[str, list[Tensor]] = defaultdict(list)
    first: dict[str, Any] = {}
    for rank, path in enumerate(paths):
        with safe_open(path, framework="pt") as file:
            plain = _plain_data(file)
            first = first or plain
            own = slice(None)
            if slab.split or len(paths) > 1:
                depth = plain["depth"] or slab.depth
                begin, end = bounds(depth, len(paths), rank)
                start, stop = (slab.start, slab.stop) if slab.split else (0, depth)
                low = max(start, begin) - begin
                own = slice(low, min(stop, end) - begin)
                if own.stop <= low:
                    continue
            for name in file.keys():  # noqa: SIM118 -- no mapping
                sums, whole = plain["sums"][name], file.get_slice(name)
                if len(whole.get_shape()) < 2:
                    found, expected = file.get_tensor(name), sums
                    parts[name] = []
                else:
                    found, expected = whole[own], sums[own]
                if [zlib.crc32(row) for row in _rows(found)] != expected:
                    raise ValueError(f"{path.name}: other bytes than were written")
                parts[name].append(found)
    # Copies, since sums may be rounded by where in memory a tensor begins.
    tensors = {
        name: (torch.cat(found) if found[0].ndim > 1 else found[0].clone()).to(device) for name, found in parts.items()
    }
    return first, tensors
