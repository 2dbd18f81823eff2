"""Training on two machines, simulated: the same bytes as on one, and the time by bandwidth.

`python -m benchmarks.two_machines [MBIT ...]`, as root on Linux, after `dvc repro` or `dvc pull`.
Two network namespaces see nothing but each other, over a pair of virtual interfaces whose
bandwidth `tc` limits; torchrun runs in each. Training is the pipeline's, with fewer iterations
unless MBIT is 0, which means no limit and all of them.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import perf_counter

import yaml

from benchmarks.tables import markdown

MEGABITS = (0, 1000, 300, 100)
ITERATIONS = 300
ADDRESSES = ("192.0.2.1", "192.0.2.2")  # for documentation (RFC 5737): nobody else's
PORT = 29500


def main(megabits: Sequence[int]) -> None:
    """Print a row for each bandwidth. Raises RuntimeError if the model is another."""
    rows = []
    expected: dict[int, str] = {}
    for limit in megabits:
        params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
        if limit:
            params["train"].update(iterations=ITERATIONS, eval_every=ITERATIONS)
        iterations = params["train"]["iterations"]
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch, "params.yaml")
            path.write_text(yaml.safe_dump(params), encoding="utf-8")
            name = f"{limit} Mbit/s" if limit else "no limit"
            print(f"{name}, {iterations} iterations", file=sys.stderr)
            alone, one = timed([train(path, Path(scratch, "one"))])
            if expected.setdefault(iterations, one) != one:
                raise RuntimeError("one machine: found another model than before")
            with two_namespaces(limit) as namespaces:
                commands = [
                    on_machine(rank, namespace, train(path, Path(scratch, "two")))
                    for rank, namespace in enumerate(namespaces)
                ]
                together, two = timed(commands)
        if two != one:
            raise RuntimeError(f"{name}: found another model than on one machine")
        rows.append([name, f"{iterations:,}", f"{alone:.1f}", f"{together:.1f}", one[:12]])
        print(*rows[-1], sep=" | ", file=sys.stderr)
    print(markdown(["bandwidth", "iterations", "one, s", "two, s", "SHA-256 of both models"], rows))


def train(params: Path, out: Path) -> list[str]:
    """The arguments of the stage; both machines see the same folder, as on a shared disk."""
    return [
        *("stages.train", f"--params={params}", "--train=data/tensors/train.safetensors"),
        *("--validation=data/tensors/validation.safetensors", f"--model={out}.safetensors"),
        *(f"--history={out}.csv", f"--metrics={out}.json"),
    ]


def on_machine(rank: int, namespace: str, arguments: Sequence[str]) -> list[str]:
    """The same in a namespace, under torchrun."""
    return [
        *("ip", "netns", "exec", namespace, sys.executable, "-m", "torch.distributed.run"),
        *("--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d"),
        *("--rdzv-id=two-machines", f"--rdzv-endpoint={ADDRESSES[0]}:{PORT}"),
        # torchrun would look for the endpoint's address among those of the host's name.
        f"--rdzv-conf=is_host={'true' if rank == 0 else 'false'}",
        *(f"--local-addr={ADDRESSES[rank]}", "-m", *arguments),
    ]


def timed(commands: Sequence[Sequence[str]]) -> tuple[float, str]:
    """Seconds until all commands have ended, and the model's SHA-256."""
    start = perf_counter()
    running = []
    for arguments in commands:
        command = [*arguments] if arguments[0] == "ip" else [sys.executable, "-m", *arguments]
        interface = arguments[3] if arguments[0] == "ip" else ""  # named like its namespace
        environment = {"OMP_NUM_THREADS": "1"} | (
            {"GLOO_SOCKET_IFNAME": interface, "TP_SOCKET_IFNAME": interface} if interface else {}
        )
        running.append(subprocess.Popen(command, env=os.environ | environment))
    codes = []
    try:
        codes = [process.wait() for process in running]
    finally:
        for process in running:
            process.terminate()  # what still runs after an interruption
    if any(codes):
        raise RuntimeError(f"exit codes {codes}")
    model = next(part.partition("=")[2] for part in commands[0] if part.startswith("--model="))
    digest = hashlib.sha256(Path(model).read_bytes()).hexdigest()
    return perf_counter() - start, digest


@contextmanager
def two_namespaces(megabits: int) -> Iterator[list[str]]:
    """Two network namespaces, each with one end of a link, which has the namespace's name."""
    names = [f"lr{os.getpid() % 100000}{end}" for end in "ab"]
    with ExitStack() as stack:
        for name in names:
            call("ip", "netns", "add", name)
            stack.callback(call, "ip", "netns", "delete", name)
        one, other = names
        call("ip", "link", "add", one, "netns", one, "type", "veth", "peer", other, "netns", other)
        for name, address in zip(names, ADDRESSES, strict=True):
            call("ip", "-n", name, "address", "add", f"{address}/24", "dev", name)
            for interface in ("lo", name):
                call("ip", "-n", name, "link", "set", interface, "up")
            if megabits:
                limit = ("rate", f"{megabits}mbit", "burst", "256kb", "latency", "50ms")
                call("tc", "-n", name, "qdisc", "add", "dev", name, "root", "tbf", *limit)
        yield names


def call(*command: str) -> None:
    """Run a command that must succeed."""
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main([int(text) for text in sys.argv[1:]] or MEGABITS)
