"""The routes over HTTP: what is answered, whole and in pieces, and in which words. The model is a script."""

import base64
import doctest
import importlib
import struct

import pytest

pytest.importorskip("fastapi", reason="needs the extra: pip install 'tf_llm[serve]'")
pytest.importorskip("prometheus_client", reason="needs the extra: pip install 'tf_llm[serve]'")

from serving import Shouting, serve, wait_until

from tf_llm.apps.server.limits import Limits
from tf_llm.decoding.settings import stack_settings

COMPLETIONS, CHAT, EMBEDDINGS = "/v1/completions", "/v1/chat/completions", "/v1/embeddings"


@pytest.fixture(scope="module")
def client():
    with serve() as client:
        yield client


def say(content, role="user"):
    return {"role": role, "content": content}


# === Completions ===


def test_a_completion(client):
    status, body = client.post(COMPLETIONS, prompt="héllo", max_tokens=9)
    assert status == 200
    assert body.pop("id").startswith("cmpl-") and body.pop("created") > 1.7e9
    assert body == {
        "object": "text_completion",
        "model": "m",
        "choices": [{"index": 0, "text": "HÉLLO", "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10},
    }


def test_max_tokens_and_stop_end_a_text(client):
    for settings, text, reason in (
        ({"max_tokens": 3}, "HEL", "length"),
        ({"stop": "L"}, "HE", "stop"),
        ({"stop": ["x", "E", ""]}, "H", "stop"),
        ({"stop": None, "max_tokens": None}, "HELLO", "stop"),
    ):
        _, body = client.post(COMPLETIONS, prompt="hello", **settings)
        assert [(choice["text"], choice["finish_reason"]) for choice in body["choices"]] == [(text, reason)]
    _, body = client.post(COMPLETIONS, prompt="a" * 30)
    assert body["usage"]["completion_tokens"] == 16  # as many as OpenAI's API gives where nothing is said


def test_each_prompt_has_n_choices(client):
    _, body = client.post(COMPLETIONS, prompt=["ab", "cde"], n=2, echo=True)
    assert [(choice["index"], choice["text"]) for choice in body["choices"]] == [
        (0, "abAB"), (1, "abAB"), (2, "cdeCDE"), (3, "cdeCDE")
    ]  # fmt: skip
    assert body["usage"] == {"prompt_tokens": 5, "completion_tokens": 10, "total_tokens": 15}


def test_a_prompt_may_be_the_ids_of_its_tokens(client):
    ids = client.generate.tokenizer.encode("hi")
    for prompt, texts in ((ids, ["HI"]), ([ids, ids[:1]], ["HI", "H"])):
        _, body = client.post(COMPLETIONS, prompt=prompt)
        assert [choice["text"] for choice in body["choices"]] == texts
    status, body = client.post(COMPLETIONS, prompt=[1114115])
    assert status == 400 and "expected ids below 1114115, of this model's own tokens. Received: 1114115" in str(body)


def test_log_probabilities_stand_beside_their_tokens(client):
    _, body = client.post(COMPLETIONS, prompt="aé", logprobs=0)
    assert body["choices"][0]["logprobs"] == {
        "tokens": ["A", "É"],
        "token_logprobs": [0.0, -0.5],
        "top_logprobs": None,
        "text_offset": [0, 1],
    }
    _, body = client.post(CHAT, messages=[say("aé")], logprobs=True, top_logprobs=0)
    assert body["choices"][0]["logprobs"]["content"] == [
        {"token": "A", "logprob": 0.0, "bytes": [65], "top_logprobs": []},
        {"token": "É", "logprob": -0.5, "bytes": [195, 137], "top_logprobs": []},
    ]


def test_what_is_said_of_the_draw_reaches_the_model():
    generate = Shouting()
    generate.config = generate.config.with_settings(do_sample=True, temperature=0.8, top_k=40, stop_strings=("#",))
    with serve(generate) as client:
        client.post(COMPLETIONS, prompt="a", max_tokens=5)
        client.post(COMPLETIONS, prompt="a", temperature=0.5, top_p=0.9, seed=7, n=2, stop="x")
        client.post(COMPLETIONS, prompt="a", temperature=0, seed=-1)
        client.post(CHAT, messages=[say("a")], temperature=2, max_completion_tokens=7, max_tokens=9)
    (own,), (one, two), (likeliest,), (chat,) = generate.configs
    assert (own.temperature, own.top_k, own.top_p, own.do_sample, own.max_new_tokens) == (0.8, 40, 1.0, True, 5)
    assert own.stop_strings == ("#",) and own.seed > 2**40  # drawn anew each time
    assert (one.temperature, one.top_p, one.seed, one.stop_strings) == (0.5, 0.9, 7, ("#", "x"))
    assert two.seed == 8 and one.draws
    assert not likeliest.draws and likeliest.seed == 2**63 - 1
    assert chat.temperature == 2 and chat.max_new_tokens == 7


def test_texts_of_a_batch_agree_in_their_method_whatever_the_models_own_is():
    for own in ({"num_beams": 4}, {"penalty_alpha": 0.6}):
        generate = Shouting()
        generate.config = generate.config.with_settings(**own)
        with serve(generate) as client:
            for settings in ({}, {"temperature": 0.5}, {"temperature": 0, "top_p": 0.5}):
                assert client.post(COMPLETIONS, prompt="a", **settings)[0] == 200
        configs = [config for batch in generate.configs for config in batch]
        stack_settings(configs)  # raises where rows do not agree
        assert [config.draws for config in configs] == [False, True, False]


# === Chats ===


def test_a_chat(client):
    status, body = client.post(CHAT, messages=[say("hello")])
    assert status == 200
    assert body["id"].startswith("chatcmpl-") and body["object"] == "chat.completion"
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "HELLO", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert body["usage"] == {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}


def test_a_conversation_is_written_down_as_one_prompt(client):
    parts = [{"type": "text", "text": "and"}, {"type": "text", "text": " b?"}]
    _, first = client.post(CHAT, messages=[say("a?")])
    messages = [say("Hm.", "system"), say("a?"), first["choices"][0]["message"], say(parts)]
    status, _ = client.post(CHAT, messages=messages)
    assert status == 200
    assert client.generate.batches[-1] == ["system: Hm.\nuser: a?\nassistant: A?\nuser: and b?\nassistant:"]
    assert client.generate.configs[-1][0].stop_strings == ("\nuser:", "\nsystem:")


def test_another_way_of_writing_a_conversation_down():
    with serve(build_prompt=lambda messages: (messages[-1][1] + "!", ("!",))) as client:
        _, body = client.post(CHAT, messages=[say("a"), say("b")])
        assert body["choices"][0]["message"]["content"] == "B"


# === Streams ===


def test_a_completion_in_pieces(client):
    chunks = client.stream(COMPLETIONS, prompt="hé", echo=True)
    assert len({chunk["id"] for chunk in chunks}) == 1 and "usage" not in chunks[0]
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    said = [(choice["text"], choice["finish_reason"]) for chunk in chunks for choice in chunk["choices"]]
    assert said == [("héH", None), ("É", None), ("", "stop")]


def test_a_chat_in_pieces(client):
    chunks = client.stream(CHAT, messages=[say("hi")], stream_options={"include_usage": True})
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert chunks[-1]["choices"] == []
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * 4
    assert chunks[-1]["usage"] == {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4}
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert [choice["delta"] for choice in choices] == [
        {"role": "assistant", "content": ""}, {"content": "H"}, {"content": "I"}, {}
    ]  # fmt: skip
    assert [choice["finish_reason"] for choice in choices] == [None, None, None, "stop"]


def test_choices_come_in_turns_and_are_told_apart(client):
    chunks = client.stream(COMPLETIONS, prompt=["ab", "cde"])
    texts = ["", ""]
    for chunk in chunks:
        for choice in chunk["choices"]:
            texts[choice["index"]] += choice["text"]
    assert texts == ["AB", "CDE"]
    assert [chunk["choices"][0]["index"] for chunk in chunks[:4]] == [0, 1, 0, 1]


def test_with_log_probabilities_a_stream_is_one_piece(client):
    chunks = client.stream(COMPLETIONS, prompt="ab", logprobs=0)
    assert [chunk["choices"][0]["text"] for chunk in chunks] == ["AB"]
    assert chunks[0]["choices"][0]["logprobs"]["token_logprobs"] == [0.0, -0.5]
    chunks = client.stream(CHAT, messages=[say("ab")], logprobs=True)
    told = [chunk["choices"][0]["logprobs"] for chunk in chunks]
    assert [len(logprobs["content"]) for logprobs in told if logprobs] == [2]


# === Embeddings, models, predictions ===


def test_embeddings(client):
    status, body = client.post(EMBEDDINGS, input=["a", "bcd"])
    assert status == 200
    assert body == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [1.0, 1.0, 0.5]},
            {"object": "embedding", "index": 1, "embedding": [3.0, 1.0, 0.5]},
        ],
        "model": "m",
        "usage": {"prompt_tokens": 4, "total_tokens": 4},
    }
    _, body = client.post(EMBEDDINGS, input="bcd", encoding_format="base64", dimensions=3)
    assert struct.unpack("<3f", base64.b64decode(body["data"][0]["embedding"])) == (3.0, 1.0, 0.5)
    status, body = client.post(EMBEDDINGS, input="bcd", dimensions=2)
    assert status == 400 and body["error"]["param"] == "dimensions" and "to be 3" in body["error"]["message"]


