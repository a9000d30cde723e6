"""kill -9 at random moments, and on: whether the same command ends with the same bytes, and what is left over.

    python benchmarks/kills.py [--kills 20] [--kinds predict split] [--seed 0] [--keep FOLDER]

Each kind is run once to its end. Then it is started anew in an empty folder, killed at a moment drawn between its
first file and its end, given again and killed again, four times at most, and then given until it ends (a training goes
on from its last checkpoint, where there is one). All files are compared with those of the run that was not killed, byte
for byte, but for times, peak memory and the revision of a checkout that is worked on.

Processes are forked from one that has imported all, so that what is killed is the work. But those of two devices
(split) are started by the command, of which the first, the second or both are killed by turns; how long the other one
takes to end is told.
"""

import argparse
import csv
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
os.environ |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}  # before torch is imported
sys.path.insert(0, str(ROOT))

import lightning_mbir.prior.training.module  # noqa: E402
import lightning_mbir.reconstruction.module  # noqa: E402, F401
from lightning_mbir.cli import main  # noqa: E402

OUT = "out"  # relative, so that saved configurations are alike
DEMO = ["--task", "sv_ct", "--data.image_size", "32", "--data.slices", "8:16"]
KINDS = {
    "predict": ["predict", *DEMO, "--steps", "60", "--checkpoint_minutes", "0.003"],
    "split": [
        "predict", *DEMO, "--steps", "60", "--checkpoint_minutes", "0.003", "--trainer.devices", "2",
        "--trainer.strategy", "ddp", "--split", "slices",
    ],
    "folder": ["predict", *DEMO, "--steps", "20", "--data.demo_volumes", "3"],
    "samples": ["predict", *DEMO, "--steps", "15", "--samples", "4"],
    "test": [
        "test", *DEMO, "--data.demo_volumes", "2", "--methods", "dds,admm_tv,fbp",
        "--model.method_options", '{"dds": {"steps": 15}, "admm_tv": {"steps": 50}}',
    ],
    "fit": [
        "fit", "--data.image_size", "32", "--data.phantom_volumes", "1", "--data.slices_per_epoch", "32",
        "--data.batch_size", "4", "--steps", "40", "--trainer.precision", "32-true", "--trainer.limit_val_batches", "1",
        "--model.network_options", '{"channels": [8, 16], "attention": false}',
    ],
}  # fmt: skip
HEADER = (
    "| command | seconds | kills | with something kept | runs | ended | same bytes | leftovers | s to end, at most |"
)
TIMES = 4
"""Kills of a run, at most."""
ENDS = 60.0
"""Seconds after which a process that was to end is said to wait, and killed."""
OTHER = ("seconds", "peak_mib", "peak MiB", "revision")
"""What another run, or the same one after a commit, tells in another way."""


class Forked:
    """A command in a process forked from this one, with the interface of ``subprocess.Popen`` as far as needed."""

    def __init__(self, args: list[str], folder: Path, log: int) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            os.chdir(folder)
            for stream in (1, 2):
                os.dup2(log, stream)
            status = main(args)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def poll(self, options: int = os.WNOHANG) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self) -> int | None:
        return self.poll(0)

    def __enter__(self) -> "Forked":
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()


def start(args: list[str], folder: Path) -> "subprocess.Popen[bytes] | Forked":
    """The command in a folder, with what it says in ``log.txt`` there."""
    args = [*args, "--trainer.accelerator", "cpu", "--output_dir", OUT]
    with (folder / "log.txt").open("ab") as log:
        if "--trainer.devices" not in args:
            return Forked(args, folder, log.fileno())
        return subprocess.Popen([sys.executable, "-m", "lightning_mbir", *args], cwd=folder, stdout=log, stderr=log)


def reference(args: list[str], folder: Path) -> tuple[float, float]:
    """Run to the end; seconds to the first file, and in all."""
    started, first = time.monotonic(), 0.0
    with start(args, folder) as process:
        while process.poll() is None:
            first = first or ((folder / OUT).exists() and time.monotonic() - started) or 0.0
            time.sleep(0.01)
    if process.returncode:
        raise SystemExit(f"{args[0]} failed: {(folder / 'log.txt').read_text()[-2000:]}")
    return first, time.monotonic() - started


def killed(args: list[str], folder: Path, moment: float, which: int) -> float | None:
    """Start, and kill after so many seconds the first process, the second or both; seconds until all have ended, none
    where they had before."""
    with start(args, folder) as process:
        time.sleep(moment)
        if process.poll() is not None:
            return None
        others = children(process.pid)
        for number in [[process.pid], others or [process.pid], [process.pid, *others]][which % 3]:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        started = time.monotonic()
        while any(map(lives, (process.pid, *others))) and time.monotonic() - started < ENDS:
            process.poll()
            time.sleep(0.05)
        seconds = time.monotonic() - started
        for number in filter(lives, (process.pid, *others)):
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
    return seconds


def children(process: int) -> list[int]:
    """The other processes of a run, which the first has started."""
    listed = Path(f"/proc/{process}/task/{process}/children")
    return [int(number) for number in listed.read_text().split() if ranked(int(number))]


