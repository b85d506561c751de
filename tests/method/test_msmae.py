"""The model and its loss: who sees what, what is reconstructed, and what a label adds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from msmae.method.masking import PatchPlan, plan_patches
from msmae.method.msmae import MSMAE, Reconstruction, label_loss, msmae_loss, normalise_patches, pooled
from msmae.method.vit import VisionTransformer, patchify

PATCH, GRID, CHANNELS, CLASSES, BATCH = 4, (4, 5), 2, 3, 4
LEAST = math.log(1 + 3 / math.e)  # what softmax before softmax leaves of four classes at best: 0.744


def model_of(pool: str = "cls") -> MSMAE:
    torch.manual_seed(0)
    size = (GRID[0] * PATCH, GRID[1] * PATCH)
    encoder = VisionTransformer(image_size=size, patch_size=PATCH, channels=CHANNELS, width=24, depth=2, heads=3)
    model = MSMAE(encoder, classes=CLASSES, decoder_width=16, decoder_depth=2, decoder_heads=2, pool=pool)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    return model


def batch_of() -> tuple[Tensor, PatchPlan, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(BATCH, CHANNELS, GRID[0] * PATCH, GRID[1] * PATCH, generator=generator)
    plan = plan_patches(torch.rand(BATCH, *GRID, generator=generator), generator=generator)
    return images, plan, torch.tensor([0, 2, 1, 1])


def painted(plan: PatchPlan, positions: Tensor) -> Tensor:
    """The pixels of these patches, bool [B, C, H, W]."""
    patches = torch.zeros(BATCH, GRID[0] * GRID[1], dtype=torch.bool).scatter_(1, positions, True)
    grid = patches.reshape(BATCH, 1, *GRID)
    return grid.repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3).expand(-1, CHANNELS, -1, -1)


# --- who sees what


@pytest.mark.parametrize("normalise", [False, True])
def test_thrown_patches_have_no_influence_at_all(normalise: bool):
    model, (images, plan, labels) = model_of(), batch_of()
    images.requires_grad_()
    options = {"patch_size": PATCH, "normalise_pixels": normalise}
    losses = msmae_loss(images, model(images, plan), plan, labels, **options)
    losses.total.backward()
    assert images.grad is not None
    assert not images.grad[painted(plan, plan.throw)].any()
    assert images.grad[painted(plan, plan.keep)].abs().min() > 0
    assert images.grad[painted(plan, plan.mask)].abs().max() > 0  # as targets

    ruined = images.detach().masked_fill(painted(plan, plan.throw), math.nan)
    again = msmae_loss(ruined, model(ruined, plan), plan, labels, **options)
    assert torch.equal(torch.stack(again), torch.stack(losses))


def test_masked_pixels_are_targets_and_never_seen():
    model, (images, plan, _) = model_of(), batch_of()
    before = model(images, plan)
    ruined = images.masked_fill(painted(plan, plan.mask), math.nan)
    after = model(ruined, plan)
    assert torch.equal(after.pixels, before.pixels)
    assert torch.equal(after.logits, before.logits)


def test_kept_pixels_do_matter():
    model, (images, plan, _) = model_of(), batch_of()
    before, after = model(images, plan), model(images + painted(plan, plan.keep), plan)
    assert (after.pixels - before.pixels).abs().max() > 1e-3
    assert (after.logits - before.logits).abs().max() > 1e-3


def test_tokens_in_encoder_and_decoder():
    """The encoder sees the class token and the kept, the decoder also the masked, nobody the thrown."""
    model, (images, plan, _) = model_of(), batch_of()
    seen: dict[str, int] = {}
    for name, block in (("encoder", model.encoder.blocks[0]), ("decoder", model.decoder_blocks[0])):
        block.register_forward_pre_hook(lambda module, given, name=name: seen.update({name: given[0].shape[1]}))
    output = model(images, plan)
    assert (plan.mask.shape[1], plan.throw.shape[1], plan.keep.shape[1]) == (9, 6, 5)
    assert seen == {"encoder": 1 + 5, "decoder": 1 + 5 + 9}
    assert output.pixels.shape == (BATCH, 9, CHANNELS * PATCH**2)
    assert output.logits.shape == (BATCH, CLASSES)


def test_the_order_inside_a_plan_does_not_matter():
    model, (images, plan, labels) = model_of(), batch_of()
    sorted_plan = PatchPlan(plan.keep.sort(dim=1).values, plan.mask.sort(dim=1).values, plan.throw.flip(1))
    losses = [msmae_loss(images, model(images, p), p, labels, patch_size=PATCH) for p in (plan, sorted_plan)]
    assert torch.allclose(torch.stack(losses[0]), torch.stack(losses[1]), atol=1e-5)


def test_a_gradient_reaches_every_parameter_but_the_fixed_positions():
    model, (images, plan, labels) = model_of(), batch_of()
    msmae_loss(images, model(images, plan), plan, labels, patch_size=PATCH).total.backward()
    without = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert without == {"encoder.pos_embed", "decoder_pos_embed"}


def test_building_the_model_leaves_the_encoder_as_it_came():
    encoder = VisionTransformer(image_size=(8, 8), patch_size=4, channels=1, width=8, depth=1, heads=2)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    MSMAE(encoder, classes=2, decoder_width=8, decoder_depth=1, decoder_heads=2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


@pytest.mark.parametrize(("pool", "expected"), [("cls", [1.0, 2.0]), ("mean", [4.0, 6.0])])
def test_the_head_reads_the_class_token_or_the_mean_of_the_patches(pool: str, expected: list[float]):
    tokens = torch.tensor([[[1.0, 2.0], [3.0, 5.0], [5.0, 7.0]]])
    assert pooled(tokens, pool).tolist() == [expected]


# --- reconstruction


@pytest.mark.parametrize("normalise", [False, True])
def test_the_reconstruction_is_the_mean_squared_error_over_masked_pixels(normalise: bool):
    images, plan, labels = batch_of()
    pixels = torch.randn(BATCH, plan.mask.shape[1], CHANNELS * PATCH**2, generator=torch.Generator().manual_seed(2))
    output = Reconstruction(pixels, torch.zeros(BATCH, CLASSES))
    errors = []
    for i in range(BATCH):
        for j, place in enumerate(plan.mask[i].tolist()):
            row, column = divmod(place, GRID[1])
            patch = images[i, :, row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH].numpy()
            if normalise:
                patch = (patch - patch.mean()) / np.sqrt(patch.var(ddof=1) + 1e-6)
            errors.append((pixels[i, j].numpy() - patch.reshape(-1)) ** 2)
    losses = msmae_loss(images, output, plan, labels, patch_size=PATCH, normalise_pixels=normalise)
    assert losses.reconstruction.item() == pytest.approx(float(np.mean(errors)), rel=1e-5)


def test_a_perfect_reconstruction_costs_nothing():
    images, plan, labels = batch_of()
    patches = patchify(images, PATCH)
    truth = torch.stack([patches[i, plan.mask[i]] for i in range(BATCH)])
    output = Reconstruction(truth, torch.zeros(BATCH, CLASSES))
    assert msmae_loss(images, output, plan, labels, patch_size=PATCH).reconstruction == 0
    normalised = Reconstruction(normalise_patches(truth), output.logits)
    assert msmae_loss(images, normalised, plan, labels, patch_size=PATCH, normalise_pixels=True).reconstruction == 0


def test_normalised_patches_have_mean_zero_and_variance_one_even_when_flat():
    patches = torch.cat([5 + 3 * torch.randn(3, 4, 32), torch.full((1, 4, 32), 9.0)])
    result = normalise_patches(patches)
    assert torch.allclose(result.mean(dim=-1), torch.zeros(4, 4), atol=1e-5)
    assert torch.allclose(result[:3].var(dim=-1), torch.ones(3, 4), atol=1e-4)
    assert not result[3].any()


def test_a_plan_that_masks_nothing_costs_no_reconstruction():
    model, (images, _, labels) = model_of(), batch_of()
    plan = plan_patches(torch.ones(BATCH, *GRID), 0.04, 0.30)
    assert plan.mask.shape[1] == 0
    assert msmae_loss(images, model(images, plan), plan, labels, patch_size=PATCH).reconstruction == 0


# --- labels


def test_the_total_is_reconstruction_plus_a_tenth_of_the_label_term():
    model, (images, plan, labels) = model_of(), batch_of()
    output = model(images, plan)
    losses = msmae_loss(images, output, plan, labels, patch_size=PATCH)
    chances = np.exp(output.logits.detach().numpy())
    chances /= chances.sum(axis=1, keepdims=True)
    expected = -np.log(chances[np.arange(BATCH), labels.numpy()]).mean()
    assert losses.label.item() == pytest.approx(expected, rel=1e-5)
    assert losses.total.item() == pytest.approx(losses.reconstruction.item() + 0.1 * expected, rel=1e-5)
    heavier = msmae_loss(images, output, plan, labels, patch_size=PATCH, label_weight=0.5)
    assert heavier.total.item() == pytest.approx(losses.reconstruction.item() + 0.5 * expected, rel=1e-5)


def test_unlabelled_samples_add_nothing_to_the_label_term_but_are_reconstructed():
    model, (images, plan, labels) = model_of(), batch_of()
    logits = torch.randn(BATCH, CLASSES, generator=torch.Generator().manual_seed(3)).requires_grad_()
    some = torch.tensor([0, -1, 1, -1])
    assert label_loss(logits, some).item() == pytest.approx(label_loss(logits[[0, 2]], some[[0, 2]]).item())
    label_loss(logits, some).backward()
    assert logits.grad is not None
    assert logits.grad.abs().amax(dim=1).gt(0).tolist() == [True, False, True, False]
    output = model(images, plan)
    few, all_ = (msmae_loss(images, output, plan, known, patch_size=PATCH) for known in (some, labels))
    assert few.reconstruction == all_.reconstruction


@pytest.mark.parametrize("labels", [torch.full((BATCH,), -1), torch.full((BATCH, CLASSES), math.nan)])
def test_a_batch_without_any_label_is_plain_reconstruction(labels: Tensor):
    model, (images, plan, _) = model_of(), batch_of()
    losses = msmae_loss(images, model(images, plan), plan, labels, patch_size=PATCH)
    assert losses.label == 0
    assert losses.total == losses.reconstruction
    losses.total.backward()
    assert model.head.weight.grad is not None
    assert not model.head.weight.grad.any()
    assert model.encoder.cls_token.grad is not None
    assert torch.isfinite(model.encoder.cls_token.grad).all()


def test_several_labels_an_image_are_binary_cross_entropy():
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0], [1.0, 1.0, 1.0]])
    labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [math.nan] * 3])
    chance = 1 / (1 + np.exp(-logits[:2].numpy()))
    truth = labels[:2].numpy()
    terms = -(truth * np.log(chance) + (1 - truth) * np.log(1 - chance))
    assert label_loss(logits, labels).item() == pytest.approx(terms.mean(), rel=1e-5)
    smooth = truth * 0.8 + 0.1
    terms = -(smooth * np.log(chance) + (1 - smooth) * np.log(1 - chance))
    assert label_loss(logits, labels, smoothing=0.2).item() == pytest.approx(terms.mean(), rel=1e-5)


def test_a_label_that_is_not_known_has_no_part_in_the_loss_and_the_others_of_its_image_have():
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]], requires_grad=True)
    labels = torch.tensor([[1.0, math.nan, 1.0], [math.nan, 1.0, 0.0]])
    loss = label_loss(logits, labels)
    known = ~labels.isnan()
    assert loss.item() == pytest.approx(
        F.binary_cross_entropy_with_logits(logits[known], labels[known]).item(), rel=1e-6
    )
    loss.backward()
    assert logits.grad is not None
    assert (logits.grad != 0).tolist() == known.tolist()


def test_smoothing_moves_a_share_of_the_label_to_all_classes():
    logits, label = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0])
    logs = logits.log_softmax(dim=1)[0]
    expected = -(0.7 * logs[0] + 0.3 * logs.mean())
    assert label_loss(logits, label, smoothing=0.3).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_class_weights_make_a_weighted_mean_of_the_labelled_samples(smoothing: float):
    logits = torch.randn(7, CLASSES, generator=torch.Generator().manual_seed(5))
    labels, weights = torch.tensor([0, 1, -1, 2, 2, -1, 1]), torch.tensor([0.2, 1.0, 3.0])
    known = labels >= 0
    expected = F.cross_entropy(logits[known], labels[known], weights, label_smoothing=smoothing)
    result = label_loss(logits, labels, weights=weights, smoothing=smoothing)
    assert result.item() == pytest.approx(expected.item(), rel=1e-5)
    assert label_loss(logits, torch.full((7,), -1), weights=weights) == 0


def test_class_weights_of_multi_label_data_weigh_the_positive_terms():
    logits, labels = torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([[1.0, 0.0, 1.0]])
    chance = 1 / (1 + np.exp(-logits[0].numpy()))
    terms = [-3 * np.log(chance[0]), -np.log(1 - chance[1]), -0.5 * np.log(chance[2])]
    result = label_loss(logits, labels, weights=torch.tensor([3.0, 7.0, 0.5]))
    assert result.item() == pytest.approx(float(np.mean(terms)), rel=1e-5)


# --- the released code's second softmax


def test_softmax_twice_cannot_fall_under_0_744_for_four_classes():
    labels = torch.arange(4)
    sure = 100.0 * torch.eye(4)
    assert pytest.approx(0.744, abs=5e-4) == LEAST
    assert label_loss(sure, labels, softmax_twice=True).item() == pytest.approx(LEAST, abs=1e-5)
    random = 30 * torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    each = torch.stack([label_loss(row[None], torch.tensor([1]), softmax_twice=True) for row in random])
    assert each.min() >= LEAST - 1e-6


def test_our_label_loss_falls_to_nothing():
    assert label_loss(100.0 * torch.eye(4), torch.arange(4)) == 0
    images, plan, labels = batch_of()
    sure = Reconstruction(torch.zeros(BATCH, plan.mask.shape[1], CHANNELS * PATCH**2), 100 * torch.eye(4)[labels])
    assert msmae_loss(images, sure, plan, labels, patch_size=PATCH).label == 0
    assert msmae_loss(images, sure, plan, labels, patch_size=PATCH, softmax_twice=True).label > 0.7
