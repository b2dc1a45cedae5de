#!/usr/bin/env bash
# ONNX has int64 labels. OpenVINO's CPU plugin computes with 32 bits: a label of 2^32 + 3 is a 3 before
# the network sees it, so no check inside of the network can tell. onnxruntime keeps all 64 bits.
# Seen with openvino 2026.4.1 and onnxruntime 1.32.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q openvino==2026.4.1 onnxruntime==1.32.0 onnx==1.22.0
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper

node = helper.make_node("Less", ["label", "ten"], ["is_class"])
graph = helper.make_graph(
    [node], "check",
    [helper.make_tensor_value_info("label", TensorProto.INT64, [2])],
    [helper.make_tensor_value_info("is_class", TensorProto.BOOL, [2])],
    [helper.make_tensor("ten", TensorProto.INT64, [1], [10])],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model)
onnx.save(model, "check.onnx")
labels = np.array([3, 2**32 + 3], np.int64)
session = onnxruntime.InferenceSession("check.onnx", providers=["CPUExecutionProvider"])
(right,) = session.run(None, {"label": labels})
compiled = openvino.Core().compile_model("check.onnx", "CPU")
found = compiled([labels])[0]
print("onnxruntime", onnxruntime.__version__, "label < 10:", right.tolist())
print("openvino", openvino.__version__.split("-")[0], "label < 10:", found.astype(bool).tolist())
assert right.tolist() == [True, False]
assert found.astype(bool).tolist() == [True, True], "the surprise is gone"
PY
