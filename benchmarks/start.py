"""How long the command line takes to answer, and what a run imports before it starts.

    python benchmarks/start.py [--repeat 15] [--before FOLDER]

Each command is a process of its own, by turns; medians of wall time, against ``python -c "import numpy"``. With
``--before`` the imports of another checkout are measured by the same turns.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FRONT = {
    "numpy alone": ["-c", "import numpy"],
    "--help": ["-m", "lightning_mbir", "predict", "--help"],
    "--method dds --help": ["-m", "lightning_mbir", "predict", "--method", "dds", "--help"],
    "unknown task": ["-m", "lightning_mbir", "predict", "--task", "pet"],
    "unknown method": ["-m", "lightning_mbir", "predict", "--method", "ddss"],
    "no such file": ["-m", "lightning_mbir", "predict", "--data.path", "nowhere.nii.gz"],
    "no such configuration": ["-m", "lightning_mbir", "fit", "--config", "nowhere"],
    "no number": ["-m", "lightning_mbir", "predict", "--acc", "many"],
}
PREDICT = "import lightning_mbir.cli.lightning as c; getattr(c, 'modules', lambda _: None)('predict')"


def run(args: list[str], folder: Path) -> tuple[float, str]:
    """Seconds of a process in a checkout, and what it said on standard error."""
    env = {**os.environ, "PYTHONPATH": str(folder)}
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *args], capture_output=True, text=True, env=env, cwd=folder, check=False)
    return time.perf_counter() - started, done.stderr


def table(rows: dict[str, list[float]]) -> None:
    """Medians, and their ratio to the first row."""
    first = statistics.median(next(iter(rows.values())))
    print("| what | seconds | of the first |\n|---|---|---|")
    for name, times in rows.items():
        print(f"| {name} | {statistics.median(times):.3f} | {statistics.median(times) / first:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--before", type=Path, help="another checkout, to compare the imports of a run with")
    args = parser.parse_args()
    front: dict[str, list[float]] = {name: [] for name in FRONT}
    for _ in range(args.repeat):
        for name, command in FRONT.items():
            front[name].append(run(command, ROOT)[0])
    table(front)
    libraries = "import torch; import lightning.pytorch.cli"
    heavy: dict[str, list[float]] = {"torch and Lightning alone": [], "a run of predict": []}
    folders = [ROOT] if args.before is None else [ROOT, args.before.resolve()]
    for _ in range(max(3, args.repeat // 3)):
        heavy["torch and Lightning alone"].append(run(["-c", libraries], ROOT)[0])
        for folder in folders:
            name = "a run of predict" + (f" in {folder.name}" if folder != ROOT else "")
            heavy.setdefault(name, []).append(run(["-c", PREDICT], folder)[0])
    print()
    table(heavy)
    for folder in folders:
        said = run(["-X", "importtime", "-c", PREDICT], folder)[1].splitlines()
        own = [line.split("|")[-1].strip() for line in said if line.startswith("import time:")]
        named = [name for name in ("monai", "torchvision", "matplotlib", "h5py", "nibabel", "pywt") if name in own]
        print(f"\n{folder.name}: {len(own)} modules, of these {', '.join(named) or 'none of what is optional'}")


if __name__ == "__main__":
    main()
