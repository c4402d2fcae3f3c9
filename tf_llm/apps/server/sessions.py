"""Who is talking: each page that is open in a browser has a session, with a chatbot and an assistant of its own."""

import secrets
import threading
from collections import OrderedDict

MOST = 100  # sessions; a conversation is a few kilobytes


class Session:
    """One page in a browser.

    Args:
        chatbot: a `Chatbot`, or None.
        assistant: an `Assistant`, or None.
    """

    def __init__(self, chatbot=None, assistant=None):
        self.chatbot, self.assistant = chatbot, assistant
        self.talk = None  # the `Talk` of the last question

    @property
    def is_busy(self):
        """Whether an answer is being given."""
        return self.talk is not None and self.talk.is_open

    def stop(self):
        """Ends the answer that is being given; returns whether there was one."""
        was_busy = self.is_busy
        if was_busy:
            self.talk.stop()
        return was_busy


class Sessions:
    """The sessions by their ids, which are made here and cannot be guessed. Of too many, the longest unused is dropped.

    Args:
        begin: () -> a new `Session`.
        most: sessions that are kept.

    >>> sessions = Sessions(Session, most=2)
    >>> first, second = sessions.begin(), sessions.begin()
    >>> _ = sessions.find(first), sessions.begin()
    >>> sessions.find(second) is None, sessions.find(first) is None, len(sessions)
    (True, False, 2)
    """

    def __init__(self, begin, most=MOST):
        self._begin, self._most = begin, most
        self._sessions, self._lock = OrderedDict(), threading.Lock()

    def __len__(self):
        return len(self._sessions)

    def begin(self):
        """Begins a session and returns its id."""
        id, session = secrets.token_urlsafe(24), self._begin()
        with self._lock:
            self._sessions[id] = session
            dropped = [self._sessions.popitem(last=False)[1] for _ in range(len(self._sessions) - self._most)]
        for each in dropped:
            each.stop()
        return id

    def find(self, id):
        """The session with that id; None where there is none, or none any more."""
        with self._lock:
            if id in self._sessions:
                self._sessions.move_to_end(id)
            return self._sessions.get(id)

    def stop(self):
        """Ends all answers that are being given."""
        for session in list(self._sessions.values()):
            session.stop()
