"""A server under load: sixty-four clients at once against one, and against more than its queue holds.

    python examples/benchmarks/serving_load.py             64 clients for 60 s, about 2 minutes in all
    python examples/benchmarks/serving_load.py --quick     for 5 s, about 45 seconds in all

`examples/serve.py` serves, in a process of its own, a model of random weights that is made for it (2 + 2 layers,
d_model 128, characters, 64 → up to 64 tokens, float32). The clients are threads of another process, this one, which
does nothing else: each asks for a completion of up to 32 tokens, reads the answer, and asks again, on one connection.

One client asks alone, then sixty-four together, then one alone again; then, with a queue of 64, two hundred. What is
printed is what the clients see: answers, tokens by the `usage` that they are told, latency from the request to the end
of the answer, refusals (429) and errors, which is everything else. At last the server is told to stop (SIGTERM).

The goal: sixty-four clients get 3 times the tokens per second of one, through batching; no errors; exit status 0.
"""

import http.client
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_bool("quick", False, "5 s in place of 60")
flags.DEFINE_string("data", None, "Not needed: the model is made.")

GOAL = 3.0
QUICK_GOAL = 2.0  # of a few seconds, on a machine that does other things, too
CLIENTS, CROWD, QUEUE = 64, 200, 64
MODEL = {"num_layers": 2, "d_model": 128, "d_ff": 512, "num_heads": 4}
ASKED = {"model": "made", "prompt": "the cat sat on the", "max_tokens": 32, "temperature": 1.0}


class Seen:
    """What clients saw in a while."""

    def __init__(self, clients):
        self.clients, self.tokens, self.refused = clients, 0, 0
        self.latencies, self.errors, self.seconds = [], [], 0.0

    @property
    def tokens_per_second(self):
        return self.tokens / self.seconds

    def print(self):
        p50, *_, p95 = statistics.quantiles(self.latencies, n=20)[9:]
        answers = len(self.latencies)
        print(
            f"{self.clients:>7} {self.seconds:>8.1f} {answers:>8,} {answers / self.seconds:>8.1f} "
            f"{self.tokens_per_second:>9,.0f} {1000 * p50:>8.0f} {1000 * p95:>8.0f} "
            f"{self.refused:>6,} {len(self.errors):>7,}",
            flush=True,
        )


def ask(port, seconds, clients):
    """So many clients, each asking again and again: a `Seen`."""
    seen, begin = Seen(clients), time.perf_counter()

    def ask_on(number):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        count = 0
        while time.perf_counter() < begin + seconds:
            count += 1
            body = json.dumps({**ASKED, "seed": 10**6 * number + count})
            asked = time.perf_counter()
            try:
                connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                answer = json.loads(response.read())
                if response.status == 200:
                    seen.latencies.append(time.perf_counter() - asked)
                    seen.tokens += answer["usage"]["completion_tokens"]
                elif response.status == 429 and int(response.headers["Retry-After"]) >= 1:
                    seen.refused += 1
                    time.sleep(0.1)  # ruder than what it was told
                else:
                    seen.errors.append(answer)
            except (OSError, http.client.HTTPException, ValueError) as error:
                seen.errors.append(repr(error))
                connection.close()

    threads = [threading.Thread(target=ask_on, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen.seconds = time.perf_counter() - begin
    seen.print()
    return seen


def main(_):
    seconds, goal = (5, QUICK_GOAL) if FLAGS.quick else (60, GOAL)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder) / ASKED["model"]
        server_process.make_run(folder, **MODEL)
        server = server_process.ServerProcess(folder, f"--max_batch={CLIENTS}", f"--max_queue={QUEUE}")
        port = server.port
        try:
            for clients in (1, CLIENTS):  # what is compiled or cached from here on is
                ask(port, 2, clients)
            print(
                f"server: process {server.process.pid}, batches of up to {CLIENTS}, queue of {QUEUE}\n"
                f"model: 2 + 2 layers, d_model 128, random weights\n"
                f"clients: threads of process {os.getpid()}, {ASKED}\n"
            )
            print("clients  seconds  answers      1/s  tokens/s   p50 ms   p95 ms    429  errors")
            alone = [ask(port, max(3, seconds / 4), 1)]
            together = ask(port, seconds, CLIENTS)
            alone.append(ask(port, max(3, seconds / 4), 1))
            crowd = ask(port, max(3, seconds / 6), CROWD)
            status, _ = server.stop()
        finally:
            server.kill()
    errors = [error for seen in (*alone, together, crowd) for error in seen.errors]
    value = together.tokens_per_second / statistics.mean(seen.tokens_per_second for seen in alone)
    print(f"\n{value:.1f} times the tokens per second of one client; exit status {status} behind SIGTERM")
    for error in errors[:5]:
        print(error)
    holds = value >= goal and not errors and not together.refused and status == 0
    figure = {"name": "serving_load", "value": round(value, 2), "goal": goal, "unit": "x", "holds": holds}
    figure |= {"p50_ms": round(1000 * statistics.median(together.latencies)), "errors": len(errors)}
    print(json.dumps(figure))
    return 0 if holds else 1


if __name__ == "__main__":
    tests = Path(__file__).resolve().parents[2] / "tests"
    sys.path.insert(0, str(tests))
    try:
        import fastapi  # noqa: F401
        import server_process
    except ImportError as error:
        print(f'needs the extra and the tests of the repository: pip install "tf_llm[serve]". Received: {error}')
        sys.exit(2)
    app.run(main)
