"""The recipes of docs/recipes.md: a base config per backbone, and the changes of each recipe."""

from __future__ import annotations

BASE: dict[str, dict[str, object]] = {
    "mnist-dcgan": {
        "images": "300k",
        "update": "simultaneous",
        "loss": "nonsaturating",
        "aux_weight": 1.0,
        "model.generator_label": "concat",
        "model.discriminator_label": "projection",
        "model.width": 32,
        "penalty.r1": 0.3,
        "batch_size": 64,
        "lr": 2e-3,
        "ema_half_life_images": "30k",
    },
    "mnist-mlp": {
        "images": "1.8M",
        "update": "simultaneous",
        "loss": "nonsaturating",
        "aux_weight": 1.0,
        "model.generator_label": "concat",
        "model.discriminator_label": "projection",
        "penalty.r1": 0.1,
        "batch_size": 128,
        "lr": 1e-3,
        "ema_half_life_images": "50k",
    },
}

CBN = {"model.generator_label": "cbn"}
CONCAT = {"model.discriminator_label": "concat"}
AUXILIARY = {"model.discriminator_label": "auxiliary"}
BOTH = {"model.discriminator_label": "projection+auxiliary"}
W03 = {**BOTH, "aux_weight": 0.3}
HINGE = {"loss": "hinge"}
RELATIVISTIC = {"loss": "relativistic", "penalty.r2": 0.3}

RECIPES: dict[str, tuple[str, dict[str, object]]] = {
    "classic": (
        "mnist-dcgan",
        {
            **CONCAT,
            "update": "alternating",
            "lr": 2e-4,
            "lr_final_fraction": 1.0,
            "betas": [0.5, 0.999],
            "penalty.r1": 0.0,
            "ema_half_life_images": 0,
            "model.dropout": 0.25,
        },
    ),
    "concat-bce": ("mnist-dcgan", CONCAT),
    "concat-hinge": ("mnist-dcgan", {**CONCAT, **HINGE}),
    "concat-rel": ("mnist-dcgan", {**CONCAT, **RELATIVISTIC}),
    "proj-bce": ("mnist-dcgan", {}),
    "proj-bce-s1": ("mnist-dcgan", {"seed": 1}),
    "proj-hinge": ("mnist-dcgan", HINGE),
    "proj-rel": ("mnist-dcgan", RELATIVISTIC),
    "cbn-bce": ("mnist-dcgan", CBN),
    "cbn-hinge": ("mnist-dcgan", {**CBN, **HINGE}),
    "cbn-rel": ("mnist-dcgan", {**CBN, **RELATIVISTIC}),
    "aux-bce": ("mnist-dcgan", AUXILIARY),
    "aux-bce-s1": ("mnist-dcgan", {**AUXILIARY, "seed": 1}),
    "aux-hinge": ("mnist-dcgan", {**AUXILIARY, **HINGE}),
    "aux-rel": ("mnist-dcgan", {**AUXILIARY, **RELATIVISTIC}),
    "aux-rel-s1": ("mnist-dcgan", {**AUXILIARY, **RELATIVISTIC, "seed": 1}),
    "both-bce": ("mnist-dcgan", BOTH),
    "both-bce-s1": ("mnist-dcgan", {**BOTH, "seed": 1}),
    "both-w01": ("mnist-dcgan", {**BOTH, "aux_weight": 0.1}),
    "both-w03": ("mnist-dcgan", W03),
    "w03-s1": ("mnist-dcgan", {**W03, "seed": 1}),
    "w03-g01": ("mnist-dcgan", {**W03, "penalty.r1": 0.1}),
    "w03-w48": ("mnist-dcgan", {**W03, "model.width": 48}),
    "w03-b128": ("mnist-dcgan", {**W03, "batch_size": 128}),
    "w03-lr1": ("mnist-dcgan", {**W03, "lr": 1e-3}),
    "w03-ema10": ("mnist-dcgan", {**W03, "ema_half_life_images": "10k"}),
    "mlp-proj": ("mnist-mlp", {}),
    "mlp-cbn": ("mnist-mlp", CBN),
    "mlp-concat": ("mnist-mlp", CONCAT),
    "mlp-aux": ("mnist-mlp", AUXILIARY),
    "mlp-both": ("mnist-mlp", BOTH),
    "mlp-w03": ("mnist-mlp", W03),
}
