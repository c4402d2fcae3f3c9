"""The routes of the server. What is asked and answered has the shape of OpenAI's API, but for three routes:
`:predict`, which has that of TensorFlow Serving, `/health` and `/metrics`.

`build_app` makes an application of FastAPI (https://fastapi.tiangolo.com), which checks every body against its shape
and describes itself at /openapi.json. Its pages of documentation are switched off: they load scripts from elsewhere.
"""

import base64
import contextlib

import pydantic_core
from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from tf_llm.apps.server import shapes
from tf_llm.apps.server.errors import HANDLERS, Json, Refusal
from tf_llm.apps.server.events import EventStream
from tf_llm.apps.server.limits import LOOPBACK, Guard
from tf_llm.apps.server.metrics import CONTENT_TYPE, Meter
from tf_llm.apps.server.predict import STATUS, embed, predict
from tf_llm.apps.server.service import Service
from tf_llm.apps.server.texts import answer, plan_rows
from tf_llm.apps.server.words import ChatWords, CompletionWords

COMPLETION_TOKENS = 16  # where a completion does not say how many it wants, as at OpenAI's
ERRORS = {status: {"model": shapes.ErrorBody} for status in ("4XX", 500, 503)}


class StrictRequest(Request):
    """JSON without NaN, lone surrogates, or depths in which a parser drowns."""

    async def json(self):
        try:
            return pydantic_core.from_json(await self.body(), allow_inf_nan=False)
        except ValueError as error:
            raise Refusal(400, f"the body is expected to be JSON in UTF-8. Received: {error}") from error


class StrictRoute(APIRoute):
    """A route that reads its body by `StrictRequest`."""

    def get_route_handler(self):
        handle = super().get_route_handler()

        async def handle_strictly(request):
            return await handle(StrictRequest(request.scope, request.receive))

        return handle_strictly


def build_app(generate, name, key=None, hosts=LOOPBACK, warm=True, **settings):
    """The server's application, for `listening.serve`.

    Args:
        generate: a `decoding.generator.Generator`.
        name: by which clients ask for the model.
        key: the API key that is asked of clients; None asks for none.
        hosts: see `limits.Guard`.
        warm: whether to compile what requests need before the first one is accepted.
        settings: see `Service`.

    Returns:
        A FastAPI application, whose `state.service` is the `Service`.
    """
    service = Service(generate, name, **settings)

    @contextlib.asynccontextmanager
    async def live(app):
        if warm:
            service.warm_up()
        service.batcher.start()
        yield
        service.batcher.close()
        service.batcher.join()

    app = FastAPI(
        title="tf_llm",
        version="1",
        lifespan=live,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers=HANDLERS,
        responses=ERRORS,
    )
    app.router.route_class = StrictRoute
    app.state.service, app.state.limits, app.state.door = service, service.limits, service.batcher
    add_routes(app, service)
    name_model(app, service.name)
    app.add_middleware(Guard, limits=service.limits, is_closing=lambda: service.batcher.closing, key=key, hosts=hosts)
    app.add_middleware(Meter, metrics=service.metrics)  # the outermost: it counts refusals, too
    return app


def add_routes(app, service):
    """Everything that a client can ask a `Service`."""

    @app.post("/v1/completions", responses=describe(shapes.Completion, streams=True))
    async def complete(asked: shapes.CompletionRequest, request: Request):
        service.check_model(asked.model)
        prompts, counts = await service.read_texts(asked.prompt, "prompt")
        words = CompletionWords(service, asked, prompts)
        rows = plan_rows(service, asked, prompts, asked.stops, asked.max_tokens or COMPLETION_TOKENS, words)
        return await answer(service, request, asked, rows, sum(counts), words)

    @app.post("/v1/chat/completions", responses=describe(shapes.ChatCompletion, streams=True))
    async def chat(asked: shapes.ChatRequest, request: Request):
        service.check_model(asked.model)
        prompt, stops = service.build_prompt([(message.role, message.text) for message in asked.messages])
        prompts, counts = await service.read_texts(prompt, "messages")
        max_tokens = asked.max_completion_tokens or asked.max_tokens or service.limits.new_tokens
        words = ChatWords(service, asked)
        rows = plan_rows(service, asked, prompts, (*asked.stops, *stops), max_tokens, words)
        return await answer(service, request, asked, rows, sum(counts), words)

    @app.post("/v1/embeddings", responses=describe(shapes.Embeddings))
    async def embeddings(asked: shapes.EmbeddingRequest, request: Request):
        service.check_model(asked.model)
        texts, counts = await service.read_texts(asked.input, "input")
        vectors = await embed(service, request, texts, sum(counts))
        if asked.dimensions not in (None, len(vectors[0])):
            raise Refusal(
                400,
                f"dimensions is expected to be {len(vectors[0])}, the width of this model. "
                f"Received: {asked.dimensions}. Leave it out",
                param="dimensions",
            )
        coded = asked.encoding_format == "base64"
        data = [
            shapes.Embedding(
                index=index,
                embedding=base64.b64encode(vector.astype("<f4").tobytes()).decode() if coded else vector.tolist(),
            )
            for index, vector in enumerate(vectors)
        ]
        usage = shapes.EmbeddingUsage(prompt_tokens=sum(counts), total_tokens=sum(counts))
        return Json(shapes.Embeddings(data=data, model=service.name, usage=usage).model_dump())

    @app.get("/v1/models", responses=describe(shapes.Models))
    async def models():
        return Json(shapes.Models(data=[shapes.ModelCard(id=service.name, created=service.created)]).model_dump())

    @app.get("/v1/models/{model}", responses=describe(shapes.ModelCard))
    async def model(model: str):
        """Both what OpenAI says of a model and what TensorFlow Serving says of one."""
        service.check_model(model)
        return Json(shapes.ModelCard(id=service.name, created=service.created).model_dump() | STATUS)

    @app.post("/v1/models/{model}:predict", responses=describe(shapes.Predictions | shapes.Outputs))
    async def predict_texts(model: str, asked: shapes.PredictRequest, request: Request):
        service.check_model(model)
        return await predict(service, request, asked)

    @app.get("/health")
    async def health():
        """200 as long as requests are accepted."""
        if service.batcher.closing:
            return Json({"status": "stopping"}, 503)
        return Json({"status": "ok"})

    @app.get("/metrics", response_class=Response)
    async def metrics():
        """For Prometheus."""
        return Response(service.metrics.render(), media_type=CONTENT_TYPE)


def describe(shape, streams=False):
    """What /openapi.json says of an answer, which is not checked against its shape each time."""
    event = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
    content = {EventStream.media_type: {"schema": event}} if streams else {}
    return {200: {"model": shape, "content": content}}


def name_model(app, name):
    """Has /openapi.json say which model there is, of whose name the shapes know nothing."""
    describe_all = app.openapi

    def openapi():
        description = describe_all()
        for schema in description["components"]["schemas"].values():
            if schema["title"].endswith("Request") and "model" in schema["properties"]:
                schema["properties"]["model"]["enum"] = [name]
        for path, operations in description["paths"].items():
            if "{model}" in path:
                for operation in operations.values():
                    operation["parameters"][0]["schema"]["enum"] = [name]
        return description

    app.openapi = openapi
