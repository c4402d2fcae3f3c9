"""Batches from which a model learns what requests mean; none is ever seen twice.

A few thousand requests are few. Three changes make more of them, and none changes what a request means:

- words of a slot are swapped for those that another request has in it: who says "play abba" can say "play new order";
- a word becomes the unknown word, the likelier the rarer it is (Kiperwasser and Goldberg 2016,
  https://aclanthology.org/Q16-1023): by a chance of a / (a + its count), and at least by `hide`. So the model learns to
  go by what stands around words that it has never seen, and by more than one word;
- unknown words come in between, outside of slots: people say more than they need to.

Batch n is a pure function of (seed, n), as in data/pipeline.py. Requests are short, so several share a row.

Glossary: B rows of a batch, S source length, T target length.
"""

import dataclasses
import itertools
from collections import Counter, defaultdict

import numpy as np
import tensorflow as tf

from tf_llm.apps.assistant.call_tokens import OUTSIDE
from tf_llm.contracts import UNKNOWN_ID
from tf_llm.data.pairs import Pairs, pack_pairs
from tf_llm.data.pipeline import as_features


class Lessons:
    """Training batches from utterances.

    Args:
        utterances: a list of `Utterance`s; those whose slots are not made of whole words are left out, and counted in
            `rejections`.
        tokenizer: a `CallTokenizer`.
        model: a `ModelConfig`, for S and T.
        config: a `TeachingConfig`.
    """

    def __init__(self, utterances, tokenizer, model, config):
        self.tokenizer, self.lengths = tokenizer, (model.source_length, model.target_length)
        self.rows, self.requests = config.rows, config.requests
        self.swap, self.insert = config.swap, config.insert
        self.seed, self.rejections = config.training.seed, Counter()
        self.utterances, self.values, counts, self.target_tokens = [], defaultdict(list), Counter(), 0
        for utterance in utterances:
            if (call := tokenizer.encode_call(utterance)) is None:
                self.rejections["a slot is not made of whole words"] += 1
                continue
            self.utterances.append(utterance)
            self.target_tokens += len(call) + 1  # and the end
            counts.update(tokenizer.encode(utterance.text))
            for text, slot in utterance.chunks:
                if slot is not None:
                    self.values[slot].append(text)
        self.chances = np.zeros(tokenizer.source_vocabulary_size)  # of each word to be hidden
        for id, count in counts.items():
            self.chances[id] = max(config.unknown / (config.unknown + count), config.hide)
        self._epoch, self._order = None, None

    def make_batches(self, first_batch=0):
        """An endless dataset of batches from number `first_batch` on, as `Trainer.train` takes it."""
        return self._batch(map(self.make_blocks, itertools.count(first_batch)))

    def make_exam(self):
        """A dataset of all utterances as they are, once."""
        pairs = [(self.tokenizer.encode(one.text), self.tokenizer.encode_call(one)) for one in self.utterances]
        blocks = pack_pairs(pairs, *self.lengths, packed=True)
        parts = range(0, len(blocks), self.rows)
        return self._batch(self._fill(blocks[part : part + self.rows]) for part in parts)

    def make_blocks(self, number):
        """The blocks of batch `number`: int32 [B, S + T]."""
        draws = np.random.default_rng([self.seed, number])
        pairs = [self.make_pair(self.utterances[index], draws) for index in self._choose(number)]
        blocks = pack_pairs([pair for pair in pairs if pair is not None], *self.lengths, packed=True)
        return self._fill(blocks[: self.rows])

    def make_pair(self, utterance, draws):
        """Ids of an utterance, changed by chance, and of its call; None where a slot ends beyond the last place."""
        chunks = tuple((self._swap(text, slot, draws), slot) for text, slot in utterance.chunks)
        utterance = dataclasses.replace(utterance, chunks=chunks)
        ids, call = np.array(self.tokenizer.encode(utterance.text)), self.tokenizer.encode_call(utterance)
        hidden = draws.random(len(ids)) < self.chances[ids]
        return None if call is None else self._insert(np.where(hidden, UNKNOWN_ID, ids).tolist(), call, draws)

    def _insert(self, ids, call, draws):
        """Unknown words between those of a request, none of them in a slot; their tags come with them."""
        (name, *tags), kept, kept_tags = call, [], []
        for place in range(len(ids) + 1):
            is_inside = place < len(tags) and self.tokenizer.is_inside(tags[place])
            if draws.random() < self.insert and not is_inside and len(kept) + len(ids) - place < self.tokenizer.places:
                kept.append(UNKNOWN_ID)
                kept_tags += [self.tokenizer.tag_ids[OUTSIDE]] * bool(tags)
            kept += ids[place : place + 1]
            kept_tags += tags[place : place + 1]
        return kept, [name, *kept_tags]

    def _swap(self, text, slot, draws):
        if slot is None or draws.random() >= self.swap:
            return text
        return self.values[slot][draws.integers(len(self.values[slot]))]

    def _choose(self, number):
        """The utterances of batch `number`: each comes once an epoch, in an order of the epoch's own."""
        for place in range(number * self.requests, (number + 1) * self.requests):
            epoch, place = divmod(place, len(self.utterances))
            if epoch != self._epoch:
                order = np.random.default_rng([self.seed, epoch, 0])
                self._epoch, self._order = epoch, order.permutation(len(self.utterances))
            yield self._order[place]

    def _fill(self, blocks):
        return np.pad(blocks, [(0, self.rows - len(blocks)), (0, 0)])  # rows of padding have no weight

    def _batch(self, blocks):
        """A dataset of batches from an iterator of blocks, which is gone through once."""
        row = Pairs(*self.lengths, packed=True)
        signature = tf.TensorSpec([self.rows, sum(self.lengths)], tf.int32)
        rows = tf.data.Dataset.from_generator(lambda: blocks, output_signature=signature).unbatch()
        rows = rows.map(lambda block: as_features(row(block, tf.zeros([2], tf.int32))), num_parallel_calls=2)
        return rows.batch(self.rows, drop_remainder=True).prefetch(2)
