"""An assistant in the terminal: reminders, lists, notes, timers, a calendar, lights, the thermostat, sums and dates.

    pip install "tf_llm[assistant]"
    python examples/assistant.py --workdir=runs/assistant

The first time it learns to understand, some 20 minutes on 2 cores, and keeps in the folder what it has learnt;
interrupted, the same command goes on. Then ask it something. What would change something is done after a yes:

    > remind me to water the ferns tomorrow at six
    Set this reminder? (text: water the ferns; time: Tuesday, 1 December 2026, 18:00)
    > yes
    I will remind you of “water the ferns” on Tuesday, 1 December 2026, 18:00.

What it keeps lies in --folder: a file of SQLite, and a calendar that other programs read. The lights are those of a
simulated house, unless --house names a Home Assistant, whose token stands in the variable TF_LLM_HOUSE_TOKEN of the
environment. --index names an index that examples/search.py made: questions are handed to it. Ctrl+D ends it.
"""

import os
import threading
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow greets at length when it is imported
from absl import flags

import tf_llm.flags

TOKEN = "TF_LLM_HOUSE_TOKEN"
WORKDIR = flags.DEFINE_string(
    "workdir", "runs/assistant", "The folder of the understanding, which is trained if need be."
)
FOLDER = flags.DEFINE_string("folder", "assistant", "Where reminders, lists, notes and the calendar are kept.")
HOUSE = flags.DEFINE_string("house", None, "The address of a Home Assistant, http://homeassistant.local:8123.")
INDEX = flags.DEFINE_string("index", None, "The folder of a search index, for questions.")
SHOW_CALLS = flags.DEFINE_bool("show_calls", False, "Say what was understood, as a call.")


def announce(list_due):
    """Says what is due, as soon as it is."""
    while True:
        for text in list_due():
            print(f"\a\n{text}", flush=True)
        time.sleep(1)


def load_search(folder):
    """query -> hits, out of a search index."""
    from tf_llm.apps.search import SearchIndex

    index = SearchIndex.open(folder)
    return lambda query: index.search(query, count=5).hits


def main():
    from tf_llm.apps.assistant.assistant import Assistant
    from tf_llm.apps.assistant.standard import open_toolbox
    from tf_llm.apps.assistant.teaching import find_understanding

    toolbox, now, list_due = open_toolbox(FOLDER.value, HOUSE.value, os.environ.get(TOKEN, ""))
    search = load_search(INDEX.value) if INDEX.value else None
    assistant = Assistant(find_understanding(WORKDIR.value), toolbox, search, now)
    threading.Thread(target=announce, args=(list_due,), daemon=True).start()
    print("Ask me something. Ctrl+D ends it.")
    while True:
        try:
            text = input("> ")
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if text.strip():
            reply = assistant.ask(text)
            if SHOW_CALLS.value and reply.call:
                print(f"  {reply.call}")
            print(reply.text)


if __name__ == "__main__":
    tf_llm.flags.launch(main)
