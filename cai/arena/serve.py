"""The arena's server: on this machine alone, or behind a password."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import fastapi
import gradio as gr
import uvicorn

from cai.arena import markup
from cai.arena.choosing import name_of
from cai.arena.place import Place
from cai.errors import UserError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; "
    "connect-src 'self'; object-src 'none'; base-uri 'self'; form-action 'self'; "
    "frame-ancestors 'none'"
)
"""What the page may load: nothing from anywhere else, whatever a text in it says."""


class Guarded:
    """Adds headers to every answer that keep hostile text from reaching anybody else."""

    def __init__(self, app: App) -> None:
        """Stand before an application."""
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = {
                    b"content-security-policy": POLICY.encode(),
                    b"referrer-policy": b"no-referrer",
                    b"x-content-type-options": b"nosniff",
                }
                message["headers"] = [*message.get("headers", []), *headers.items()]
            await send(message)

        await self.app(scope, receive, answer)


def server_of(blocks: gr.Blocks, place: Place) -> uvicorn.Server:
    """Make the server of a page; ``run(sockets=[...])`` serves until Ctrl-C."""

    def known(name: str, password: str) -> bool:
        try:
            name_of(name)
        except UserError:
            return False
        return hmac.compare_digest(password.encode(), (place.password or "").encode())

    blocks.queue(default_concurrency_limit=None)
    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guarded)
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        server_name=place.host,
        server_port=place.port,
        auth=known if place.password else None,
        auth_message="Your name, and the password that you were given.",
        theme=gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
        css=markup.asset("style.css"),
        head=f"<script>{markup.asset('keys.js')}</script>",
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        show_error=False,
        ssr_mode=False,
        pwa=False,
    )
    # A page that is open keeps a connection, which nobody waits for.
    options = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    return uvicorn.Server(options)


def _is_news(record: logging.LogRecord) -> bool:
    """Tell whether a line of the log is more than that open pages were let go at the end."""
    error = record.exc_info[1] if record.exc_info else None
    told = "graceful shutdown" in record.getMessage()
    return not (told or isinstance(error, asyncio.CancelledError))
