"""A trained model behind HTTP, for clients of OpenAI's API and of TensorFlow Serving's.

    pip install "tf_llm[serve]"
    python examples/serve.py --workdir=runs/article
    python examples/serve.py --model=google/flan-t5-small --name=flan-t5-small

Half a minute later, `listening at http://127.0.0.1:8000`; then, in another terminal,

    curl http://127.0.0.1:8000/v1/completions -H 'Content-Type: application/json' \\
        -d '{"model": "article", "prompt": "The transformer architecture", "max_tokens": 20}'

or in Python, with OpenAI's own client (`pip install openai`):

    client = openai.OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")
    client.completions.create(model="article", prompt="The transformer architecture", max_tokens=20).choices[0].text

Only this machine reaches it, unless --host names an address of it: then ask for a key, which stands in the environment
variable TF_LLM_API_KEY or in the file --api_key_file. Ctrl+C or SIGTERM ends it when all that it accepted is answered.
"""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow greets at length when it is imported
from absl import flags

import tf_llm
import tf_llm.flags

KEY = "TF_LLM_API_KEY"
WORKDIR = flags.DEFINE_string("workdir", "runs/article", "The folder of the run whose model is served.")
MODEL = flags.DEFINE_string("model", None, "A published T5 in its place: a folder, or a name on the Hugging Face hub.")
NAME = flags.DEFINE_string("name", None, "By which clients ask for the model; by default its folder's.")
HOST = flags.DEFINE_string("host", "127.0.0.1", "The address to listen at; 0.0.0.0 is every one of this machine.")
PORT = flags.DEFINE_integer("port", 8000, "The port; 0 takes a free one.", lower_bound=0, upper_bound=65535)
KEY_FILE = flags.DEFINE_string("api_key_file", None, f"A file with the key that clients send; or set {KEY}.")
ALLOW_HOST = flags.DEFINE_multi_string("allow_host", [], "Further names by which clients may call this server.")
MAX_BATCH = flags.DEFINE_integer("max_batch", 32, "Texts that are said together.", lower_bound=1, upper_bound=64)
MAX_WAIT = flags.DEFINE_float("max_wait_ms", 5.0, "How long the first waits for others.", lower_bound=0.0)
MAX_QUEUE = flags.DEFINE_integer("max_queue", 128, "Texts that may wait; more get a 429.", lower_bound=1)
SECONDS = flags.DEFINE_float("seconds", 60.0, "Time limit of a request.", lower_bound=0.1)
BODY_BYTES = flags.DEFINE_integer("body_bytes", 1 << 20, "Size limit of a request.", lower_bound=1)
WARM_UP = flags.DEFINE_bool("warm_up", True, "Compile for every size of batch first; else requests wait for it.")
JIT_COMPILE = flags.DEFINE_bool("jit_compile", False, "Compile with XLA: faster answers after minutes of warming up.")
NEW_TOKENS = flags.DEFINE_integer("new_tokens", 256, "Tokens of a text at most.", lower_bound=1)


def main():
    from tf_llm.apps.server.app import build_app  # says what to install where its packages are missing
    from tf_llm.apps.server.limits import Limits, find_key, list_hosts
    from tf_llm.apps.server.listening import is_loopback, serve

    key = find_key(KEY_FILE.value, os.environ.get(KEY))
    if MODEL.value:
        generate, origin = tf_llm.Generator.from_pretrained(MODEL.value, jit_compile=JIT_COMPILE.value), MODEL.value
    else:
        generate, origin = tf_llm.Generator.load(WORKDIR.value, JIT_COMPILE.value), WORKDIR.value
    name = NAME.value or Path(origin).resolve().name
    app = build_app(
        generate,
        name,
        key=key,
        warm=WARM_UP.value,
        hosts=list_hosts(HOST.value, ALLOW_HOST.value),
        limits=Limits(seconds=SECONDS.value, body_bytes=BODY_BYTES.value, new_tokens=NEW_TOKENS.value),
        max_batch=MAX_BATCH.value,
        max_wait=MAX_WAIT.value / 1000,
        max_queue=MAX_QUEUE.value,
    )
    if key is None and not is_loopback(HOST.value):
        print(
            f"warning: whoever reaches {HOST.value} may ask. Set {KEY} or --api_key_file to ask for a key", flush=True
        )
    serve(app, HOST.value, PORT.value, lambda address: print(f"{name} is listening at {address}", flush=True))


if __name__ == "__main__":
    tf_llm.flags.launch(main)
