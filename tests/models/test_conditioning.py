"""The label enters where it should, and only there."""

import pytest
import torch

from cgan.models import build_pair
from cgan.models.conditioning import BatchNorm, Head, LabelChannel, LatentConcat


def test_head_by_hand() -> None:
    """w·h + b + e(y)·h with w = (1, 2), b = 3, e = (10, 0) or (0, 100)."""
    head = Head(2, 2, "projection")
    with torch.no_grad():
        head.linear.weight.copy_(torch.tensor([[1.0, 2.0]]))
        head.linear.bias.fill_(3.0)
        head.embedding.weight.copy_(torch.tensor([[10.0, 0.0], [0.0, 100.0]]))
    h = torch.tensor([[1.0, 1.0], [2.0, 5.0]])
    assert head(h, torch.tensor([0, 1])).tolist() == [16.0, 515.0]


def test_plain_head_is_linear() -> None:
    head = Head(2, None, "projection")
    h = torch.randn(3, 2)
    assert torch.equal(head(h, None), head.linear(h).squeeze(1))


def test_auxiliary_head_is_told_no_label_and_guesses_it() -> None:
    """Beside w·h + b the classifier's logits V·h + c; a projection is added where asked."""
    h = torch.tensor([[1.0, 1.0], [2.0, 5.0]])
    for label, logits in (("auxiliary", [6.0, 15.0]), ("projection+auxiliary", [16.0, 515.0])):
        head = Head(2, 2, label)
        with torch.no_grad():
            head.linear.weight.copy_(torch.tensor([[1.0, 2.0]]))
            head.linear.bias.fill_(3.0)
            head.classifier.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, -1.0]]))
            head.classifier.bias.copy_(torch.tensor([0.5, 0.0]))
            if head.embedding is not None:
                head.embedding.weight.copy_(torch.tensor([[10.0, 0.0], [0.0, 100.0]]))
        answer = head(h, torch.tensor([0, 1]))
        assert answer.tolist() == [[logits[0], 1.5, -1.0], [logits[1], 2.5, -5.0]]
    assert Head(2, None, "auxiliary").classifier is None


@pytest.mark.parametrize("shape", [(6, 2), (6, 2, 3, 3)])
def test_batch_norm_equals_torchs_and_then_scales_by_class(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape) * 3 + 1
    reference = (torch.nn.BatchNorm1d if len(shape) == 2 else torch.nn.BatchNorm2d)(2)
    norm = BatchNorm(2, 2)
    with torch.no_grad():
        norm.gain.copy_(torch.tensor([[1.0, 1.0], [2.0, 4.0]]))
        norm.bias.copy_(torch.tensor([[0.0, 0.0], [5.0, 7.0]]))
    labels = torch.tensor([0, 1, 0, 1, 1, 0])
    normal = reference(x)
    wide = (-1, 2, *[1] * (len(shape) - 2))
    expected = normal * norm.gain[labels].view(wide) + norm.bias[labels].view(wide)
    torch.testing.assert_close(norm(x, labels), expected)
    torch.testing.assert_close(norm.running_mean, reference.running_mean)
    torch.testing.assert_close(norm.running_var, reference.running_var)


def test_plain_batch_norm_equals_torchs() -> None:
    x = torch.randn(6, 2, 3, 3)
    torch.testing.assert_close(BatchNorm(2, None)(x, None), torch.nn.BatchNorm2d(2)(x))


def test_batch_norm_in_evaluation_mode_sees_one_picture_at_a_time() -> None:
    norm = BatchNorm(2, 3)
    norm(torch.randn(8, 2, 4, 4), torch.zeros(8, dtype=torch.int64))
    norm.eval()
    x, labels = torch.randn(4, 2, 4, 4), torch.tensor([0, 1, 2, 0])
    torch.testing.assert_close(norm(x, labels)[1:2], norm(x[1:2], labels[1:2]))


def test_label_is_concatenated_to_z() -> None:
    entrance = LatentConcat(4, 3)
    z = torch.randn(2, 4)
    joined = entrance(z, torch.tensor([2, 0]))
    assert joined.shape == (2, entrance.features)
    assert torch.equal(joined[:, :4], z)
    assert torch.equal(joined[:, 4:], entrance.embedding.weight[[2, 0]])
    assert torch.equal(LatentConcat(4, None)(z, None), z)


def test_label_is_one_more_channel_of_the_picture() -> None:
    entrance = LabelChannel((3, 4, 4), 5)
    x = torch.randn(2, 3, 4, 4)
    joined = entrance(x, torch.tensor([4, 1]))
    assert joined.shape == (2, 4, 4, 4)
    assert torch.equal(joined[:, :3], x)
    assert torch.equal(joined[:, 3].flatten(1), entrance.embedding.weight[[4, 1]])
    assert torch.equal(LabelChannel((3, 4, 4), None)(x, None), x)


@pytest.mark.parametrize("label", ["projection", "auxiliary", "projection+auxiliary"])
def test_without_a_label_the_logit_is_that_of_a_plain_discriminator(label: str) -> None:
    """And no embedding gets a gradient from it."""
    torch.manual_seed(0)
    head, h = Head(4, 3, label), torch.randn(3, 4)
    with_labels = head(h, torch.tensor([1, 2, 0]))
    mixed = head(h, torch.tensor([-1, 2, -1]))
    logits = mixed if label == "projection" else mixed[:, 0]
    plain = head.linear(h).squeeze(1)
    assert torch.equal(logits[[0, 2]], plain[[0, 2]])
    assert torch.equal(mixed[1], with_labels[1])
    logits[[0, 2]].sum().backward()
    if head.embedding is not None:
        assert head.embedding.weight.grad is not None
        assert not head.embedding.weight.grad.any()


@pytest.mark.parametrize("label", ["concat", "cbn"])
def test_a_generator_is_exported_with_a_dynamic_batch(label: str) -> None:
    """``len`` of a tensor fixed the batch."""
    G, _ = build_pair(
        "mlp", image_shape=(1, 8, 8), num_classes=3, latent_dim=4, width=8, generator_label=label
    )
    G.eval()
    example = torch.randn(2, 4), torch.tensor([0, 2])
    batch = torch.export.Dim("batch")
    exported = torch.export.export(G, example, dynamic_shapes=({0: batch}, {0: batch})).module()
    z, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 2, 0])
    torch.testing.assert_close(exported(z, labels), G(z, labels))
