"""smalldiffusion 0.5.0: its U-Net, training loop and sampler, with class labels and guidance.

As in its Fashion-MNIST example (64 channels, log-linear schedule, 20 steps, torch_ema), with the
label embedding of its conditional example and the guidance of its ImageNet example, 2. The batches
are smaller than its 1,024: the pictures would make four steps an epoch.
"""

from __future__ import annotations

import torch
from entry import Snapshots, image_loader, parse, to_images
from smalldiffusion import (
    CondEmbedderLabel,
    Scaled,
    ScheduleLogLinear,
    Unet,
    samples,
    training_loop,
)
from torch_ema import ExponentialMovingAverage


def main() -> None:
    options = parse()
    torch.manual_seed(options.seed)
    schedule = ScheduleLogLinear(sigma_min=0.01, sigma_max=20, N=800)
    model = Scaled(Unet)(
        32, options.channels, options.channels, ch=64, ch_mult=(1, 1, 2), attn_resolutions=(16,),
        cond_embed=CondEmbedderLabel(256, options.classes, 0.1),
    )  # fmt: skip
    ema = ExponentialMovingAverage(model.parameters(), decay=0.999)

    def draw(labels):
        with ema.average_parameters():
            *_, images = samples(
                model, schedule.sample_sigmas(20), gam=1.6, cfg_scale=2.0,
                batchsize=len(labels), cond=torch.from_numpy(labels),
            )  # fmt: skip
        return to_images(options, images)

    loader = image_loader(options, 64)
    steps = training_loop(loader, model, schedule, lr=7e-4, conditional=True)
    for _ in Snapshots(options, draw, model).wrap(steps):
        ema.update()


if __name__ == "__main__":
    main()
