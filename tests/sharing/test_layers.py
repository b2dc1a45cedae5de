"""The engine's arithmetic, in a browser, against torch's."""

import base64
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import cgan
from cgan.config import ModelConfig
from cgan.errors import ConfigError
from cgan.evaluation.judge import Classifier, ResidualClassifier
from cgan.models import build_pair
from cgan.models.factory import steer_generator
from cgan.models.flow import ForeignGenerator
from cgan.sampling.latents import draw_latents
from cgan.sampling.walk import slerp
from cgan.sharing import page as pages
from cgan.sharing.page import LayerWriter
from tests.conftest import randomise

RUN = """([layers, arrays, weights, inputs, shape]) => {
  attach(layers, decode(weights, arrays));
  return inputs.map(([data, mix]) => {
    let x = vector(Float32Array.from(data));
    if (shape) x = { ...x, channels: shape[0], height: shape[1], width: shape[2] };
    return [...forward(layers, x, mix, 3).data];
  });
}"""


@pytest.fixture(scope="module")
def engine(browser: Any) -> Any:
    page = browser.new_page()
    page.add_script_tag(content=(pages.HERE / "engine.js").read_text())
    yield page
    page.close()


def run(
    engine: Any, network: nn.Module, x: Tensor, labels: Tensor | None = None, shape: Any = None
) -> Tensor:
    """What the engine computes for a batch; labels are weights of mixes, (B, classes)."""
    writer = LayerWriter()
    layers = writer.write(network)
    weights = base64.b64encode(b"".join(array.tobytes() for array in writer.weights)).decode()
    arrays = [[len(array), "float32"] for array in writer.weights]
    mixes = [[] if labels is None else list(enumerate(labels[i].tolist())) for i in range(len(x))]
    inputs = [[x[i].flatten().tolist(), mixes[i]] for i in range(len(x))]
    return torch.tensor(engine.evaluate(RUN, [layers, arrays, weights, inputs, shape]))


CASES = [
    ("mlp", "concat", "transposed"), ("mlp", "cbn", "transposed"),
    ("dcgan", "concat", "transposed"), ("dcgan", "cbn", "resize"),
    ("resnet", "concat", "transposed"), ("resnet", "cbn", "transposed"),
    ("photo", "concat", "transposed"), ("photo", "cbn", "transposed"),
]  # fmt: skip


@pytest.mark.parametrize("shape", [(1, 12, 8), (3, 8, 16)])
@pytest.mark.parametrize(("backbone", "label", "last_layer"), CASES)
def test_every_backbone(
    engine: Any, backbone: str, label: str, last_layer: str, shape: tuple[int, int, int]
) -> None:
    torch.manual_seed(1)
    network = randomise(build_pair(
        backbone, image_shape=shape, num_classes=3, latent_dim=10, width=16,
        generator_label=label, last_layer=last_layer, mirror=True,
    ).generator)  # fmt: skip
    z, labels = torch.randn(3, 10), torch.tensor([[1.0, 0, 0], [0, 0, 1], [0.25, 0.75, 0]])
    wanted = network(z, labels).permute(0, 2, 3, 1).flatten(1)
    assert wanted.std() > 0.05
    torch.testing.assert_close(run(engine, network, z, labels), wanted, atol=2e-5, rtol=1e-4)


def test_steered_and_plain(engine: Any) -> None:
    torch.manual_seed(2)
    shape = (1, 8, 8)
    pair = build_pair("mlp", image_shape=shape, num_classes=None, latent_dim=11, width=16)
    plain = randomise(pair.generator)
    z = torch.randn(2, 11)
    torch.testing.assert_close(run(engine, plain, z), plain(z).flatten(1), atol=1e-5, rtol=1e-4)
    steered = randomise(steer_generator(plain, ModelConfig(backbone="mlp", latent_dim=11), 3, 0.0))
    labels = torch.eye(3)[[0, 2]]
    wanted = steered(z, labels).flatten(1)
    torch.testing.assert_close(run(engine, steered, z, labels), wanted, atol=1e-5, rtol=1e-4)


