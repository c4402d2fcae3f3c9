"""How a prompt's ids become a source, as the model was trained to be given one.

Glossary: S source length.
"""

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


# What is made of a prompt's ids: a source of at most S. All but "request" go on where a window of T tokens ends.
FRAMES = {"page": frame_page, "request": frame_request, "blank": frame_blank, "mode": frame_mode}
