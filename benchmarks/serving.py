"""How many images a second `msmae serve` answers: 64 clients on loopback, in batches and one image at a time.

    python benchmarks/serving.py RUN --seconds 60
    python benchmarks/serving.py RUN --seconds 400 --batch 32  # memory over many requests

Prints answers a second, p50 and p99 of the time to an answer, errors, and the server's memory before and after.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import io
import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np


def serve(run: str, batch: int, threads: int, connection: Connection) -> None:
    """A server that is given at most so many images at a time."""
    import torch

    from msmae.serve.app import make_app
    from msmae.serve.limits import Limits
    from msmae.serve.server import run_server

    torch.set_num_threads(threads)
    limits = dataclasses.replace(Limits(), batch=batch)
    run_server(make_app(run, limits=limits), host="127.0.0.1", port=0, limits=limits, ready=connection.send)


def request(size: tuple[int, int], port: int, *, map: bool) -> bytes:
    """One upload of a grey PNG as the bytes of an HTTP request."""
    from PIL import Image

    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, size, dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    head = b'--x\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
    body = head % (b"map", b"", b"true" if map else b"false")
    body += head % (b"files", b'; filename="a.png"', buffer.getvalue()) + b"--x--\r\n"
    start = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {len(body)}\r\n"
    return f"{start}Content-Type: multipart/form-data; boundary=x\r\n\r\n".encode() + body


async def client(port: int, content: bytes, until: float, times: list[float], errors: list[str]) -> None:
    """Ask again and again over one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.perf_counter() < until:
        started = time.perf_counter()
        writer.write(content)
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(length)
        if not head.startswith(b"HTTP/1.1 200"):
            errors.append(head[:40].decode())
        times.append(time.perf_counter() - started)
    writer.close()


async def load(port: int, clients: int, seconds: float, content: bytes) -> tuple[list[float], list[str]]:
    """All clients together."""
    times: list[float] = []
    errors: list[str] = []
    until = time.perf_counter() + seconds
    await asyncio.gather(*(client(port, content, until, times, errors) for _ in range(clients)))
    return times, errors


def processor(pid: int) -> float:
    """Processor seconds of a process and its decoders so far."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:  # it has ended
            continue
        if int(stat.parent.name) == pid or int(fields[1]) == pid:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> float:
    """Resident MB of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def main() -> None:
    """Measure both, in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 1], help="images the model is given at most")
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--map", action="store_true")
    chosen = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    rates: dict[int, list[float]] = {batch: [] for batch in chosen.batch}
    for batch in list(rates) * chosen.turns:
        here, there = context.Pipe()
        process = context.Process(target=serve, args=(chosen.run, batch, chosen.threads, there))
        process.start()
        port = here.recv()
        content = request((chosen.size, chosen.size), port, map=chosen.map)
        asyncio.run(load(port, chosen.clients, 2, content))  # warm
        before, spent = memory(process.pid or 0), processor(process.pid or 0)
        times, errors = asyncio.run(load(port, chosen.clients, chosen.seconds, content))
        after, spent = memory(process.pid or 0), processor(process.pid or 0) - spent
        process.terminate()
        process.join()
        rates[batch].append(len(times) / chosen.seconds)
        p50, p99 = (1000 * float(np.quantile(times, q)) for q in (0.5, 0.99))
        each = 1000 * spent / max(len(times), 1)
        print(f"batch {batch:2}: {rates[batch][-1]:.1f} images/s, p50 {p50:.0f} ms, p99 {p99:.0f} ms", end=", ")
        print(f"{each:.1f} processor ms an image, {len(times)} answers, {len(errors)} errors", end=", ")
        print(f"memory {before:.0f} -> {after:.0f} MB", flush=True)
    if len(rates) > 1:
        first, last = (np.median(rates[batch]) for batch in (chosen.batch[0], chosen.batch[-1]))
        print(f"batches give {first / last:.2f} times as many")


if __name__ == "__main__":
    main()
