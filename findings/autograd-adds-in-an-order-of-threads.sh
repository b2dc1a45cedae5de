#!/usr/bin/env bash
# The bits of a gradient depend on what a thread computed long before, with one core and no seed.
# autograd runs nodes in the order of a number that each *thread* counts for itself. A loss whose
# parts go forward in two threads is one graph, and the order in which the contributions to a weight
# are added up depends on how many operations each thread has recorded since it began. Three or more
# float32 contributions then round differently, in the same program with the same data.
# Seen with torch 2.15.0 on Linux. Separate backward passes, one a thread's part, do not depend on it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.15.0 numpy==2.4.0
OMP_NUM_THREADS=1 "$folder/venv/bin/python" - <<'PY'
from concurrent.futures import ThreadPoolExecutor

import torch

print("torch", torch.__version__)
torch.manual_seed(0)
weight = torch.randn(64, 64, requires_grad=True)
inputs = [torch.randn(32, 64) for _ in range(4)]


def part(x):
    return (x @ weight).tanh().square().mean()


def gradient(pool, apart):
    there = [pool.submit(part, x) for x in inputs[2:]]
    losses = [part(x) for x in inputs[:2]] + [one.result() for one in there]
    weight.grad = None
    for loss in losses if apart else [sum(losses)]:
        loss.backward()
    return weight.grad.clone()


def record(count):
    one = torch.ones(1, requires_grad=True)
    for _ in range(count):
        one * 1


with ThreadPoolExecutor(1) as pool:
    record(1_000)
    first, first_apart = gradient(pool, False), gradient(pool, True)
    pool.submit(record, 100_000).result()  # unrelated work of the other thread
    then, then_apart = gradient(pool, False), gradient(pool, True)
changed = int((first != then).sum())
print(f"one backward pass: {changed} of {first.numel()} values of the gradient have other bits, "
      f"the largest difference is {float((first - then).abs().max()):.1e}")
print("four backward passes: equal", torch.equal(first_apart, then_apart))
assert changed > 0, "the surprise is gone: the order no longer depends on the threads"
assert torch.equal(first_apart, then_apart)
PY
