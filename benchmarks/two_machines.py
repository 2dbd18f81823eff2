"""Two machines, simulated: the same bytes as on one, and the time by bandwidth.

`python -m benchmarks.two_machines [MBIT ...]`, as root on Linux, after `dvc repro` or `dvc pull`.
Two network namespaces see nothing but each other, over a pair of virtual interfaces whose
bandwidth `tc` limits; in each runs what docs/scale.md says. The stages are those of the pipeline,
`train` with fewer iterations unless MBIT is 0, which means no limit and all of them.
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
TENSORS = ("train", "validation", "test")


def main(megabits: Sequence[int]) -> None:
    """Print a row for each stage and bandwidth. Raises RuntimeError if its files are others."""
    rows = []
    for limit in megabits:
        params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
        if limit:
            params["train"].update(iterations=ITERATIONS, eval_every=ITERATIONS)
        name = f"{limit} Mbit/s" if limit else "no limit"
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch, "params.yaml")
            path.write_text(yaml.safe_dump(params), encoding="utf-8")
            for stage in (tensorize, train):
                print(f"{name}, {stage.__name__}", file=sys.stderr)
                one, two = (Path(scratch, folder) for folder in ("one", "two"))
                alone = timed([on_one(stage(path, one))])
                with two_namespaces(limit) as namespaces:
                    together = timed(
                        [on_machine(n, name, stage(path, two)) for n, name in enumerate(namespaces)]
                    )
                if digest(one) != digest(two):
                    raise RuntimeError(f"{name}: {stage.__name__} made other files than on one")
                rows.append([name, stage.__name__, f"{alone:.1f}", f"{together:.1f}", digest(one)])
                print(*rows[-1], sep=" | ", file=sys.stderr)
    print(
        markdown(["bandwidth", "stage", "one, s", "two, s", "SHA-256 of the files of both"], rows)
    )


def tensorize(params: Path, out: Path) -> list[str]:
    """The arguments of the stage; both machines see the same folder, as on a shared disk."""
    return [
        *("stages.tensorize", f"--params={params}", "--raw=data/raw"),
        *(f"--{name}={out}/{name}.safetensors" for name in TENSORS),
        f"--skipped={out}/skipped.csv",
    ]


def train(params: Path, out: Path) -> list[str]:
    """The same; it reads what `tensorize` has written."""
    return [
        *("stages.train", f"--params={params}", f"--train={out}/train.safetensors"),
        *(f"--validation={out}/validation.safetensors", f"--model={out}/model.safetensors"),
        *(f"--history={out}/history.csv", f"--metrics={out}/metrics.json"),
    ]


def digest(folder: Path) -> str:
    """The beginning of the SHA-256 of the files in a folder."""
    hashes = (hashlib.sha256(path.read_bytes()) for path in sorted(folder.iterdir()))
    return hashlib.sha256(b"".join(found.digest() for found in hashes)).hexdigest()[:12]


def on_one(arguments: Sequence[str]) -> list[str]:
    """The command on one machine, in one process."""
    return ["env", "PROCESSES=1", sys.executable, "-m", *arguments]


def on_machine(number: int, namespace: str, arguments: Sequence[str]) -> list[str]:
    """The command on one of two machines, with torchrun's variables, in one process each."""
    return [
        *("ip", "netns", "exec", namespace, "env", "PET_NNODES=2", f"PET_NODE_RANK={number}"),
        *(f"PET_MASTER_ADDR={ADDRESSES[0]}", f"PET_MASTER_PORT={PORT}"),
        *(f"GLOO_SOCKET_IFNAME={namespace}", f"TP_SOCKET_IFNAME={namespace}"),
        *on_one(arguments),
    ]


def timed(commands: Sequence[Sequence[str]]) -> float:
    """Seconds until all commands have ended."""
    start = perf_counter()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    running = [subprocess.Popen(command, env=environment) for command in commands]
    codes = []
    try:
        codes = [process.wait() for process in running]
    finally:
        for process in running:
            process.terminate()  # what still runs after an interruption
    if any(codes):
        raise RuntimeError(f"exit codes {codes}")
    return perf_counter() - start


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
