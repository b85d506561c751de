"""Images of many requests, answered together: while the model is busy others wait, and are its next batch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def sizes_of_batches(most: int) -> list[int]:
    """Powers of two up to ``most``, and ``most``, largest first. The processor's library keeps a program for each size
    of batch that it has met, so there are few."""
    return sorted({most, *(2**power for power in range(most.bit_length()))}, reverse=True)


class Batches(Generic[Item, Answer]):
    """One thread that works on up to ``most`` items at a time, as many as wait or the next smaller of
    ``sizes_of_batches``. Nothing waits for a batch to fill."""

    def __init__(self, work: Callable[[Sequence[Item]], list[Answer]], *, most: int) -> None:
        self.work, self.allowed = work, sizes_of_batches(most)
        self.thread = ThreadPoolExecutor(1, "model")
        self.queue: asyncio.Queue[tuple[Item, asyncio.Future[Answer]]] = asyncio.Queue()
        self.runner: asyncio.Task[None] | None = None
        self.sizes: list[int] = [0, 0]  # batches, items
        """Batches worked on so far, and the items in them."""

    def start(self) -> None:
        """Begin to work, in the running event loop."""
        self.runner = asyncio.create_task(self.run())

    async def __call__(self, item: Item) -> Answer:
        """The answer to one item; an exception of its batch is raised here."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.queue.put_nowait((item, answer))
        return await answer

    async def run(self) -> None:
        """Take what waits, work on it, hand out the answers; for ever."""
        loop = asyncio.get_running_loop()
        while True:
            taken = [await self.queue.get()]
            size = next(size for size in self.allowed if size <= 1 + self.queue.qsize())
            taken += [self.queue.get_nowait() for _ in range(size - 1)]
            taken = [(item, answer) for item, answer in taken if not answer.cancelled()]
            if not taken:
                continue
            self.sizes[0] += 1
            self.sizes[1] += len(taken)
            try:
                answers = await loop.run_in_executor(self.thread, self.work, [item for item, _ in taken])
            except Exception as error:
                for _, answer in taken:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            for (_, answer), found in zip(taken, answers, strict=True):
                if not answer.done():
                    answer.set_result(found)

    async def close(self) -> None:
        """Stop, after the batch that is being worked on."""
        if self.runner is not None:
            self.runner.cancel()
        await asyncio.get_running_loop().run_in_executor(None, self.thread.shutdown)
