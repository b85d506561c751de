"""Processes that decode uploads, one a core; one that dies or takes too long is replaced, and its file refused."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from msmae.serve.decode import Decoded, Task, serve_decoding
from msmae.serve.limits import Limits, Refused


class Decoder:
    """One process and the connection to it."""

    def __init__(self, folder: str, memory: int) -> None:
        self.folder, self.memory = folder, memory
        self.start()

    def start(self) -> None:
        """Start the process; it works in a folder of its own."""
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        self.connection: Connection = here
        self.place = tempfile.mkdtemp(dir=self.folder)
        arguments = (there, self.place, self.memory)
        self.process: BaseProcess = context.Process(target=serve_decoding, args=arguments, daemon=True)
        self.process.start()
        there.close()

    def stop(self) -> None:
        """Close the connection, end the process, and remove what it had not removed yet."""
        self.connection.close()
        self.process.kill()
        self.process.join()
        shutil.rmtree(self.place, ignore_errors=True)

    def __call__(self, content: bytes, named_dicom: bool, task: Task, pictures: bool, seconds: float) -> Decoded:
        """Raises Refused, with the reason."""
        try:
            self.connection.send((content, named_dicom, task, pictures))
            if not self.connection.poll(seconds):
                raise TimeoutError
            found = self.connection.recv()
        except TimeoutError:
            self.again()
            raise Refused(422, "unreadable", "reading the image takes longer than is allowed") from None
        except (EOFError, OSError):  # it died: of memory, or of a fault in a decoder
            self.again()
            raise Refused(422, "unreadable", "the image needs more memory than is allowed, or is damaged") from None
        if isinstance(found, str):
            raise Refused(422, "unreadable", found)
        assert isinstance(found, Decoded)
        return found

    def again(self) -> None:
        """A fresh process in place of this one."""
        self.stop()
        self.start()


class Decoders:
    """A few processes that take files in turn; used from the event loop."""

    def __init__(self, task: Task, limits: Limits, *, count: int | None = None) -> None:
        self.task, self.limits = task, limits
        self.folder = tempfile.mkdtemp(prefix="msmae-serve-")
        self.all = [Decoder(self.folder, limits.memory) for _ in range(count or os.cpu_count() or 1)]
        self.threads = ThreadPoolExecutor(len(self.all), "decoding")
        self.free: asyncio.LifoQueue[Decoder] = asyncio.LifoQueue()
        for decoder in self.all:
            self.free.put_nowait(decoder)

    async def __call__(self, content: bytes, *, name: str, pictures: bool) -> Decoded:
        """Decode one file; its name says only whether it may be DICOM without a preamble. Raises Refused."""
        named_dicom = name.lower().endswith((".dcm", ".dicom", ".ima"))
        decoder = await self.free.get()
        loop = asyncio.get_running_loop()
        job = loop.run_in_executor(
            self.threads, decoder, content, named_dicom, self.task, pictures, self.limits.decoding
        )
        job.add_done_callback(lambda _: self.free.put_nowait(decoder))  # also where the client has gone
        return await asyncio.shield(job)

    def close(self) -> None:
        """End all processes and remove what they wrote."""
        self.threads.shutdown(wait=False, cancel_futures=True)
        for decoder in self.all:
            decoder.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
