"""Who may ask, how much at once, and how long it may take. What is refused here has cost next to nothing.

`Guard` stands in front of the routes, as an ASGI application around another (https://asgi.readthedocs.io). It reads the
body of a request before anything else does, so that a body that is too large, or never ends, is known in one place.
"""

import asyncio
import dataclasses
import hmac
from pathlib import Path

from tf_llm.apps.server.errors import Refusal, answer_refusal
from tf_llm.contracts import UserError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
OPEN = ("/health",)  # paths for which nobody needs a key: what watches over the server asks for them
ALWAYS = ("/health", "/metrics")  # these are answered while the server stops


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request may ask for."""

    body_bytes: int = 1 << 20  # of its JSON
    body_seconds: float = 10.0  # until that has arrived
    seconds: float = 60.0  # for its answer; texts that are not finished then are given as far as they are
    prompt_tokens: int | None = None  # of each prompt; None: what the model reads
    new_tokens: int = 256  # of each text
    rows: int = 32  # texts: prompts × n
    inputs: int = 128  # texts to embed

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None and not value > 0:
                raise ValueError(f"{field.name} is expected to be above 0. Received: {value}")


def find_key(path=None, value=None):
    """The API key, or None where there is none.

    Neither comes from a command line, where other users of the machine would see it.

    Args:
        path: of a file whose first line it is.
        value: what stands in the environment, for which the file is passed over.

    Raises:
        UserError: the file cannot be read, or the key is none: shorter than 16 characters, or not printable ASCII.
    """
    if value is None and path is None:
        return None
    if value is None:
        try:
            value = Path(path).read_text(encoding="utf-8").partition("\n")[0].strip()
        except (OSError, UnicodeError) as error:
            raise UserError(f"cannot read the API key in {path}: {error}. Write it there, in one line") from error
    if len(value) < 16 or not (value.isascii() and value.isprintable()) or " " in value:
        raise UserError(
            f"an API key is expected to be at least 16 printable ASCII characters. Received: {len(value)} characters. "
            "Make one: python -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    return value


def list_hosts(host, more=()):
    """The names by which a server may be called that listens at `host`, and at those of `more`; None: by any.

    >>> list_hosts("127.0.0.1", ["model.example"]), list_hosts("0.0.0.0")
    (('127.0.0.1', 'localhost', '::1', 'model.example'), None)
    """
    return (*LOOPBACK, *more) if host in LOOPBACK or more else None


class Guard:
    """Lets through what is in order.

    Args:
        app: the ASGI application behind it.
        limits: `Limits`.
        is_closing: () -> whether the server accepts nothing more.
        key: the API key, or None where anybody may ask.
        hosts: names by which the server may be called, without ports; None: any. A page of the web whose name was
            pointed at 127.0.0.1 (DNS rebinding) could talk to a server here as if it were its own, but for the Host
            header, in which its name stands.
    """

    def __init__(self, app, limits, is_closing, key=None, hosts=None):
        self._app, self._limits, self._is_closing = app, limits, is_closing
        self._key = key.encode() if key else None
        self._hosts = None if hosts is None else {host.lower().strip("[]") for host in hosts}

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        try:
            self._check(scope["path"], dict(scope["headers"]))
            body = await self._read(receive, dict(scope["headers"]))
        except Refusal as refusal:
            refusal.headers = {"Connection": "close", **(refusal.headers or {})}  # of the body, nothing more is read
            response = await answer_refusal(None, refusal)
            return await response(scope, receive, send)
        except asyncio.IncompleteReadError:
            return None  # the client left; there is nobody to answer
        return await self._app(scope, replay(body, receive), send)

    def _check(self, path, headers):
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        if self._hosts is not None and name and name not in self._hosts:
            raise Refusal(
                403,
                f"Host is expected to be one of {', '.join(sorted(self._hosts))}. Received: {ascii(name)[:100]}. "
                "Start the server with --allow_host for other names",
            )
        if self._key and path not in OPEN:
            scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
            # Compared in a time that does not tell how much of it is right.
            if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self._key):
                raise Refusal(
                    401,
                    "expected the API key of this server in the header Authorization: Bearer KEY. "
                    f"Received: {'another one' if given else 'none'}",
                    code="invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )
        if path not in ALWAYS and self._is_closing():
            raise refuse_closing()

    async def _read(self, receive, headers):
        """The body. One that is too large is read on for a while, or its sender would not read why it is refused."""
        limit = self._limits.body_bytes
        length = headers.get(b"content-length", b"0")
        body, received = [], 0
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                more = not (length.isdigit() and int(length) > 8 * limit)
                received = 0 if more else int(length)
                while more and received <= 8 * limit:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise asyncio.IncompleteReadError(b"", None)
                    chunk, more = message.get("body", b""), message.get("more_body", False)
                    received += len(chunk)
                    if received <= limit:
                        body.append(chunk)
        except TimeoutError:
            raise Refusal(
                408, f"the body is expected within {self._limits.body_seconds:g} s. Received: {received:,} bytes so far"
            ) from None
        if received > limit:
            raise Refusal(413, f"the body is expected to have at most {limit:,} bytes. Received: more. Ask for less")
        return b"".join(body)


def refuse_closing():
    """What is said while the server stops."""
    return Refusal(
        503, "the server is stopping and accepts nothing more", code="stopping", headers={"Retry-After": "5"}
    )


def replay(body, receive):
    """A `receive` that gives a body that was read already, and then what else happens."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again():
        return messages.pop() if messages else await receive()

    return receive_again
