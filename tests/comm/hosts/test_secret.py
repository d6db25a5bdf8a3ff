"""Who knows the token, and who does not; nothing that a stranger sees helps him."""

import socket
import threading

import pytest

from minipar.comm.hosts import secret
from minipar.errors import UsageError

TOKEN = b"sixteen letters!"


def test_the_token_from_the_environment_or_a_file(tmp_path):
    path = tmp_path / "token"
    path.write_text("from the file, long enough\n")
    path.chmod(0o600)
    from_file = {"MINIPAR_TOKEN_FILE": str(path)}
    assert secret.job_token(from_file) == b"from the file, long enough"
    assert secret.job_token(from_file | {"MINIPAR_TOKEN": TOKEN.decode()}) == TOKEN
    path.chmod(0o640)
    with pytest.raises(UsageError, match=f"others can read {path}.*: chmod 600 {path}"):
        secret.job_token(from_file)


@pytest.mark.parametrize(
    ("token", "says"), [("", "needs a token"), ("short", "has 5 characters, and could be guessed")]
)
def test_no_token_or_a_short_one_is_refused_with_what_to_do(token, says):
    with pytest.raises(UsageError, match=says) as caught:
        secret.job_token({"MINIPAR_TOKEN": token})
    assert 'python -c "import secrets; print(secrets.token_hex(16))"' in str(caught.value)


def claim_of(token, purpose, number, challenged):
    """What a connector says to that challenge."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(10)
        theirs.sendall(challenged)
        thread = threading.Thread(target=knock_and_fail, args=(ours, token, purpose, number))
        thread.start()
        claim = theirs.recv(secret.CLAIM_BYTES, socket.MSG_WAITALL)
        theirs.close()
        thread.join()
    return claim


def knock_and_fail(sock, token, purpose, number):
    with pytest.raises(secret.NotAdmitted, match="did not accept our token"):
        secret.knock(sock, token, purpose, number)


def test_a_claim_is_good_for_one_token_one_purpose_one_challenge_and_one_number():
    challenged = secret.challenge()
    claim = claim_of(TOKEN, b"to rank 1", 7, challenged)
    assert secret.admitted(TOKEN, b"to rank 1", challenged, claim)[0] == 7
    assert secret.admitted(TOKEN + b"x", b"to rank 1", challenged, claim) is None
    assert secret.admitted(TOKEN, b"to rank 2", challenged, claim) is None
    assert secret.admitted(TOKEN, b"to rank 1", secret.challenge(), claim) is None
    for place in range(len(claim)):
        changed = bytearray(claim)
        changed[place] ^= 1
        assert secret.admitted(TOKEN, b"to rank 1", challenged, bytes(changed)) is None


def test_a_proof_cannot_be_sent_back_as_the_other_sides():
    """Somebody answers a connector with what the connector has said."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(10)
        theirs.sendall(secret.challenge())
        caught = []

        def knock():
            try:
                secret.knock(ours, TOKEN, b"", 0)
            except secret.NotAdmitted as error:
                caught.append(str(error))

        thread = threading.Thread(target=knock)
        thread.start()
        claim = theirs.recv(secret.CLAIM_BYTES, socket.MSG_WAITALL)
        theirs.sendall(claim[-secret.PROOF_BYTES :])
        thread.join()
    assert caught == ["what answers there does not know the job's token"]


@pytest.mark.parametrize("says", [b"HTTP/1.1 400 Bad Request\r\n\r\n" * 3, b"minipar\x02" * 9])
def test_what_is_no_minipar_gets_no_proof(says):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(10)
        theirs.sendall(says)
        with pytest.raises(secret.NotAdmitted, match="not minipar, or another version"):
            secret.knock(ours, TOKEN, b"", 0)
        theirs.setblocking(False)
        with pytest.raises((BlockingIOError, ConnectionError)):
            theirs.recv(1)


def test_both_sides_derive_the_same_secret_and_another_for_another_job():
    assert secret.derived(TOKEN, b"a") == secret.derived(TOKEN, b"a")
    assert len({secret.derived(t, n) for t in (b"s", b"t") for n in (b"a", b"b")}) == 4
