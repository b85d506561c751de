"""Plans whose kept patches the map hints at: what is drawn by the map and what by chance."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from msmae.config import PretrainSettings, check_method, make_settings
from msmae.errors import UserError
from msmae.method.masking import Draw, patch_counts
from msmae.method.msmae import MSMAE
from msmae.runs.checkpoint import build_model
from msmae.training.cards import card_of
from msmae.training.pretrain import PretrainModule
from spots import prepared_of, write_spots


@settings(max_examples=50)
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
    plan = Draw(*ratios, hints=hints).plan(maps, generator)
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
    plan = Draw(hints=0.5).plan(weights, torch.Generator().manual_seed(1))
    roles = plan.roles()
    attended, others = roles[:, 3:7].flatten(), torch.cat([roles[:, :3], roles[:, 7:]], dim=1).flatten()
    left = {0: 9 / 18, 1: 6 / 18, 2: 3 / 18}  # masked, thrown, kept
    for role, share in left.items():
        expected = 0.5 * share + (0.5 if role == 2 else 0)
        assert float((attended == role).float().mean()) == pytest.approx(expected, abs=5 * (0.25 / 80_000) ** 0.5)
        assert float((others == role).float().mean()) == pytest.approx(share, abs=5 * (0.25 / 320_000) ** 0.5)


@pytest.mark.parametrize("hints", [-0.1, 1.1])
def test_a_share_out_of_range_is_refused(hints: float):
    with pytest.raises(ValueError, match="not between 0 and 1"):
        Draw(hints=hints)


def test_hints_turn_the_papers_draw_round():
    """What all of the weight is on is masked; with hints it is kept."""
    peak = torch.full((500, 6, 6), 1e-9)
    peak[:, 2, 2] = 1
    generator = torch.Generator().manual_seed(3)
    roles = {hints: Draw(hints=hints).plan(peak, generator).roles()[:, 14] for hints in (0.0, 0.5)}
    assert (roles[0.0] == 0).all()  # masked
    assert (roles[0.5] == 2).all()  # kept


def test_pretraining_with_hints_keeps_what_is_attended(tmp_path: Path):
    """The setting reaches the draw of a training: the patch with all of the weight is always kept."""
    prepared = prepared_of(write_spots(tmp_path), pretrain={"hints": 0.5, "uniform_epochs": 0})
    model = build_model(card_of(prepared, "pretrained"))
    assert isinstance(model, MSMAE)
    module = PretrainModule(model, prepared)
    module.generator = torch.Generator().manual_seed(0)
    maps = torch.full((200, 8, 8), 1e-9)
    maps[:, 2, 2] = 1
    assert (module.plan(maps).roles()[:, 18] == 2).all()


def test_hints_are_a_share_and_need_a_map():
    with pytest.raises(UserError, match=r"pretrain\.hints"):
        PretrainSettings(hints=1.5)
    with pytest.raises(UserError, match="draws without maps"):
        check_method(make_settings("tiny", None, {"pretrain": {"hints": 0.5}}), "supmae", started=False)
