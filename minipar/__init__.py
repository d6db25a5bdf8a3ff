"""minipar: parallel training by hand, from autograd to collectives, small enough to read."""
