"""A line that shows how far a pass over images is."""

from __future__ import annotations

from rich.progress import Progress


class ProgressBar:
    """A callback (done, in all) that draws a bar; nothing is drawn where it is never called.

    In a ``with`` it ends where an error leaves it, so that the message stands below it.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.bar: Progress | None = None

    def __call__(self, done: int, total: int) -> None:
        if self.bar is None:
            self.bar = Progress()
            self.bar.add_task(self.title, total=total)
            self.bar.start()
        self.bar.update(self.bar.tasks[0].id, completed=done)
        if done >= total:
            self.stop()

    def stop(self) -> None:
        """Leave the bar as it is, and give the terminal back."""
        if self.bar is not None:
            self.bar.stop()

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
