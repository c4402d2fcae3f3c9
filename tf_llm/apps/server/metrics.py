"""What Prometheus reads at /metrics: how much is asked, how long it takes, how full the batches are.

See https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The figures of one server, in a registry of their own, so that two servers in a process do not mix them.

    Args:
        waiting, running: () -> jobs in the queue, and in the batch that is being run.
    """

    def __init__(self, waiting, running):
        self.registry = CollectorRegistry()
        settings = {"namespace": "tf_llm", "registry": self.registry}
        self.requests = Counter("requests", "Requests by route and status.", ["route", "status"], **settings)
        self.seconds = Histogram(
            "request_seconds", "From a request to the end of its answer.", ["route"], buckets=SECONDS, **settings
        )
        self.first = Histogram(
            "first_piece_seconds", "From a request to the first piece of its text.", buckets=SECONDS, **settings
        )
        self.prompt_tokens = Counter("prompt_tokens", "Tokens that were read.", **settings)
        self.new_tokens = Counter("new_tokens", "Tokens that were said.", **settings)
        self.left = Counter("clients_left", "Requests whose client left before the end.", **settings)
        self.expired = Counter("requests_expired", "Requests whose time was up.", **settings)
        self.batch_rows = Histogram("batch_rows", "Jobs that were run together.", ["kind"], buckets=ROWS, **settings)
        self.batch_seconds = Histogram("batch_seconds", "What a batch took.", ["kind"], buckets=SECONDS, **settings)
        Gauge("queue_rows", "Jobs that wait.", **settings).set_function(waiting)
        Gauge("running_rows", "Jobs of the batch that is being run.", **settings).set_function(running)

    def observe_batch(self, kind, rows, seconds):
        """Called by the batcher behind every batch."""
        self.batch_rows.labels(kind).observe(rows)
        self.batch_seconds.labels(kind).observe(seconds)

    def render(self):
        """All of them, in Prometheus's text format, as bytes."""
        return generate_latest(self.registry)


class Meter:
    """Counts what an ASGI application answers, by route: paths that are none are one, or anybody could make many."""

    def __init__(self, app, metrics):
        self._app, self._metrics = app, metrics

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        begin, statuses = time.monotonic(), []

        async def send_and_note(message):
            if message["type"] == "http.response.start":
                statuses.append(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.requests.labels(route, statuses[0] if statuses else "left").inc()
            self._metrics.seconds.labels(route).observe(time.monotonic() - begin)
