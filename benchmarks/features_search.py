"""Search for the constants of the features and for training defaults, on validation images only.

    python -m benchmarks.features_search rates|longer|variants

Each experiment prints rows of a markdown table; 10,000 of the 60,000 training images are held out at
random (seeds 0 and 1), one linear layer is trained on the other 50,000 with batches of 100. Several
configurations share a pass over the batches: their weights are stacked.
"""

import gzip
import sys
from dataclasses import dataclass
from math import cos, pi, sqrt
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from stages.images.features import Images, deskew, gradient_features

RAW = Path("data/raw")
FASHION = Path("/usr/share/datasets/fashion-mnist")


def read(name, part):
    def open_(kind):
        if name == "mnist":
            return (RAW / f"{part}-{kind}-ubyte").read_bytes()
        return gzip.decompress((FASHION / f"{part}-{kind}-ubyte.gz").read_bytes())

    images = np.frombuffer(open_("images-idx3"), np.uint8)[16:].reshape(-1, 1, 28, 28)
    labels = np.frombuffer(open_("labels-idx1"), np.uint8)[8:].astype(np.int64)
    return (deskew(images) if name == "mnist" else images), torch.from_numpy(labels)


@dataclass(frozen=True)
class Config:
    lr: float = 0.003
    wd: float = 0.01
    momentum: float = 0.9
    optimizer: str = "adamw"
    schedule: str = "cosine"


def train(x, y, configs, iterations=3000, seed=0, dtype=torch.float32, noise=0.0, batch=100, beta2=0.999):
    """Weights (M, 10, F + 1) of M configurations of one optimizer; x (N, F) uint8."""
    m, f = len(configs), x.shape[1]
    column = lambda name: torch.tensor([getattr(c, name) for c in configs], dtype=dtype)[:, None, None]
    lr0, wd, b1 = column("lr"), column("wd"), column("momentum")
    w, bias = torch.zeros(m, 10, f, dtype=dtype), torch.zeros(m, 10, 1, dtype=dtype)
    params, first, second = [w, bias], [torch.zeros_like(p) for p in (w, bias)], [torch.zeros_like(p) for p in (w, bias)]
    generator = torch.Generator().manual_seed(seed)
    noise_generator = torch.Generator().manual_seed(1)
    order, at = torch.empty(0, dtype=torch.long), 0
    for step in range(1, iterations + 1):
        if at + batch > len(order):
            order, at = torch.randperm(len(x), generator=generator), 0
        index = order[at : at + batch]
        at += batch
        xb = x.index_select(0, index).to(dtype).mul_(1 / 255)
        logits = (xb @ w.view(m * 10, f).T).view(batch, m, 10) + bias.view(1, m, 10)
        p = logits.softmax(2)
        p.scatter_add_(2, y[index][:, None, None].expand(-1, m, 1), torch.full((batch, m, 1), -1, dtype=dtype))
        p /= batch
        grads = [(p.view(batch, m * 10).T @ xb).view(m, 10, f), p.sum(0).view(m, 10, 1)]
        progress = (step - 1) / iterations
        fall = {"cosine": 0.5 * (1 + cos(pi * progress)), "linear": 1 - progress, "constant": 1.0}[configs[0].schedule]
        lr = lr0 * fall
        for q, g, a, v in zip(params, grads, first, second):
            if noise:
                g.mul_(1 + noise * torch.randn(g.shape, dtype=dtype, generator=noise_generator))
            match configs[0].optimizer:
                case "adamw" | "adam":
                    if configs[0].optimizer == "adamw":
                        q.mul_(1 - lr * wd)
                    else:
                        g.add_(wd * q)
                    a.mul_(b1).add_((1 - b1) * g)
                    v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
                    c = sqrt(1 - beta2**step)
                    q.sub_((lr * c / (1 - b1**step)) * a / (v.sqrt() + c * 1e-8))
                case "sgd" | "nesterov":
                    g.add_(wd * q)
                    a.mul_(b1).add_(g)
                    q.sub_(lr * (g + b1 * a if configs[0].optimizer == "nesterov" else a))
    return torch.cat(params, 2)


