"""Refusals and failures, as OpenAI's API words them: `{"error": {"message", "type", "param", "code"}}`.

Whatever is wrong with a request gets a status of 4xx. A 5xx says that the fault is on this side: 500 if the model
failed, 503 while the server stops or is too slow.

See https://platform.openai.com/docs/guides/error-codes
"""

import json
import logging

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

logger = logging.getLogger(__name__)

# Kinds of errors by status, for all that is not a matter of what stands in the request.
TYPES = {401: "authentication_error", 429: "rate_limit_error"}


class Json(JSONResponse):
    """JSON in ASCII: whatever characters a text holds, it can be sent."""

    def render(self, content):
        return json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")


class Refusal(HTTPException):
    """A request that gets no answer, and why.

    Args:
        status: of HTTP, 4xx or 5xx.
        message: what was expected, what was received, what to do.
        param: the field of the request that is to blame.
        code: one word for programs, for instance "context_length_exceeded".
        headers: of the response, for instance Retry-After.
    """

    def __init__(self, status, message, param=None, code=None, headers=None):
        super().__init__(status, message, headers)
        self.param, self.code = param, code


class ClientLeftError(Exception):
    """Nobody is there any more to be answered."""


def format_error(status, message, param=None, code=None):
    """The body of an error.

    >>> format_error(401, "Who is there?")["error"]["type"]
    'authentication_error'
    """
    kind = TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def describe_fault(fault):
    """(message, param) of one of pydantic's faults. param is a path into the JSON that was sent.

    >>> describe_fault({"type": "missing", "loc": ("body", "messages", 0, "role"), "msg": "Field required"})
    ('messages.0.role: Field required', 'messages.0.role')
    """
    place = ".".join(map(str, fault["loc"][1:]))
    param = ascii(place)[1:-1][:100] or None  # a field's name may be anything
    message = fault["msg"]
    if fault["type"] == "extra_forbidden":
        message = "this server knows no such field; leave it out"
    elif not place and fault["type"] in ("missing", "model_attributes_type"):
        message = "the body is expected to be a JSON object, with the header Content-Type: application/json"
    return f"{param}: {message}" if param else message, param


async def answer_refusal(request, error):
    """A `Refusal`, or what Starlette says itself: 404, 405."""
    body = format_error(error.status_code, error.detail, getattr(error, "param", None), getattr(error, "code", None))
    return Json(body, error.status_code, error.headers)


async def answer_fault(request, error):
    """A request that has not the shape it should have. Of several faults, one is told."""
    message, param = describe_fault(error.errors()[0])
    return Json(format_error(400, message, param), 400)


async def answer_failure(request, error):
    """Anything else is a fault of this server: logged with its traceback, of which the client is told nothing."""
    return Json(format_error(500, "the server failed to answer; its log says why"), 500)


async def answer_nobody(request, error):
    """A status that nobody reads but the metrics; nginx uses the same."""
    return Response(status_code=499)


HANDLERS = {
    ClientLeftError: answer_nobody,
    HTTPException: answer_refusal,
    RequestValidationError: answer_fault,
    Exception: answer_failure,
}
