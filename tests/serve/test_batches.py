"""Requests answered together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from served_run import write_run

from msmae.serve.batches import Batches, sizes_of_batches
from msmae.serve.engine import Engine, Question


async def answered(count: int, most: int) -> tuple[list[int], list[int]]:
    """Twice the numbers below ``count``, all asked while the first batch is held up; and the sizes of the batches."""
    held, sizes = threading.Event(), []

    def double(numbers: Sequence[int]) -> list[int]:
        held.wait(10)
        sizes.append(len(numbers))
        return [2 * number for number in numbers]

    batches = Batches(double, most=most)
    batches.start()
    asked = [asyncio.ensure_future(batches(number)) for number in range(count)]
    await asyncio.sleep(0.01)
    held.set()
    found = await asyncio.gather(*asked)
    await batches.close()
    return list(found), sizes


@settings(max_examples=25)
@given(count=st.integers(1, 70), most=st.integers(1, 33))
def test_each_is_answered_once_in_batches_of_few_sizes(count: int, most: int) -> None:
    found, sizes = asyncio.run(answered(count, most))
    assert found == [2 * number for number in range(count)]
    assert sum(sizes) == count
    assert set(sizes) <= set(sizes_of_batches(most)), "another size is another program in memory"
    assert max(sizes) >= min(count - 1, most) // 2, "they were not answered together"


def test_warm_up_answers_every_size_of_batch(tmp_path: Path) -> None:
    engine = Engine(str(write_run(tmp_path / "run")))
    met: list[int] = []
    answers = engine.answers

    def counted(questions: Sequence[Question]) -> list[object]:
        met.append(len(questions))
        found = answers(questions)
        assert all(np.isfinite(answer.probabilities).all() for answer in found if answer.probabilities is not None)
        return list(found)

    engine.answers = counted  # type: ignore[assignment,method-assign]
    engine.warm_up(6)
    assert met == sizes_of_batches(6) == [6, 4, 2, 1]
