"""Slices a second and peak memory of the networks: ours against a plain run of the same weights.

    python benchmarks/prior_throughput.py --device cpu --cases light_128 light_256 ncsnpp --ncsnpp_size 64
    python benchmarks/prior_throughput.py --device cuda --compile --profile
    python benchmarks/prior_throughput.py --against ANOTHER_CHECKOUT --threads 1
    python benchmarks/prior_throughput.py --engines --threads 1
    python benchmarks/prior_throughput.py --layers --threads 1

Ours is what `fit` does, and `SliceDenoiser` with bfloat16: channels-last, autocast and, if asked for, `torch.compile`;
`--precision float32` is without autocast, as reconstructions are by default. The plain run is eager, float32, channels
first. Both run in one process, by turns, so that a busy machine slows both; the ratio is that of the medians. Training
is forward, backward and an Adam step. Weights are random, in the last layers too. Peak memory is what a step needs
beyond weights and optimizer. Prints Markdown tables.

`--against` times `SliceDenoiser` instead, in float32, beside that of another checkout, by turns, each in a process of
its own: the light network that both have, with the same weights, and the one that `fit` takes today. `--engines` times
what `torch.compile` with freezing, OpenVINO and ONNX Runtime (where they and onnxscript are there) make of the latter.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import logging
import math
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
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from lightning_mbir.prior.denoiser import posterior_mean
from lightning_mbir.prior.networks.build import build_network, new_options
from lightning_mbir.prior.networks.running import channels_last, compiled
from lightning_mbir.reconstruction.memory import PeakMemory

KINDS = {
    "FIR resampling": ("upsample_bilinear", "depthwise", "fir"),
    "attention": ("attention", "softmax", "bmm"),
    "group norm": ("group_norm",),
    "convolution": ("conv",),
    "linear": ("addmm", "aten::mm", "linear"),
    "elementwise": ("silu", "add", "mul", "div", "cat", "sub", "sqrt", "log", "sin", "cos", "pow"),
    "copies and casts": ("copy", "fill", "zero", "to_copy", "contiguous", "clone"),
}
"""Kind of operation by parts of its name; the first that fits."""

SIGMA = 0.5


def prepare(name: str, device: torch.device) -> nn.Module:
    """A network with random weights in all layers, whose output is of the size of its input."""
    torch.manual_seed(0)
    network = build_network(name, new_options(name, None, complex=False, slices=1))
    for parameter in network.parameters():
        if parameter.ndim > 1 and not parameter.any():  # layers that start at zero
            nn.init.normal_(parameter, std=0.1 / parameter[0].numel() ** 0.5)
    return network.to(device)


def runner(network: nn.Module, x: Tensor, ours: bool, train: bool, args: argparse.Namespace) -> Callable[[], Tensor]:
    """One step; gives the denoised images."""
    network = channels_last(copy.deepcopy(network)) if ours else copy.deepcopy(network)
    network.train(train).requires_grad_(train)
    run = compiled(network) if ours and args.compile else network
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-6) if train else None
    x = x.contiguous(memory_format=torch.channels_last if ours else torch.contiguous_format)
    sigma = torch.full((len(x),), SIGMA, device=x.device)

    low = ours and args.precision == "bfloat16"

    def step() -> Tensor:
        with torch.set_grad_enabled(train), torch.autocast(x.device.type, torch.bfloat16, enabled=low):
            clean = posterior_mean(run, x, sigma)
        if optimizer is not None:
            clean.float().square().mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
        if x.is_cuda:
            torch.cuda.synchronize()
        return clean.detach().float()

    return step


def compare(name: str, size: int, batch: int, train: bool, args: argparse.Namespace) -> str:
    """One line of the table."""
    device = torch.device(args.device)
    network = prepare(name, device)
    x = torch.rand((batch, 1, size, size), generator=torch.Generator().manual_seed(0)).to(device)
    steps = {ours: runner(network, x, ours, train, args) for ours in (False, True)}
    first = {ours: step() for ours, step in steps.items()}  # compiles and warms up
    times: dict[bool, list[float]] = defaultdict(list)
    for _ in range(args.repeat):
        for ours, step in steps.items():
            start = time.perf_counter()
            step()
            times[ours].append((time.perf_counter() - start) / batch)
    memory = {}
    for ours, step in steps.items():
        with PeakMemory(device) as peak:
            step()
        memory[ours] = "not measured" if peak.bytes is None else f"{peak.bytes / 2**20:.0f}"
    plain, fast = (statistics.median(times[ours]) for ours in (False, True))
    gap = float((first[True] - first[False]).abs().max())
    extent = float(first[False].max() - first[False].min())
    return (
        f"| {name} | {size} | {'training' if train else 'inference'} | {batch} | {1 / plain:.3g} | {1 / fast:.3g} "
        f"| {plain / fast:.2f} | {memory[False]} | {memory[True]} | {gap:.1e} ({gap / extent:.1e}) |"
    )


def shares(name: str, size: int, batch: int, args: argparse.Namespace) -> list[str]:
    """Lines of the table of time by kind of operation, inference, ours and uncompiled."""
    device = torch.device(args.device)
    x = torch.rand((batch, 1, size, size)).to(device)
    step = runner(prepare(name, device), x, True, False, argparse.Namespace(**{**vars(args), "compile": False}))
    step()
    cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * cuda
    with profile(activities=activities, record_shapes=True) as profiler:
        step()
    total: dict[str, float] = defaultdict(float)
    for event in profiler.key_averages(group_by_input_shape=True):
        key = event.key.lower()
        if not key.startswith("aten::"):  # kernels are counted with the operations that launch them
            continue
        seconds = event.self_device_time_total if cuda else event.self_cpu_time_total
        if "conv" in key and is_depthwise(event.input_shapes):
            key = "fir"
        kind = next((kind for kind, words in KINDS.items() if any(word in key for word in words)), "other")
        total[kind] += seconds
    everything = sum(total.values()) or 1.0
    rows = sorted(total.items(), key=lambda item: -item[1])
    return [f"| {name} | {size} | {kind} | {100 * seconds / everything:.1f} |" for kind, seconds in rows]


def is_depthwise(shapes: list[list[int]]) -> bool:
    """Whether the weights of a convolution are those of ``fir``."""
    return len(shapes) > 1 and list(shapes[1][1:]) == [1, 4, 4]


def layers(args: argparse.Namespace) -> list[str]:
    """Lines of the table of the convolutions of the light network, by kind, beside a product of large matrices."""
    network = channels_last(prepare("light", torch.device("cpu")).eval().requires_grad_(False))
    seen: list[tuple[nn.Module, Tensor]] = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(lambda module, inputs: seen.append((module, inputs[0].clone())))
    size = max(args.sizes)
    x = torch.rand((args.batch, 1, size, size)).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        network(x, torch.full((args.batch,), SIGMA))
        square = torch.rand(2048, 2048)
        found = [("2048 x 2048 times 2048 x 2048", 2 * 2048**3, fastest(lambda: square @ square, args.repeat))]
        for module, given in seen[:]:
            assert isinstance(module, nn.Conv2d)
            module._forward_pre_hooks.clear()
            out = module(given)
            products = 2 * out.numel() * module.in_channels * math.prod(module.kernel_size)
            name = f"{module.in_channels} to {module.out_channels}, {module.kernel_size[0]} x {module.kernel_size[0]}"
            name += f" at {out.shape[-1]}" + (", every second" if module.stride[0] == 2 else "")
            found.append((name, products, fastest(lambda m=module, x=given: m(x), args.repeat)))  # type: ignore[misc]
    return [f"| {name} | {1e3 * seconds:.2f} | {n / seconds / 1e9:.0f} |" for name, n, seconds in dict.fromkeys(found)]


def fastest(run: Callable[[], object], repeat: int) -> float:
    """The least seconds of a call."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


