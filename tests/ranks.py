"""Commands on several ranks, as ``torchrun`` starts them, but from a process that has imported all and run nothing.

Two interpreters need 15 seconds to import what a training takes. So this is for what several ranks do together; that
Lightning starts them itself is for tests which run ``python -m lightning_mbir`` with ``--trainer.devices``.
"""

import multiprocessing
import os
import pickle
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "lightning_mbir.cli.lightning",
        "lightning_mbir.prior.training.module",
        "lightning_mbir.data.slices.datamodule",
        "lightning_mbir.reconstruction.module",
    ]
)
PATIENCE = 300  # seconds


STARTERS: dict[str, Callable[[int, int], dict[str, int | str]]] = {
    "machine": lambda rank, ranks: {"LOCAL_RANK": rank, "NODE_RANK": 0, "WORLD_SIZE": ranks},
    "torchrun": lambda rank, ranks: {
        "LOCAL_RANK": 0, "RANK": rank, "GROUP_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": 1,
        "TORCHELASTIC_RUN_ID": "none",
    },
    "slurm": lambda rank, ranks: {
        "SLURM_JOB_ID": 7, "SLURM_JOB_NAME": "scan", "SLURM_NTASKS": ranks, "SLURM_NTASKS_PER_NODE": 1,
        "SLURM_NNODES": ranks, "SLURM_PROCID": rank, "SLURM_NODEID": rank, "SLURM_LOCALID": 0,
        "SLURM_NODELIST": "node[0-1]",
    },
}  # fmt: skip
"""What a process is told by what starts it: on one machine, or by torchrun or Slurm on a machine for each."""


def run_on_ranks(args: list[str], log: Path, ranks: int = 2, starter: str = "machine") -> list[tuple[int | None, str]]:
    """Status of each rank, and what it said, of the command line with these arguments and ``--trainer.devices``.

    Args:
        args: of ``python -m lightning_mbir``; ``{rank}`` in them is the number of each.
        log: folder for what the ranks say.
        ranks: how many.
        starter: one of ``STARTERS``; of machines for each, ``--trainer.num_nodes`` is the number of ranks.
    """
    log.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    nodes, each = (1, ranks) if starter == "machine" else (ranks, 1)
    devices = ["--trainer.accelerator", "cpu", "--trainer.devices", str(each), "--trainer.strategy", "ddp"]
    devices += ["--trainer.num_nodes", str(nodes)]
    logs = [log / f"rank_{rank}.txt" for rank in range(ranks)]
    processes = [
        FORKS.Process(
            target=_rank,
            args=(
                [a.replace("{rank}", str(rank)) for a in (*args, *devices)],
                rank,
                port,
                logs[rank],
                STARTERS[starter](rank, ranks),
            ),
        )
        for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE)
        process.kill()
    return [(process.exitcode, file.read_text()) for process, file in zip(processes, logs, strict=True)]


def _rank(args: list[str], rank: int, port: int, log: Path, told: dict[str, int | str]) -> None:
    """One of them; Lightning finds by its environment that it need start no more."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.environ |= {name: str(value) for name, value in told.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    from lightning.fabric.utilities.rank_zero import rank_zero_only

    from lightning_mbir.cli import main

    rank_zero_only.rank = rank  # which an import reads from the environment
    sys.exit(main(args))


def on_ranks(work: Callable[..., Any], folder: Path, ranks: int, *args: Any) -> list[Any]:
    """What a function of a module gives in each of several processes, which are one group of gloo with a thread each.

    Args:
        work: called with the folder and ``args``; what it gives is pickled.
        folder: for what the processes tell.
        ranks: how many.
        *args: further arguments.
    """
    folder.mkdir(parents=True, exist_ok=True)
    processes = [FORKS.Process(target=_member, args=(work, folder, rank, ranks, args)) for rank in range(ranks)]
    for process in processes:
        process.start()
    end = time.monotonic() + PATIENCE
    while any(process.exitcode is None for process in processes) and time.monotonic() < end:
        if any(process.exitcode for process in processes):  # the others may wait for it
            break
        time.sleep(0.05)
    for process in processes:
        process.kill()
        process.join()
    assert [process.exitcode for process in processes] == [0] * ranks
    return [pickle.loads((folder / f"rank_{rank}.pickle").read_bytes()) for rank in range(ranks)]


def _member(work: Callable[..., Any], folder: Path, rank: int, ranks: int, args: tuple[Any, ...]) -> None:
    import torch

    torch.set_num_threads(1)
    rendezvous = f"file://{folder / 'rendezvous'}"
    torch.distributed.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=ranks)
    (folder / f"rank_{rank}.pickle").write_bytes(pickle.dumps(work(folder, *args)))
    torch.distributed.destroy_process_group()
