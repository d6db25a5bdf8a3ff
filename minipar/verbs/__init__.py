"""What `minipar VERB` does: a file a verb, from its options to a call and an exit code."""
