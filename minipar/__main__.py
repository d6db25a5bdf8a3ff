"""python -m minipar is the command `minipar`."""

from minipar.cli import main

main()