def ranked(process: int) -> bool:
    try:
        return b"LOCAL_RANK=" in Path(f"/proc/{process}/environ").read_bytes()
    except OSError:
        return False


def lives(process: int) -> bool:
    try:
        return "Z (zombie)" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


def gone_on(args: list[str], folder: Path) -> bool:
    """The same command again; whether it came to its end."""
    if args[0] == "fit":
        checkpoints = sorted((folder / OUT).rglob("last.ckpt"), key=lambda path: path.stat().st_mtime)
        args = [*args, *(["--ckpt_path", str(checkpoints[-1].relative_to(folder))] if checkpoints else [])]
    with start(args, folder) as process:
        return process.wait() == 0


def kept(folder: Path) -> bool:
    """Whether there is something to go on from: a checkpoint, samples, volumes or rows that are finished."""
    names = ("last.ckpt", "running.npz", "state/*.safetensors", "metrics.json", "rows/*.json")
    return any(True for name in names for _ in (folder / OUT).rglob(name))


def results(kind: str, folder: Path) -> dict[str, bytes]:
    """What a run is for: all files, of a training the prior."""
    out = folder / OUT
    if kind == "fit":
        priors = sorted(out.rglob("prior.safetensors"), key=lambda path: path.stat().st_mtime)
        return {path.name: path.read_bytes() for path in priors[-1:]}
    files = [path for path in sorted(out.rglob("*")) if path.is_file() and "tensorboard" not in path.parts]
    return {str(path.relative_to(out)): timeless(path) for path in files if path.name[0] != "."}


def timeless(path: Path) -> bytes:
    """A file without what is ``OTHER`` in each run."""
    if path.suffix == ".json":
        return repr(plain(json.loads(path.read_text()))).encode()
    if path.suffix == ".csv":
        rows = csv.DictReader(io.StringIO(path.read_text()))
        return repr([plain(row) for row in rows]).encode()
    if path.suffix == ".md":
        return re.sub(r", revision \S+", "", "\n".join(without_columns(path.read_text()))).encode()
    if path.suffix == ".html":
        return re.sub(rb'<td class="varies".*?</td>', b"", path.read_bytes())
    if path.name == "running.npz":
        with np.load(path) as arrays:
            state = plain(json.loads(str(arrays["plain"])))
            return repr([state, *(arrays[name].tobytes() for name in arrays if name != "plain")]).encode()
    return path.read_bytes()


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items() if name not in OTHER}
    return [plain(item) for item in value] if isinstance(value, list) else value


def without_columns(text: str) -> list[str]:
    """Lines of Markdown, its tables without the columns of ``OTHER``."""
    lines, left_out = [], set()
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if "method" in cells:
            left_out = {i for i, cell in enumerate(cells) if cell in OTHER}
        lines.append(line if len(cells) < 3 else "|".join(c for i, c in enumerate(cells) if i not in left_out))
    return lines


def leftovers(folder: Path) -> list[str]:
    """Whatever is hidden, as all is that is not finished."""
    return [str(path.relative_to(folder)) for path in (folder / OUT).rglob(".*")]


def measure(kind: str, kills: int, draw: random.Random, work: Path) -> str:
    """A row of the table."""
    args = KINDS[kind]
    whole = work / "whole"
    whole.mkdir()
    first, total = reference(args, whole)
    expected, done, begun, runs, ended, same, left, longest = results(kind, whole), 0, 0, 0, 0, 0, 0, 0.0
    for attempt in range(3 * kills):
        if done == kills:
            break
        folder = work / f"killed_{attempt}"
        folder.mkdir()
        moments: list[float] = []
        while len(moments) < TIMES and done < kills:
            moment = draw.uniform(0.9 * first, total)
            seconds = killed(args, folder, moment, done if kind == "split" else 0)
            if seconds is None:
                break
            moments.append(round(moment, 2))
            longest = max(longest, seconds)
            done += 1
            begun += kept(folder)
        if not moments:
            shutil.rmtree(folder)
            continue
        runs += 1
        ended += gone_on(args, folder)
        found, hidden = results(kind, folder), leftovers(folder)
        same += found == expected
        left += bool(hidden)
        if found != expected or hidden:
            differ = sorted(name for name in expected.keys() | found if expected.get(name) != found.get(name))
            print(f"{kind}, killed after {moments} s: differ {differ}, left over {hidden}", file=sys.stderr)
        else:
            shutil.rmtree(folder)
    return f"| {kind} | {total:.1f} | {done} | {begun} | {runs} | {ended} | {same} | {left} | {longest:.1f} |"


def measured() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="where the folders of runs that differ stay")
    args = parser.parse_args()
    if args.keep is not None:
        args.keep.mkdir(parents=True, exist_ok=True)
    draw = random.Random(args.seed)
    print(f"{HEADER}\n{'|---' * HEADER.count(' |')}|", flush=True)
    for kind in args.kinds:
        work = Path(tempfile.mkdtemp(dir=args.keep, prefix="kills-"))
        print(measure(kind, args.kills, draw, work), flush=True)
        if args.keep is None:
            shutil.rmtree(work)


if __name__ == "__main__":
    measured()
