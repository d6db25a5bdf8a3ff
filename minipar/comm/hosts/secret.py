"""The job's secret: where it comes from, and how a connection proves that it is known.

Whoever starts a job on several hosts gives all of them the same token. It is never sent. Each side
draws a nonce, a number used once, and shows that it can compute an HMAC over both nonces:

    acceptor  -> connector    HELLO, nonce A
    connector -> acceptor     nonce C, number, HMAC(secret; "connector", purpose, A, C, number)
    acceptor  -> connector    HMAC(secret; "acceptor", purpose, A, C, number)

The connector proves first, so a stranger who connects learns nothing that he could try tokens on.
Each proof names its side, so it cannot be sent back as the other's; `purpose` says what the
connection is for, and number who connects, so a proof is good for nothing else. What travels
afterwards is neither encrypted nor signed: that is the network's part.
"""

from __future__ import annotations

import hmac
import os
import secrets
import socket
import stat
import struct
from collections.abc import Mapping

from minipar.errors import CommError, UsageError

HELLO = b"minipar\x01"
NONCE_BYTES = PROOF_BYTES = 32
NUMBER = struct.Struct("<I")
CHALLENGE_BYTES = len(HELLO) + NONCE_BYTES
CLAIM_BYTES = NONCE_BYTES + NUMBER.size + PROOF_BYTES
SHORTEST_TOKEN = 16  # characters
HOW_TO_MAKE_ONE = 'python -c "import secrets; print(secrets.token_hex(16))"'


class NotAdmitted(CommError):
    """The other side does not know the secret, does not accept ours, or is no minipar at all."""


def job_token(environ: Mapping[str, str]) -> bytes:
    """The token from MINIPAR_TOKEN, or from the file that MINIPAR_TOKEN_FILE names.

    Raises: UsageError if there is none, if it is short, or if others, or not even we, can read it.
    """
    path = environ.get("MINIPAR_TOKEN_FILE", "")
    token = environ.get("MINIPAR_TOKEN", "") or (path and _from_file(path))
    if not token:
        raise UsageError(
            "a job on several hosts needs a token, the same on each, so that nobody else can join "
            f"it. Make one: {HOW_TO_MAKE_ONE}; then set MINIPAR_TOKEN to it, or write it to a file "
            "that only you can read and set MINIPAR_TOKEN_FILE to its path."
        )
    if len(token) < SHORTEST_TOKEN:
        raise UsageError(
            f"the job's token has {len(token)} characters, and could be guessed; it must have at "
            f"least {SHORTEST_TOKEN}. Make one: {HOW_TO_MAKE_ONE}"
        )
    return token.encode()


def _from_file(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            mode, token = os.fstat(file.fileno()).st_mode, file.read().strip()
    except OSError as error:
        raise UsageError(f"MINIPAR_TOKEN_FILE={path}: {error.strerror}") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UsageError(f"others can read {path}, which has the job's token: chmod 600 {path}")
    return token


def derived(token: bytes, nonce: bytes) -> bytes:
    """The secret of one job, for its ranks, from the token and what its first launcher drew."""
    return hmac.digest(token, b"job" + nonce, "sha256")


def challenge() -> bytes:
    """What an acceptor says first."""
    return HELLO + secrets.token_bytes(NONCE_BYTES)


def admitted(
    secret: bytes, purpose: bytes, challenged: bytes, claim: bytes
) -> tuple[int, bytes] | None:
    """What an acceptor makes of CLAIM_BYTES: who it is, and the answer; None for a stranger."""
    content, theirs = claim[:-PROOF_BYTES], claim[-PROOF_BYTES:]
    said = purpose + challenged[len(HELLO) :] + content
    if not hmac.compare_digest(theirs, _proof(secret, b"connector", said)):
        return None
    return NUMBER.unpack(content[NONCE_BYTES:])[0], _proof(secret, b"acceptor", said)


def knock(sock: socket.socket, secret: bytes, purpose: bytes, number: int) -> socket.socket:
    """The connector's part, as `number`; the same socket, if both have proved themselves.

    Waits as long as the socket's timeout allows. Otherwise the socket is closed.
    Raises: NotAdmitted; ConnectionError if the other side went before its challenge; TimeoutError.
    """
    try:
        _prove(sock, secret, purpose, number)
    except BaseException:
        sock.close()
        raise
    return sock


def _prove(sock: socket.socket, secret: bytes, purpose: bytes, number: int) -> None:
    challenged = _exactly(sock, CHALLENGE_BYTES)
    if not challenged.startswith(HELLO):
        raise NotAdmitted("what answers there is not minipar, or another version of it")
    content = secrets.token_bytes(NONCE_BYTES) + NUMBER.pack(number)
    said = purpose + challenged[len(HELLO) :] + content
    try:
        sock.sendall(content + _proof(secret, b"connector", said))
        answer = _exactly(sock, PROOF_BYTES)
    except ConnectionError:
        raise NotAdmitted("it did not accept our token: is MINIPAR_TOKEN the same here?") from None
    if not hmac.compare_digest(answer, _proof(secret, b"acceptor", said)):
        raise NotAdmitted("what answers there does not know the job's token")


def _proof(secret: bytes, side: bytes, said: bytes) -> bytes:
    return hmac.digest(secret, side + b":" + said, "sha256")


def _exactly(sock: socket.socket, n: int) -> bytes:
    raw = b""
    while len(raw) < n:
        piece = sock.recv(n - len(raw))
        if not piece:
            raise ConnectionError("it closed the connection")
        raw += piece
    return raw
