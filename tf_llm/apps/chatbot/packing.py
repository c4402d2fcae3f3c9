"""Which of a conversation's turns the model is given: the latest, as many as it can read.

A source has room for S tokens. What a conversation needs is counted in tokens, not guessed from its words, and when
there is no room for all of it the oldest turns are left out, a question together with its answer. What the system said
stays as long as the last question does. Whoever shows the conversation is told how many fell out.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from tf_llm.apps.chatbot.prompts import build_prompt


class Packed(NamedTuple):
    """A conversation as the model is given it."""

    prompt: str
    stops: tuple[str, ...]  # strings at which its answer ends
    dropped: int  # messages that fell out
    excess: int  # tokens by which what is left is too long still: the last question alone has more than fit


def pack_messages(
    messages: Sequence[tuple[str, str]],
    count_tokens: Callable[[str], int],
    limit: int,
    build_prompt: Callable = build_prompt,
) -> Packed:
    """Packs the latest messages into a prompt of at most `limit` tokens.

    Args:
        messages: (role, text) each, as `prompts.build_prompt` takes them; the last one is to be answered.
        count_tokens: of a text.
        limit: tokens; a source of S has room for S - 1 and its end.
        build_prompt: see `prompts.build_prompt`, in whose place another may stand.

    >>> talk = [("user", "one two"), ("assistant", "three"), ("user", "four")]
    >>> pack_messages(talk, lambda text: len(text.split()), 9).prompt
    'user: one two\\nassistant: three\\nuser: four\\nassistant:'
    >>> pack_messages(talk, lambda text: len(text.split()), 7)
    Packed(prompt='four', stops=(), dropped=2, excess=0)
    """
    if not messages:
        raise ValueError("messages are expected to hold what is to be answered. Received: none")
    system = [message for message in messages if message[0] in ("system", "developer")]
    rest = [message for message in messages if message[0] not in ("system", "developer")]
    if not rest:
        system, rest = [], system
    # From where a conversation may begin: with something that a user said.
    starts = [number for number, (role, _) in enumerate(rest) if role == "user"] or [len(rest) - 1]

    def pack(system, start):
        prompt, stops = build_prompt([*system, *rest[start:]])
        dropped = len(messages) - len(system) - (len(rest) - start)
        return Packed(prompt, stops, dropped, max(count_tokens(prompt) - limit, 0))

    # A prompt is the longer, the earlier it begins: the first one that fits is found by halving.
    low, high = 0, len(starts) - 1
    while low < high:
        middle = (low + high) // 2
        if pack(system, starts[middle]).excess:
            low = middle + 1
        else:
            high = middle
    packed = pack(system, starts[low])
    return pack([], starts[-1]) if packed.excess and system else packed
