"""Imports point down: every file stands on a floor and imports only from strictly lower ones."""

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

import minipar

ROOT = Path(minipar.__file__).parent

# Towers: a autograd, c communication, d pure data. They meet only from floor 8 on.
FLOORS = {
    "errors": 0,
    "array": 0,
    "ambient": 0,
    "device": 1,
    "cuda.source": 0,
    "cuda.columns": 1,
    "cuda.cross_entropy": 1,
    "cuda.dropout": 1,
    "cuda.embedding": 1,
    "cuda.flash": 1,
    "cuda.optimizer": 1,
    "cuda.products": 1,
    "cuda.attention": 2,
    "cuda.linear": 2,
    "cuda.normalize": 2,
    "blocks": 0,
    "cost.collectives": 0,
    "cost.pipeline": 0,
    "cost.training": 1,
    "events": 1,
    "alive": 1,
    "spans": 2,
    "origin": 0,
    "graph": 1,
    "tensor": 2,
    "labels": 3,
    "checks": 4,
    "recompute": 3,
    "random": 1,
    "segments": 1,
    "sparse": 2,
    "windows": 1,
    "ops.depthwise": 2,
    "ops": 3,
    "ops.conv": 4,
    "ops.erf": 4,
    "ops.half": 3,
    "ops.linear_gelu": 4,
    "ops.sdpa": 4,
    "nn.module": 3,
    "nn.cache": 3,
    "nn.pieces": 4,
    "nn.layers": 5,
    "nn.images": 5,
    "nn.attention": 6,
    "nn.transformer": 7,
    "optim": 4,
    "data": 4,
    "data.clicks": 5,
    "data.images": 5,
    "data.prefetch": 5,
    "data.stream": 6,
    "comm.byte_ring": 0,
    "comm.choose": 0,
    "comm.control": 0,
    "comm.environment": 0,
    "comm.hosts.neighbours": 0,
    "comm.reach": 0,
    "comm.shared_file": 0,
    "comm.signals": 0,
    "comm.started": 0,
    "comm.stopped": 0,
    "comm.wiring": 0,
    "comm.agreed": 1,
    "comm.backoff": 1,
    "comm.child": 1,
    "comm.cluster": 1,
    "comm.failure": 1,
    "comm.frame": 1,
    "comm.heap": 1,
    "comm.hosts.message": 1,
    "comm.hosts.secret": 1,
    "comm.hosts.tcp": 1,
    "comm.messages": 1,
    "comm.mpi.notices": 1,
    "comm.mpi.start": 1,
    "comm.nccl.library": 1,
    "comm.naive": 1,
    "comm.on_device": 0,
    "comm.output": 1,
    "comm.reduction": 1,
    "comm.results": 1,
    "comm.staging": 1,
    "comm.subgroups": 1,
    "comm.tree": 1,
    "comm.board": 2,
    "comm.collectives": 2,
    "comm.direct": 2,
    "comm.halving_doubling": 2,
    "comm.history": 2,
    "comm.hosts.doorkeeper": 2,
    "comm.hosts.link": 2,
    "comm.mismatch": 2,
    "comm.mpi.native": 2,
    "comm.nccl.native": 2,
    "comm.nccl.start": 2,
    "comm.transport": 2,
    "comm.mailbox": 3,
    "comm.algorithms": 3,
    "comm.asynchronous": 3,
    "comm.hosts.meeting": 3,
    "comm.hosts.network": 3,
    "comm.hosts.comeback": 4,
    "comm.hosts.nodes": 3,
    "comm.link": 3,
    "comm.nccl.watch": 3,
    "comm.losses": 4,
    "comm.mpi.streams": 4,
    "comm.segment": 3,
    "comm.site": 3,
    "comm.streams": 4,
    "comm.virtual": 4,
    "comm.whereabouts": 3,
    "comm.crew": 4,
    "comm.deadlock": 4,
    "comm.exchange": 4,
    "comm.hosts.host_memory": 4,
    "comm.hosts.plan": 4,
    "comm.hosts.reception": 4,
    "comm.mpi.transport": 5,
    "comm.nccl.desk": 4,
    "comm.pairs": 4,
    "comm.circle": 5,
    "comm.nccl.communicator": 5,
    "comm.nccl.connection": 5,
    "comm.conductor": 5,
    "comm.roll": 5,
    "comm.channels": 6,
    "comm.nccl.transport": 6,
    "comm.supervisor": 6,
    "comm.group": 6,
    "comm.hosts.rendezvous": 5,
    "comm.hosts.sites": 5,
    "comm.loans": 5,
    "comm.local": 5,
    "comm.local_transport": 6,
    "comm.mpi.job": 6,
    "trace.trace_file": 3,
    "comm.tracing": 5,
    "trace.totals": 4,
    "trace.served": 4,
    "trace.timeline_figure": 5,
    "trace.last_moments": 6,
    "trace.memory_figure": 4,
    "trace.bytes_figure": 6,
    "trace.overlap_figure": 10,
    "trace.pipeline_figure": 10,
    "trace.expected_figure": 12,
    "trace.perfetto": 4,
    "comm.launch": 7,
    "comm.process": 7,
    "comm.mpi.worker": 7,
    "comm.world": 7,
    "comm.script": 8,
    "comm.worker": 8,
    "bench.fit": 9,
    "trace.comm_figure": 10,
    "trace.mesh_figure": 10,
    "parallel.parcel": 8,
    "parallel.pipeline": 10,
    "parallel.stages": 11,
    "parallel.pipelined": 12,
    "parallel.generation": 12,
    "parallel.pipeline_strategy": 13,
    "parallel.schedule": 1,
    "parallel.schedule_grid": 2,
    "parallel.schedule_check": 3,
    "parallel.schedule_time": 4,
    "parallel.strategy": 8,
    "parallel.agreement": 8,
    "parallel.buckets": 8,
    "parallel.join": 8,
    "parallel.shares": 8,
    "parallel.replicas": 9,
    "parallel.data": 10,
    "parallel.flat": 8,
    "parallel.central": 10,
    "parallel.local_sgd": 10,
    "parallel.compress.compressed": 11,
    "parallel.compress.power_sgd": 9,
    "parallel.compress.quantized": 9,
    "parallel.compress.top_k": 9,
    "parallel.ballot": 9,
    "parallel.bucketed": 11,
    "parallel.overlapped": 12,
    "parallel.memory": 8,
    "parallel.slices": 9,
    "parallel.reducer": 10,
    "parallel.units": 10,
    "parallel.sharded": 11,
    "parallel.sharded_parameters": 11,
    "parallel.parameter_server.roles": 8,
    "parallel.parameter_server.keys": 8,
    "parallel.parameter_server.rules": 8,
    "parallel.parameter_server.wire": 8,
    "parallel.parameter_server.report": 8,
    "parallel.parameter_server.tables": 8,
    "parallel.parameter_server.store": 9,
    "parallel.parameter_server.payload": 10,
    "parallel.parameter_server.book": 11,
    "parallel.parameter_server.desk": 12,
    "parallel.parameter_server.snapshot": 12,
    "parallel.parameter_server.server": 13,
    "parallel.parameter_server.lines": 9,
    "parallel.parameter_server.worker": 11,
    "parallel.parameter_server.pulls": 12,
    "parallel.parameter_server.state": 12,
    "parallel.parameter_server.strategy": 13,
    "parallel.boxes": 1,
    "parallel.held": 2,
    "parallel.checkpoint.manifest": 2,
    "parallel.checkpoint.files": 3,
    "parallel.checkpoint.reader": 4,
    "parallel.checkpoint.writer": 4,
    "parallel.checkpoint.plan": 8,
    "parallel.checkpoint.saver": 9,
    "parallel.checkpoint.folder": 10,
    "parallel.tensor_parallel": 8,
    "parallel.vocab_loss": 8,
    "parallel.sharding": 8,
    "parallel.sequence_layers": 9,
    "parallel.shards": 9,
    "parallel.tensor_layers": 10,
    "parallel.tensor_strategy": 11,
    "parallel.batch_norm": 8,
    "parallel.stream": 8,
    "parallel.mesh": 8,
    "parallel.mixed": 9,
    "parallel.passes": 9,
    "models.generate": 8,
    "models.gpt": 8,
    "models": 9,
    "config": 10,
    "recipes": 11,
    "strategies": 14,
    "refusals": 15,
    "run_folder": 11,
    "generation_job": 15,
    "tally": 2,
    "comm.host_memory": 1,
    "parallel.activations": 10,
    "progress": 12,
    "trial": 15,
    "expected_shards": 16,
    "forecast": 16,
    "ranks": 16,
    "comparison": 17,
    "expected": 17,
    "cost_card": 18,
    "ledger": 9,
    "device_memory": 0,
    "evaluation": 12,
    "drills": 11,
    "gpt2_files": 1,
    "doctor": 10,
    "bench.workloads": 10,
    "bench.overhead": 10,
    "bench.kernels": 11,
    "bench.writing": 11,
    "bench.generate": 12,
    "bench.torch_peer": 12,
    "bench.worker": 13,
    "bench.kernel_cases": 10,
    "bench.device": 12,
    "bench.device_worker": 14,
    "bench.torch_device": 13,
    "bench.train": 11,
    "bench.pipeline_rank": 14,
    "bench.server_rank": 14,
    "bench.rank_worker": 15,
    "bench.ranks": 16,
    "bench.tracing": 16,
    "tutorial_files": 10,
    "verify_layouts": 16,
    "verify_traces": 17,
    "verify": 18,
    "training": 15,
    "checkpoint_job": 16,
    "training_report": 19,
    "training_job": 20,
    "training_hosts": 21,
    "training_mpi": 21,
    "verbs.verb": 21,
    "verbs": 22,
    "cli": 23,
    "testing.flops": 8,
    "testing.gradcheck": 8,
    "testing.clock": 8,
    "testing.collectives": 9,
    "testing.promise": 8,
    "testing.training": 9,
    "testing.replicas": 10,
    "testing.tensor": 12,
    "testing.strategies": 10,
    "testing.generation": 13,
    "testing.mixed": 12,
    "testing.pipelines": 14,
    "testing.servers": 14,
    "testing.transports": 9,
    "testing.devices": 8,
    "trace.figures": 9,
    "trace.pipeline_timeline": 14,
    "trace.cache_figure": 10,
    "trace.graph_figure": 9,
    "trace.block_figure": 9,
    "trace.staleness_figure": 10,
    "trace.clock_figure": 10,
    "trace.worker_figure": 10,
    "trace.backward_figure": 10,
    "trace.show": 9,
    "trace.traced": 9,
    "trace.beside": 6,
    "trace.layer_figure": 6,
    "trace.overlap": 9,
    "trace.schedule_figure": 9,
    "trace.chunks": 9,
    "trace.replay.servers": 5,
    "trace.replay.happenings": 4,
    "trace.replay.collectives": 10,
    "trace.replay.pipelines": 5,
    "trace.replay.overlaps": 6,
    "trace.replay.page": 11,
    "trace.chunk_figure": 10,
    "stepping.breaks": 2,
    "stepping.view": 9,
    "stepping.stepper": 10,
    "stepping.prompt": 11,
    "stepping.scripted": 12,
    "bench.comm_worker": 10,
    "bench.comm_table": 10,
    "bench.comm_peers": 11,
    "bench.comm": 12,
}
AUTOGRAD = {
    *("tensor", "graph", "random", "ops", "nn", "optim", "data", "blocks", "cuda"),
    *("origin", "checks", "labels", "recompute", "segments", "sparse", "windows"),
}
MEETING_FLOOR = 8
FACADES = {
    *("", "ops", "nn", "data", "models", "parallel", "trace", "testing", "bench", "verbs", "cost"),
    *("stepping", "trace.replay"),
    *("comm", "comm.hosts", "comm.mpi", "comm.nccl", "cuda", "parallel.compress"),
    *("parallel.checkpoint", "parallel.parameter_server"),
}


