"""Three ways to update G and D, on the bundled digits: two that learn and one that does not.

"Method one" of docs/notes.md calls backward on both losses, then both optimisers. The gradient of
D's loss then reaches G and cancels G's own. Run it:  python examples/update_schemes.py
"""

import sys

import matplotlib.pyplot as plt
import torch
from torch.nn.utils import parameters_to_vector as flat

import cgan
from cgan.data import Loader, load_pictures
from cgan.evaluation.judge_training import get_or_train_judge
from cgan.losses import get_loss
from cgan.updates import GAN, UPDATES

IMAGES, LOSS = int((sys.argv[1:] or ["60000"])[0]), get_loss("nonsaturating")
ASKED = torch.arange(10).repeat(100)


def method_one(gan, real, labels, draw_z):
    """Update G with the sum of the gradients of both losses."""
    G, D, loss = gan.generator, gan.discriminator, gan.loss
    fake_logits = D(G(draw_z(), labels), labels)
    loss_G = loss.generator(real=None, fake=fake_logits).mean()
    loss_D = loss.discriminator(real=D(real, labels), fake=fake_logits).mean()
    own = flat(torch.autograd.grad(loss_G, list(G.parameters()), retain_graph=True))
    G.zero_grad(), D.zero_grad()
    loss_G.backward(retain_graph=True), loss_D.backward()
    gan.generator_optimizer.step(), gan.discriminator_optimizer.step()
    both = flat(weight.grad for weight in G.parameters())
    return {"left": both.norm() / own.norm(), "cosine": torch.cosine_similarity(own, both - own, 0)}


def learn(update, judge):
    """Train; return ten values of control accuracy, and the metrics of the last step."""
    torch.manual_seed(0)
    G, D = cgan.build_pair("mlp", image_shape=(1, 8, 8))
    gan = GAN(G, D, *(torch.optim.Adam(n.parameters(), 1e-3, (0.0, 0.99)) for n in (G, D)), LOSS)
    batches, curve, steps = Loader(load_pictures("digits"), 64).batches(), [], max(IMAGES // 64, 10)
    for step, (real, labels) in zip(range(1, steps + 1), batches, strict=False):
        figures = update(gan, real, labels, lambda: torch.randn(64, 64))
        if step % (steps // 10) == 0:
            with torch.no_grad():
                shown = (G.eval()(torch.randn(1000, 64), ASKED) + 1) / 2
            curve.append((64 * step, float((judge.classify(shown) == ASKED).double().mean())))
            G.train()
    return curve, figures


judge = get_or_train_judge(lambda split: load_pictures("digits", split))
for name, update in {**UPDATES, "method one": method_one}.items():
    curve, figures = learn(update, judge)
    print(f"{name:12} control accuracy {' '.join(f'{share:.1%}' for _, share in curve[1::2])}")
    plt.plot(*zip(*curve, strict=True), label=name)
print("method one leaves {left:.1%} of G's gradient; D's has cosine {cosine:.3f}".format(**figures))
plt.xlabel("images"), plt.ylabel("control accuracy"), plt.legend()
plt.savefig("update_schemes.png", dpi=110)
