"""What a `Config` cannot have together, said in one sentence before a rank starts.

check          what can be seen from the options alone
check_model    what depends on the model: whether it can be cut as the config asks
"""

from __future__ import annotations

from minipar.config import Config
from minipar.errors import UsageError
from minipar.nn import Module
from minipar.parallel.compress import COMPRESSORS
from minipar.parallel.mixed import half_dtype
from minipar.parallel.schedule import NAMES, named
from minipar.parallel.stages import balanced, bytes_of, pieces_of, users_of
from minipar.recipes import RECIPES, find
from minipar.strategies import chunks_of, rule_of


def check(config: Config) -> None:
    """Raises: UsageError if what is asked for does not go together."""
    c = config
    if c.zero not in (0, 1, 2, 3):
        raise UsageError(f"--zero is a stage of ZeRO: 1, 2 or 3 (0: none), not {c.zero}.")
    if c.compress not in ("none", *COMPRESSORS):
        names = ", ".join(("none", *COMPRESSORS))
        raise UsageError(f"--compress is one of {names}, not {c.compress!r}.")
    asked = {
        "--zero": c.zero,
        "--local-steps": c.local_steps > 1,
        "--compress": c.compress != "none",
        "--overlap": c.overlap,
    }
    chosen = [option for option, value in asked.items() if value]
    if len(chosen) > 1:
        raise UsageError(f"{' and '.join(chosen)} cannot be combined: each is a way of its own.")
    if c.precision != "float32":
        _check_precision(c)
    if c.backend == "nccl" and c.ps != "none":
        raise UsageError(
            "--ps keeps weights in the host memory of its servers; it goes with --backend process."
        )
    if c.overlap and not c.bucket_mb:
        raise UsageError("--overlap needs buckets to send: --bucket-mb must be above 0.")
    if c.ps != "none":
        _check_servers(c)
        return
    if c.pp > 1:
        _check_pipeline(c)
    if c.tp > 1 or c.sequence_parallel:
        _check_tensor_parallel(c)
    if c.check_every and (c.zero or c.local_steps > 1):
        raise UsageError("--check-every compares replicas; here they are not meant to be equal.")


def _check_precision(c: Config) -> None:
    """Raises: UsageError for what keeps weights of its own, or looks into those of others."""
    half_dtype(c.precision)  # whether there is such a dtype here
    alone = {
        "--local-steps": c.local_steps > 1,
        "--compress": c.compress != "none",
        "--ps": c.ps != "none",
    }
    for option, asked in alone.items():
        if asked:
            raise UsageError(
                f"--precision {c.precision} with {option} cannot be: it knows nothing of weights "
                "that are kept in float32 beside those that are computed with."
            )


def _check_pipeline(c: Config) -> None:
    if c.balance not in ("bytes", "time"):
        raise UsageError(f"--balance is by bytes or time, not {c.balance!r}.")
    if c.accumulate > 1:
        raise UsageError("--accumulate: a pipeline has --microbatches for that.")
    if c.schedule == "forward":
        raise UsageError("--schedule forward has no backward, so nothing would be trained.")
    if c.schedule not in NAMES:
        trained = ", ".join(name for name in NAMES if name != "forward")
        raise UsageError(f"there is no schedule {c.schedule}; --schedule is one of {trained}.")
    named(c.schedule, c.pp, c.micros, chunks_of(c))  # whether it can be for these stages


def _check_servers(c: Config) -> None:
    rule_of(c)
    others = {
        "--dp": c.dp > 1,
        "--pp": c.pp > 1,
        "--tp": c.tp > 1,
        "--zero": c.zero,
        "--local-steps": c.local_steps > 1,
        "--overlap": c.overlap,
        "--check-every": c.check_every,
        f"--compress {c.compress}": c.compress not in ("none", "float16", "int8"),
    }
    for option, asked in others.items():
        if asked:
            raise UsageError(
                f"--ps with {option} cannot be: say with --workers and --servers how many ranks "
                "there are; of --compress it takes float16 and int8."
            )
    if c.on_worker_loss not in ("error", "drop"):
        raise UsageError(f"--on-worker-loss is error or drop, not {c.on_worker_loss!r}.")


def _check_tensor_parallel(c: Config) -> None:
    if c.tp == 1:
        raise UsageError(
            "--sequence-parallel goes with --tp: it cuts what --tp leaves whole. A run that is "
            "resumed without --tp needs --no-sequence-parallel."
        )
    if not find(c.model).uses_kit:
        able = ", ".join(name for name, recipe in RECIPES.items() if recipe.uses_kit)
        raise UsageError(f"--tp: the layers of {c.model} cannot be shared; those of {able} can.")


def check_model(config: Config, model: Module) -> None:
    """Whether this model can be cut as the config asks; where it is cut does not matter here.

    Raises: UsageError.
    """
    c = config
    if c.pp > 1:
        users_of(model, balanced(bytes_of(pieces_of(model)), c.pp * chunks_of(c)), c.pp)
