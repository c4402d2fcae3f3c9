"""What a client of OpenAI and what schemathesis make of the server, which runs in a process of its own."""

import http.client
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs the extra: pip install 'tf_llm[serve]'")
pytest.importorskip("prometheus_client", reason="needs the extra: pip install 'tf_llm[serve]'")
pytest.importorskip("openai", reason="needs the extra: pip install 'tf_llm[peers]'")

import openai
from server_process import ServerProcess
from serving import Client, serve
from untrained_run import write_run

import tf_llm

KEY = "a-key-of-this-test-alone"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="module")
def process(folder):
    process = ServerProcess(folder, "--max_batch=4", "--new_tokens=64", "--warm_up=false", TF_LLM_API_KEY=KEY)
    yield process
    process.kill()


@pytest.fixture(scope="module")
def client(process):
    with openai.OpenAI(base_url=f"http://127.0.0.1:{process.port}/v1", api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def generate(folder):
    """The same model here."""
    return tf_llm.Generator.load(folder)


def test_openais_client_completes_as_the_model_does_by_itself(client, generate):
    assert [model.id for model in client.models.list()] == ["tiny"] and client.models.retrieve("tiny").id == "tiny"
    settings = {"temperature": 1.0, "top_p": 0.9, "seed": 5}
    answer = client.completions.create(model="tiny", prompt="the cat", max_tokens=12, logprobs=0, **settings)
    (expected,) = generate.complete("the cat", max_new_tokens=12, do_sample=True, log_probabilities=True, **settings)
    (choice,) = answer.choices
    assert choice.text == expected.text and "".join(choice.logprobs.tokens) == expected.text
    said = len(choice.logprobs.tokens)
    np.testing.assert_allclose(choice.logprobs.token_logprobs, expected.log_probabilities[:said], atol=1e-5)
    assert answer.usage.prompt_tokens == 7 and answer.usage.completion_tokens == said


def test_openais_client_chats_whole_and_in_pieces(client):
    messages = [{"role": "user", "content": "hello"}]
    settings = {"model": "tiny", "messages": messages, "max_tokens": 9, "temperature": 1.0, "seed": 3, "n": 2}
    whole = client.chat.completions.create(**settings)
    texts, reasons = ["", ""], [None, None]
    with client.chat.completions.create(**settings, stream=True, stream_options={"include_usage": True}) as stream:
        for chunk in stream:
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
                reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert texts == [choice.message.content for choice in whole.choices] and texts[0] != texts[1]
    assert reasons == [choice.finish_reason for choice in whole.choices]
    assert chunk.usage == whole.usage and chunk.choices == []
    messages += [whole.choices[0].message, {"role": "user", "content": "and?"}]  # as it came, back again
    assert client.chat.completions.create(model="tiny", messages=messages, max_tokens=2).choices[0].message.content


def test_openais_client_embeds(client, generate):
    texts = ["the cat", "a dog. é"]
    for settings in ({}, {"encoding_format": "float"}):  # by itself it asks for base64
        answer = client.embeddings.create(model="tiny", input=texts, **settings)
        np.testing.assert_allclose([row.embedding for row in answer.data], generate.embed(texts), atol=1e-5)


def test_openais_client_understands_the_refusals(client, process):
    with pytest.raises(openai.NotFoundError, match="model is expected to be 'tiny'"):
        client.completions.create(model="gpt-4", prompt="")
    with pytest.raises(openai.BadRequestError, match="max_tokens is expected to be at most 64"):
        client.completions.create(model="tiny", prompt="", max_tokens=65)
    with pytest.raises(openai.BadRequestError) as error:
        client.completions.create(model="tiny", prompt="a" * 1000)
    assert error.value.code == "context_length_exceeded" and error.value.param == "prompt"
    with pytest.raises(openai.AuthenticationError, match="expected the API key"):
        client.with_options(api_key="another-one").models.list()


def test_sigterm_under_load_loses_no_answer(process):
    """What was accepted before is answered, what comes later is refused, and the exit status is 0."""
    client, headers = Client(f"http://127.0.0.1:{process.port}"), {"Authorization": f"Bearer {KEY}"}
    stopped, results = threading.Event(), []
    asked = {"model": "tiny", "prompt": "a", "max_tokens": 64, "temperature": 1.0, "top_p": 0.9}

    def ask_on(stream):
        while True:
            begun = stopped.is_set()
            try:
                connection = client.open("POST", "/v1/completions", {**asked, "stream": stream}, headers)
            except ConnectionError:
                return results.append(("refused", begun))
            try:
                response = connection.getresponse()
                content = response.read().decode()
                whole = content.endswith("data: [DONE]\n\n") if stream else json.loads(content)
                results.append((response.status if whole else "cut", begun))
            except (ConnectionError, http.client.HTTPException):  # closed before the request was read
                results.append(("not accepted", True))
            finally:
                connection.close()

    threads = [threading.Thread(target=ask_on, args=(number % 2 == 1,)) for number in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(2)
    stopped.set()
    status, errors = process.stop()
    for thread in threads:
        thread.join(60)
    assert status == 0, errors
    assert {result for result, begun in results if not begun} == {200}
    assert {result for result, _ in results} <= {200, 503, "refused", "not accepted"}
    assert "Traceback" not in errors


def test_schemathesis_finds_no_5xx():
    """Requests made from /openapi.json, in order and not: none brings the server down, all is answered as it says."""
    pytest.importorskip("schemathesis", reason="needs the extra: pip install 'tf_llm[peers]'")
    with serve() as client:
        command = [
            *(Path(sys.executable).with_name("schemathesis"), "run", f"{client.address}/openapi.json"),
            *("--phases=fuzzing", "--max-examples=15", "--seed=1", "--no-color", "--generation-database=none"),
            "--checks=not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
        ]
        result = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-1000:]
        assert client.ask("GET", "/health")[0] == 200
