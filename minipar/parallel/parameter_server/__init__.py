"""Parameter servers: some ranks keep the weights, the others compute.

roles = Roles(world, servers=2)                    # workers first, then servers
serve(roles, model, make_optimizer, ssp(3))        # on the servers
ParameterServer(model, roles, make_optimizer)      # on the workers: a Strategy
"""

from minipar.parallel.parameter_server.report import Record, Report
from minipar.parallel.parameter_server.roles import Roles
from minipar.parallel.parameter_server.rules import ASYNC, SYNC, Rule, rule_named, ssp
from minipar.parallel.parameter_server.server import Conduct, serve
from minipar.parallel.parameter_server.snapshot import Snapshots
from minipar.parallel.parameter_server.strategy import ParameterServer
from minipar.parallel.parameter_server.tables import Hollow, RemoteTable

__all__ = (
    "ASYNC", "SYNC", "Conduct", "Hollow", "ParameterServer", "Record", "RemoteTable", "Report",
    "Roles", "Rule", "Snapshots", "rule_named", "serve", "ssp",
)  # fmt: skip
