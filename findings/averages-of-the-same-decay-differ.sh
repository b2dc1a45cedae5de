#!/usr/bin/env bash
# An exponential moving average of weights with decay 0.999 is not the same in three libraries. After
# 160 updates torch's AveragedModel still holds 85 % of the weights of the first one. torch_ema limits
# the decay to (1 + n) / (10 + n) and holds nothing of them, and ema_pytorch copies the weights for its
# first 100 steps and then begins with a small decay. So an example that is ported from one to another
# with the same decay draws noise after a short training, and looks as if it had learned nothing.
# Seen with torch 2.15.0, torch_ema 0.3 and ema_pytorch 0.8.3.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.15.0 torch_ema==0.3 ema_pytorch==0.8.3 numpy==2.4.0
"$folder/venv/bin/python" - <<'PY'
from importlib.metadata import version

import torch
from ema_pytorch import EMA
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch_ema import ExponentialMovingAverage

DECAY, UPDATES = 0.999, 160


def kept(make, update, weight_of):
    """The share of the first weight, 1, in the average after UPDATES with the weight 0."""
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(network.weight)
    average = make(network)
    update(average, network)
    torch.nn.init.zeros_(network.weight)
    for _ in range(UPDATES):
        update(average, network)
    return float(weight_of(average).detach())


shares = {
    "torch": kept(
        lambda net: AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(DECAY)),
        lambda average, net: average.update_parameters(net),
        lambda average: average.module.weight,
    ),
    "torch_ema": kept(
        lambda net: ExponentialMovingAverage(net.parameters(), decay=DECAY),
        lambda average, net: average.update(),
        lambda average: average.shadow_params[0],
    ),
    "ema_pytorch": kept(
        lambda net: EMA(net, beta=DECAY, update_every=1),
        lambda average, net: average.update(),
        lambda average: average.ema_model.weight,
    ),
}
for name, share in shares.items():
    print(f"{name} {version(name)}: {share:.1%} of the first weights after {UPDATES} updates")
assert round(shares["torch"], 3) == round(DECAY**UPDATES, 3), "torch warms its average up now"
assert max(shares["torch_ema"], shares["ema_pytorch"]) < 0.01, "these no longer begin with less"
PY