def scores(weights, x, y):
    """Accuracies in per cent and cross entropies, two lists of M."""
    m = len(weights)
    correct, loss = torch.zeros(m), torch.zeros(m)
    w = weights[:, :, :-1].reshape(m * 10, -1).T.to(torch.float32)
    for start in range(0, len(x), 2000):
        logits = (x[start : start + 2000].float().mul_(1 / 255) @ w).view(-1, m, 10) + weights[:, :, -1].float()
        actual = y[start : start + 2000]
        correct += (logits.argmax(2) == actual[:, None]).sum(0)
        loss += torch.stack([cross_entropy(logits[:, k], actual, reduction="sum") for k in range(m)])
    return (100 * correct / len(x)).tolist(), (loss / len(x)).tolist()


def split(n, seed):
    order = torch.randperm(n, generator=torch.Generator().manual_seed(1000 + seed))
    return order[10_000:], order[:10_000]


def validate(x, y, configs, splits=(0, 1), **options):
    """Validation accuracy and cross entropy of each configuration, of each split: (S, M) both."""
    found = []
    for seed in splits:
        kept, held = split(len(x), seed)
        found.append(scores(train(x[kept], y[kept], configs, seed=seed, **options), x[held], y[held]))
    return np.array([a for a, _ in found]), np.array([l for _, l in found])


def show(label, configs, accuracies, losses):
    for k, c in enumerate(configs):
        a = " / ".join(f"{v:.2f}" for v in accuracies[:, k])
        name = f"{c.optimizer} {c.lr:g}, decay {c.wd:g}, momentum {c.momentum:g}, {c.schedule}"
        print(f"| {label} | {name} | {a} | **{accuracies[:, k].mean():.3f}** | {losses[:, k].mean():.4f} |", flush=True)


@dataclass(frozen=True)
class Variant:
    """The constants of the features; the defaults are those of stages.images.features."""

    cells: int = 14
    directions: int = 8
    pair_cells: int = 4
    displacements: tuple = ((0, 2), (2, 0))
    first: int = 16  # divisor of A
    second: float = 128  # divisor of sqrt(Q)
    first_pool: int = 1  # side of the squares of cells that are averaged for the first features
    with_first: bool = True
    blur: bool = False  # 1 2 1 along both axes before the gradient
    local: int = 0  # divide A by the mean of A in squares of this side
    linear: bool = False  # A without its square root
    fourth: bool = False  # the fourth root of Q
    tent: float = 1.0  # width of the cells' tents
    half: bool = False  # fold opposite directions into one for pairs: |edge|
    floor: int = 0  # taken off A: weak gradients count as none
    pair_tent: float = 1.0


def tents(size, cells, width):
    x, c = np.arange(size) + 0.5, (np.arange(cells)[:, None] + 0.5) * size / cells
    return np.round(16 * np.maximum(0, 1 - abs(x - c) / (max(1, size / cells) * width)))