def modules() -> list[str]:
    found = pkgutil.walk_packages([str(ROOT)], "minipar.")
    return sorted(m.name.removeprefix("minipar.") for m in found if m.name != "minipar.__main__")


def floor(module: str) -> int:
    """A module's floor, or that of its package; a package of several floors has its highest."""
    inside = [number for name, number in FLOORS.items() if f"{name}.".startswith(f"{module}.")]
    if inside:
        return max(inside)
    while module not in FLOORS:
        assert "." in module, f"{module} stands on no floor: add it to FLOORS and docs/floors.md"
        module = module.rpartition(".")[0]
    return FLOORS[module]


def imports(module: str) -> set[str]:
    """The minipar modules that a file imports, anywhere in it."""
    path = ROOT.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} has a relative import"
            base = node.module or ""
            names = [f"{base}.{alias.name}" for alias in node.names]
            found |= {n if is_module(n) else base for n in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {n.removeprefix("minipar.") for n in found if n.startswith("minipar.")}


def is_module(name: str) -> bool:
    path = ROOT.parent.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").exists()


def tower(module: str) -> str:
    top = module.split(".")[0]
    return "autograd" if top in AUTOGRAD else "comm" if top == "comm" else ""


@pytest.mark.parametrize("module", [m for m in modules() if m not in FACADES])
def test_a_file_imports_only_from_lower_floors(module):
    for other in imports(module):
        assert floor(other) < floor(module), f"{module} imports {other}"
        if floor(module) < MEETING_FLOOR and tower(other):
            assert tower(other) == tower(module), f"{module} reaches into the other tower: {other}"


def test_the_table_names_only_what_exists():
    known = set(modules())
    assert {name for name in FLOORS if name not in known} == set()


@pytest.mark.parametrize("module", ["", *modules()])
def test_no_module_keeps_mutable_state(module):
    """Only the three context variables of `ambient` change; constants are immutable types."""
    if module in ("bench.torch_peer", "bench.torch_device"):
        pytest.importorskip("torch")
    loaded = importlib.import_module(f"minipar.{module}".rstrip("."))
    for name, value in vars(loaded).items():
        if not name.startswith("__"):
            assert not isinstance(value, list | dict | set | bytearray), f"{module}.{name}"
