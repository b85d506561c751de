"""Plans whose kept patches the map hints at: what is drawn by the map, what by chance, and which arms do it."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from msmae.config.arms import ARMS
from msmae.method.attention import patch_maps
from msmae.method.masking import patch_counts, plan_with_hints
from msmae.method.msmae import MSMAE
from msmae.method.vit import VisionTransformer
from msmae.selection.cost import rollout_macs
from msmae.selection.rollout import rollout_maps
from msmae.selection.sensitivity import sensitivity, widened
from msmae.training.maps import map_price, maps_of_arm, plan_of_arm


@settings(max_examples=50, deadline=None)
@given(
    rows=st.integers(2, 9),
    columns=st.integers(2, 9),
    hints=st.floats(0, 1),
    ratios=st.sampled_from([(0.45, 0.30), (0.6, 0.0), (0.0, 0.5), (0.75, 0.0)]),
    seed=st.integers(0, 1000),
)
def test_a_plan_with_hints_is_a_permutation_with_the_papers_counts(rows, columns, hints, ratios, seed):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.rand(3, rows, columns, generator=generator)
    plan = plan_with_hints(maps, *ratios, hints=hints, generator=generator)
    assert (plan.mask.shape[1], plan.throw.shape[1], plan.keep.shape[1]) == patch_counts(rows * columns, *ratios)
    everything = torch.cat([plan.mask, plan.throw, plan.keep], dim=1).sort(dim=1).values
    assert torch.equal(everything, torch.arange(rows * columns).expand(3, -1))


def test_the_map_draws_the_hints_and_chance_the_rest():
    """20,000 plans of 20 patches: 5 kept, 2 of them hints (round(0.5 x 5)), 4 patches of weight 1 and 16 of nothing.

    A patch of weight is a hint in half of the plans; of the 18 left, 3 are kept, 9 masked, 6 thrown. The bounds are
    five standard errors: a false alarm in less than one of 10^5 runs of this test.
    """
    weights = torch.zeros(20_000, 20)
    weights[:, 3:7] = 1
    plan = plan_with_hints(weights, 0.45, 0.30, hints=0.5, generator=torch.Generator().manual_seed(1))
    roles = plan.roles()
    attended, others = roles[:, 3:7].flatten(), torch.cat([roles[:, :3], roles[:, 7:]], dim=1).flatten()
    left = {0: 9 / 18, 1: 6 / 18, 2: 3 / 18}  # masked, thrown, kept
    for role, share in left.items():
        expected = 0.5 * share + (0.5 if role == 2 else 0)
        assert float((attended == role).float().mean()) == pytest.approx(expected, abs=5 * (0.25 / 80_000) ** 0.5)
        assert float((others == role).float().mean()) == pytest.approx(share, abs=5 * (0.25 / 320_000) ** 0.5)


def test_without_hints_the_map_says_nothing():
    weights = torch.zeros(8000, 8)
    weights[:, 0] = 1
    roles = plan_with_hints(weights, 0.5, 0.25, hints=0.0, generator=torch.Generator().manual_seed(2)).roles()
    assert float((roles[:, 0] == 2).float().mean()) == pytest.approx(0.25, abs=5 * (0.1875 / 8000) ** 0.5)


@pytest.mark.parametrize("hints", [-0.1, 1.1])
def test_a_share_out_of_range_is_refused(hints: float):
    with pytest.raises(ValueError, match="not between 0 and 1"):
        plan_with_hints(torch.ones(1, 16), hints=hints)


@pytest.fixture(scope="module")
def model() -> MSMAE:
    torch.manual_seed(0)
    encoder = VisionTransformer(image_size=(24, 24), patch_size=4, channels=1, width=16, depth=2, heads=2)
    return MSMAE(encoder, classes=3, decoder_width=16, decoder_depth=1, decoder_heads=2).eval()


def test_each_arm_has_its_own_map_and_plan(model: MSMAE):
    images = torch.randn(4, 1, 24, 24)
    paper, hints, ours = (
        maps_of_arm(ARMS[name], model, images) for name in ("msmae", "msmae-hints", "msmae-hints-gradient")
    )
    assert torch.equal(paper, patch_maps(model.encoder, images))
    assert torch.equal(hints, paper)
    followed = maps_of_arm(ARMS["msmae-hints-rollout"], model, images)
    assert torch.equal(followed, rollout_maps(model.encoder, images))
    assert not torch.allclose(followed, paper, atol=0.05)
    expected = widened(sensitivity(model, images))
    torch.testing.assert_close(ours, expected / expected.amax(dim=(1, 2), keepdim=True))
    assert ours.amax(dim=(1, 2)).tolist() == pytest.approx([1, 1, 1, 1])
    peak = torch.full((500, 6, 6), 1e-9)
    peak[:, 2, 2] = 1
    roles = {
        name: partial(plan_of_arm, ARMS[name], ratios=(0.45, 0.30))(peak).roles()[:, 14]
        for name in ("msmae", "msmae-hints")
    }
    assert (roles["msmae"] == 0).all()  # masked
    assert (roles["msmae-hints"] == 2).all()  # kept


def test_a_map_from_the_gradient_leaves_no_gradient_behind(model: MSMAE):
    maps_of_arm(ARMS["msmae-hints-gradient"], model, torch.randn(2, 1, 24, 24))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_map_has_its_price_and_none_where_nothing_is_guided(model: MSMAE):
    assert map_price(ARMS["supmae"], model).total == 0
    assert map_price(ARMS["msmae-hints-gradient"], model).total > 2 * map_price(ARMS["msmae"], model).total
    assert map_price(ARMS["msmae-hints-rollout"], model) == rollout_macs(model.encoder)
    assert map_price(ARMS["msmae-hints-shuffled"], model) == map_price(ARMS["msmae"], model)
