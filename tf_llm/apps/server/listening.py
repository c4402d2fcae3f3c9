"""A server that listens, until it is told to stop; then it answers what it has accepted, and ends with status 0.

SIGTERM or Ctrl+C stops it: new connections are refused, requests on open ones get a 503, and those that were accepted
are answered. A second one of these signals ends it at once.
"""

import ipaddress
import socket

import uvicorn

from tf_llm.contracts import UserError

GRACE = 15  # seconds beyond the time limit that the slowest client has for reading its answer


class Server(uvicorn.Server):
    """A uvicorn server that closes the door behind it before its own, and does not die of the signal it obeyed.

    Args:
        config: uvicorn's.
        door: its `close()` has nothing more accepted, such as a `Batcher`.
        ready: called without arguments, once the server listens.
    """

    def __init__(self, config, door, ready):
        super().__init__(config)
        self._door, self._ready = door, ready

    def handle_exit(self, sig, frame):
        self.force_exit = self.should_exit  # the second time
        self.should_exit = True

    async def startup(self, sockets=None):
        await super().startup(sockets)
        if self.started:
            self._ready()

    async def shutdown(self, sockets=None):
        self._door.close()
        await super().shutdown(sockets)


def is_loopback(host):
    """Whether only this machine can reach an address.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("::1"), is_loopback("0.0.0.0")
    (True, True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def bind(host, port):
    """A socket that is bound, but does not listen yet.

    Raises:
        UserError: the port is taken, or the address is none of this machine's.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise UserError(f"cannot listen at {host}, port {port}: {error}. Choose others, or stop what does") from error
    return listener


def serve(app, host="127.0.0.1", port=8000, ready=lambda address: None):
    """Serves an application of `app.build_app` or `page.build_page` until the process is told to stop.

    Args:
        app: what one of them returned.
        host: 127.0.0.1 is this machine alone. Any other address is open to whoever reaches it: give `build_app` a key.
        port: 0 takes a free one.
        ready: called with the address, once the server listens.

    Raises:
        UserError: see `bind`.
    """
    listener = bind(host, port)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_keep_alive=30,
        timeout_graceful_shutdown=round(app.state.limits.seconds) + GRACE,
    )
    name = f"[{host}]" if ":" in host else host
    address = f"http://{name}:{listener.getsockname()[1]}"
    Server(config, app.state.door, lambda: ready(address)).run(sockets=[listener])
