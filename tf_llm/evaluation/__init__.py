"""How good is it: figures, always beside a baseline."""