WORKER = """
import sys, time, torch
from lightning_mbir.prior import SliceDenoiser, Unit
from lightning_mbir.prior.networks.build import build_network
threads, batch, weights, skips = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
torch.set_num_threads(threads)
network = build_network("light", {"skips": skips} if skips else None)
network.load_state_dict(torch.load(weights))
denoise = SliceDenoiser(network, Unit(), slice_batch=batch)
for line in sys.stdin:
    size = int(line)
    x = torch.rand((batch, size, size), generator=torch.Generator().manual_seed(0))
    start = time.perf_counter()
    out = denoise(x, 0.5)
    seconds = time.perf_counter() - start
    torch.save(out, weights + ".out" + skips)
    print(seconds, flush=True)
"""
"""Denoises a batch of the size that it is told, and tells the seconds."""


class Worker:
    """A process that denoises with the package of a checkout."""

    def __init__(self, checkout: Path, weights: Path, skips: str, args: argparse.Namespace) -> None:
        command = [sys.executable, "-c", WORKER, str(torch.get_num_threads()), str(args.batch), str(weights), skips]
        environment = {**os.environ, "PYTHONPATH": str(checkout)}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env=environment, cwd=checkout, **pipes)
        self.output = Path(f"{weights}.out{skips}")

    def __call__(self, size: int) -> float:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{size}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def against(args: argparse.Namespace, folder: Path) -> list[str]:
    """Lines of the table of our denoiser beside that of another checkout."""
    here = Path(__file__).parents[1]
    weights = {}
    for skips in ("concat", "add"):
        torch.manual_seed(0)
        network = build_network("light", {"skips": skips})
        for parameter in network.parameters():
            if parameter.ndim > 1 and not parameter.any():
                nn.init.normal_(parameter, std=0.1 / parameter[0].numel() ** 0.5)
        weights[skips] = folder / f"{skips}.pt"
        torch.save(network.state_dict(), weights[skips])
    workers = {
        "that revision": Worker(args.against.resolve(), weights["concat"], "", args),
        "the same weights": Worker(here, weights["concat"], "concat", args),
        "the network of today": Worker(here, weights["add"], "add", args),
    }
    lines = []
    for size in args.sizes:
        times: dict[str, list[float]] = {name: [] for name in workers}
        for repeat in range(args.repeat + 1):
            for name, worker in workers.items():
                seconds = worker(size)
                if repeat:  # the first warms up
                    times[name].append(seconds / args.batch)
        reference, same = (torch.load(worker.output) for worker in list(workers.values())[:2])
        first = statistics.median(times["that revision"])
        for name, found in times.items():
            gap = f"{float((same - reference).abs().max()):.1e}" if "same" in name else ""
            middle = statistics.median(found)
            lines.append(f"| {size} | {name} | {1e3 * middle:.1f} | {first / middle:.2f} | {gap} |")
    return lines


