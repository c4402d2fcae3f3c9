"""Answers piece by piece, as server-sent events: lines `data: JSON`, an empty line behind each, at last `data: [DONE]`.

See https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import asyncio
import json

from starlette.responses import Response

from tf_llm.apps.server.answers import watch_client
from tf_llm.apps.server.errors import ClientLeftError, Refusal, answer_refusal, format_error

SLOW = 10.0  # seconds beyond the time limit after which a client that does not read is left


def format_event(content):
    """One event, in ASCII.

    >>> format_event({"text": "é"})
    b'data: {"text":"\\\\u00e9"}\\n\\n'
    """
    return b"data: " + json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii") + b"\n\n"


class EventStream(Response):
    """Sends chunks as they come, and has their jobs forgotten when the client leaves.

    It begins with the first chunk, so that what is refused before is refused with its own status.

    Args:
        answers: the `Answers` that the chunks are made of.
        chunks: an asynchronous iterator of what becomes JSON; it may raise `Refusal` and `ClientLeftError`.
        seconds: the time limit of the answers.
    """

    media_type = "text/event-stream"

    def __init__(self, answers, chunks, seconds):
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._answers, self._chunks, self._seconds = answers, chunks, seconds

    async def __call__(self, scope, receive, send):
        async def write(body, more=True):
            await send({"type": "http.response.body", "body": body, "more_body": more})

        begun = False
        try:
            async with asyncio.timeout(self._seconds + SLOW), watch_client(receive, self._answers):
                async for chunk in self._chunks:
                    if not begun:
                        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                        begun = True
                    await write(format_event(chunk))
                await write(b"data: [DONE]\n\n")
        except ClientLeftError:
            return
        except Refusal as refusal:
            if not begun:
                return await (await answer_refusal(None, refusal))(scope, receive, send)
            await write(format_event(format_error(refusal.status_code, refusal.detail)))
        await write(b"", more=False)
