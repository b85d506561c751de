"""Looking at some of an image: what each selector keeps, what it costs, what it says."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from msmae.method.classifier import Classifier
from msmae.method.cost import classifier_macs
from msmae.method.vit import VisionTransformer, patchify, resize_position_embedding
from msmae.selection.cost import selection_macs
from msmae.selection.locator import Glance, Locator, Shrink
from msmae.selection.reduction import merge, merge_schedule, merge_tokens, smaller_grid
from msmae.selection.selectors import SELECTORS, WHOLE, Selection, grid_order, own_draws
from msmae.selection.sensitivity import sensitivity, widened
from spots import looking_at_bright_patches

DROPPING = [name for name in SELECTORS if name != "all"]


def classifier(size: tuple[int, int] = (24, 32), patch: int = 4, pool: str = "cls") -> Classifier:
    torch.manual_seed(0)
    encoder = VisionTransformer(image_size=size, patch_size=patch, channels=2, width=24, depth=4, heads=3)
    return Classifier(encoder, classes=3, pool=pool).eval()


def look_of(selector: str, model: Classifier | None = None, *, glance: tuple[int, int] | None = None) -> Selection:
    model = model or classifier()
    locator = Locator(model.encoder, width=8) if selector == "locator" else None
    coarse = None if glance is None else Glance(model.encoder, glance)
    return Selection(model, selector=selector, locator=locator, glance=coarse).eval()


IMAGES = torch.randn(3, 2, 24, 32, generator=torch.Generator().manual_seed(1))
PATCHES = 48


# --- what is kept


@pytest.mark.parametrize("selector", ["random", "grid", "self", "locator"])
@pytest.mark.parametrize("kept", [1, 12, 48])
def test_a_fixed_number_of_different_patches_is_kept(selector: str, kept: int):
    positions = look_of(selector).choose(IMAGES, kept)
    assert positions is not None
    assert positions.shape == (3, kept)
    for row in positions.tolist():
        assert len(set(row)) == kept
        assert set(row) <= set(range(PATCHES))


@pytest.mark.parametrize("selector", DROPPING)
def test_the_batch_does_not_matter(selector: str):
    selection = look_of(selector)
    with torch.no_grad():
        together = selection(IMAGES, 12, own_draws(IMAGES))
        alone = torch.cat([selection(image[None], 12, own_draws(image[None])) for image in IMAGES])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("selector", ["all", "random", "self", "locator"])
@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_all_patches_kept_is_the_classifier_itself(selector: str, pool: str):
    """Patches are a set to a transformer: in whatever order they are kept, all of them are all of them."""
    model = classifier(pool=pool)
    with torch.no_grad():
        torch.testing.assert_close(look_of(selector, model)(IMAGES, PATCHES), model(IMAGES), atol=1e-5, rtol=1e-4)


def test_a_smaller_image_is_the_classifier_at_that_size():
    """With its positions resampled as for any other size, and the image's area averages for pixels."""
    model = classifier()
    small = VisionTransformer(image_size=(12, 16), patch_size=4, channels=2, width=24, depth=4, heads=3)
    state = model.encoder.state_dict()
    positions = resize_position_embedding(state["pos_embed"], (6, 8), (3, 4), antialias=True)
    small.load_state_dict({**state, "pos_embed": positions})
    with torch.no_grad():
        expected = model.head(small.eval()(F.avg_pool2d(IMAGES, 2))[:, 0])
        torch.testing.assert_close(look_of("smaller", model)(IMAGES, 12), expected, atol=1e-5, rtol=1e-4)
        whole = look_of("smaller", model)(IMAGES, PATCHES)
        torch.testing.assert_close(whole, model(IMAGES), atol=1e-5, rtol=1e-4)


@given(st.integers(1, 20), st.integers(1, 20), st.floats(0.02, 1))
def test_a_smaller_image_costs_no_less_than_what_it_is_held_against(rows: int, columns: int, share: float):
    kept = max(1, int(share * rows * columns))
    small = smaller_grid((rows, columns), kept)
    assert kept <= small[0] * small[1] <= rows * columns