def box(a, side):
    padded = np.pad(a, ((0, 0), (0, 0), (side // 2,) * 2, (side // 2,) * 2))
    return sum(padded[:, :, i : i + a.shape[2], j : j + a.shape[3]] for i in range(side) for j in range(side))


def variant_features(images, v):
    chunks = []
    b = v.directions
    e = [(round(64 * cos(2 * pi * k / b)), round(64 * np.sin(2 * pi * k / b))) for k in range(b)]
    size = images.shape[2]
    pool = tents(size, v.cells, v.tent)
    scale = 1024 / tents(size, v.cells, v.tent).sum(1).max() ** 2
    for start in range(0, len(images), 64):
        p = np.pad(images[start : start + 64, 0].astype(np.float64), ((0, 0), (1, 1), (1, 1)))
        if v.blur:
            p = np.pad(p, ((0, 0), (1, 1), (1, 1)))
            p = (p[:, 2:] + 2 * p[:, 1:-1] + p[:, :-2]) / 4
            p = (p[:, :, 2:] + 2 * p[:, :, 1:-1] + p[:, :, :-2]) / 4
        gx, gy = p[:, 1:-1, 2:] - p[:, 1:-1, :-2], p[:, 2:, 1:-1] - p[:, :-2, 1:-1]
        cross = [gx * ey - gy * ex for ex, ey in e]
        sharpness = np.sin(2 * pi / 8) / np.sin(2 * pi / b)
        r = np.stack([np.minimum(cross[(k + 1) % b], -cross[k - 1]).clip(0) for k in range(b)], 1) * sharpness
        s = np.floor(pool @ r @ pool.T * scale)
        a = np.floor(s / 4096) if v.linear else np.floor(np.sqrt(s))
        if v.floor:
            a = (a - v.floor).clip(0)
        if v.local:
            energy = box(a, v.local).sum(1, keepdims=True) / v.local**2
            a = np.floor(a * 4096 / (energy + 512))
        n = len(a)
        parts = []
        if v.with_first:
            f = a
            if v.first_pool > 1:
                q = v.first_pool
                f = a.reshape(n, b, v.cells // q, q, v.cells // q, q).mean((3, 5))
            parts.append((f / v.first).reshape(n, -1))
        if v.half:
            a = a[:, : b // 2] + a[:, b // 2 :]
        for dy, dx in v.displacements:
            h = a.shape[2] - dy
            w = a.shape[3] - abs(dx)
            left, right = max(0, -dx), max(0, dx)
            one, other = a[:, :, :h, left : left + w], a[:, :, dy:, right : right + w]
            q = (one[:, :, None] * other[:, None]).reshape(n, -1, h * w)
            if dy == dx == 0:
                q = q[:, [i * a.shape[1] + j for i in range(a.shape[1]) for j in range(i + 1)]]
            k = np.kron(tents(h, v.pair_cells, v.pair_tent), tents(w, v.pair_cells, v.pair_tent)) * (v.pair_cells / 4) ** 2
            q = np.sqrt(q @ k.T)
            parts.append((16 * np.sqrt(q) / 4 if v.fourth else q / v.second).reshape(n, -1))
        chunks.append(np.minimum(np.concatenate(parts, 1), 255).astype(np.uint8))
    return np.concatenate(chunks)


def try_variants(variants, lrs=(0.005, 0.01), names=("mnist", "fashion"), **options):
    for label, v in variants.items():
        row, count = [], 0
        for name in names:
            images, y = DATA.setdefault(name, read(name, "train"))
            x = torch.from_numpy(variant_features(images, v))
            count = x.shape[1]
            saturated = float((x[:2000] == 255).float().mean())
            a, l = validate(x, y, [Config(lr) for lr in lrs], **options)
            row.append(" / ".join(f"{v:.2f}" for v in a.mean(0)) + f" | **{a.mean():.3f}** | {l.mean():.4f} ({saturated:.0%})")
        print(f"| {label} | {count:,} | " + " | ".join(row) + " |", flush=True)


DATA = {}


def rates(iterations=3000, configs=tuple(Config(lr) for lr in (0.001, 0.003, 0.005, 0.007, 0.01, 0.015))):
    for name in ("mnist", "fashion"):
        images, y = read(name, "train")
        x = torch.from_numpy(gradient_features(images))
        show(f"{name} {iterations}", configs, *validate(x, y, configs, iterations=iterations))


def longer():
    rates(12_000, (Config(0.002), Config(0.003), Config(0.005), Config(0.007), Config(0.003, 0.1)))


def variants():
    try_variants({
        "default": Variant(),
        "P=3": Variant(pair_cells=3),
        "P=5": Variant(pair_cells=5),
        "+ diagonals": Variant(displacements=((0, 2), (2, 0), (2, 2), (2, -2))),
        "first order 7x7": Variant(first_pool=2),
        "pairs alone": Variant(with_first=False),
        "second /64": Variant(second=64),
        "second /256": Variant(second=256),
        "blur": Variant(blur=True),
        "local 5": Variant(local=5, first=64, second=512),
        "12 x 12 cells": Variant(cells=12),
        "12 directions": Variant(directions=12, second=256 / 3),
        "6 directions": Variant(directions=6, second=170),
        "weak gradients cut (A - 64)": Variant(floor=64),
        "fourth root of Q": Variant(fourth=True),
    })


if __name__ == "__main__":
    torch.set_num_threads(1)
    for experiment in sys.argv[1:]:
        {"rates": rates, "longer": longer, "variants": variants}[experiment]()