def test_models(client):
    _, _, body = client.ask("GET", "/v1/models")
    (card,) = body["data"]
    assert body["object"] == "list" and card["id"] == "m" and card["object"] == "model"
    _, _, body = client.ask("GET", "/v1/models/m")
    assert body["id"] == "m" and body["model_version_status"][0]["state"] == "AVAILABLE"  # to either kind of client
    for method, path, asked in (("GET", "/v1/models/n", None), ("POST", COMPLETIONS, {"model": "n", "prompt": ""})):
        status, _, body = client.ask(method, path, asked)
        assert status == 404 and body["error"]["code"] == "model_not_found"
        assert body["error"]["message"] == "model is expected to be 'm', which is served here. Received: 'n'"


def test_predictions_in_the_shape_of_tensorflow_serving(client):
    def predict(**body):
        return client.ask("POST", "/v1/models/m:predict", body)[::2]

    coded = {"b64": base64.b64encode("é".encode()).decode()}
    assert predict(instances=["ab", coded]) == (200, {"predictions": ["AB", "É"]})
    assert predict(inputs=["ab"], signature_name="generate") == (200, {"outputs": ["AB"]})
    assert predict(inputs=["ab"], signature_name="embed") == (200, {"outputs": [[2.0, 1.0, 0.5]]})
    for body, message in (
        ({}, "expected either instances or inputs"),
        ({"instances": ["a"], "inputs": ["a"]}, "expected either instances or inputs"),
        ({"instances": []}, "instances: expected a list of texts"),
        ({"instances": [{"b64": "/w=="}]}, "instances: expected a list of texts"),  # no UTF-8
        ({"instances": ["a"], "signature_name": "train"}, "signature_name: "),
    ):
        status, answer = predict(**body)
        assert status == 400 and message in answer["error"]["message"], body


