"""What every route needs: the model, its batches, its limits, its name."""

import asyncio
import dataclasses
import time

from tf_llm.apps.chatbot.prompts import build_prompt
from tf_llm.apps.server.batching import Batcher
from tf_llm.apps.server.errors import Refusal
from tf_llm.apps.server.limits import Limits
from tf_llm.apps.server.metrics import Metrics
from tf_llm.apps.server.writing import build_runners, warm_up
from tf_llm.decoding.generator import ROWS

LONG = 10_000  # characters; to encode as many takes milliseconds, in which nobody else would be heard


class Service:
    """A model that is served.

    Args:
        generate: a `decoding.generator.Generator`. Its config is what requests get that do not say otherwise, but for
            beams and contrastive search: texts are drawn, or the likeliest tokens are said.
        name: by which clients ask for it.
        limits: `Limits`.
        build_prompt: see `prompts.build_prompt`, in whose place another may stand.
        max_batch, max_wait, max_queue: see `Batcher`.
    """

    def __init__(self, generate, name, limits=None, build_prompt=build_prompt, **batching):
        if batching.get("max_batch", 1) > ROWS:
            raise ValueError(f"max_batch is expected to be at most {ROWS}. Received: {batching['max_batch']}")
        self.generate, self.name, self.build_prompt = generate, name, build_prompt
        self.limits, self.created = limits or Limits(), int(time.time())
        # The texts of a batch agree in how they are said: not some of them by a search, others by contrast.
        plain = {"num_beams": 1, "num_return_sequences": 1, "penalty_alpha": 0.0}
        self.config = dataclasses.replace(generate.config, **plain)
        self.metrics = Metrics(lambda: self.batcher.waiting, lambda: self.batcher.running)
        self.batcher = Batcher(build_runners(generate), observe=self.metrics.observe_batch, **batching)
        self.prompt_limit = self.limits.prompt_tokens or generate.source_length - 1  # one is for the end mark

    def warm_up(self):
        """Compiles what requests will need, so that none of them waits for it."""
        warm_up(self.generate, self.config, self.batcher.max_batch, self.limits.new_tokens)

    def count_tokens(self, prompt_tokens, new_tokens):
        """Adds an answer's tokens to the metrics."""
        self.metrics.prompt_tokens.inc(prompt_tokens)
        self.metrics.new_tokens.inc(new_tokens)

    def check_model(self, name):
        """Refuses requests for another model."""
        if name != self.name:
            raise Refusal(
                404,
                f"model is expected to be {self.name!a}, which is served here. Received: {ascii(name)[:100]}",
                param="model",
                code="model_not_found",
            )

    async def read_texts(self, texts, param):
        """Texts, or ids of tokens, of a request: -> (texts as strings, tokens of each).

        Args:
            texts: a string, ids, or a list of one of these.
            param: the field where they stood.

        Raises:
            Refusal: there are ids that no token has, or more tokens than the model reads.
        """
        many = texts if isinstance(texts, list) and not isinstance(texts[0], int) else [texts]
        decoded = [text if isinstance(text, str) else self._decode(text, param) for text in many]
        counts = [await self._count(text) for text in decoded]
        if max(counts) > self.prompt_limit:
            raise Refusal(
                400,
                f"{param}: expected at most {self.prompt_limit} tokens, which is what this model reads. "
                f"Received: {max(counts)}. Shorten the text",
                param=param,
                code="context_length_exceeded",
            )
        return decoded, counts

    def _decode(self, ids, param):
        tokenizer = self.generate.tokenizer
        if max(ids) >= tokenizer.vocabulary_size:
            raise Refusal(
                400,
                f"{param}: expected ids below {tokenizer.vocabulary_size}, of this model's own tokens. "
                f"Received: {max(ids)}. Send the text itself",
                param=param,
            )
        return tokenizer.decode(ids)

    async def _count(self, text):
        encode = self.generate.tokenizer.encode
        return len(encode(text) if len(text) < LONG else await asyncio.to_thread(encode, text))

    def check_rows(self, rows, limit, what):
        """Refuses requests for more rows than one may ask for: they would keep others out."""
        limit = min(limit, self.batcher.max_queue)
        if rows > limit:
            raise Refusal(400, f"expected at most {limit} {what} in a request. Received: {rows}. Send several requests")
