"""BATCHES: token ids become shards on disk, and shards become tf.data batches."""
