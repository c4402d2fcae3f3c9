"""Requests for texts and their answers: what completions and chats have in common. words.py has what they differ in.

A request becomes n rows a prompt, which are decoded together with those of others; row prompt · n + choice is the
answer's choice of that index.
"""

import dataclasses
import secrets
import time

from tf_llm.apps.server import shapes
from tf_llm.apps.server.answers import Answers, watch_client
from tf_llm.apps.server.errors import Json, Refusal
from tf_llm.apps.server.events import EventStream
from tf_llm.apps.server.writing import WRITE, Text, merge


def plan_rows(service, asked, prompts, stops, max_tokens, words):
    """The rows of a request, as `Text`s.

    Args:
        service: a `Service`.
        asked: a `shapes.TextRequest`.
        prompts: strings.
        stops: strings at which texts end.
        max_tokens: of each text.
        words: `words.CompletionWords` or `words.ChatWords`.

    Raises:
        Refusal: more is asked for than the limits allow.
    """
    service.check_rows(len(prompts) * (asked.n or 1), service.limits.rows, "texts (prompts × n)")
    if max_tokens > service.limits.new_tokens:
        raise Refusal(
            400,
            f"max_tokens is expected to be at most {service.limits.new_tokens}. Received: {max_tokens}",
            param="max_tokens",
        )
    config = choose_config(service.config, asked, stops, max_tokens)
    seed = secrets.randbits(62) if asked.seed is None else asked.seed
    return [
        Text(
            prompt,
            dataclasses.replace(config, seed=(seed + choice) % 2**63),
            by_pieces=bool(asked.stream) and not words.with_log_probabilities,
            with_log_probabilities=words.with_log_probabilities,
        )
        for prompt in prompts
        for choice in range(asked.n or 1)
    ]


def choose_config(config, asked, stops, max_tokens):
    """What a request says, and where it says nothing, what the generator does by itself: a `GenerationConfig`."""
    settings = {"max_new_tokens": max_tokens, "stop_strings": (*config.stop_strings, *stops)}
    settings["min_new_tokens"] = min(config.min_new_tokens, max_tokens)
    if asked.temperature is not None:
        settings |= {"temperature": asked.temperature, "do_sample": asked.temperature > 0}
    if asked.top_p is not None:
        settings["top_p"] = asked.top_p
    return config.with_settings(**settings)


async def answer(service, request, asked, rows, prompt_tokens, words):
    """Decodes the rows of a request; the response, whole or as a stream.

    Args:
        service: a `Service`.
        request: Starlette's, for the news that its client has left.
        asked: a `shapes.TextRequest`.
        rows: see `plan_rows`.
        prompt_tokens: in all prompts.
        words: `words.CompletionWords` or `words.ChatWords`.
    """
    answers = Answers(service, WRITE, rows)
    if asked.stream:
        chunks = write_chunks(service, asked, answers, prompt_tokens, words)
        return EventStream(answers, chunks, service.limits.seconds)
    said = [[] for _ in rows]
    async with watch_client(request.receive, answers):
        async for index, piece in answers:
            said[index].append(piece)
    new_tokens = sum(len(piece.ids) for pieces in said for piece in pieces)
    service.count_tokens(prompt_tokens, new_tokens)
    choices = [words.build_choice(index, merge(pieces)) for index, pieces in enumerate(said)]
    body = words.shape(choices=choices, usage=count_usage(prompt_tokens, new_tokens), **words.head)
    return Json(body.model_dump())


async def write_chunks(service, asked, answers, prompt_tokens, words):
    """The chunks of a stream, as dictionaries."""
    with_usage = bool(asked.stream_options and asked.stream_options.include_usage)
    head = {**words.head, "object": words.chunk} | ({"usage": None} if with_usage else {})
    begin, new_tokens = time.monotonic(), 0
    async for index, piece in answers:
        if begin is not None:
            service.metrics.first.observe(time.monotonic() - begin)
            begin = None
        new_tokens += len(piece.ids)
        for choice in words.build_deltas(index, piece):
            yield {**head, "choices": [choice]}
    service.count_tokens(prompt_tokens, new_tokens)
    if with_usage:
        yield {**head, "choices": [], "usage": count_usage(prompt_tokens, new_tokens).model_dump()}


def count_usage(prompt_tokens, new_tokens):
    """What a client is told of the tokens that a request cost."""
    return shapes.Usage(
        prompt_tokens=prompt_tokens, completion_tokens=new_tokens, total_tokens=prompt_tokens + new_tokens
    )
