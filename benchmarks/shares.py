"""What a whole reconstruction spends its time on: the network, the operator, total variation, vectors.

    python benchmarks/shares.py --cases ct_8 ct_90 mri mri_8coils --methods dds admm_tv --slices 64 --levels 3
    python benchmarks/shares.py --cases ct_90 --methods dds --against ANOTHER_CHECKOUT --turns 3
    python benchmarks/shares.py --cases ct_90 --methods dds --options "{cg_iterations: 24}"

One run of a method at a size, on the built-in phantom, with the options of the task in ``configs/tuned``, by few levels
or iterations: each costs the same. Times are processor time of this process, which other work on the machine does not
change much, and each is that of a part without the parts that it calls: *network* is the prior, *operator* what
projects, back-projects and transforms, *differences* total variation, *sums* inner products, *noise* keyed noise, and
*rest* the arithmetic of volumes. With ``--against`` the same is run from another checkout too, by turns, each in a
process of its own; the ratio is that checkout's time over ours, of what is not the network, and *difference* the
largest one of the two volumes over the largest value. ``--options`` go over the tuned ones, in this checkout alone.
Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml

from lightning_mbir import TASKS, VolumeDataModule, load_prior
from lightning_mbir.methods.run import run_method
from lightning_mbir.physics import LinearOperator
from lightning_mbir.reconstruction.case import simulate
from lightning_mbir.samplers import KeyedNoise
from lightning_mbir.solvers import admm_tv, conjugate_gradient

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "ct_8": ("sv_ct", {"views": 8}),
    "ct_90": ("la_ct", {}),
    "mri": ("cs_mri", {"acc": 8}),
    "mri_8coils": ("cs_mri", {"acc": 8, "coils": 8}),
}
OURS = Path(__file__).resolve().parents[1]
PARTS = ("network", "operator", "differences", "sums", "noise", "rest")


class Shares:
    """Processor time of parts, each without the parts that it calls."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._stack = ["rest"]
        self._since = time.process_time()

    def _switch(self) -> None:
        now = time.process_time()
        self.seconds[self._stack[-1]] += now - self._since
        self._since = now

    def of(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with its time counted as that part's."""

        def timed(*args: Any, **options: Any) -> Any:
            self._switch()
            self._stack.append(part)
            try:
                return function(*args, **options)
            finally:
                self._switch()
                self._stack.pop()

        return timed

    def restart(self) -> None:
        """Count from here."""
        self._switch()
        self.seconds.clear()

    def told(self) -> dict[str, float]:
        """Seconds by part so far."""
        self._switch()
        return {part: self.seconds[part] for part in PARTS}


def run(given: argparse.Namespace) -> dict[str, Any]:
    """One method on one case, once."""
    name, settings = CASES[given.cases[0]]
    task, method = TASKS[name], given.methods[0]
    data = VolumeDataModule(modality=task.modality, image_size=given.size, demo_volumes=1)
    like: Any = data.scan(0)
    shape = (given.slices, given.size, given.size)
    scan = like.with_data(F.interpolate(like.data[None, None], shape, mode="trilinear", align_corners=True)[0, 0])
    case = simulate(scan, task, task.settings(**settings), 0, has_phase=False)
    operator, shares = case.operator(False), Shares()
    operator.norm()
    prior: Any = load_prior(given.prior or task.modality)
    options: dict[str, Any] = {"modality": task.modality, "spacing": case.spacing, **task.tuned(method)}
    options |= given.options
    if method not in ("fbp", "zero_filled"):
        options["steps"] = given.levels
    run_method(case.y[:3], operator, prior, method, **options)  # what is made once

    prior._in_batches = shares.of("network", prior._in_batches)
    for kind in {kind for part in operator.modules() for kind in type(part).mro() if issubclass(kind, LinearOperator)}:
        for verb in ("forward", "adjoint", "normal"):
            if verb in vars(kind):
                setattr(kind, verb, shares.of("operator", vars(kind)[verb]))
    steps, solver = (sys.modules[function.__module__] for function in (admm_tv, conjugate_gradient))
    for verb in ("difference", "difference_adjoint", "project"):
        setattr(steps, verb, shares.of("differences", getattr(steps, verb)))
    for module in (steps, solver):
        module.own_inner = shares.of("sums", module.own_inner)
    KeyedNoise.__call__ = shares.of("noise", KeyedNoise.__call__)  # type: ignore[method-assign]
    shares.restart()
    result = run_method(case.y, operator, prior, method, **options)
    told = shares.told()
    if given.volume is not None:
        torch.save(result.volume, given.volume)
    return {**told, "levels": given.levels}


def measured(given: argparse.Namespace, case: str, method: str, checkout: Path, volume: Path) -> dict[str, Any]:
    """The same in a process of its own, of the code of a checkout."""
    words = [sys.executable, str(Path(__file__).resolve()), "--child", "--cases", case, "--methods", method]
    words += ["--size", str(given.size), "--slices", str(given.slices), "--levels", str(given.levels)]
    words += ["--threads", str(given.threads), "--volume", str(volume)]
    words += ["--prior", given.prior] if given.prior else []
    words += ["--options", json.dumps(given.options)] if checkout == OURS else []
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run(words, env=environment, cwd=volume.parent, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def row(given: argparse.Namespace, case: str, method: str, checkouts: list[Path]) -> str:
    """A line of the table."""
    with tempfile.TemporaryDirectory() as folder:
        volumes = [Path(folder, f"{k}.pt") for k in range(len(checkouts))]
        turns = [
            [measured(given, case, method, *pair) for pair in zip(checkouts, volumes, strict=True)]
            for _ in range(given.turns)
        ]
        images = [torch.load(path) for path in volumes]
    parts = [{part: statistics.median(turn[k][part] for turn in turns) for part in PARTS} for k in range(len(images))]
    ours = parts[0]
    per = 1e3 / given.slices / given.levels
    words = [f"{per * sum(ours.values()):.2f}", *(f"{100 * ours[part] / sum(ours.values()):.0f}" for part in PARTS)]
    if len(images) > 1:
        without = [[sum(turn[k][part] for part in PARTS[1:]) for k in range(2)] for turn in turns]
        words.append(f"{statistics.median(b / a for a, b in without):.2f}")
        words.append(f"{float((images[0] - images[1]).abs().max() / images[1].abs().max()):.0e}")
    return f"| {case} | `{method}` | {' | '.join(words)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--methods", nargs="+", default=["dds", "admm_tv"])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--slices", type=int, default=64)
    parser.add_argument("--levels", type=int, default=3, help="levels or iterations")
    parser.add_argument("--prior")
    parser.add_argument("--options", type=yaml.safe_load, default={}, help="of the method, over the tuned ones")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--against", type=Path, help="another checkout, side by side")
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--volume", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.child:
        print(json.dumps(run(given)))
        return
    checkouts = [OURS] + ([given.against.resolve()] if given.against else [])
    print(f"{given.slices} slices of {given.size} x {given.size}, float32, {given.threads} threads\n")
    more = ["of before, without the network", "difference"] if given.against else []
    heads = ["case", "method", "ms a slice and level", *(f"{part}, %" for part in PARTS), *more]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for case in given.cases:
        for method in given.methods:
            print(row(given, case, method, checkouts), flush=True)


if __name__ == "__main__":
    main()
