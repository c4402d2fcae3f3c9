"""A conversation becomes the one text that the model is given: by the server and by the chatbot, in training and after.

A single message of a user is the prompt as it stands, so that a model of the kind of T5 gets "translate English to
German: …" word for word. Anything longer is written down like a play, which a model of pages can go on with:

    system: You answer in one word.
    user: What is two and two?
    assistant: Four.
    user: And three and three?
    assistant:

A model that was trained on conversations of another form brings its own function, see `app.build_app`.
"""

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
STOPS = ("\nuser:", "\nsystem:")  # where the model starts to speak for others


def build_prompt(messages):
    """The prompt of a conversation, and at which strings its answer ends: (str, tuple of str).

    Args:
        messages: (role, text) each, in their order; the last one is to be answered, or, where it is the assistant's, to
            be gone on with.

    >>> build_prompt([("user", "summarize: A cat sat on a mat.")])
    ('summarize: A cat sat on a mat.', ())
    >>> prompt, stops = build_prompt([("system", "Be brief."), ("user", "Two and two?")])
    >>> print(prompt)
    system: Be brief.
    user: Two and two?
    assistant:
    >>> build_prompt([("user", "Two and two?"), ("assistant", "That is")])[0]
    'user: Two and two?\\nassistant: That is'
    """
    if len(messages) == 1 and messages[0][0] == "user":
        return messages[0][1], ()
    lines = [f"{ROLES[role]}: {text}" for role, text in messages]
    if messages[-1][0] != "assistant":
        lines.append("assistant:")
    return "\n".join(lines), STOPS
