"""What the server counts, in the text format of Prometheus: numbers only, no names."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counters since the start; touched by the event loop alone."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.images = 0
        self.in_flight = 0
        self.buckets = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count an answered request; ``path`` is one of the server's own, or "other"."""
        self.requests[path, status] += 1
        if path == "/predict":
            self.buckets[bisect_left(BUCKETS, seconds)] += 1
            self.seconds += seconds

    def text(self, batches: tuple[int, int]) -> str:
        """All of it; ``batches``: how many the model was given, and the images in them."""
        lines = [
            "# HELP msmae_requests_total Requests answered.",
            "# TYPE msmae_requests_total counter",
            *(
                f'msmae_requests_total{{path="{path}",status="{status}"}} {count}'
                for (path, status), count in sorted(self.requests.items())
            ),
            "# HELP msmae_images_total Images answered.",
            "# TYPE msmae_images_total counter",
            f"msmae_images_total {self.images}",
            "# HELP msmae_batches_total Batches that the model was given.",
            "# TYPE msmae_batches_total counter",
            f"msmae_batches_total {batches[0]}",
            "# HELP msmae_batched_images_total Images in those batches.",
            "# TYPE msmae_batched_images_total counter",
            f"msmae_batched_images_total {batches[1]}",
            "# HELP msmae_in_flight Requests being received or answered.",
            "# TYPE msmae_in_flight gauge",
            f"msmae_in_flight {self.in_flight}",
            "# HELP msmae_predict_seconds From the first byte of a request to the last of its answer.",
            "# TYPE msmae_predict_seconds histogram",
        ]
        total = 0
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), self.buckets, strict=True):
            total += count
            lines.append(f'msmae_predict_seconds_bucket{{le="{bound}"}} {total}')
        return "\n".join(
            [*lines, f"msmae_predict_seconds_sum {self.seconds:.6f}", f"msmae_predict_seconds_count {total}\n"]
        )
