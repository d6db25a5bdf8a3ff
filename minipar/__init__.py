"""minipar: parallel training by hand, from autograd to collectives, small enough to read."""

from minipar.comm.group import Group
from minipar.comm.launch import init, run
from minipar.comm.transport import ANY

__all__ = ["ANY", "Group", "init", "run"]
