"""A model behind HTTP, in the shapes that clients of OpenAI and of TensorFlow Serving speak.

app.py         the routes; `build_app` puts everything below together
shapes.py      what is asked and answered, as pydantic models of OpenAI's API
chat.py        messages become one prompt
texts.py       a request for texts becomes jobs, and their events become an answer
events.py      answers piece by piece, and clients that leave
predict.py     the REST shape of TensorFlow Serving
batching.py    one thread, which takes jobs of many requests at once
writing.py     what that thread does with the model
limits.py      who may ask, how much, how long
errors.py      refusals in OpenAI's shape
metrics.py     what Prometheus reads
run.py         listening, and stopping without losing an answer
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

from tf_llm.apps.server.app import build_app
from tf_llm.apps.server.limits import Limits, find_key, list_hosts
from tf_llm.apps.server.listening import is_loopback, serve

__all__ = ["Limits", "build_app", "find_key", "is_loopback", "list_hosts", "serve"]
