"""The launcher of one host out of several whose lost ranks are reported; see test_losing_hosts.py.

python -m tests.comm.losing_hosts NODE PORT RANKS,RANKS,... RESTARTS FUNCTION '[ARGUMENT, ...]'
"""

import json
import os
import sys

from minipar.comm.hosts.meeting import Meeting
from minipar.comm.hosts.rendezvous import meet
from minipar.comm.launch import function_work, run_processes
from tests.comm import losing


def main():
    node, port, counts, restarts, name, arguments = sys.argv[1:]
    counts, node = [int(n) for n in counts.split(",")], int(node)
    token, ranks = os.environ["MINIPAR_TOKEN"].encode(), counts[node]
    place = ("127.0.0.1", int(port))
    nodes = meet(Meeting(place, node, len(counts), ranks, token, 30.0, on_host=ranks))
    work = function_work(getattr(losing, name), json.loads(arguments))
    job = run_processes(work, ranks, timeout_s=30.0, nodes=nodes, restarts=int(restarts))
    if job.failure is not None:
        job.failure.show(nodes.ranks)
        sys.exit(job.failure.exit_code)
    print("RESULTS", json.dumps([_plain(result) for result in job.results]))


def _plain(result):
    if isinstance(result, BaseException):
        return f"{type(result).__name__}: {result}"
    return json.loads(json.dumps(result, default=lambda x: x.tolist()))


if __name__ == "__main__":
    main()
