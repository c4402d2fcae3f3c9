"""LOGITS: the encoder–decoder, in Keras and keras.ops alone."""
