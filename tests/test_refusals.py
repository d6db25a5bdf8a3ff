"""What cannot go together is refused in one sentence."""

from dataclasses import replace

import pytest

from minipar.errors import UsageError
from minipar.refusals import check
from tests.in_place import TINY


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"zero": 4}, "--zero is a stage of ZeRO: 1, 2 or 3"),
        ({"compress": "zip"}, "--compress is one of none, float16, int8, top-k, powersgd"),
        ({"zero": 1, "local_steps": 2}, "--zero and --local-steps cannot be combined"),
        ({"overlap": True, "compress": "int8"}, "--compress and --overlap cannot be combined"),
        ({"overlap": True, "bucket_mb": 0.0}, "--bucket-mb must be above 0"),
        ({"zero": 2, "check_every": 5}, "--check-every compares replicas"),
        ({"pp": 2, "schedule": "forward"}, "--schedule forward has no backward"),
        ({"pp": 2, "schedule": "2f2b"}, "there is no schedule 2f2b"),
        ({"pp": 2, "schedule": "interleaved", "microbatches": 3}, "3"),
        ({"pp": 2, "balance": "luck"}, "--balance is by bytes or time"),
        ({"pp": 2, "accumulate": 2}, "a pipeline has --microbatches"),
        ({"tp": 2, "model": "resnet"}, "the layers of resnet cannot be shared; those of gpt, mlp"),
        ({"precision": "float16", "local_steps": 2}, "float16 with --local-steps cannot be"),
        ({"precision": "float16", "compress": "int8"}, "float16 with --compress cannot be"),
        ({"sequence_parallel": True}, "--sequence-parallel goes with --tp"),
        ({"ps": "bsp"}, "there is no rule 'bsp'; there are sync, async, ssp"),
        ({"ps": "async", "dp": 2}, "--ps with --dp cannot be"),
        ({"ps": "sync", "on_worker_loss": "cry"}, "--on-worker-loss is error or drop"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(change, says):
    with pytest.raises(UsageError, match=says):
        check(replace(TINY, **change))
