"""How the launcher describes what it saw; that it sees it is tested in test_process.py."""

import pytest

from minipar.comm import supervisor


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (0, "ended with exit code 0 and without a word"),
        (-9, "was killed by signal 9 (SIGKILL)"),
        (-63, "was killed by signal 63"),
    ],
)
def test_exit_statuses_in_words(status, says):
    assert supervisor._describe_exit(status) == says
