"""The words in which completions and chats differ: the same texts, in the shapes of two routes.

Both are made for one request: they know its model, and what each of its rows has said so far, since the place of a
token in the text is told with its probability.
"""

import time
import uuid

from tf_llm.apps.server import shapes


class Words:
    """What both have in common.

    Args:
        service: a `Service`.
        with_log_probabilities: whether they are told, token by token.
    """

    prefix = chunk = shape = None  # of the response's id; the kind of a stream's chunks; of the whole answer

    def __init__(self, service, with_log_probabilities):
        self.head = {
            "id": f"{self.prefix}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": service.name,
        }
        self._decode, self.with_log_probabilities = service.generate.tokenizer.decode, with_log_probabilities
        self._said = {}  # row -> ids so far

    def cut(self, index, piece):
        """The text of each token of a piece, and where in the row's text it begins: (list of str, list of int).

        What a token adds to a text may hang on the tokens before it, a space for instance; so it is what the text is
        longer by.
        """
        said, tokens, places = self._said.setdefault(index, []), [], []
        text = self._decode(said)
        for id in piece.ids:
            said.append(id)
            longer = self._decode(said)
            tokens.append(longer[len(text) :])
            places.append(len(text))
            text = longer
        return tokens, places


class CompletionWords(Words):
    """Of /v1/completions, whose answers begin with their prompts where that is wanted."""

    prefix, chunk, shape = "cmpl", "text_completion", shapes.Completion

    def __init__(self, service, asked, prompts):
        super().__init__(service, asked.logprobs is not None)
        self._prompts = [prompt if asked.echo else "" for prompt in prompts for _ in range(asked.n or 1)]

    def build_choice(self, index, piece):
        """A row's whole text as a choice."""
        return shapes.CompletionChoice(
            index=index,
            text=self._prompts[index] + piece.text,
            logprobs=self._build_logprobs(index, piece),
            finish_reason=piece.finish_reason,
        )

    def build_deltas(self, index, piece):
        """A piece as choices of a stream's chunks."""
        yield self.build_choice(index, piece).model_dump()
        self._prompts[index] = ""  # once is enough

    def _build_logprobs(self, index, piece):
        if not (self.with_log_probabilities and piece.last):
            return None
        tokens, places = self.cut(index, piece)
        return shapes.CompletionLogprobs(
            tokens=tokens, token_logprobs=list(piece.log_probabilities), text_offset=places
        )


class ChatWords(Words):
    """Of /v1/chat/completions."""

    prefix, chunk, shape = "chatcmpl", "chat.completion.chunk", shapes.ChatCompletion

    def __init__(self, service, asked):
        super().__init__(service, bool(asked.logprobs))
        self._opened = set()  # rows whose role was told

    def build_choice(self, index, piece):
        """A row's whole text as a choice."""
        return shapes.ChatChoice(
            index=index,
            message=shapes.Answer(content=piece.text),
            logprobs=self._build_logprobs(index, piece),
            finish_reason=piece.finish_reason,
        )

    def build_deltas(self, index, piece):
        """A piece as choices of a stream's chunks: the first tells the role, the last why it ends."""
        if index not in self._opened:
            self._opened.add(index)
            yield self._build_delta(index, {"role": "assistant", "content": ""})
        if piece.text or piece.ids:
            logprobs = self._build_logprobs(index, piece)
            yield self._build_delta(index, {"content": piece.text}, logprobs and logprobs.model_dump())
        if piece.last:
            yield self._build_delta(index, {}, finish_reason=piece.finish_reason)

    def _build_delta(self, index, delta, logprobs=None, finish_reason=None):
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}

    def _build_logprobs(self, index, piece):
        if not (self.with_log_probabilities and piece.last):
            return None
        tokens, _ = self.cut(index, piece)
        return shapes.ChatLogprobs(
            content=[
                shapes.TokenLogprob(token=token, logprob=value, bytes=list(token.encode("utf-8", "replace")))
                for token, value in zip(tokens, piece.log_probabilities, strict=True)
            ]
        )
