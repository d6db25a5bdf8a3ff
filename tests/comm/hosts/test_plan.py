"""A job on several hosts, from the command line: results, failures, strangers, links that break.

The hosts are launchers on this machine, and where that is allowed, network namespaces.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minipar.comm.hosts import plan as hosts_module
from minipar.comm.started import Started
from minipar.errors import UsageError
from tests.comm.several import TOKEN, Hosts, environment, run_hosts, strangers

ROOT = str(Path(__file__).resolve().parents[2])
CONFORMS = f"""
import sys
sys.path.insert(0, {ROOT!r})
import minipar
from tests.comm.ranks import conformance
world = minipar.init()
print("rank", world.rank, "of", world.size, conformance(world))
"""
SUMS = """
import numpy as np, minipar
world = minipar.init()
print("rank", world.rank, "of", world.size, world.all_reduce(np.ones(9)).sum() == 9 * world.size)
"""
FAILS = """
import os, signal, sys, time
import numpy as np
import minipar
world = minipar.init()
how, who = sys.argv[1], int(sys.argv[2])
world.barrier()
if world.rank == who:
    if how == "raise":
        raise ValueError("the reason")
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "shape":
        world.all_reduce(np.zeros(7))
    if how == "return":
        sys.exit(0)
    if how == "launcher":
        os.kill(os.getppid(), signal.SIGKILL)
    if how == "stop":
        os.kill(os.getppid(), signal.SIGSTOP)
    if how == "interrupt":
        os.kill(os.getppid(), signal.SIGINT)
if how == "leave out":
    if world.rank == 0:
        while len(world._transport._finished) < world.size - 1:
            time.sleep(0.001)  # until all others have returned
        world.broadcast(np.zeros(2), algorithm="naive")
    sys.exit(0)
if how == "exit code":
    if world.rank == who:
        import atexit
        atexit.register(os._exit, 5)
    sys.exit(0)
world.all_reduce(np.zeros(3))
"""
GOES_ON = """
import numpy as np, minipar
world = minipar.init()
world.barrier()
print("here", flush=True)
while True:
    world.all_reduce(np.zeros(1000))
