"""Gradient accumulation learns what the large batch learns; a compiled network what the plain one learns."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file

import msmae
from msmae.data.phantom import make_phantom
from msmae.errors import UserError
from msmae.training.trainer import fit, smaller_batch

STILL = {"balance": "none", "drop_path": 0.0, "jitter": 0.0, "flip": 0.0, "crop_scale": (1.0, 1.0), "ema": 0.0}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("data") / "phantom"
    make_phantom(folder, images=96, size=32)
    return str(folder / "manifest.csv")


def trained(data: str, out: Path, *, trainer: dict[str, Any] | None = None, **finetune: Any) -> dict[str, torch.Tensor]:
    """The weights after two epochs of supervised training in which nothing is random but the order."""
    msmae.run(
        data, out=str(out), method="vit", preset="tiny", finetune={**STILL, "epochs": 2, **finetune},
        trainer={"threads": 1, "precision": "32-true", **(trainer or {})}, evaluate={"resamples": 100},
    )  # fmt: skip
    return load_file(out / "model" / "model.safetensors")


@pytest.mark.slow
def test_two_batches_of_eight_are_one_of_sixteen(data: str, tmp_path: Path) -> None:
    large = trained(data, tmp_path / "large", batch_size=16)
    small = trained(data, tmp_path / "small", batch_size=8, accumulate=2)
    plain = trained(data, tmp_path / "plain", batch_size=8)
    assert max(float((large[name] - small[name]).abs().max()) for name in large) < 5e-6
    assert max(float((large[name] - plain[name]).abs().max()) for name in large) > 5e-5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")  # torch's own
def test_a_compiled_network_learns_the_same_and_is_saved_under_the_same_names(data: str, tmp_path: Path) -> None:
    plain = trained(data, tmp_path / "plain")
    fast = trained(data, tmp_path / "fast", trainer={"compile": True})
    assert list(plain) == list(fast)
    assert max(float((plain[name] - fast[name]).abs().max()) for name in plain) < 2e-5


@pytest.mark.slow
def test_where_nothing_can_be_compiled_it_is_said_at_once(data: str, tmp_path: Path) -> None:
    """In a process of its own, whose machine has no C++ compiler."""
    call = [
        sys.executable, "-m", "msmae", "run", data, "--out", str(tmp_path / "run"), "--preset", "tiny",
        "--method", "vit", "--trainer.compile", "true", "--trainer.precision", "32-true",
    ]  # fmt: skip
    lacking = os.environ | {"CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(call, env=lacking, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "nothing can be compiled here" in done.stderr
    assert "g++" in done.stderr
    assert "Traceback" not in done.stderr


class Full:
    """A trainer on a device whose memory is full."""

    world_size = 1

    def fit(self, module: object, *, ckpt_path: str | None, weights_only: bool) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


def test_a_batch_that_does_not_fit_is_named_with_one_that_may(tmp_path: Path) -> None:
    plain = SimpleNamespace(settings=SimpleNamespace(trainer=SimpleNamespace(compile=False)))
    module = SimpleNamespace(prepared=plain, batch_size=6, accumulate=2)
    with pytest.raises(UserError, match="a batch of 6 images does not fit") as caught:
        fit(cast(Any, Full()), cast(Any, module), checkpoints=[tmp_path / "none.ckpt"])
    assert "3 with accumulate 4 takes about as many images a step" in str(caught.value)
    assert "accumulate" not in smaller_batch(1, 1)
