"""diffusers 0.42: UNet2DModel with class embeddings, as in its course on class conditioning.

The course's U-Net for 28×28 (32, 64 and 64 channels, Adam 1e-3), in batches of 64 in place of 128.
It draws with DDIM in 50 steps in place of DDPM in 1,000.
"""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from entry import Snapshots, image_loader, parse, to_images
from torch.nn.functional import mse_loss


def main() -> None:
    options = parse()
    torch.manual_seed(options.seed)
    unet = UNet2DModel(
        sample_size=32, in_channels=options.channels, out_channels=options.channels,
        layers_per_block=2, block_out_channels=(32, 64, 64), num_class_embeds=options.classes,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    noise = DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")
    steps = DDIMScheduler.from_config(noise.config)
    optimizer = torch.optim.Adam(unet.parameters(), lr=1e-3)

    @torch.no_grad()
    def draw(labels):
        unet.eval()
        classes = torch.from_numpy(labels)
        images = torch.randn(len(labels), options.channels, 32, 32)
        steps.set_timesteps(50)
        for t in steps.timesteps:
            images = steps.step(unet(images, t, classes).sample, t, images).prev_sample
        unet.train()
        return to_images(options, images)

    snapshots = Snapshots(options, draw, unet)
    loader = image_loader(options, 64)
    while True:
        for images, labels in snapshots.wrap(loader):
            t = torch.randint(0, 1000, (len(images),))
            drawn = torch.randn_like(images)
            noisy = noise.add_noise(images, drawn, t)
            loss = mse_loss(unet(noisy, t, labels).sample, drawn)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


if __name__ == "__main__":
    main()
