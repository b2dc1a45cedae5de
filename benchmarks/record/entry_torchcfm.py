"""torchcfm 1.0.7: class-conditional flow matching, as in its notebook for MNIST.

The notebook's U-Net (32 channels, one block), Adam with torch's rate of 1e-3, and solver. Its plain
matching, not the optimal transport, which blurs classes. Batches of 64 in place of 128.
"""

from __future__ import annotations

import torch
import torchdiffeq
from entry import Snapshots, image_loader, parse, to_images
from torchcfm.conditional_flow_matching import ConditionalFlowMatcher
from torchcfm.models.unet.unet import UNetModelWrapper


def main() -> None:
    options = parse()
    torch.manual_seed(options.seed)
    shape = (options.channels, 32, 32)
    unet = UNetModelWrapper(
        dim=shape, num_channels=32, num_res_blocks=1, num_classes=options.classes, class_cond=True
    )
    matcher = ConditionalFlowMatcher(sigma=0.0)
    optimizer = torch.optim.Adam(unet.parameters())

    @torch.no_grad()
    def draw(labels):
        unet.eval()
        classes, noise = torch.from_numpy(labels), torch.randn(len(labels), *shape)
        path = torchdiffeq.odeint(
            lambda t, x: unet(t, x, classes), noise, torch.linspace(0, 1, 2),
            atol=1e-4, rtol=1e-4, method="dopri5",
        )  # fmt: skip
        unet.train()
        return to_images(options, path[-1])

    snapshots = Snapshots(options, draw, unet)
    loader = image_loader(options, 64)
    while True:
        for images, labels in snapshots.wrap(loader):
            t, x, flow = matcher.sample_location_and_conditional_flow(
                torch.randn_like(images), images
            )
            loss = torch.mean((unet(t, x, labels) - flow) ** 2)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


if __name__ == "__main__":
    main()
