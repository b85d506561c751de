"""What an encoder with or without a class token, with registers, gives and looks at, written out token by token."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from msmae.method.attention import MapBank, average_heads, map_entropy, patch_maps
from msmae.method.masking import Draw, PatchPlan
from msmae.method.msmae import label_loss
from msmae.method.vit import Attention, VisionTransformer, position_embedding

Reads = Literal["class", "mean", "norm-of-mean"]


def encoder(*, class_token: bool, registers: int, reads: Reads) -> VisionTransformer:
    torch.manual_seed(0)
    made = VisionTransformer(
        image_size=(8, 12), patch_size=4, channels=1, width=8, depth=2, heads=2, class_token=class_token,
        registers=registers, reads=reads,
    )  # fmt: skip
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return made.eval()


KINDS: list[tuple[bool, int, Reads]] = [
    (True, 0, "class"), (True, 2, "class"), (True, 0, "mean"), (True, 2, "norm-of-mean"), (False, 0, "mean"),
    (False, 3, "mean"), (False, 1, "norm-of-mean"),
]  # fmt: skip


@pytest.mark.parametrize("kept", [None, [[4, 0, 1], [2, 5, 3]]])
@pytest.mark.parametrize(("class_token", "registers", "reads"), KINDS)
def test_what_stands_for_the_image_comes_first_and_registers_are_left_out(
    class_token: bool, registers: int, reads: Reads, kept: list[list[int]] | None
) -> None:
    model = encoder(class_token=class_token, registers=registers, reads=reads)
    images, keep = torch.randn(2, 1, 8, 12), None if kept is None else torch.tensor(kept)
    positions = model.pos_embed[0, int(class_token) :]
    rows = []
    for image, places in zip(images, kept or [range(6)] * 2, strict=True):
        tokens = [model.cls_token[0, 0] + model.pos_embed[0, 0]] if class_token else []  # type: ignore[index]
        tokens += list(model.reg_token[0]) if registers else []  # type: ignore[index]
        for place in places:
            y, x = divmod(place, 3)
            pixels = image[:, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4].flatten()
            tokens.append(
                model.patch_embed.proj.weight.flatten(1) @ pixels + model.patch_embed.proj.bias + positions[place]
            )
        rows.append(torch.stack(tokens))
    x = torch.stack(rows)
    torch.testing.assert_close(model.embed(images, keep), x)
    leading = int(class_token) + registers
    assert (model.leading, model.patches) == (leading, 6)
    torch.testing.assert_close(model.patch_positions[0], positions)
    for block in model.blocks:
        x = block(x)
    normal = model.norm(x)
    first = {
        "class": normal[:, :1],
        "mean": normal[:, leading:].mean(dim=1, keepdim=True),
        "norm-of-mean": model.norm(x[:, leading:].mean(dim=1, keepdim=True)),
    }[reads]
    torch.testing.assert_close(model(images, keep), torch.cat([first, normal[:, leading:]], dim=1))


@pytest.mark.parametrize(("class_token", "registers", "reads"), KINDS)
def test_where_the_last_block_looks(class_token: bool, registers: int, reads: Reads) -> None:
    """One query of each head against the keys of all tokens; the leading ones take their share and are left out."""
    model = encoder(class_token=class_token, registers=registers, reads=reads)
    images, leading = torch.randn(2, 1, 8, 12), int(class_token) + registers
    last = model.blocks[1]
    x = last.norm1(model.blocks[0](model.embed(images)))  # type: ignore[operator, union-attr]
    asking = x[:, 0] if class_token else x[:, leading:].mean(dim=1)
    weight, bias = last.attn.qkv.weight, last.attn.qkv.bias  # type: ignore[union-attr]
    rows = []
    for head in range(2):
        at = slice(4 * head, 4 * head + 4)
        query = asking @ weight[:8][at].T + bias[:8][at]
        keys = x @ weight[8:16][at].T + bias[8:16][at]
        rows.append(((keys @ query.unsqueeze(2)).squeeze(2) / 2).softmax(dim=1)[:, leading:])
    expected = torch.stack(rows, dim=1)
    torch.testing.assert_close(model.class_attention(images), expected)
    torch.testing.assert_close(model.class_row(1, model.blocks[0](model.embed(images))), expected)
    torch.testing.assert_close(patch_maps(model, images), average_heads(expected).reshape(2, 2, 3))


def test_attention_without_biases_is_of_the_products_alone() -> None:
    torch.manual_seed(0)
    plain = Attention(8, 2, qkv_bias=False)
    x = torch.randn(2, 5, 8)
    query, key, value = (x @ part.T for part in plain.qkv.weight.chunk(3))
    mixed = []
    for head in range(2):
        at = slice(4 * head, 4 * head + 4)
        weights = (query[..., at] @ key[..., at].transpose(1, 2) / 2).softmax(dim=2)
        mixed.append(weights @ value[..., at])
    torch.testing.assert_close(plain(x), plain.proj(torch.cat(mixed, dim=2)))
    torch.testing.assert_close(
        plain.class_row(x)[:, 1], (query[:, :1, 4:] @ key[..., 4:].transpose(1, 2) / 2).softmax(dim=2)[:, 0, 1:]
    )


def test_positions_of_a_patch_are_waves_of_its_place() -> None:
    found = position_embedding(8, (2, 3))[0]
    assert not found[0].any()
    for place in range(6):
        y, x = divmod(place, 3)
        angles = torch.tensor([[x, x / 100], [y, y / 100]])
        waves = torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())])
        torch.testing.assert_close(found[1 + place], waves)


@pytest.mark.parametrize(
    "wrong",
    [{"image_size": (8, 14)}, {"image_size": (0, 8)}, {"width": 6, "heads": 2}, {"width": 8, "heads": 3},
     {"class_token": False}],
)  # fmt: skip
def test_sizes_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    options = {"image_size": (8, 12), "patch_size": 4, "channels": 1, "width": 8, "depth": 1, "heads": 2}
    with pytest.raises(ValueError, match=r"multiple of|no class token"):
        VisionTransformer(**(options | wrong))  # type: ignore[arg-type]


def test_the_bank_gives_each_sample_its_map_and_another_one_s() -> None:
    bank = MapBank(torch.tensor([7, 2, 9]), (1, 2))
    maps = torch.tensor([[[0.1, 0.2]], [[0.3, 0.4]]])
    bank.refresh(torch.tensor([9, 2]), maps)
    assert (len(bank), bank.refreshes, bank.ids.tolist()) == (3, 1, [2, 7, 9])
    torch.testing.assert_close(bank[torch.tensor([2, 7, 9])][:, 0], torch.tensor([[0.3, 0.4], [1, 1], [0.1, 0.2]]))
    generator = torch.Generator().manual_seed(0)
    own, none = (Draw(map=kind).maps(bank, torch.tensor([9, 7]), generator) for kind in ("own", "none"))
    torch.testing.assert_close(own[:, 0], torch.tensor([[0.1, 0.2], [1.0, 1.0]]))
    assert none.tolist() == [[[1.0, 1.0]]] * 2
    others = Draw(map="other").maps(bank, torch.tensor([9] * 60), generator)
    assert {tuple(row) for row in others[:, 0].tolist()} == {(1.0, 1.0), tuple(maps[1, 0].tolist())}
    assert [Draw(map=kind).follows_maps for kind in ("own", "other", "none")] == [True, True, False]


def test_entropy_of_a_map_by_hand() -> None:
    maps = torch.tensor([[[1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [3.0, 0.0]], [[2.0, 2.0], [0.0, 0.0]]])
    torch.testing.assert_close(map_entropy(maps), torch.tensor([1.0, 0.0, 0.5]))


def test_a_plan_gives_its_images_and_their_roles() -> None:
    plan = PatchPlan(torch.tensor([[3], [0]]), torch.tensor([[0, 1], [2, 3]]), torch.tensor([[2], [1]]))
    assert plan.roles().tolist() == [[0, 0, 1, 2], [2, 1, 0, 0]]
    assert [part.tolist() for part in (plan[1:].keep, plan[1:].mask, plan[1:].throw)] == [[[0]], [[2, 3]], [[1]]]
    assert plan.to(torch.device("cpu")).roles().tolist() == plan.roles().tolist()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_label_loss_by_hand(smoothing: float) -> None:
    torch.manual_seed(0)
    logits, weights = torch.randn(4, 3), torch.tensor([0.5, 1.0, 4.0])
    labels = torch.tensor([2, -1, 0, 1])
    options = {"weight": weights, "label_smoothing": smoothing}
    known = labels >= 0
    each = F.cross_entropy(logits[known], labels[known], reduction="none", **options)
    found = label_loss(logits, labels, smoothing=smoothing, weights=weights)
    torch.testing.assert_close(found, each.sum() / weights[labels[known]].sum())
    twice = label_loss(logits, labels, softmax_twice=True)
    torch.testing.assert_close(twice, F.cross_entropy(logits[known].softmax(dim=1), labels[known]))
    assert label_loss(logits, torch.full((4,), -1)) == 0
    several = torch.tensor([[1.0, 0.0, float("nan")]] * 4)
    total: Tensor = torch.zeros(())
    for row in logits:
        for c, target in ((0, 1 - smoothing / 2), (1, smoothing / 2)):
            total = total - weights[c] * target * F.logsigmoid(row[c]) - (1 - target) * F.logsigmoid(-row[c])
    torch.testing.assert_close(label_loss(logits, several, smoothing=smoothing, weights=weights), total / 8)
