"""Ways of training on many ranks, one idea per file."""
