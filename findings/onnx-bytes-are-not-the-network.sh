#!/usr/bin/env bash
# The same bytes of an ONNX file are another network in another folder. torch.onnx.export and onnx.save
# can keep weights in a second file beside the first. A program that reads the first file into memory,
# stores or sends it, and compares its digest, has no weights. onnxruntime does not say so: for a
# session of bytes it takes the weights from the current folder, whatever file of that name is there.
# Only in a folder without one does it fail. The entry session.model_external_initializers_file_folder_path
# of its options names another folder.
# Seen with onnxruntime 1.32.0 and onnx 1.23.2 on Linux.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.0
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import os
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)


def write(folder, value):
    """A network that multiplies with a matrix of this value, which is in a second file."""
    Path(folder).mkdir()
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xy")
    weights = numpy_helper.from_array(np.full((4, 4), value, np.float32), "w")
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "product", [x], [y], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(
        model, f"{folder}/network.onnx", save_as_external_data=True, location="network.onnx.data",
        size_threshold=0,
    )
    return Path(folder, "network.onnx").read_bytes()


options = onnxruntime.SessionOptions()
options.log_severity_level = 4  # the error is raised, too
first, second = write("a", 1.0), write("b", 2.0)
Path("c").mkdir()
assert first == second, "the files differ now"
print("one file for both networks:", len(first), "bytes,", sha256(first).hexdigest()[:8])
found = []
for name in "abc":
    os.chdir(name)
    try:
        session = onnxruntime.InferenceSession(first, options, providers=["CPUExecutionProvider"])
        found.append(float(session.run(None, {"x": np.ones((1, 4), np.float32)})[0][0, 0]))
    except Exception as error:
        found.append(type(error).__name__)
    os.chdir("..")
    print(f"in the folder {name}: ones times weights = {found[-1]}")
assert found[:2] == [4.0, 8.0], "the bytes no longer take the weights of the current folder"
assert isinstance(found[2], str), "without the second file there is an answer now"
PY
