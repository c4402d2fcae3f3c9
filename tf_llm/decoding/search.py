"""Beam search from window to window.

Glossary: N rows, W beams, R texts a prompt, T tokens of a window, M tokens that a row has room for.
"""

import numpy as np
import tensorflow as tf

from tf_llm.contracts import PAD_ID
from tf_llm.decoding.beam import Beam, decode_beams, repeat_rows, share_cache
from tf_llm.decoding.constraints import constrain
from tf_llm.decoding.rows import next_power
from tf_llm.decoding.settings import choose_rules, name_shapes, stack_settings
from tf_llm.decoding.texts import Text

FEW = 8  # beams


def search(generator, prompts, config):
    """Ids of prompts -> R `Completion`s for each, the best first, in one list.

    Args:
        generator: a `Generator`.
        prompts: lists of ids.
        config: a `GenerationConfig`.

    Raises:
        ValueError: several texts a prompt are asked for that may be longer than a window.
    """
    rows, length, count = next_power(len(prompts)), generator.target_length, config.num_return_sequences
    limit = generator.limit_tokens(config)
    if count > 1 and limit > length:
        raise ValueError(
            f"max_new_tokens is expected to be at most {length}, one window of the model, where a search is to return "
            f"several texts. Received: {limit}"
        )
    texts = [
        [Text(generator.tokenizer.decode, limit, config.stop_strings, generator.marks) for _ in range(count)]
        for _ in prompts
    ]
    room = length * next_power(-(-limit // length))
    arrays, fixed, table = stack_settings([config] * rows, [generator.tokenizer.encode(config.prefix)] * rows)
    beam = Beam(
        num_beams=config.num_beams,
        length_penalty=config.length_penalty,
        num_return_sequences=count,
        manner=config.beam_manner,
    )

    # Beams that share a cache look at what all of them have said, W times as much: with few of them that costs less
    # than moving caches about.
    sharing = beam.num_beams if beam.num_beams <= FEW and getattr(generator.model, "beams_can_share", False) else 1

    def search_window(context, state, said, begin, window, ended, arrays, table):
        shared = ()
        if sharing > 1:
            step = share_cache(generator.bind_step(context, num_beams=sharing), sharing)
            shared = tuple(name for name in state if name != "places")  # those belong to a beam
            state = {**state, "lineage": tf.zeros([rows, length], tf.int32)}
        else:
            step = generator.bind_step(repeat_rows(context, beam.num_beams))
        if table:
            step = constrain(step, table, fixed["widest_state"])
        rules = choose_rules(repeat_rows(arrays, beam.num_beams), fixed)
        return decode_beams(step, state, beam, rows, length, rules, said, begin, window, ended, shared)[0]

    key = ("search", rows, room, beam, *name_shapes(arrays, fixed, table))
    said = np.full([rows, room], PAD_ID, "int32")
    for begin in range(0, limit, length):
        ended = np.array([row[0].finish_reason is not None for row in texts] + [True] * (rows - len(texts)))
        if ended.all():
            break
        sources = [generator.frame_ids([*ids, *row[0].shown_ids]) for ids, row in zip(prompts, texts, strict=True)]
        context, state = generator.encode_sources(sources, rows, num_beams=sharing)
        if config.constraint is not None:
            places = [config.constraint.place(row[0].ids) for row in texts]
            state["places"] = tf.constant(places + [0] * (rows - len(texts)))
        numbers = tf.constant(begin), tf.constant(min(length, limit - begin))
        arguments = context, state, tf.constant(said), *numbers, tf.constant(ended), arrays, table
        ids = generator.run(key, search_window, *arguments, is_loop=True).numpy()  # [N, W, M]
        for row, found in zip(texts, ids, strict=False):
            for text, hypothesis in zip(row, found[:, begin:], strict=False):
                text.say(hypothesis[hypothesis != PAD_ID])
        said = ids[:, 0]
    for text in (text for row in texts for text in row):
        text.finish("stop")  # where nothing could be said
    return [text.complete() for row in texts for text in row]
