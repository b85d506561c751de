"""Forward and backward of attention over an image's tokens: the fused kernel against three plain products, in turns.

Run: ``.venv/bin/python benchmarks/attention.py``. Prints medians in milliseconds and the ratio fused / plain.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

SHAPES = {
    "64 px / 8, quarter kept": (128, 4, 17, 32),
    "28 px / 4, all": (128, 6, 50, 32),
    "64 px / 8, all": (128, 4, 65, 32),
    "224 px / 16, quarter kept": (64, 12, 50, 64),
    "224 px / 16, all": (16, 12, 197, 64),
}
ROUNDS = 9


def plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    weights = ((query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)).softmax(dim=-1)
    return weights @ value


def milliseconds(attend: Callable[..., Tensor], qkv: Tensor) -> float:
    began = time.perf_counter()
    attend(*qkv.unbind(0)).sum().backward()
    qkv.grad = None
    return 1000 * (time.perf_counter() - began)


def main() -> None:
    print(f"{'tokens of':28}{'dtype':>10}{'fused':>9}{'plain':>9}{'ratio':>8}")
    for name, (batch, heads, tokens, width) in SHAPES.items():
        for dtype in (torch.float32, torch.bfloat16):
            qkv = torch.randn(3, batch, heads, tokens, width, dtype=dtype, requires_grad=True)
            pairs = [
                (milliseconds(F.scaled_dot_product_attention, qkv), milliseconds(plain, qkv)) for _ in range(ROUNDS + 1)
            ][1:]
            fused, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
            ratio = statistics.median(a / b for a, b in pairs)
            print(f"{name:28}{str(dtype)[6:]:>10}{fused:9.1f}{ours:9.1f}{ratio:8.2f}")


if __name__ == "__main__":
    main()
