"""Generators and discriminators: plain ``nn.Module`` pairs for any training loop.

Every backbone follows this contract:

    G = Generator(image_shape, num_classes, latent_dim, width, label)
    G(z, y)   z (B, latent_dim) float, y (B,) int64  ->  images (B, C, H, W) in [-1, 1]
                (resnet: in evaluation mode; in training mode nothing limits them)
                y may also be the weights of a mix of classes, (B, num_classes) float
    D = Discriminator(image_shape, num_classes, width, label, dropout)
    D(x, y)   x (B, C, H, W) in [-1, 1], y (B,) int64  ->  logits (B,)

With an auxiliary classifier D returns (B, 1 + num_classes): the logit, then the class logits.
``cgan.updates.discriminate`` separates the two. A steered generator (``steer_generator``) returns
images and a penalty in training mode: ``cgan.updates.generate`` separates these.
``num_classes=None`` builds the unconditional GAN, which takes no y. The networks know nothing about
losses or optimisers.
"""

from cgan.models.factory import (
    BACKBONES,
    DISCRIMINATOR_LABELS,
    GENERATOR_LABELS,
    LAST_LAYERS,
    Pair,
    build_networks,
    build_pair,
    count_parameters,
    resolve_width,
    steer_generator,
)

__all__ = [
    "BACKBONES",
    "DISCRIMINATOR_LABELS",
    "GENERATOR_LABELS",
    "LAST_LAYERS",
    "Pair",
    "build_networks",
    "build_pair",
    "count_parameters",
    "resolve_width",
    "steer_generator",
]
