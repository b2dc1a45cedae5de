#!/usr/bin/env bash
# Making an optimiser of torch imports the compiler (torch._dynamo), although nothing is compiled.
# A script that never calls torch.compile waits for it: about as long again as for `import torch`.
# Seen with torch 2.15.0 on Linux: add_param_group, state_dict and load_state_dict are wrapped by
# torch._disable_dynamo, which imports it at the first call, and Adam.step imports it itself.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.15.0 numpy==2.4.0
"$folder/venv/bin/python" - <<'PY'
import sys
import time

before = time.perf_counter()
import torch

imported = time.perf_counter()
print("torch", torch.__version__)
modules = len(sys.modules)
assert "torch._dynamo" not in sys.modules, "import torch imports the compiler now"
weights = [torch.nn.Parameter(torch.zeros(2))]
torch.optim.Adam(weights, fused=True)
made = time.perf_counter()
assert "torch._dynamo" in sys.modules, "the surprise is gone: Adam no longer imports the compiler"
print(f"import torch: {imported - before:.2f} s, {modules} modules")
print(f"torch.optim.Adam([one parameter]): {made - imported:.2f} s, "
      f"{len(sys.modules) - modules} more modules, torch._dynamo among them")
PY
