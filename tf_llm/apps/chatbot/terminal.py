"""A chatbot in a terminal: what is typed goes to a `Chatbot`, and what it says comes back as it is said.

/retry            another answer to the last question
/clear            forget the conversation
/seed 7           of what is drawn;  /temperature 0.7   how freely: 0 is the likeliest answer
/pages            look answers up, or no longer, where there are pages
/undo             unlearn the last text, where the bot goes on learning
/help, /quit      Ctrl-C stops an answer, Ctrl-D leaves
"""

import unicodedata

from tf_llm.apps.chatbot.chatbot import NOTICE, PERSON, PIECE, SOURCE

TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # directions of writing
HELP = __doc__.partition("\n\n")[2].rstrip()
PROMPT = "> "
LABELS = {NOTICE: "note: ", SOURCE: "from ", PERSON: "→ "}


def chat(bot, learner=None, read_line=input, write=None):
    """Talks until the person leaves.

    Args:
        bot: a `Chatbot`.
        learner: the `OnlineLearner` by which it learns, for /undo, or None.
        read_line: function of a prompt -> a line; raises EOFError at the end.
        write: function of a text that is shown as it stands; None prints.
    """
    write = write or (lambda text: print(text, end="", flush=True))
    while True:
        try:
            line = read_line(PROMPT).strip()
        except (EOFError, KeyboardInterrupt):
            write("\n")
            return
        command, _, argument = line.partition(" ")
        if command == "/quit":
            return
        if not line.startswith("/"):
            show(bot.ask(line), bot, write)
        elif command == "/retry":
            show(bot.retry(), bot, write)
        else:
            write(run_command(bot, learner, command, argument.strip()) + "\n")


def run_command(bot, learner, command, argument):
    """Does what a command says, and returns what to say about it."""
    if command == "/clear":
        bot.clear()
        return "The conversation is forgotten."
    if command == "/pages" and bot.retrieve is not None:
        bot.looks_up = not bot.looks_up
        return "Answers are looked up." if bot.looks_up else "Answers come from memory."
    if command == "/undo" and learner is not None:
        return f"{'Unlearned.' if learner.undo() else 'There is nothing to unlearn.'} Drift {learner.drift:.4f}."
    try:
        if command == "/seed":
            bot.seed = check(int(argument), "a whole number of at least 0")
            return f"The seed is {bot.seed}."
        if command == "/temperature":
            bot.temperature = check(float(argument), "a number of at least 0")
            return f"The temperature is {bot.temperature}."
    except ValueError:
        return f"{command} expects a number of at least 0. Received: {argument!r}"
    return HELP


def check(number, expected):
    """The number; raises ValueError where it is below 0 or endless."""
    if not 0 <= number < 2**63:
        raise ValueError(expected)
    return number


def show(events, bot, write):
    """Writes the events of an answer as they come; Ctrl-C ends it."""
    is_in_line = False
    try:
        for event in events:
            if event.kind == PIECE:
                write(clean(event.text))
                is_in_line = True
            else:
                write("\n" * is_in_line + LABELS[event.kind] + clean(event.text) + "\n")
                is_in_line = False
    except KeyboardInterrupt:
        bot.stop()
        events.close()
        write("\nnote: Stopped.")
        is_in_line = True
    write("\n" * is_in_line)


def clean(text):
    """The text without what would move the cursor, colour the screen or turn a line around: a model may say anything.

    >>> clean("a\\x1b[31mb\\tc\\n")
    'a[31mb\\tc\\n'
    """
    return "".join(c for c in text if c in "\n\t" or (unicodedata.category(c) not in ("Cc", "Cs") and c not in TURNING))
