"""How large language models are trained: web pages in, a trained encoder–decoder out, text from it.

Everything that a script or a notebook needs stands here; what is heavy is imported when it is first asked for, so that
the worker processes, which import this package too, start without TensorFlow.
"""

from tf_llm import crawl
from tf_llm.contracts import UserError
from tf_llm.lazy import look_up_later
from tf_llm.prepare.engine import prepare  # takes the name of its folder, which stays importable as `tf_llm.prepare.…`

_LAZY = {
    "GenerationConfig": "tf_llm.decoding.settings",
    "Generator": "tf_llm.load",
    "build_loss": "tf_llm.training.losses",
    "build_model": "tf_llm.model.encoder_decoder",
    "build_optimizer": "tf_llm.training.optimizers",
    "build_size": "tf_llm.model.sizes",
    "choose_precision": "tf_llm.training.distribution",
    "export_generator": "tf_llm.decoding.export",
    "export_lite": "tf_llm.decoding.formats",
    "export_onnx": "tf_llm.decoding.formats",
    "from_pretrained": "tf_llm.load",
    "from_tf_models": "tf_llm.load_tf_models",
    "is_chief": "tf_llm.training.distribution",
    "join_shards": "tf_llm.data.join",
    "load_model": "tf_llm.load",
    "load_shards": "tf_llm.data.shards",
    "recipes": "tf_llm.recipes",
    "save_pretrained": "tf_llm.load",
    "strategy": "tf_llm.training.distribution",
    "train": "tf_llm.run",
    "write_pairs": "tf_llm.data.pairs",
}

__all__ = ["UserError", "crawl", "prepare", *_LAZY]
__getattr__, __dir__ = look_up_later(__name__, _LAZY, __all__)