"""


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.slow
@pytest.mark.parametrize(("nodes", "ranks"), [slow(2, 1), slow(2, 2), (3, (1, 2, 1))])
def test_every_promise_of_the_transport_holds(tmp_path, nodes, ranks):
    ended = run_hosts(tmp_path, CONFORMS, nodes=nodes, ranks=ranks)
    assert [host.code for host in ended] == [0] * nodes, [host.err for host in ended]
    said = "".join(host.out for host in ended)
    p = sum(ranks) if nodes == 3 else nodes * ranks
    assert sorted(re.findall(r"rank (\d+) of (\d+) True", said)) == [
        (str(r), str(p)) for r in range(p)
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "who", "says"),
    [
        ("raise", 3, "rank 3 raised ValueError: the reason"),
        slow("raise", 0, "rank 0 raised ValueError: the reason"),
        slow("kill", 1, "rank 1 was killed by signal 9 (SIGKILL); its last call was barrier #0 "),
        ("kill", 2, "rank 2 was killed by signal 9 (SIGKILL); its last call was barrier #0 "),
        slow("shape", 2, "sum float64[7]"),
        ("return", 3, "for a rank that has returned (last calls: rank 3: barrier #0 "),
        slow("return", 0, "for a rank that has returned (last calls: rank 0: barrier #0 "),
        ("leave out", 3, "has returned, but never took part in rank 0's broadcast #1 "),
        slow("exit code", 3, "rank 3 ended with exit code 5"),
    ],
)
def test_a_failure_ends_all_hosts_with_the_same_sentence(tmp_path, how, who, says):
    """Promised: within 2 s; a start of four ranks is in the time, too."""
    ended = run_hosts(tmp_path, FAILS, ranks=2, arguments=[how, str(who)])
    for host in ended:
        assert host.code == 1 and says in host.last, host.err
        assert host.last == ended[0].last
        assert "Traceback" not in host.err or how != "kill"
        assert host.seconds < 5 * 2


@pytest.mark.slow
@pytest.mark.parametrize("who", [0, 2])
def test_the_death_of_a_launcher_is_noticed_at_once(tmp_path, who):
    ended = run_hosts(tmp_path, FAILS, ranks=2, arguments=["launcher", str(who)])
    dead, other = (ended[who // 2], ended[1 - who // 2])
    assert dead.code == -signal.SIGKILL and other.code == 1
    assert other.last == (
        f"minipar: node {who // 2} at 127.0.0.1 (ranks {who} to {who + 1}) is lost: "
        "its launcher has ended without a word"
    )
    assert other.seconds < 5 * 2


@pytest.mark.slow
def test_a_launcher_that_is_stopped_is_noticed(tmp_path):
    """Promised: 5 s without a word."""
    with Hosts(tmp_path, FAILS, arguments=["stop", "1"]) as hosts:
        first = hosts.start(0)
        hosts.start(1)
        _, err = first.communicate(timeout=5 * 5)
    assert "node 1 at 127.0.0.1 (rank 1) is lost: nothing was heard of it for 5 s" in err


@pytest.mark.slow
@pytest.mark.parametrize("who", [0, 1])
def test_ctrl_c_on_one_host_ends_all(tmp_path, who):
    ended = run_hosts(tmp_path, FAILS, arguments=["interrupt", str(who)])
    assert [host.code for host in ended] == [130, 130]
    assert ended[who].last == "minipar: interrupted"
    assert ended[1 - who].last == f"minipar: interrupted on node {who}"


@pytest.mark.slow
def test_strangers_do_not_disturb_the_job(tmp_path):
    """Many at once, before the others come, silent or not; they are still there at the end."""
    with Hosts(tmp_path, "import minipar; minipar.init().barrier()", nodes=3) as hosts:
        hosts.start(0)
        wait_until_it_listens(hosts.port)
        with strangers(("127.0.0.1", hosts.port)):
            hosts.start(1)
            hosts.start(2)
            ended = hosts.ends()
    assert [host.code for host in ended] == [0, 0, 0], [host.err for host in ended]


def test_nobody_listens_any_more_during_the_run(tmp_path):
    with Hosts(tmp_path, GOES_ON) as hosts:
        jobs = hosts.start_all().jobs
        assert "here" in jobs[0].stdout.readline()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", hosts.port), 5)
        tree = {pid for job in jobs for pid in (job.pid, *children(job.pid))}
        assert len(tree) == 4 and not any(listening(pid) for pid in tree)
        jobs[1].send_signal(signal.SIGINT)
        assert [host.code for host in hosts.ends()] == [130, 130]


def test_a_job_on_one_host_has_no_socket_of_the_internet(tmp_path):
    (tmp_path / "script.py").write_text(GOES_ON)
    command = [sys.executable, "-m", "minipar", "run", "-n", "2", "script.py"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=tmp_path, env=environment(), **pipes) as job:
        assert b"here" in job.stdout.readline()
        tree = [job.pid, *children(job.pid)]
        assert len(tree) == 3
        assert not any(internet_sockets(pid) for pid in tree)
        job.kill()


@pytest.mark.slow
def test_a_launcher_with_another_token_is_not_let_in(tmp_path):
    with Hosts(tmp_path, "", options=["--timeout", "3"]) as hosts:
        hosts.start(0)
        hosts.start(1, MINIPAR_TOKEN="another token, long enough too")
        first, second = hosts.ends()
    assert first.code == second.code == 1
    assert "node 1 was not let in at 127.0.0.1" in second.last
    assert "it did not accept our token: is MINIPAR_TOKEN the same here?" in second.last
    assert "1 of 2 nodes have come: 0; waited 3 s for node 1 at 127.0.0.1" in first.last
    assert "turned away without the right token: 3" in first.last


@pytest.mark.slow
def test_who_has_not_come_is_named(tmp_path):
    with Hosts(tmp_path, "", nodes=3, options=["--timeout", "1.5"]) as hosts:
        hosts.start(0)
        hosts.start(2)
        first, third = hosts.ends()
    assert first.code == third.code == 1
    assert "2 of 3 nodes have come: 0, 2; waited 2 s for node 1 at 127.0.0.1" in first.last
    assert "node 0 at 127.0.0.1" in third.last and "sent node 2 away: 2 of 3" in third.last


def test_without_node_0_nobody_waits_for_ever(tmp_path):
    with Hosts(tmp_path, "", options=["--timeout", "1"]) as hosts:
        hosts.start(1)
        (only,) = hosts.ends()
    assert only.code == 1
    assert "node 1 cannot reach node 0 at 127.0.0.1" in only.last
    assert "tried for 1 s. Is it started, with the same --rendezvous?" in only.last


@pytest.mark.slow
@pytest.mark.parametrize(
    ("nodes", "says"),
    [
        (3, "node 1 is there already: each host needs a --node-rank of its own"),
        (4, "it was started with --nnodes 4, and node 0 with 3"),
    ],
)
def test_a_node_that_does_not_fit_is_refused_and_the_job_goes_on(tmp_path, nodes, says):
    with Hosts(tmp_path, "import minipar; minipar.init().barrier()", nodes=3) as hosts:
        hosts.start(0)
        hosts.start(1)
        wrong = hosts.start(1, nodes=nodes)
        while all(job.poll() is None for job in hosts.jobs[1:]):
            time.sleep(0.01)
        hosts.start(2)
        ended = hosts.ends()
    refused = [host for host in ended if host.code]
    assert len(refused) == 1 and says in refused[0].last, [host.err for host in ended]
    assert nodes == 3 or wrong.returncode == 1


def test_a_port_in_use_is_a_sentence(tmp_path):
    with Hosts(tmp_path, "") as hosts, socket.create_server(("127.0.0.1", hosts.port)):
        hosts.start(0)
        (only,) = hosts.ends()
    assert only.code == 1
    assert "node 0 cannot listen at 127.0.0.1" in only.last and "in use" in only.last


@pytest.mark.parametrize(
    ("options", "env", "says"),
    [
        ("--nnodes 2", {}, "several hosts take all of --nnodes K"),
        ("--nnodes 2 --node-rank 2 --rendezvous h:1", {}, "--node-rank goes from 0 to 1, not 2"),
        ("--nnodes 2 --node-rank 0 --rendezvous host", {}, "'host' is no rendezvous"),
        ("--nnodes 2 --node-rank 0 --rendezvous 0.0.0.0:1", {}, "names no host"),
        ("--nnodes 2 --node-rank 0 --rendezvous h:1", {"MINIPAR_TOKEN": ""}, "needs a token"),
        ("--nnodes 2 --node-rank 0 --rendezvous h:1", {"MINIPAR_TOKEN": "x"}, "has 1 characters"),
        ("--nnodes 2 --node-rank 0 --rendezvous h:1 --backend local", {}, "has no --nnodes"),
    ],
)
def test_wrong_use_is_one_sentence(tmp_path, options, env, says, command_line, monkeypatch):
    (tmp_path / "script.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", environment(**env))
    done = command_line("run", *options.split(), "script.py")
    assert done.returncode == 2 and says in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1 and TOKEN not in done.stderr


# -- started by others ------------------------------------------------------------------------


def run_started(tmp_path, source, variables, arguments=()):
    """One launcher for each mapping of variables."""
    (tmp_path / "script.py").write_text(source)
    command = [sys.executable, "-m", "minipar", "run", "script.py", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": tmp_path}
    jobs = [subprocess.Popen(command, env=environment(**v), **pipes) for v in variables]
    try:
        return [(*job.communicate(timeout=60), job.returncode) for job in jobs]
    finally:
        for job in jobs:
            job.kill()


def torchrun(job, ranks):
    return [
        {
            "RANK": str(r),
            "WORLD_SIZE": str(ranks),
            "LOCAL_RANK": str(r),
            "LOCAL_WORLD_SIZE": str(ranks),
            "TORCHELASTIC_RUN_ID": f"test-{job}",
            "MINIPAR_TOKEN": "",
        }
        for r in range(ranks)
    ]


def srun(job, ranks):
    return [
        {
            "SLURM_PROCID": str(r),
            "SLURM_NTASKS": str(ranks),
            "SLURM_LOCALID": str(r),
            "SLURM_NNODES": "1",
            "SLURM_JOB_ID": str(job),
            "SLURM_STEP_ID": "0",
            "MINIPAR_TOKEN": "",
        }
        for r in range(ranks)
    ]


@pytest.mark.parametrize(("by", "work"), [(torchrun, CONFORMS), (srun, SUMS)])
def test_ranks_that_others_started_on_this_host_share_memory(tmp_path, by, work):
    source = work + (
        "import os\n"
        "maps = [os.stat(f'/proc/self/map_files/{n}').st_ino\n"
        "        for n in os.listdir('/proc/self/map_files')\n"
        "        if 'memfd:minipar' in os.readlink(f'/proc/self/map_files/{n}')]\n"
        "print('memory', *set(maps))\n"
    )
    ended = run_started(tmp_path, source, by(os.getpid(), 3))
    assert [code for _, _, code in ended] == [0, 0, 0], ended
    out = "".join(out for out, _, _ in ended)
    assert sorted(re.findall(r"rank (\d) of 3 True", out)) == ["0", "1", "2"]
    assert len(set(re.findall(r"memory (\d+)\n", out))) == 1


@pytest.mark.parametrize("by", [torchrun, srun])
def test_their_failure_ends_all(tmp_path, by):
    ended = run_started(tmp_path, FAILS, by(os.getpid(), 2), ["raise", "1"])
    for _, err, code in ended:
        assert code == 1
        assert err.splitlines()[-1] == "minipar: rank 1 raised ValueError: the reason"


def test_their_deadlock_is_seen_since_they_share_memory(tmp_path):
    source = "import minipar; g = minipar.init(); g.recv(1 - g.rank)"
    ended = run_started(tmp_path, source, torchrun(os.getpid(), 2))
    for _, err, code in ended:
        assert code == 1
        assert "no rank can go on: rank 0 waits for rank 1, rank 1 waits" in err.splitlines()[-1]


def test_cores_are_shared_among_the_ranks_of_a_host():
    """What a rank then gets for its threads is tested in test_environment.py."""
    meeting = hosts_module.found(None, 1.0, torchrun(1, 64)[0])
    assert (meeting.on_host, meeting.ranks) == (64, 1)


def test_on_several_hosts_they_are_told_what_to_set():
    env = torchrun(1, 4)[3] | {"LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "1"}
    with pytest.raises(UsageError, match=r"4 processes, 2 of them on this host. Set MINIPAR_REND"):
        hosts_module.found(None, 1.0, env)
    with pytest.raises(UsageError, match="needs a token"):
        hosts_module.found(None, 1.0, env | {"MINIPAR_RENDEZVOUS": "a:5"})
    meeting = hosts_module.found(
        None, 1.0, env | {"MINIPAR_RENDEZVOUS": "a:5", "MINIPAR_TOKEN": "x" * 16}
    )
    assert (meeting.where, meeting.node, meeting.nodes, meeting.ranks) == (("a", 5), 3, 4, 1)


def test_where_mpi_is_at_hand_it_wins_unless_the_backend_is_said():
    env = srun(1, 2)[0] | {"PMI_RANK": "0", "PMI_SIZE": "2"}
    assert hosts_module.found(None, 1.0, env) is None
    assert hosts_module.found("local", 1.0, srun(1, 2)[0]) is None
    assert hosts_module.found("process", 1.0, env).nodes == 2


def test_the_unix_socket_belongs_to_the_user_and_the_job():
    one = Started("torchrun", 0, 2, 0, 2, "some job")
    names = {
        hosts_module._unix_name(s)
        for s in (one, one._replace(job="other"), one._replace(by="srun"))
    }
    assert len(names) == 3 and all(str(os.getuid()) in name for name in names)


# -- namespaces -------------------------------------------------------------------------------


@pytest.fixture
def two_namespaces():
    """Two network namespaces with a cable between them; their names, and those of its ends."""
    if shutil.which("ip") is None:
        pytest.skip("there is no `ip` to make network namespaces with")
    names = [f"mp{os.getpid()}{end}" for end in "ab"]
    commands = [["netns", "add", name] for name in names]
    commands.append(["link", "add", names[0], "netns", names[0], "type", "veth"])
    commands[-1] += ["peer", "name", names[1], "netns", names[1]]
    for name, address in zip(names, ("10.77.0.1/24", "10.77.0.2/24"), strict=True):
        commands.append(["-n", name, "addr", "add", address, "dev", name])
        commands += [["-n", name, "link", "set", device, "up"] for device in (name, "lo")]
    try:
        for command in commands:
            done = subprocess.run(["ip", *command], capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"no network namespaces here: {done.stderr.strip()}")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def start_in(hosts, namespaces):
    for node, name in enumerate(namespaces):
        hosts.start(node, prefix=["ip", "netns", "exec", name], host="10.77.0.1")


@pytest.mark.slow
def test_hosts_with_networks_of_their_own(tmp_path, two_namespaces):
    with Hosts(tmp_path, CONFORMS, ranks=2) as hosts:
        start_in(hosts, two_namespaces)
        ended = hosts.ends()
    assert [host.code for host in ended] == [0, 0], [host.err for host in ended]


def test_hosts_with_a_slow_link_between_them(tmp_path, two_namespaces):
    name = two_namespaces[0]
    delay = ["tc", "-n", name, "qdisc", "add", "dev", name, "root", "netem", "delay", "5ms"]
    if shutil.which("tc") is None:
        pytest.skip("there is no `tc` to delay a link with")
    done = subprocess.run(delay, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this kernel delays no link: {done.stderr.strip()}")
    with Hosts(tmp_path, CONFORMS) as hosts:
        start_in(hosts, two_namespaces)
        ended = hosts.ends()
    assert [host.code for host in ended] == [0, 0], [host.err for host in ended]


@pytest.mark.slow
def test_a_cut_link_ends_both_sides(tmp_path, two_namespaces):
    """Promised: 5 s without a word."""
    with Hosts(tmp_path, GOES_ON) as hosts:
        start_in(hosts, two_namespaces)
        assert "here" in hosts.jobs[0].stdout.readline()
        name = two_namespaces[0]
        subprocess.run(["ip", "-n", name, "link", "set", name, "down"], check=True)
        ended = hosts.ends(timeout_s=5 * 5)
    for host, (node, address) in zip(ended, ((1, "10.77.0.2"), (0, "10.77.0.1")), strict=True):
        assert host.code == 1
        assert f"node {node} at {address} (rank {node}) is lost: nothing was heard" in host.last


# -- what the system knows of processes -------------------------------------------------------


def wait_until_it_listens(port):
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.01)


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def internet_sockets(pid):
    """Lines of /proc/net/tcp and the like that belong to a process."""
    inodes = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        if match := re.fullmatch(r"socket:\[(\d+)\]", os.readlink(fd)):
            inodes.add(match[1])
    found = []
    for table in ("tcp", "tcp6", "udp", "udp6", "raw"):
        path = Path(f"/proc/{pid}/net/{table}")
        if path.exists():
            lines = (line.split() for line in path.read_text().splitlines()[1:])
            found += [line for line in lines if line[9] in inodes]
    return found


def listening(pid):
    return [line for line in internet_sockets(pid) if line[3] == "0A"]
