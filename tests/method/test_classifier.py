"""What reads the tokens: the attentive pool against torch's attention, means of several answers by hand, their cost."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from msmae.method.classifier import AttentivePool, Classifier, heads_of
from msmae.method.cost import Macs, classifier_macs, encoder_macs
from msmae.method.ensemble import Ensemble
from msmae.method.vit import VisionTransformer

WIDTH = 16


def classifier(seed: int, pool: str = "cls") -> Classifier:
    torch.manual_seed(seed)
    encoder = VisionTransformer(image_size=(16, 24), patch_size=8, channels=1, width=WIDTH, depth=2, heads=2)
    made = Classifier(encoder, classes=3, pool=pool)
    nn.init.normal_(made.head.weight, std=1.0)  # so that answers differ
    return made.eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(5, 1, 16, 24, generator=torch.Generator().manual_seed(1))


def test_the_attentive_pool_is_one_query_of_torchs_attention() -> None:
    torch.manual_seed(0)
    pool, tokens = AttentivePool(WIDTH, 4), torch.randn(3, 7, WIDTH)
    theirs = nn.MultiheadAttention(WIDTH, 4, batch_first=True)
    key, value = pool.key_value.weight.chunk(2)
    key_bias, value_bias = pool.key_value.bias.chunk(2)
    with torch.no_grad():
        pool.query.normal_()
        theirs.in_proj_weight.copy_(torch.cat([torch.eye(WIDTH), key, value]))
        theirs.in_proj_bias.copy_(torch.cat([torch.zeros(WIDTH), key_bias, value_bias]))
        theirs.out_proj.weight.copy_(torch.eye(WIDTH))
        seen = nn.functional.layer_norm(tokens, (WIDTH,), eps=1e-6)
        expected = theirs(pool.query.expand(3, -1, -1), seen, seen)[0][:, 0]
    torch.testing.assert_close(pool(tokens), expected)


def test_each_pool_reads_what_it_says(images: Tensor) -> None:
    for pool in ("cls", "mean", "both", "attentive"):
        model = classifier(0, pool)
        tokens = model.encoder(images)
        first, mean = tokens[:, 0], tokens[:, 1:].mean(dim=1)
        read = {"cls": first, "mean": mean, "both": torch.cat([first, mean], dim=1)}
        expected = model.head(model.attentive(tokens) if pool == "attentive" else read[pool])
        torch.testing.assert_close(model(images), expected)
        keep = torch.tensor([[0, 2, 5]]).expand(5, -1)
        torch.testing.assert_close(model.answer(images, keep)[1], model.encoder(images, keep))
    assert heads_of(classifier(0).encoder) == 2


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("pool", ["mean", "attentive"])
def test_an_ensemble_answers_with_the_mean_of_all_probabilities(several: bool, pool: str, images: Tensor) -> None:
    members = [classifier(seed, pool) for seed in range(3)]
    for mirrored in (False, True):
        model = Ensemble(members, several=several, mirrored=mirrored).eval()
        seen = [images, images.flip(3)][: 1 + mirrored]
        logits = torch.stack([member(view) for member in members for view in seen])
        mean = (logits.sigmoid() if several else logits.softmax(dim=2)).mean(dim=0)
        answer, tokens = model.answer(images)
        torch.testing.assert_close(answer, mean.logit() if several else mean.log(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(tokens, members[0].encoder(images))
        assert model.passes == 3 * (1 + mirrored)
        alone = classifier_macs(members[0])
        assert classifier_macs(model) == Macs(model.passes * alone.linear, model.passes * alone.attention)
        for member, one in zip(members, model.members(), strict=True):
            torch.testing.assert_close(member(images), one(images))
            assert not one.training
    with pytest.raises(ValueError, match="whole images"):
        model.answer(images, torch.zeros(5, 2, dtype=torch.int64))


def test_sure_answers_of_several_labels_stay_finite(images: Tensor) -> None:
    member = classifier(0)
    nn.init.constant_(member.head.bias, 500.0)
    sure = Ensemble([member, member], several=True)(images)
    torch.testing.assert_close(
        sure, torch.full_like(sure, 15.94), rtol=0, atol=0.02
    )  # 1 - 2^-23, the nearest to 1 - 1e-7


@pytest.mark.parametrize("kept", [None, 4])
def test_the_attentive_pool_costs_its_weights_once_and_two_products_a_token_and_head(kept: int | None) -> None:
    plain, pooled = classifier(0), classifier(0, "attentive")
    tokens = 1 + (6 if kept is None else kept)
    extra = Macs(2 * WIDTH * WIDTH, 2 * tokens * WIDTH * 2)
    assert classifier_macs(pooled, kept) == classifier_macs(plain, kept) + extra
    assert classifier_macs(plain, kept) == encoder_macs(plain.encoder, kept) + Macs(3 * WIDTH, 0)
