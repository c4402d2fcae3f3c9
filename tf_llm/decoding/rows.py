"""How many rows are said together."""


def next_power(number):
    """The least power of two that is no less, so that few numbers of rows need a graph of their own.

    >>> [next_power(number) for number in (1, 2, 3, 33)]
    [1, 2, 4, 64]
    """
    return 1 << max(0, number - 1).bit_length()


def in_batches(function, rows, size):
    """The results of a function of lists, given at most `size` rows at a time.

    >>> in_batches(lambda rows: [len(rows)] * len(rows), "abc", 2)
    [2, 2, 1]
    """
    return [result for i in range(0, len(rows), size) for result in function(rows[i : i + size])]