def engines(args: argparse.Namespace) -> list[str]:
    """Lines of the table of what other engines make of today's network, float32."""
    network = channels_last(prepare("light", torch.device("cpu")).eval().requires_grad_(False))
    lines = []
    for size in args.sizes:
        x = torch.rand((args.batch, 1, size, size)).contiguous(memory_format=torch.channels_last)
        sigma = torch.full((1,), SIGMA).expand(args.batch)
        with torch.no_grad():
            runs = engines_of(network, x, sigma)
            first = {name: run().clone() for name, run in runs.items()}
            times: dict[str, list[float]] = {name: [] for name in runs}
            for _ in range(args.repeat):
                for name, run in runs.items():
                    start = time.perf_counter()
                    run()
                    times[name].append((time.perf_counter() - start) / args.batch)
        plain = statistics.median(times["as it is"])
        for name, found in times.items():
            gap, middle = float((first[name] - first["as it is"]).abs().max()), statistics.median(found)
            lines.append(f"| {size} | {name} | {1e3 * middle:.1f} | {plain / middle:.2f} | {gap:.1e} |")
    return lines


def engines_of(network: nn.Module, x: Tensor, sigma: Tensor) -> dict[str, Callable[[], Tensor]]:
    """The network by the name of what runs it; compilation happens in the first call."""
    torch._inductor.config.freezing = True
    frozen = torch.compile(network, dynamic=False)
    runs = {"as it is": lambda: network(x, sigma), "torch.compile, frozen": lambda: frozen(x, sigma)}
    threads, inputs = torch.get_num_threads(), {"x": x.contiguous().numpy(), "sigma": sigma.contiguous().numpy()}
    if importlib.util.find_spec("openvino"):
        import openvino

        model = openvino.convert_model(network, example_input=(x, sigma.contiguous()))
        hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
        request = openvino.Core().compile_model(model, "CPU", hints).create_infer_request()
        runs["OpenVINO"] = lambda: torch.from_numpy(request.infer(list(inputs.values()))[0])
    if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnxscript"):
        import onnxruntime

        exported = torch.onnx.export(
            network, (x, sigma.contiguous()), input_names=list(inputs), dynamo=True, verbose=False
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(exported.model_proto.SerializeToString(), options)
        runs["ONNX Runtime"] = lambda: torch.from_numpy(session.run(None, inputs)[0])
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="threads of the CPU [all]")
    parser.add_argument("--cases", nargs="+", default=["light_128", "light_256", "ncsnpp"])
    parser.add_argument("--ncsnpp_size", type=int, default=256, help="side of the slices of NCSN++, full-size weights")
    parser.add_argument("--batch", type=int, default=4, help="slices at once")
    parser.add_argument("--ncsnpp_batch", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=5, help="repetitions of each, by turns")
    parser.add_argument("--precision", default="bfloat16", choices=["bfloat16", "float32"], help="of ours")
    parser.add_argument("--compile", action="store_true", help="torch.compile in ours")
    parser.add_argument("--no_training", action="store_true", help="inference only")
    parser.add_argument("--profile", action="store_true", help="share of time by kind of operation")
    parser.add_argument("--layers", action="store_true", help="GFLOP/s of each convolution, of the largest size")
    parser.add_argument("--against", type=Path, help="a checkout of another revision, for the light network alone")
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256], help="of the slices, with --against")
    parser.add_argument("--engines", action="store_true", help="torch.compile, OpenVINO and ONNX Runtime")
    args = parser.parse_args()
    logging.basicConfig(format="%(message)s")
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.layers:
        print("| convolution | ms | GFLOP/s |\n|---|---|---|\n" + "\n".join(layers(args)))
        return
    if args.against or args.engines:
        print("| size | denoiser | ms a slice | ratio | largest difference |\n|---|---|---|---|---|")
        if args.against:
            with tempfile.TemporaryDirectory() as folder:
                print("\n".join(against(args, Path(folder))), flush=True)
        if args.engines:
            print("\n".join(engines(args)))
        return
    cases = []
    for case in args.cases:
        name, _, side = case.partition("_")
        size = int(side) if side else args.ncsnpp_size
        cases.append((name, size, args.ncsnpp_batch if name == "ncsnpp" else args.batch))
    device = torch.cuda.get_device_name() if args.device.startswith("cuda") else f"{torch.get_num_threads()} threads"
    print(f"{args.device}, {device}, torch {torch.__version__}, medians of {args.repeat}")
    print(f"ours {'compiled' if args.compile else 'eager'}, both by turns\n")
    print(
        "| network | size | step | batch | plain, slices/s | ours, slices/s | ratio "
        "| plain, peak MiB | ours, peak MiB | largest difference of the images (of their range) |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, size, batch in cases:
        for train in (False,) if args.no_training else (False, True):
            print(compare(name, size, batch, train, args), flush=True)
    if args.profile:
        print("\n| network | size | operation | share of time (%) |\n|---|---|---|---|")
        for name, size, batch in cases:
            print("\n".join(shares(name, size, batch, args)), flush=True)


if __name__ == "__main__":
    main()