def test_merging_nothing_is_the_encoder_itself():
    encoder = classifier().encoder
    with torch.no_grad():
        torch.testing.assert_close(merge_tokens(encoder, IMAGES, PATCHES), encoder(IMAGES), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("selector", ["random", "grid", "locator"])
def test_a_patch_that_is_not_kept_changes_nothing(selector: str):
    selection = look_of(selector)
    positions = selection.choose(IMAGES, 12, torch.Generator().manual_seed(0))
    assert positions is not None
    unseen = next(n for n in range(PATCHES) if not (positions[0] == n).any())
    changed = IMAGES.clone()
    row, column = divmod(unseen, 8)
    changed[0, :, row * 4 : row * 4 + 4, column * 4 : column * 4 + 4] += 5
    with torch.no_grad():
        before, after = selection.read(IMAGES, positions), selection.read(changed, positions)
    torch.testing.assert_close(before, after)


def test_self_keeps_what_the_class_token_attends_to():
    model = Classifier(looking_at_bright_patches((32, 32), 4), classes=2).eval()
    images = torch.zeros(4, 1, 32, 32)
    for i, cell in enumerate([0, 9, 37, 63]):
        row, column = divmod(cell, 8)
        images[i, :, row * 4 : row * 4 + 4, column * 4 : column * 4 + 4] = 3
    positions = Selection(model, selector="self").choose(images, 1)
    assert positions is not None
    assert positions.flatten().tolist() == [0, 9, 37, 63]


def test_early_keeps_what_the_class_token_attends_to_after_the_first_blocks():
    selection = look_of("early")
    with torch.no_grad():
        _, positions = selection.answer(IMAGES, 12)
        encoder = selection.model.encoder
        x = encoder.blocks[0](encoder.embed(IMAGES))
        row = encoder.blocks[1].attn.class_row(encoder.blocks[1].norm1(x)).mean(dim=1)
    assert positions is not None
    assert positions.shape == (3, 11)  # the twelfth token is the mean of the others
    for kept, weights in zip(positions, row, strict=True):
        assert set(kept.tolist()) == set(weights.topk(11).indices.tolist())


@given(st.integers(1, 14), st.integers(1, 14))
def test_every_beginning_of_the_grid_order_is_spread(rows: int, columns: int):
    order = grid_order(rows, columns)
    assert sorted(order) == list(range(rows * columns))


def test_a_quarter_of_a_grid_is_every_second_row_and_column():
    first = grid_order(8, 8)[:16]
    assert sorted(first) == [8 * y + x for y in range(0, 8, 2) for x in range(0, 8, 2)]


def test_random_patches_are_drawn_from_the_generator():
    selection = look_of("random")
    draw = [selection.choose(IMAGES, 12, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draw[0], draw[1])
    assert not torch.equal(draw[0], draw[2])
    own = selection.choose(IMAGES, 12, own_draws(IMAGES))
    assert own is not None
    assert len({tuple(row) for row in own.tolist()}) == len(IMAGES), "each image has another draw"


# --- merging


def test_merging_keeps_the_mean_of_all_patches():
    x, size = torch.randn(2, 9, 6), torch.ones(2, 9, 1)
    merged, sizes = merge(x, size, torch.randn(2, 9, 5), 3)
    assert merged.shape == (2, 6, 6)
    assert torch.equal(merged[:, 0], x[:, 0])  # the class token
    torch.testing.assert_close((merged * sizes)[:, 1:].sum(dim=1), x[:, 1:].sum(dim=1))
    assert (sizes.sum(dim=1) == 9).all()


def test_what_is_alike_is_merged():
    keys = torch.eye(5).unsqueeze(0)  # the class token and four patches
    keys[0, 3] = keys[0, 2]
    x = torch.arange(5.0).reshape(1, 5, 1)
    merged, _ = merge(x, torch.ones(1, 5, 1), keys, 1)
    assert merged.flatten().tolist() == [0, 1, 2.5, 4]


@given(st.integers(4, 256), st.integers(1, 24), st.floats(0.05, 1))
def test_the_schedule_ends_where_it_should(patches: int, depth: int, keep: float):
    kept = max(1, int(keep * patches))
    schedule = merge_schedule(patches, kept, depth)
    assert len(schedule) == depth
    halved, left = False, patches
    for merged in schedule:
        assert 0 <= merged <= left // 2
        halved, left = halved or merged == left // 2, left - merged
    assert left == kept or (left > kept and (halved or depth == 1))


# --- the locator and the glance


@pytest.mark.parametrize(("before", "after"), [((8, 12), (4, 4)), ((28, 28), (8, 8)), ((7, 5), (7, 5))])
def test_shrinking_keeps_the_mean(before: tuple[int, int], after: tuple[int, int]):
    images = torch.randn(2, 3, *before)
    small = Shrink(before, after)(images)
    assert small.shape == (2, 3, *after)
    torch.testing.assert_close(small.mean(dim=(2, 3)), images.mean(dim=(2, 3)), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(small, torch.nn.functional.adaptive_avg_pool2d(images, after)) if before[0] % after[
        0
    ] == 0 else None


def test_the_locator_can_learn_where_the_bright_patch_is():
    torch.manual_seed(0)
    encoder = VisionTransformer(image_size=(32, 32), patch_size=8, channels=1, width=24, depth=1, heads=3)
    locator = Locator(encoder, width=8)
    optimiser = torch.optim.Adam(locator.parameters(), 0.02)
    for _ in range(80):
        cells = torch.randint(16, (32,))
        images = torch.randn(32, 1, 32, 32) * 0.3
        for image, cell in zip(images, cells.tolist(), strict=True):
            row, column = divmod(cell, 4)
            image[:, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] += 1
        loss = torch.nn.functional.cross_entropy(locator(images), cells)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert (locator(images).argmax(dim=1) == cells).float().mean() > 0.9


def test_a_glance_of_the_whole_grid_sees_what_the_encoder_sees():
    encoder = classifier().encoder
    with torch.no_grad():
        tokens = Glance(encoder, encoder.grid)(IMAGES, encoder)
    torch.testing.assert_close(tokens, encoder.embed(IMAGES)[:, 1:])


def test_a_coarse_token_lies_in_the_middle_of_the_patches_it_covers():
    encoder = classifier().encoder  # 6 x 8 patches
    glance = Glance(encoder, (2, 4))
    with torch.no_grad():
        encoder.pos_embed[0, 1:] = torch.rand(PATCHES, 24)
        black = torch.zeros(1, 2, 24, 32)
        found = glance(black, encoder) - encoder.patch_embed(torch.zeros(1, 1, 32)) - glance.coarse
    means = encoder.pos_embed[0, 1:].reshape(2, 3, 4, 2, 24).mean(dim=(1, 3)).reshape(1, 8, 24)
    torch.testing.assert_close(found, means)


def test_the_glance_counts_among_the_kept():
    selection = look_of("locator", glance=(2, 2))
    logits, positions = selection.answer(IMAGES, 12)
    assert positions is not None
    assert positions.shape == (3, 8)
    assert logits.shape == (3, 3)
    with pytest.raises(ValueError, match="4 of 48 tokens, 4 of them coarse"):
        selection(IMAGES, 4)


def test_the_glance_tells_what_no_kept_patch_shows():
    selection = look_of("grid", glance=(2, 2))
    positions = torch.zeros(3, 1, dtype=torch.long)
    with torch.no_grad():
        same, other = (
            selection.read(IMAGES, positions),
            selection.read(IMAGES + 3 * (patchify(IMAGES, 4).numel() > 0), positions),
        )
    assert not torch.allclose(same, other)


# --- what an answer hangs on


def test_an_answer_hangs_on_the_patches_that_are_attended_to():
    """A model that reads one patch alone: the gradient is there and nowhere else."""
    model = Classifier(looking_at_bright_patches((32, 32), 4), classes=2).eval()
    images = torch.zeros(2, 1, 32, 32)
    images[0, :, 4:8, 8:12] = 3
    images[1, :, 28:32, 0:4] = 3
    with torch.no_grad():
        model.encoder.blocks[0].attn.qkv.weight[8, 0] = 1  # values carry the brightness
        model.encoder.blocks[0].attn.proj.weight.copy_(torch.eye(4))
        model.encoder.norm.weight.fill_(1)
        model.head.weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0]]))
    maps = sensitivity(model, images)
    assert maps.shape == (2, 8, 8)
    torch.testing.assert_close(maps.sum(dim=(1, 2)), torch.ones(2))
    assert maps.flatten(1).argmax(dim=1).tolist() == [8 + 2, 56]


