"""Running the app: one process, one event loop; it ends cleanly when it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from msmae.errors import UserError
from msmae.serve.limits import Limits

if TYPE_CHECKING:
    from fastapi import FastAPI

FILES = 65_536  # connections that may be open at a time, as far as the system allows


class Server(uvicorn.Server):
    """uvicorn's server, which ends of its own accord at Ctrl-C and SIGTERM: that is how serving is done."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop accepting, finish what was begun, return."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)


def impatient(silence: float) -> type[H11Protocol]:
    """uvicorn's protocol, which also closes connections that do not begin a request in time."""

    class Impatient(H11Protocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.watch()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self.watch()

        def watch(self) -> None:
            answered = self.cycle
            self.loop.call_later(silence, self.close_if_idle, answered)

        def close_if_idle(self, answered: Any) -> None:
            if self.cycle is answered and not self.transport.is_closing():
                self.transport.close()

    return Impatient


def run_server(
    app: FastAPI, *, host: str, port: int, limits: Limits, ready: Callable[[int], None] | None = None
) -> None:
    """Serve until Ctrl-C or SIGTERM. ``ready`` is called with the port once requests are accepted.

    Raises:
        UserError: the address cannot be had.
    """
    import socket

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    logging.getLogger("msmae.serve").setLevel(logging.INFO)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except (OSError, OverflowError) as error:
        listening.close()
        reason = error.strerror if isinstance(error, OSError) else "no such port"
        raise UserError(
            f"nothing can be served there ({reason})", where=f"{host}:{port}", mend="choose another --port or --host"
        ) from None
    config = uvicorn.Config(
        app,
        http=impatient(limits.silence),
        ws="none",
        loop="asyncio",
        lifespan="on",
        access_log=False,
        log_level="error",
        server_header=False,
        timeout_keep_alive=int(limits.silence),
        timeout_graceful_shutdown=10,
        backlog=2048,
    )
    server = Server(config)

    async def serve() -> None:
        task = asyncio.create_task(server.serve([listening]))
        while not server.started and not task.done():
            await asyncio.sleep(0.02)
        if ready is not None and server.started:
            ready(listening.getsockname()[1])
        await task

    try:
        asyncio.run(serve())
    finally:
        listening.close()
