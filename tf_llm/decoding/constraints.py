"""Texts that follow a plan: an automaton says which tokens may come next, and everything else is impossible.

An automaton has states, and edges from one to the next that are named by tokens; an edge END_ID says that a text may
end there. Its simplest kind is a trie, which holds a list of texts; one with circles is a regular grammar, over tokens.
To a strategy it is a step function around a step function (`constrain`), so that draws, beams and streams all obey it.

Glossary: N rows, V vocabulary, E edges, F edges of a state at most.
"""

import numpy as np
import tensorflow as tf

from tf_llm.contracts import END_ID
from tf_llm.decoding.logits import hide_where, mark


class Automaton:
    """States and edges. A text begins in state 0.

    Args:
        edges: (state, token, next state) each. In a state that no edge leaves, the text ends.

    Raises:
        ValueError: two edges of a state have the same token and lead to different states.

    >>> yes_or_no = Automaton.from_sequences([[5, 6], [5, 7]])  # a trie
    >>> yes_or_no.walk([5]), sorted(yes_or_no.edges[1])
    (1, [6, 7])
    >>> any_number = Automaton([(0, 3, 0), (0, 4, 0), (0, END_ID, 0)])  # as many 3s and 4s as there may be
    """

    def __init__(self, edges):
        self.edges = {0: {}}  # state -> {token: next state}
        for state, token, following in edges:
            if self.edges.setdefault(state, {}).setdefault(token, following) != following:
                raise ValueError(
                    f"edges are expected to lead to one state for a token. Received: {state} -{token}-> "
                    f"{self.edges[state][token]} and {following}"
                )
            self.edges.setdefault(following, {})
        self.numbers = {state: number for number, state in enumerate(self.edges)}  # rows of the tables; 0 is first

    @classmethod
    def from_sequences(cls, sequences):
        """The trie of lists of ids: exactly one of them is said, and then the end."""
        edges, places = [], {(): 0}
        for sequence in sequences:
            for i, token in enumerate([*map(int, sequence), END_ID]):
                before, after = tuple(sequence[:i]), (*sequence[:i], token)
                if after not in places:
                    places[after] = len(places)
                    edges.append((places[before], token, places[after]))
        if not edges:
            raise ValueError("sequences are expected to be at least one. Received: none")
        return cls(edges)

    def walk(self, ids):
        """The state in which these tokens end, or None where they may not be said."""
        state = 0
        for token in ids:
            state = self.edges[state].get(token) if state is not None else None
        return state

    def table(self):
        """The edges as arrays, {"starts" int32 [states + 2], "tokens" and "nexts" int32 [E]}, and F.

        The edges of state s are those from starts[s] up to starts[s + 1]; behind the states stands one without edges. E
        and F are powers of two, for which some edges at the end belong to no state, so that a graph made for one
        automaton fits many others. "nowhere" int32 [] is the number of that last state.
        """
        counts = [len(edges) for edges in self.edges.values()]
        starts = np.cumsum([0, *counts, 0])
        tokens, nexts = (np.full(_next_power(sum(counts)), -1, "int32") for _ in range(2))
        flat = [(token, self.numbers[state]) for edges in self.edges.values() for token, state in edges.items()]
        if flat:
            tokens[: len(flat)], nexts[: len(flat)] = np.array(flat, "int32").T
        starts = np.pad(starts, (0, _next_power(len(starts)) - len(starts)), mode="edge")
        table = {"starts": starts.astype("int32"), "tokens": tokens, "nexts": nexts}
        return table | {"nowhere": np.int32(len(counts))}, _next_power(max(counts))

    def place(self, ids):
        """The row of the table for the state in which these tokens end."""
        state = self.walk(ids)
        return len(self.numbers) if state is None else self.numbers[state]


def constrain(step, table, widest):
    """A step function whose logits are minus infinity for what an automaton does not allow.

    Args:
        step: a `contracts.StepFn` of single tokens, whose state is a dictionary.
        table: what `Automaton.table` returns, as tensors.
        widest: F.

    Returns:
        A `contracts.StepFn`. Its state has an entry more, "places" int32 [N]: the rows of the table for the states from
        which the window begins (`Automaton.place`).
    """

    def look_up(places):
        """Tokens and next places of the edges, and which of these there are: [N, F] each."""
        starts, ends = tf.gather(table["starts"], places), tf.gather(table["starts"], places + 1)
        edges = starts[:, None] + tf.range(widest)  # [N, F]
        there = edges < ends[:, None]
        edges = tf.minimum(edges, table["tokens"].shape[0] - 1)
        return tf.gather(table["tokens"], edges), tf.gather(table["nexts"], edges), there

    def constrained(token_ids, position, state):
        places, state = state["places"], {name: leaf for name, leaf in state.items() if name != "places"}
        tokens, nexts, there = look_up(places)
        followed = there & (tokens == token_ids[:, :1])  # [N, F], one at most
        found = tf.reduce_max(tf.where(followed, nexts, -1), axis=1)  # [N]
        found = tf.where(found < 0, table["nowhere"], found)
        places = tf.where(position == 0, places, found)  # START_ID, with which a window begins, is no token of a text
        logits, state = step(token_ids, position, state)
        tokens, _, there = look_up(places)
        allowed = mark(tf.where(there, tokens, 0), there, logits.shape[-1])  # [N, V]
        return hide_where(~allowed[:, None], logits), {**state, "places": places}

    return constrained


def _next_power(number):
    return 1 << max(0, number - 1).bit_length()
