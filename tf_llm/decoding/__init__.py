"""TEXT: logits become text again."""
