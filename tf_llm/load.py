"""A trained model together with its tokenizer, from the folder of a run."""

from pathlib import Path

from tf_llm.config import load_config
from tf_llm.contracts import UserError
from tf_llm.decoding import generator
from tf_llm.model.encoder_decoder import build_model
from tf_llm.text.tokenizers import load_tokenizer
from tf_llm.training.checkpoints import Checkpoints

# What lies in the folder of a run; `train.train` writes it.
CONFIG, TOKENIZER, CHECKPOINTS = "config.json", "tokenizer.json", "checkpoints"
# What a model expects of a prompt (decoding/generator.py) by the objective it was trained on.
FRAMES = {"prefix_lm": "page", "span_corruption": "blank", "denoisers": "mode", "pairs": "request"}


def load_model(workdir, precision="float32"):
    """The model of a run at its newest checkpoint, and its tokenizer: (`EncoderDecoder`, `Tokenizer`).

    Raises:
        UserError: the folder holds no run, or no checkpoint of it.
    """
    workdir = Path(workdir)
    run = load_config(workdir / CONFIG)
    tokenizer = load_tokenizer(workdir / TOKENIZER)
    model = build_model(run.model, precision)
    if not Checkpoints(workdir / CHECKPOINTS, model).restore():
        raise UserError(f"expected a checkpoint in {workdir / CHECKPOINTS}. Received: none. Train the model first")
    return model, tokenizer


class Generator(generator.Generator):
    """A `decoding.generator.Generator` that knows the folders of runs."""

    @classmethod
    def load(cls, workdir):
        """The generator of a finished run.

        >>> generate = Generator.load("runs/first")           # doctest: +SKIP
        >>> print(generate("The transformer architecture"))   # doctest: +SKIP
        """
        run = load_config(Path(workdir) / CONFIG)
        return cls(*load_model(workdir), FRAMES[run.objective.kind])
