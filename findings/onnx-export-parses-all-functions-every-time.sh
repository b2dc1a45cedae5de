#!/usr/bin/env bash
# torch.onnx.export(dynamo=True) reads its whole library of ONNX functions again at each export.
# A network of one linear layer needs two ONNX functions. The exporter builds its table of all of them
# for every call: it fetches the source of some 500 Python functions and parses each with `ast`, also
# the second time in one process. For small networks that is about a third of an export's time.
# Seen with torch 2.15.0 and onnxscript 0.7.2 on Linux.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.15.0 numpy==2.4.0 onnx==1.23.2 onnxscript==0.7.2
OMP_NUM_THREADS=1 "$folder/venv/bin/python" - <<'PY'
import ast
import time
import warnings

import onnxscript
import torch

warnings.simplefilter("ignore")
print("torch", torch.__version__, "onnxscript", onnxscript.__version__)
network, parse, parsed = torch.nn.Linear(4, 4).eval(), ast.parse, []


def counting(*given, **options):
    began = time.perf_counter()
    tree = parse(*given, **options)
    parsed.append(time.perf_counter() - began)
    return tree


ast.parse = counting
counts = []
for number in range(1, 4):
    parsed.clear()
    began = time.perf_counter()
    program = torch.onnx.export(network, (torch.zeros(2, 4),), dynamo=True, verbose=False)
    seconds = time.perf_counter() - began
    counts.append(len(parsed))
    nodes = len(program.model_proto.graph.node)
    print(f"export {number}: {nodes} nodes, {len(parsed)} sources parsed, {seconds:.2f} s in all")
assert min(counts) > 300, "the surprise is gone: a later export uses what an earlier one has read"
PY
