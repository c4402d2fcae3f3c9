"""What a request means: the encoder–decoder reads it and says a call, under a grammar that admits nothing else.

    text -> ids -> encoder -> decoder, constrained -> name and tags -> `Call`, its words copied from the text

`teaching.train_understanding` makes one from utterances, `load_understanding` finds it again. A folder has
tokenizer.json and checkpoints/, as that of any run, and understanding.json: the shape of the model, and below which
confidence a request is taken to be out of scope.
"""

import json
import math
from pathlib import Path

from tf_llm.apps.assistant.call_grammar import build_call_automaton
from tf_llm.apps.assistant.call_tokens import CallTokenizer, find_words
from tf_llm.apps.assistant.calls import Understood
from tf_llm.contracts import UserError
from tf_llm.decoding.generator import ROWS, Generator
from tf_llm.decoding.rows import in_batches
from tf_llm.decoding.scoring import score_texts
from tf_llm.decoding.settings import GenerationConfig
from tf_llm.model.config import ModelConfig
from tf_llm.model.encoder_decoder import build_model
from tf_llm.training.checkpoints import Checkpoints

TOKENIZER, CHECKPOINTS, SETTINGS = "tokenizer.json", "checkpoints", "understanding.json"


class Understanding:
    """Understands requests, one by one or many at once.

    Args:
        model: an `EncoderDecoder` that was trained on a `CallTokenizer`'s ids.
        tokenizer: that `CallTokenizer`.
        threshold: confidence below which a request is out of scope, in [0, 1].

    >>> understand = load_understanding("runs/assistant")             # doctest: +SKIP
    >>> str(understand("remind me to water the ferns at six").call)   # doctest: +SKIP
    'set_reminder(text="water the ferns", time="at six")'
    """

    def __init__(self, model, tokenizer, threshold=0.0):
        self.model, self.tokenizer, self.threshold = model, tokenizer, threshold
        self._generate = Generator(model, tokenizer, frame="request")
        self._grammar = build_call_automaton(tokenizer)

    def __call__(self, text):
        """An `Understood`: the call, or None where the request is out of scope, and how sure the model is.

        The confidence is the probability of the name of the tool. A text without words is out of scope, as is one with
        more words than the model reads.
        """
        return self.understand_all([text])[0]

    def understand_all(self, texts):
        """The same of many texts, an `Understood` each; much faster than one by one."""
        understood = [Understood(None, 0.0)] * len(texts)
        read = [index for index, text in enumerate(texts) if 0 < len(find_words(text)) <= self.tokenizer.places]
        for index, one in zip(read, in_batches(self._say, [texts[index] for index in read], ROWS), strict=True):
            understood[index] = one if one.confidence >= self.threshold else Understood(None, one.confidence)
        return understood

    def _say(self, texts):
        """What at most ROWS texts mean, however sure the model is."""
        generate = self._generate
        # A name, and a tag for each word.
        lengths = [len(find_words(text)) + 1 for text in texts]
        configs = [GenerationConfig(constraint=self._grammar, max_new_tokens=length) for length in lengths]
        stream = generate.stream_batch(texts, configs, tokens=generate.target_length)
        for _ in stream:
            pass
        said = [row.ids for row in stream.texts]
        names = score_texts(generate, list(map(self.tokenizer.encode, texts)), [ids[:1] for ids in said])
        return [
            Understood(self.tokenizer.decode_call(ids, text), math.exp(name))
            for text, ids, (name,) in zip(texts, said, names, strict=True)
        ]


def load_understanding(folder):
    """The understanding that a run of `train_understanding` left in a folder.

    Raises:
        UserError: there is none, or it is damaged.
    """
    folder = Path(folder)
    try:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        config, threshold = ModelConfig(**settings["model"]), float(settings["threshold"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"expected what an assistant has learnt in {folder}. Received: {error!r}. Train it first, or name another "
            "folder"
        ) from error
    tokenizer = CallTokenizer.load(folder / TOKENIZER)
    model = build_model(config)
    if not Checkpoints(folder / CHECKPOINTS, model).restore():
        raise UserError(f"expected a checkpoint in {folder / CHECKPOINTS}. Received: none. Train it first")
    return Understanding(model, tokenizer, threshold)
