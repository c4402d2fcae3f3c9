"""What a request means: the encoder–decoder reads it and says a call, under a grammar that admits nothing else.

    text -> ids -> encoder -> decoder, constrained -> name and tags -> `Call`, its words copied from the text

`teaching.train_understanding` makes one from utterances, `load_understanding` finds it again. A folder has
tokenizer.json and checkpoints/, as that of any run, and understanding.json: the shape of the model, and below which
confidence a request is taken to be out of scope.
"""

import json
import math
from collections import defaultdict
from pathlib import Path

from tf_llm.apps.assistant.call_grammar import build_call_automaton
from tf_llm.apps.assistant.call_tokens import CallTokenizer, find_words
from tf_llm.apps.assistant.calls import Understood
from tf_llm.contracts import UserError
from tf_llm.decoding.generator import Generator
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
        understood, by_length = [Understood(None, 0.0)] * len(texts), defaultdict(list)
        for index, text in enumerate(texts):
            if 0 < (count := len(find_words(text))) <= self.tokenizer.places:
                by_length[count].append(index)
        for count, indices in by_length.items():
            completions = self._generate.complete(
                [texts[index] for index in indices],
                constraint=self._grammar,
                max_new_tokens=count + 1,  # the name and a tag for each word
                log_probabilities=True,
            )
            for index, completion in zip(indices, completions, strict=True):
                confidence = math.exp(completion.log_probabilities[0])
                call = self.tokenizer.decode_call(completion.ids, texts[index])
                understood[index] = Understood(call if confidence >= self.threshold else None, confidence)
        return understood


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
