"""How a prompt's ids become a source, as the model was trained to be given one: a list in Python, or many in a graph.

Each frame is written twice: for a list of ids, and with TensorFlow's ops for a RaggedTensor int32 [N, None], for texts
that never leave the graph (graphs.py). What either is given besides is the source length S and the vocabulary size.

Glossary: N rows, S source length.
"""

import tensorflow as tf

from tf_llm.contracts import END_ID, MODES


def frame_page(ids, source_length, vocabulary_size):
    """A page that goes on. END_ID in front says that it begins, as in training.

    >>> frame_page([5, 6], 4, 200)
    [1, 5, 6]
    """
    return [END_ID, *ids][-source_length:]


def frame_request(ids, source_length, vocabulary_size):
    """A whole source with END_ID behind it, as T5 is given it.

    >>> frame_request([5, 6], 4, 200)
    [5, 6, 1]
    """
    return [*ids[: source_length - 1], END_ID]


def frame_blank(ids, source_length, vocabulary_size):
    """A text whose end is masked: what a model that was trained on masked spans is asked in place of a page.

    >>> frame_blank([5, 6, 7], 4, 200)
    [6, 7, 199, 1]
    """
    return [*ids[max(0, len(ids) - source_length + 2) :], vocabulary_size - 1, END_ID]


def frame_mode(ids, source_length, vocabulary_size):
    """The same with the mode token of UL2's sequential denoiser in front.

    >>> frame_mode([5, 6, 7], 5, 200)
    [102, 6, 7, 199, 1]
    """
    return [vocabulary_size - 1 - MODES["S"], *frame_blank(ids, source_length - 1, vocabulary_size)]


def frame_pages(ids, source_length, vocabulary_size):
    """`frame_page` of each row.

    >>> frame_pages(tf.ragged.constant([[5, 6], [5, 6, 7, 8], []], dtype=tf.int32), 4, 200).to_list()
    [[1, 5, 6], [5, 6, 7, 8], [1]]
    """
    return keep_last(put_around(ids, [END_ID]), source_length)


def frame_requests(ids, source_length, vocabulary_size):
    """`frame_request` of each row."""
    return put_around(ids[:, : source_length - 1], [], [END_ID])


def frame_blanks(ids, source_length, vocabulary_size):
    """`frame_blank` of each row."""
    return put_around(keep_last(ids, source_length - 2), [], [vocabulary_size - 1, END_ID])


def frame_modes(ids, source_length, vocabulary_size):
    """`frame_mode` of each row."""
    mode = vocabulary_size - 1 - MODES["S"]
    return put_around(frame_blanks(ids, source_length - 1, vocabulary_size), [mode])


def keep_last(ids, count):
    """The last `count` ids of each row: a RaggedTensor [N, None] -> one."""
    return ids[:, -count:] if count > 0 else ids[:, :0]


def put_around(ids, before, behind=()):
    """Lists of ids in front of each row and behind it: a RaggedTensor [N, None] -> one.

    >>> put_around(tf.ragged.constant([[5], []], dtype=tf.int32), [8], [1, 2]).to_list()
    [[8, 5, 1, 2], [8, 1, 2]]
    """

    def repeat(few):
        return tf.broadcast_to(tf.constant(few, tf.int32, [1, len(few)]), [ids.nrows(), len(few)])

    return tf.concat([repeat(before), ids, repeat(behind)], axis=1)


# What is made of a prompt's ids: a source of at most S. All but "request" go on where a window of T tokens ends.
FRAMES = {"page": frame_page, "request": frame_request, "blank": frame_blank, "mode": frame_mode}
GRAPH_FRAMES = {"page": frame_pages, "request": frame_requests, "blank": frame_blanks, "mode": frame_modes}
