"""Training the gated attention that pools a patient's images: on frozen features, with early stopping on validation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from msmae.evaluation.gated_attention import GatedAttention, pool_terms
from msmae.runs.checkpoint import read_tensors

EPOCHS, PATIENCE = 300, 40
BATCH = (32, 512)
"""Bags of a step, least and most: an eighth of them between."""
RATE, DECAY = 5e-3, 0.1


@dataclass(frozen=True)
class Bags:
    """Images by bag: features float32 [n, D], members int64 [n], targets of the bags float32 [U, K] (0 or 1; of several
    labels nan where it is not known)."""

    features: np.ndarray
    members: np.ndarray
    targets: np.ndarray


class AttentionPooling:
    """A trained gated attention, with the scale of its features."""

    def __init__(self, network: GatedAttention, mean: Tensor, std: Tensor, *, multilabel: bool) -> None:
        self.network, self.mean, self.std, self.multilabel = network.eval(), mean, std, multilabel

    @torch.inference_mode()
    def terms(self, features: np.ndarray) -> np.ndarray:
        """Features [n, D] of images -> what each adds to its bag, float32 [n, 1 + K]."""
        return self.network.terms((torch.from_numpy(features) - self.mean) / self.std).numpy()

    @torch.inference_mode()
    def __call__(self, terms: np.ndarray, members: np.ndarray, bags: int) -> tuple[np.ndarray, np.ndarray]:
        """Terms [n, 1 + K], members [n] -> probabilities float64 [bags, K] and weights float64 [n]."""
        logits, weights = pool_terms(torch.from_numpy(terms), torch.from_numpy(members), bags)
        found = logits.double().sigmoid() if self.multilabel else logits.double().softmax(dim=1)
        return found.numpy(), weights.double().numpy()

    def tensors(self) -> dict[str, Tensor]:
        """Everything it needs, by name."""
        return {**self.network.state_dict(), "mean": self.mean, "std": self.std}

    @classmethod
    def of(cls, tensors: dict[str, Tensor], *, multilabel: bool) -> AttentionPooling:
        """From :meth:`tensors`."""
        parts = {name: tensor for name, tensor in tensors.items() if name not in ("mean", "std")}
        classes, inputs = parts["head.weight"].shape
        network = GatedAttention(inputs, classes=classes, hidden=len(parts["content.weight"]))
        network.load_state_dict(parts)
        return cls(network, tensors["mean"], tensors["std"], multilabel=multilabel)

    @classmethod
    def read(cls, path: Path, *, multilabel: bool) -> AttentionPooling:
        """From the file that holds them. Raises ``UserError`` where it is missing or damaged."""
        return cls.of(read_tensors(path, mend="copy the model again"), multilabel=multilabel)


def fit_attention(train: Bags, val: Bags, *, multilabel: bool, seed: int = 0) -> AttentionPooling:
    """Fit on the training bags by cross-entropy; the epoch with the least loss on the validation bags is kept."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = GatedAttention(train.features.shape[1], classes=train.targets.shape[1])
        order = torch.Generator().manual_seed(seed)
    features, members, targets = (torch.from_numpy(part) for part in (train.features, train.members, train.targets))
    mean, std = features.mean(dim=0), features.std(dim=0).clamp(min=1e-6)
    features = (features - mean) / std
    held = [torch.from_numpy(part) for part in (val.features, val.members, val.targets)]
    held[0] = (held[0] - mean) / std
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    least, best, since = np.inf, network.state_dict(), 0
    batch = min(max(len(targets) // 8, BATCH[0]), BATCH[1])
    for _ in range(EPOCHS):
        network.train()
        for bags in torch.split(torch.randperm(len(targets), generator=order), batch):
            number = torch.full((len(targets),), -1).index_copy(0, bags, torch.arange(len(bags)))
            inside = number[members] >= 0
            logits, _ = network(features[inside], number[members[inside]], len(bags))
            loss = loss_of(logits, targets[bags], multilabel=multilabel)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        network.eval()
        with torch.no_grad():
            now = float(loss_of(network(held[0], held[1], len(held[2]))[0], held[2], multilabel=multilabel))
        since += 1
        if now < least:
            least, since = now, 0
            best = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        if since >= PATIENCE:
            break
    network.load_state_dict(best)
    return AttentionPooling(network, mean, std, multilabel=multilabel)


def loss_of(logits: Tensor, targets: Tensor, *, multilabel: bool) -> Tensor:
    """Cross-entropy of logits [U, K] against targets [U, K] of 0 and 1; of several labels over those that are known."""
    if multilabel:
        known = ~targets.isnan()
        losses = F.binary_cross_entropy_with_logits(logits, targets.nan_to_num(), weight=known.float(), reduction="sum")
        return losses / known.sum().clamp(min=1)
    return F.cross_entropy(logits, targets)
