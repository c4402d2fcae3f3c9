"""The REST shape of TensorFlow Serving: strings in, strings or vectors out.

    curl -H 'Content-Type: application/json' -d '{"instances": ["The transformer"]}' \\
        http://127.0.0.1:8000/v1/models/first:predict

The signatures are those of the exported model: `generate`, which is the default one, and `embed`. What is asked by rows
(`instances`) is answered by rows (`predictions`), what is asked as a column (`inputs`) as a column (`outputs`).

See https://www.tensorflow.org/tfx/serving/api_rest
"""

from tf_llm.apps.server.answers import Answers, refuse_late, watch_client
from tf_llm.apps.server.errors import Json
from tf_llm.apps.server.writing import EMBED, WRITE, Text, merge

STATUS = {
    "model_version_status": [
        {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    ]
}


async def predict(service, request, asked):
    """The answer to a `shapes.PredictRequest`."""
    param = "instances" if asked.inputs is None else "inputs"
    texts = [text if isinstance(text, str) else text.text for text in getattr(asked, param)]
    texts, counts = await service.read_texts(texts, param)
    if asked.signature_name == "embed":
        predictions = [vector.tolist() for vector in await embed(service, request, texts, sum(counts))]
    else:
        service.check_rows(len(texts), service.limits.rows, "texts")
        max_tokens = min(service.config.max_new_tokens, service.limits.new_tokens)
        config = service.config.with_settings(max_new_tokens=max_tokens)
        answers = Answers(service, WRITE, [Text(text, config) for text in texts])
        pieces = [[] for _ in texts]
        async with watch_client(request.receive, answers):
            async for index, piece in answers:
                pieces[index].append(piece)
        said = [merge(row) for row in pieces]
        service.count_tokens(sum(counts), sum(len(piece.ids) for piece in said))
        predictions = [piece.text for piece in said]
    return Json({"predictions": predictions} if asked.inputs is None else {"outputs": predictions})


async def embed(service, request, texts, tokens):
    """Vectors of texts: a list of float32 [D].

    Args:
        service: a `Service`.
        request: Starlette's.
        texts: strings.
        tokens: in all of them.

    Raises:
        Refusal: there are too many, or no room for them now.
    """
    service.check_rows(len(texts), service.limits.inputs, "texts to embed")
    answers = Answers(service, EMBED, texts)
    vectors = [None] * len(texts)
    async with watch_client(request.receive, answers):
        async for index, vector in answers:
            vectors[index] = vector.values
    if answers.expired:
        raise refuse_late()
    service.count_tokens(tokens, 0)
    return vectors
