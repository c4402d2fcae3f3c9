"""Pages to shards: the run of it, in parallel, with limits on what a page may cost."""
