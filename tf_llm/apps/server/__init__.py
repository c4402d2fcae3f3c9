"""A model behind HTTP, in the shapes that clients of OpenAI and of TensorFlow Serving speak.

app.py         the routes; `build_app` puts everything below together
shapes.py      what is asked and answered, as pydantic models of OpenAI's API
texts.py       a request for texts becomes rows, and what they say its answer;  words.py: in the words of either route
predict.py     the REST shape of TensorFlow Serving, and vectors
answers.py     what a request waits for: events of its jobs, the end of its time, a client that leaves
events.py      answers piece by piece
batching.py    one thread, which takes jobs of many requests at once
writing.py     what that thread does with the model
service.py     what all of these need: the model and its name, batches, limits
limits.py      who may ask, how much, how long
errors.py      refusals in OpenAI's shape
metrics.py     what Prometheus reads
listening.py   a port, and stopping without losing an answer

page.py         one page in the browser for chatbot, search and assistant: its files (web/), what protects it
page_routes.py  what the page asks;  page_shapes.py: checked, and what it is answered
sessions.py     who is talking;  talking.py: the threads in which the three work, and answers told while they are made

request ─ limits ─ app ─ texts ─ answers ══ batching ─ writing ─ model
                                   │    <══ events ═══╛
response ───────── words ──────────╯
"""

from tf_llm.contracts import UserError

try:
    import fastapi  # noqa: F401
    import prometheus_client  # noqa: F401
    import uvicorn  # noqa: F401
except ImportError as error:
    raise UserError(
        f'a server needs fastapi, uvicorn and prometheus-client. Received: {error}. pip install "tf_llm[serve]"'
    ) from error
