"""What the page in the browser asks of the three applications, each of which may be there or not.

    GET  /apps                  which applications there are, and what was said in this session
    POST /apps/session          begins a session, whose id the page sends in the header X-Session from then on
    POST /apps/chat/…           ask and retry, answered by events {"kind", "text"}; stop, clear
    POST /apps/search           hits, facets, another spelling
    POST /apps/assistant/…      ask, confirm, cancel, answered by a reply;  due: reminders whose time has come

A page of another site could have a browser send requests here. So what may change something is taken only from a page
of this server, which the browser's header Origin says, and as JSON, which other sites may not send unasked.
"""

import asyncio

from fastapi import APIRouter, Depends, Request

from tf_llm.apps.assistant.tools import MissingSlotError, ToolError
from tf_llm.apps.server import page_shapes as shapes
from tf_llm.apps.server.app import StrictRoute
from tf_llm.apps.server.errors import Json, Refusal
from tf_llm.apps.server.events import EventStream
from tf_llm.apps.server.talking import Talk

SESSION = "x-session"


async def check_sender(request: Request):
    """Lets through what a page of this server sent.

    Raises:
        Refusal: 403, it comes from elsewhere; 415, it is no JSON.
    """
    origin, host = request.headers.get("origin", ""), request.headers.get("host", "")
    if origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}"):
        raise Refusal(
            403,
            f"Origin is expected to be this server, http://{ascii(host)[1:-1][:100]}. "
            f"Received: {ascii(origin)[:100]}. Ask from its own page",
        )
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal(415, f"Content-Type is expected to be application/json. Received: {ascii(kind)[:100]}")


def build_routes(page):
    """The routes, as a router of FastAPI.

    Args:
        page: a `page.Page`.
    """
    router = APIRouter(route_class=StrictRoute)

    def post(path):
        return router.post(path, dependencies=[Depends(check_sender)])

    @router.get("/apps")
    async def describe(request: Request):
        session = page.sessions.find(request.headers.get(SESSION, ""))
        return Json(page.describe() | {"turns": list_turns(session)})

    @post("/apps/session")
    async def begin(asked: shapes.Nothing):
        return Json({"id": page.sessions.begin()})

    if page.applications.begin_chat is not None:
        add_chat(page, post)
    if page.applications.index is not None:
        add_search(page, post)
    if page.applications.assistance is not None:
        add_assistant(page, post)
    return router


def find_session(page, request):
    """The session that a request belongs to.

    Raises:
        Refusal: 404, there is none, or none any more.
    """
    session = page.sessions.find(request.headers.get(SESSION, ""))
    if session is None:
        raise Refusal(
            404,
            "X-Session is expected to be the id of a session. Received: another one. Begin one: POST /apps/session",
            code="no_session",
        )
    return session


def list_turns(session):
    """What was said to a chatbot in a session, for a page that was loaded anew."""
    turns = session.chatbot.turns if session is not None and session.chatbot is not None else []
    return [{"question": turn.question, "answer": turn.answer, "address": turn.address} for turn in list(turns)]


# === Chatbot ===


def add_chat(page, post):
    """The routes of the chatbot."""

    def talk(request, asked, act):
        """The response to a question: the events of `act(bot)`, as they come."""
        session = find_session(page, request)
        if session.is_busy:
            raise Refusal(
                409, "an answer is expected to end before the next one. Received: a question before. Stop it first"
            )
        bot = session.chatbot
        for name in ("temperature", "seed", "looks_up"):
            if getattr(asked, name) is not None:
                setattr(bot, name, getattr(asked, name))
        session.talk = Talk(page.chat, bot, lambda: act(bot), page.limits.seconds)
        return EventStream(session.talk, aiter(session.talk), page.limits.seconds)

    @post("/apps/chat/ask")
    async def ask(asked: shapes.Question, request: Request):
        return talk(request, asked, lambda bot: bot.ask(asked.text))

    @post("/apps/chat/retry")
    async def retry(asked: shapes.Draw, request: Request):
        return talk(request, asked, lambda bot: bot.retry())

    @post("/apps/chat/stop")
    async def stop(asked: shapes.Nothing, request: Request):
        return Json({"stopped": find_session(page, request).stop()})

    @post("/apps/chat/clear")
    async def clear(asked: shapes.Nothing, request: Request):
        session = find_session(page, request)
        session.stop()
        session.chatbot = page.applications.begin_chat()  # the old one may need a moment to stop
        session.talk = None
        return Json({"cleared": True})


# === Search ===


def add_search(page, post):
    """The route of the search engine."""

    @post("/apps/search")
    async def search(asked: shapes.SearchRequest):
        return Json(await page.search.run(page.limits.seconds, find, page.applications.index, asked))


def find(index, asked):
    """What an index has for a `SearchRequest`.

    The values of a field that is filtered by are counted as if it were not: they say what else could be chosen.
    """
    filters = asked.list_filters()
    results = index.search(asked.query, filters, asked.count, asked.begin)
    facets = dict(results.facets)
    for name in filters:
        others = {each: wanted for each, wanted in filters.items() if each != name}
        wider = index.search(asked.query, others, count=0).facets
        facets |= {name: wider[name]} if name in wider else {}
    return {
        "hits": [shapes.describe_hit(hit) for hit in results.hits],
        "facets": [shapes.describe_facet(name, facet) for name, facet in facets.items()],
        "suggestion": results.suggestion,
        "total": results.total,
    }


# === Assistant ===


def add_assistant(page, post):
    """The routes of the assistant."""
    assistance = page.applications.assistance

    async def answer(request, act):
        session = find_session(page, request)
        reply = await page.assistant.run(page.limits.seconds, act, session.assistant)
        return Json(shapes.describe_reply(reply, can_confirm(assistance, reply)))

    @post("/apps/assistant/ask")
    async def ask(asked: shapes.Said, request: Request):
        return await answer(request, lambda assistant: assistant.ask(asked.text))

    @post("/apps/assistant/confirm")
    async def confirm(asked: shapes.Pending, request: Request):
        return await answer(request, lambda assistant: assistant.confirm(asked.pending))

    @post("/apps/assistant/cancel")
    async def cancel(asked: shapes.Pending, request: Request):
        return await answer(request, lambda assistant: assistant.cancel(asked.pending))

    @post("/apps/assistant/due")
    async def due(asked: shapes.Nothing):
        """What has to be told now; each is told once, to whoever asks first."""
        return Json({"due": await asyncio.to_thread(assistance.list_due)})


def can_confirm(assistance, reply):
    """Whether a reply asks for a yes; what asks for words, to fill a slot, cannot be done yet."""
    if reply.pending is None:
        return False
    try:
        assistance.toolbox.prepare(reply.call, assistance.now())
    except MissingSlotError:
        return False
    except ToolError:  # a search, which is no tool
        return True
    return True
