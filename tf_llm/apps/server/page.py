"""One page in the browser for the three applications: chatbot, search engine, assistant.

    serve(build_page(Applications(index=SearchIndex.open("runs/search"))))

The page (web/) is plain HTML, CSS and JavaScript, and asks nothing of any other address: it works without a network. It
shows the applications that there are. What they say is shown as text, whatever it looks like, and the browser is told
to run nothing but this server's files (Content Security Policy, https://www.w3.org/TR/CSP3/), should that ever fail.
"""

import contextlib
import dataclasses
import datetime
from collections.abc import Callable
from importlib import resources

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.responses import Response

from tf_llm.apps.assistant.assistant import Assistant
from tf_llm.apps.server.errors import HANDLERS
from tf_llm.apps.server.limits import LOOPBACK, Guard, Limits
from tf_llm.apps.server.page_routes import build_routes
from tf_llm.apps.server.sessions import MOST, Session, Sessions
from tf_llm.apps.server.talking import Worker

KINDS = {"css": "text/css", "html": "text/html", "js": "text/javascript"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; form-action 'none'; "
    "base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # pages that are found do not hear what was asked
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Assistance:
    """What the assistants of all sessions have in common; see `Assistant`."""

    understand: Callable
    toolbox: object
    search: Callable | None = None
    now: Callable = lambda: datetime.datetime.now().astimezone()
    list_due: Callable = list  # () -> texts of the reminders and timers whose time has come, each given once

    def begin(self):
        """An `Assistant` that was told nothing yet."""
        return Assistant(self.understand, self.toolbox, self.search, self.now)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Applications:
    """What the page has to show; None is not shown."""

    begin_chat: Callable | None = None  # () -> a `Chatbot` that was told nothing yet
    index: object | None = None  # a `SearchIndex`
    assistance: Assistance | None = None


class Page:
    """What the routes need: the applications, their threads, the sessions, the limits.

    Args:
        applications: `Applications`.
        limits: `Limits`, of which the page has use for body_bytes, body_seconds and seconds.
        most: sessions that are kept.
    """

    def __init__(self, applications, limits, most=MOST):
        self.applications, self.limits, self.closing = applications, limits, False
        self.chat, self.search, self.assistant = Worker("chatbot"), Worker("search", 2), Worker("assistant")
        self.sessions = Sessions(self._begin, most)
        self._bot = applications.begin_chat and applications.begin_chat()  # nobody talks to it: it says how bots are

    def _begin(self):
        begin_chat, assistance = self.applications.begin_chat, self.applications.assistance
        return Session(begin_chat and begin_chat(), assistance and assistance.begin())

    def describe(self):
        """Which applications there are."""
        bot, index, assistance = self._bot, self.applications.index, self.applications.assistance
        chat = bot and {
            "draws": bot.generate is not None,
            "temperature": bot.temperature,
            "seed": bot.seed,
            "can_look_up": bot.retrieve is not None,
            "looks_up": bot.retrieve is not None and bot.looks_up,
        }
        tools = assistance and [tool.name.replace("_", " ") for tool in assistance.toolbox]
        return {
            "chat": chat,
            "search": None if index is None else {"entries": len(index)},
            "assistant": assistance and {"tools": tools},
        }

    def close(self):
        """Accepts nothing more, and ends what is being said."""
        self.closing = True
        self.sessions.stop()
        for worker in (self.chat, self.search, self.assistant):
            worker.close()


class SafeHeaders:
    """Adds to every response what the browser has to know for the page to be safe. An ASGI application around one."""

    def __init__(self, app):
        self._app = app

    async def __call__(self, scope, receive, send):
        async def send_with_headers(message):
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)


def read_files():
    """{path: (bytes, media type)} of the page, read once: what a request names is looked up here, and nowhere else."""
    files = {}
    for file in resources.files("tf_llm.apps.server").joinpath("web").iterdir():
        kind = KINDS.get(file.name.rpartition(".")[2])
        if kind is not None:
            files[f"/web/{file.name}"] = (file.read_bytes(), kind)
    files["/"] = files.pop("/web/index.html")
    return files


def build_page(applications, *, limits=None, hosts=LOOPBACK, most_sessions=MOST):
    """The page and what it asks, for `listening.serve`.

    Args:
        applications: `Applications`; there has to be one.
        limits: `Limits`.
        hosts: see `limits.Guard`.
        most_sessions: see `Sessions`.

    Returns:
        A FastAPI application, whose `state.page` is the `Page`.

    Raises:
        ValueError: there is no application.
    """
    if applications == Applications():
        raise ValueError("applications are expected to be a chatbot, an index or an assistant. Received: none")
    page = Page(applications, limits or Limits(), most_sessions)

    @contextlib.asynccontextmanager
    async def live(app):
        yield
        page.close()

    app = FastAPI(
        title="tf_llm",
        lifespan=live,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers=HANDLERS,
    )
    app.state.page, app.state.limits, app.state.door = page, page.limits, page
    for path, (content, kind) in read_files().items():
        app.add_api_route(path, make_file_route(content, kind))
    app.include_router(build_routes(page))
    app.add_middleware(Guard, limits=page.limits, is_closing=lambda: page.closing, hosts=hosts)
    app.add_middleware(SafeHeaders)  # the outermost: refusals have them, too
    return app


def make_file_route(content, kind):
    """The route of a file. A browser asks for it each time, so that a page is never made of two versions."""

    async def send_file():
        return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})

    return send_file
