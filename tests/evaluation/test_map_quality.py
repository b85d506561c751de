"""Figures of how well maps find lesions, against hand counts and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from msmae.evaluation.map_quality import lesion_patches, lesion_shares, map_auroc, pointing, role_shares
from msmae.method.masking import Draw


def test_a_patch_bears_lesion_where_a_quarter_of_it_does_or_where_it_holds_most_of_a_small_one() -> None:
    masks = torch.zeros(3, 8, 8)
    masks[0, :2, :4] = 1  # half of the first patch
    masks[0, 5, 5] = 1  # a sixteenth of the last
    masks[1, 6, 6:] = 1  # two pixels in the last patch, the most of a small lesion
    assert lesion_patches(masks, 4).tolist() == [[True, False, False, False], [False, False, False, True], [False] * 4]


def test_the_area_under_the_curve_is_that_of_scikit_learn_image_by_image() -> None:
    generator = torch.Generator().manual_seed(3)
    maps = torch.randint(0, 5, (6, 3, 4), generator=generator).float()  # with ties
    lesion = torch.rand(6, 12, generator=generator) < 0.4
    lesion[0], lesion[1] = False, True  # neither has an area
    expected = np.mean([roc_auc_score(lesion[i], maps[i].flatten()) for i in range(2, 6)])
    assert map_auroc(maps, lesion) == pytest.approx(expected, abs=1e-12)
    assert np.isnan(map_auroc(maps[:2], lesion[:2]))


def test_pointing_counts_images_whose_most_attended_patch_bears_lesion() -> None:
    maps = torch.tensor([[[0.1, 0.9]], [[0.8, 0.2]], [[0.3, 0.7]]])
    lesion = torch.tensor([[False, True], [False, True], [False, True]])
    assert pointing(maps, lesion) == pytest.approx(2 / 3)


def test_plans_mask_what_is_attended_and_random_ones_their_share() -> None:
    generator = torch.Generator().manual_seed(0)
    paper = Draw(0.45, 0.30)
    maps = torch.full((40, 4, 5), 1e-4)
    maps[:, 0, 0] = 1.0
    lesion = torch.zeros(40, 20, dtype=torch.bool)
    lesion[:, 0] = True
    shares = lesion_shares(maps, lesion, generator, draw=paper)
    assert shares["guided"]["masked"] > 0.99
    assert shares["random"]["masked"] == pytest.approx(0.45, abs=0.06)  # 800 draws: three standard errors are 0.05
    assert sum(shares["guided"].values()) == pytest.approx(1)
    assert shares["most_attended_patch_on_lesion"] == 1.0
    assert role_shares(1 - maps, lesion, generator, draw=paper)["masked"] < 0.05
