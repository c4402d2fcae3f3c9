"""What people ask of their phone becomes a call of a tool that is allowed, and is done when they have said yes.

calls.py        a call, its notation, and the utterances that it is learnt from
"""
