"""One page in the browser for the three applications: chatbot, search engine, assistant. It shows those that are named.

    pip install "tf_llm[serve,search,assistant]"
    python examples/serve_apps.py --chatbot=runs/chatbot --index=runs/search --assistant=runs/assistant

The folders are those of examples/chatbot.py, search.py and assistant.py, which make them; a chatbot or an assistant
that is not there yet is taught first, for some minutes. Then `listening at http://127.0.0.1:8001`: open that address.
It shows a conversation that grows while it is said, results with filters, and a question before anything is changed.

    python examples/serve_apps.py --faq=support.csv    # a chatbot that says what stands in a file, or calls a person

Only this machine reaches it, and nothing of the page comes from elsewhere: it works without a network. What the
assistant keeps lies in --folder. Its lights are those of a simulated house, unless --house names a Home Assistant,
whose token stands in the variable TF_LLM_HOUSE_TOKEN of the environment. Ctrl+C ends it.
"""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow greets at length when it is imported
from absl import flags

import tf_llm.flags
from tf_llm.contracts import UserError

TOKEN = "TF_LLM_HOUSE_TOKEN"
CHATBOT = flags.DEFINE_string("chatbot", None, "The folder of a chatbot of this Python's documentation.")
PAGES = flags.DEFINE_bool("pages", True, "Have it look answers up and name the page; the page can switch that off.")
FAQ = flags.DEFINE_string("faq", None, "In its place, a CSV file with the columns question and answer.")
INDEX = flags.DEFINE_string("index", None, "The folder of a search engine.")
ASSISTANT = flags.DEFINE_string("assistant", None, "The folder of an assistant's understanding.")
FOLDER = flags.DEFINE_string("folder", "assistant", "Where reminders, lists, notes and the calendar are kept.")
HOUSE = flags.DEFINE_string("house", None, "The address of a Home Assistant, http://homeassistant.local:8123.")
PORT = flags.DEFINE_integer("port", 8001, "The port; 0 takes a free one.", lower_bound=0, upper_bound=65535)
SECONDS = flags.DEFINE_float("seconds", 60.0, "Time limit of an answer.", lower_bound=0.1)


def find_chatbot():
    """What begins a conversation, or None."""
    from tf_llm.apps.chatbot.chatbot import Chatbot

    if FAQ.value:
        from tf_llm.apps.chatbot.faq import Faq

        faq = Faq.open(FAQ.value)
        faq.choose_threshold()
        return lambda: Chatbot(faq=faq)
    if CHATBOT.value:
        from tf_llm.apps.chatbot.fact_search import FactSearch
        from tf_llm.apps.chatbot.training import MEMORY, teach_documentation

        generate, taught, others = teach_documentation(CHATBOT.value)
        retrieve = FactSearch([*taught, *others])
        return lambda: Chatbot(generate, retrieve, memory=MEMORY, looks_up=PAGES.value)
    return None


def find_index():
    """The `SearchIndex`, or None."""
    if not INDEX.value:
        return None
    from tf_llm.apps.search import Encoder, SearchIndex

    folder = Path(INDEX.value)
    if not (folder / "index").is_dir():
        raise UserError(f"expected a search engine in {folder}. Received: no index there. Make it: examples/search.py")
    encoder = Encoder.load(folder / "encoder") if (folder / "encoder").is_dir() else None
    return SearchIndex.open(folder / "index", encoder)


def find_assistance(index):
    """What assistants are made of, or None."""
    if not ASSISTANT.value:
        return None
    from tf_llm.apps.assistant.standard import open_toolbox
    from tf_llm.apps.assistant.teaching import find_understanding
    from tf_llm.apps.server.page import Assistance

    toolbox, now, list_due = open_toolbox(FOLDER.value, HOUSE.value, os.environ.get(TOKEN, ""))
    search = index and (lambda query: index.search(query, count=5).hits)
    return Assistance(
        understand=find_understanding(ASSISTANT.value), toolbox=toolbox, search=search, now=now, list_due=list_due
    )


def main():
    from tf_llm.apps.server.limits import Limits  # says what to install where its packages are missing
    from tf_llm.apps.server.listening import serve
    from tf_llm.apps.server.page import Applications, build_page

    if not (CHATBOT.value or FAQ.value or INDEX.value or ASSISTANT.value):
        raise UserError("expected --chatbot, --faq, --index or --assistant. Received: none of them. Name what to show")
    index = find_index()
    applications = Applications(begin_chat=find_chatbot(), index=index, assistance=find_assistance(index))
    app = build_page(applications, limits=Limits(seconds=SECONDS.value))
    serve(app, port=PORT.value, ready=lambda address: print(f"listening at {address}", flush=True))


if __name__ == "__main__":
    tf_llm.flags.launch(main)