# === The server itself ===


def test_health_and_metrics(client):
    from prometheus_client.parser import text_string_to_metric_families

    assert client.ask("GET", "/health")[::2] == (200, {"status": "ok"})
    before = client.read_metric("tf_llm_new_tokens_total")
    client.post(COMPLETIONS, prompt="abc")
    client.ask("GET", "/etc/passwd")
    assert client.read_metric("tf_llm_new_tokens_total") == before + 3
    status, headers, content = client.ask("GET", "/metrics")
    assert status == 200 and headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(content.decode())
        for sample in family.samples
    }
    assert samples["tf_llm_requests_total", COMPLETIONS, "200"] >= 1
    assert samples["tf_llm_requests_total", "none", "404"] >= 1  # a path that is none has no line of its own
    assert samples["tf_llm_batch_rows_count", "write"] >= 1 and samples[("tf_llm_queue_rows",)] == 0


def test_the_server_describes_itself_and_loads_nothing_from_elsewhere(client):
    _, _, description = client.ask("GET", "/openapi.json")
    assert {COMPLETIONS, CHAT, EMBEDDINGS, "/v1/models", "/v1/models/{model}:predict"} <= description["paths"].keys()
    answers = description["paths"][COMPLETIONS]["post"]["responses"]
    assert set(answers) == {"200", "4XX", "500", "503"}
    assert set(answers["200"]["content"]) == {"application/json", "text/event-stream"}
    for path in ("/docs", "/redoc", "/docs/oauth2-redirect"):
        assert client.ask("GET", path)[0] == 404


def test_what_runs_together_is_one_batch():
    generate = Shouting()
    generate.gate.clear()
    with serve(generate, max_batch=4) as client:
        connections = [client.open("POST", COMPLETIONS, {"model": "m", "prompt": "a"})]
        wait_until(lambda: client.service.batcher.running == 1)
        connections += [client.open("POST", COMPLETIONS, {"model": "m", "prompt": "a"}) for _ in range(5)]
        wait_until(lambda: client.service.batcher.waiting == 5)
        generate.gate.set()
        assert [connection.getresponse().status for connection in connections] == [200] * 6
        for connection in connections:
            connection.close()
    assert [len(batch) for batch in generate.batches] == [1, 4, 1]


def test_what_is_compiled_before_the_first_request():
    """A step of every size of batch, for the likeliest token and for a draw, for short texts and long; and vectors."""
    generate = Shouting()
    with serve(generate, max_batch=6, warm=True, limits=Limits(new_tokens=99)):
        assert [len(batch) for batch in generate.batches] == [1] * 5 + [2] * 5 + [4] * 5 + [6] * 5
        assert [configs[0].draws for configs in generate.configs] == [False, True] * 8
        assert [configs[0].max_new_tokens for configs in generate.configs] == [1, 1, 99, 99] * 4
        assert generate.steps == 16


@pytest.mark.parametrize("name", ["errors", "events", "limits", "listening", "writing"])
def test_examples_in_docstrings(name):
    module = importlib.import_module(f"tf_llm.apps.server.{name}")
    result = doctest.testmod(module)
    assert result.attempted and not result.failed
