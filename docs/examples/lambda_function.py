"""A process cannot import a lambda."""

import minipar

if __name__ == "__main__":
    minipar.run(lambda group: group.rank, ranks=2, backend="process")