def test_a_steered_generator_is_moved_by_the_z_of_its_flow(engine: Any) -> None:
    torch.manual_seed(4)
    pair = build_pair(
        "photo", image_shape=(3, 8, 8), num_classes=None, latent_dim=10, width=8, mirror=True
    )
    steered = randomise(
        steer_generator(randomise(pair.generator), ModelConfig(latent_dim=10), 3, 0.0)
    )
    z, labels = torch.randn(12, 10), torch.eye(3)[torch.arange(12) % 3]
    moved = steered.flow(z, labels)
    moved = moved[0] if isinstance(moved, tuple) else moved
    assert ((moved[:, :3] > 0) != (z[:, :3] > 0)).any()
    wanted = steered(z, labels).permute(0, 2, 3, 1).flatten(1)
    torch.testing.assert_close(run(engine, steered, z, labels), wanted, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 12, 20)])
def test_the_encoder(engine: Any, shape: tuple[int, int, int]) -> None:
    torch.manual_seed(3)
    network, images = randomise(Classifier(shape, 14)), 2 * torch.rand(2, *shape) - 1
    found = run(engine, network, images.permute(0, 2, 3, 1), shape=shape)
    torch.testing.assert_close(found, network(images), atol=1e-5, rtol=1e-4)


def test_what_the_engine_does_not_know() -> None:
    with pytest.raises(ConfigError, match="ResidualClassifier"):
        LayerWriter().write(ResidualClassifier((1, 8, 8), 3))
    foreign = ForeignGenerator(nn.Identity(), False, (-1, 1))
    with pytest.raises(ConfigError, match="a page cannot draw with an ONNX network: use"):
        LayerWriter().write(steer_generator(foreign, ModelConfig(latent_dim=11), 3, 0.0))


SEEDS = (0, 1, 7, 2**32 - 1, 2**32, 2**53 + 1, 2**62 + 12345, 2**63 - 1)


def test_latents_equal_those_of_python(engine: Any) -> None:
    script = "seeds => seeds.map((seed) => [...drawLatent(BigInt(seed), 66)])"
    found = np.array(engine.evaluate(script, [str(seed) for seed in SEEDS]), np.float32)
    np.testing.assert_allclose(found, draw_latents(SEEDS, 66), rtol=1e-6, atol=1e-7)
    assert engine.evaluate("drawLatent(5, 8).every((v, i) => v === drawLatent(5n, 8)[i])")


def test_slerp_equals_that_of_python(engine: Any) -> None:
    script = (
        "([a, b, ts]) => ts.map((t) => [...slerp(Float32Array.from(a), Float32Array.from(b), t)])"
    )
    times = [0, 0.3, 0.5, 1]
    first, last = torch.from_numpy(draw_latents([1, 2], 16))
    for end in (last, first, 2 * first):
        found = torch.tensor(engine.evaluate(script, [first.tolist(), end.tolist(), times]))
        torch.testing.assert_close(found, slerp(first, end, torch.tensor(times)))


def test_half_precision(engine: Any) -> None:
    values = np.array([0, 1, -2.5, 65504, 6e-8, 1e-5, -0.333], np.float16)
    text = base64.b64encode(values.tobytes()).decode()
    found = engine.evaluate(f"[...decode('{text}', [[{len(values)}, 'float16']])[0]]")
    assert found == values.astype(np.float32).tolist()


def test_rounding_is_refused_where_it_shows(
    make_generator: Callable[..., cgan.Sampler],
) -> None:
    sampler = make_generator()
    assert pages.survives_rounding(sampler)
    assert {name for _, name in pages.page_model(sampler)["arrays"]} == {"float16", "float32"}
    with torch.no_grad():  # large weights that cancel: their rounding errors do not
        out = sampler.generator.out
        out.weight.copy_(3000 * torch.randn_like(out.weight))
    assert not pages.survives_rounding(sampler)
    assert {name for _, name in pages.page_model(sampler)["arrays"]} == {"float32"}
