"""Three ways to update G and D, on the bundled digits: two that learn and one that cannot.

Method one of the notes this project began with: both losses backward, then both steps. D's loss
reaches G and takes back what G's own loss gave. Run it:  python examples/update_schemes.py
"""

import sys

import torch

import cgan
from cgan.data import Loader, load_pictures
from cgan.losses import get_loss
from cgan.metrics.classifier import count_answers, find_judge
from cgan.updates import UPDATES, Players

IMAGES = int(sys.argv[1]) if len(sys.argv) > 1 else 60_000
LOSS = get_loss("nonsaturating")


def method_one(players, real, labels, draw_z, loss):
    """Both gradients at once: what reaches G is the sum of both losses' gradients."""
    G, D = players.generator, players.discriminator
    fake_logits = D(G(draw_z(), labels), labels)
    loss_G = loss.generator(real=None, fake=fake_logits).mean()
    loss_D = loss.discriminator(real=D(real, labels), fake=fake_logits).mean()
    own = torch.autograd.grad(loss_G, list(G.parameters()), retain_graph=True)
    G.zero_grad(), D.zero_grad()
    loss_G.backward(retain_graph=True)
    loss_D.backward()
    players.generator_optimizer.step()
    players.discriminator_optimizer.step()
    own = torch.cat([g.flatten() for g in own])
    left = torch.cat([p.grad.flatten() for p in G.parameters()])
    return {"left": left.norm() / own.norm(), "cosine": torch.cosine_similarity(own, left - own, 0)}


def learn(update, judge):
    """Train for a while; control accuracy at five moments."""
    torch.manual_seed(0)
    G, D = cgan.build_pair("mlp", image_shape=(1, 8, 8), generator_label="concat")
    optimizers = [torch.optim.Adam(net.parameters(), 1e-3, (0.0, 0.99)) for net in (G, D)]
    players, curve = Players(G, D, *optimizers), []
    batches = Loader(load_pictures("digits"), batch_size=64).batches()
    steps = max(IMAGES // 64, 5)
    for step, (real, labels) in zip(range(1, steps + 1), batches, strict=False):
        figures = update(players, real, labels, lambda: torch.randn(64, 64), LOSS)
        if step % (steps // 5) == 0:
            asked = torch.arange(10).repeat(100)
            with torch.no_grad():
                shown = (G.eval()(torch.randn(1000, 64), asked) + 1) / 2
            counts = count_answers(judge, [(shown, asked)], 10)
            curve.append(f"{counts.diagonal().sum() / 10:5.1f} %")
            G.train()
    return curve, figures


judge = find_judge(lambda split: load_pictures("digits", split))
for name, update in {**UPDATES, "method one": method_one}.items():
    curve, figures = learn(update, judge)
    print(f"{name:12} control accuracy  {'  '.join(curve)}")
print(f"method one: D's gradient in G has cosine {figures['cosine']:.3f} with G's own,")
print(f"            and {100 * figures['left']:.1f} % of G's gradient is left")
