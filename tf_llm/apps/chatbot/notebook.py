"""A chatbot on a page that Gradio makes (https://www.gradio.app): for notebooks, such as Colab's."""

from tf_llm.apps.chatbot.chatbot import NOTICE, PERSON, PIECE, SOURCE, Turn
from tf_llm.contracts import UserError

FORMS = {PIECE: "{}", SOURCE: "\n\nfrom {}", NOTICE: "\n\nNote: {}\n\n", PERSON: "{}"}


def launch(begin, **settings):
    """Opens the page; see `gradio.Blocks.launch` for the settings. Of `begin`, see `build_function`.

    Raises:
        UserError: gradio is not installed.
    """
    try:
        import gradio
    except ImportError as error:
        raise UserError(
            f'expected the package gradio. Received: {error}. Install it: pip install "tf_llm[gradio]"'
        ) from error
    gradio.ChatInterface(build_function(begin)).launch(**settings)


def build_function(begin):
    """What Gradio's ChatInterface calls: (message, history) -> all that was said so far, as it grows.

    Args:
        begin: function without arguments -> a `Chatbot` that knows nothing of a conversation, yet. It gets the history
            of whoever asks, so that several people can talk at once.
    """

    def answer(message, history):
        bot, shown = begin(), ""
        bot.turns = read_history(history)
        for event in bot.ask(message):
            shown += FORMS[event.kind].format(event.text)
            yield shown

    return answer


def read_history(history):
    """Turns of what Gradio remembers: messages with a role and a content, or, in older versions, pairs of texts.

    >>> read_history([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}])[0].answer
    'Hello'
    """
    turns = []
    for entry in history:
        if not isinstance(entry, dict):
            turns.append(Turn(read_text(entry[0]), read_text(entry[1])))
        elif entry["role"] == "user":
            turns.append(Turn(read_text(entry["content"])))
        elif turns:
            turns[-1].answer += read_text(entry["content"])
    return turns


def read_text(content):
    """The text of a content, which newer versions of Gradio hold in parts."""
    if isinstance(content, list):
        return "".join(read_text(part) for part in content)
    if isinstance(content, dict):
        content = content.get("text")
    return content if isinstance(content, str) else ""
