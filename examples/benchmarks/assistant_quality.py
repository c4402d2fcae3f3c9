"""How well does the assistant understand? On requests that others have collected, and on those of its own grammar.

    python examples/benchmarks/assistant_quality.py            about 45 minutes on 2 cores
    python examples/benchmarks/assistant_quality.py --quick    under a minute: 15 requests of each intent, learnt by heart

Three understandings are trained from scratch, each on its training part alone:

    snips     13,084 requests, 7 intents, 39 slots; scored on its validation part
    clinc150  15,000 requests of 150 intents, and 100 that are out of scope; scored on its validation part, with the
              threshold of confidence that keeps 92 % of what is in scope right, if there is one
    assistant utterances of this package's grammar; scored on phrasings, and half of the words, that no training
              utterance has

Beside the intents stand those of naive Bayes on the same words. A slot is right with its exact words. What is said is
parsed (`parse_call`), each of it. `--part=test` scores the test parts, where the folder has them.

Needs dialogue/snips and dialogue/clinc150 in the folder that --data or TF_LLM_DATA names (apps/assistant/corpora.py
says from where). `--picture=FILE.png` draws the figures.
"""

import dataclasses
import json
import logging
import math
import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

from absl import app, flags

from tf_llm.apps.assistant.call_tokens import find_words
from tf_llm.apps.assistant.calls import OUT_OF_SCOPE, parse_call
from tf_llm.apps.assistant.corpora import read_clinc, read_snips
from tf_llm.apps.assistant.teaching import TeachingConfig, train_understanding
from tf_llm.evaluation.understanding import choose_threshold, score_frames

GOALS = {  # corpus -> measure -> least
    "snips": {"intent_accuracy": 0.97, "slot_f1": 0.92, "exact_frame": 0.82, "parseable": 1.0},
    "clinc150": {"in_scope_accuracy": 0.92, "out_of_scope_recall": 0.5, "parseable": 1.0},
    "assistant": {"intent_accuracy": 0.9, "exact_frame": 0.8, "parseable": 1.0},
}
IN_SCOPE = 0.92  # to be kept right on CLINC150
UTTERANCES = 20_000  # of the grammar, to learn from
"""TODO"""