def test_what_is_wanted_is_the_telling_patch_and_its_neighbours():
    maps = torch.zeros(1, 5, 6)
    maps[0, 2, 3] = 1
    wide = widened(maps)
    assert (wide[0, 1:4, 2:5] == wide[0, 2, 3]).all()
    assert wide.sum() == pytest.approx(9 * float(wide[0, 2, 3]))


def test_a_border_is_no_reason_to_be_wanted_less():
    torch.testing.assert_close(widened(torch.ones(1, 4, 5)), torch.ones(1, 4, 5))


def test_it_needs_no_gradient_around_it():
    with torch.no_grad():
        assert (sensitivity(classifier(), IMAGES) >= 0).all()


# --- cost


@pytest.mark.parametrize("selector", SELECTORS)
@pytest.mark.parametrize("glance", [None, (2, 2)])
def test_the_cost_is_what_is_executed(selector: str, glance: tuple[int, int] | None):
    if glance and selector in WHOLE:
        pytest.skip("no glance")
    selection = look_of(selector, glance=glance).requires_grad_(False)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        selection(IMAGES[:1], 12)
    assert counter.get_total_flops() / 2 == selection_macs(selection, 12).total


@pytest.mark.parametrize(("width", "heads"), [(384, 6), (768, 12)])
def test_a_quarter_located_costs_under_29_percent(width: int, heads: int):
    encoder = VisionTransformer(width=width, heads=heads)
    model = Classifier(encoder, classes=7)
    selection = Selection(
        model, selector="locator", locator=Locator(encoder, width=width // 8), glance=Glance(encoder, (3, 3))
    )
    share = selection_macs(selection, 49).total / classifier_macs(model).total
    assert 0.24 < share < 0.29
