"""What the tests of the command's CPU side share: the command, processes to move, and what is left behind.

A test is called with ALLOT and MACHINES, and calls checked() with its checks.
"""
import fcntl
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ALLOT, MACHINES = sys.argv[1], pathlib.Path(sys.argv[2])
FOLDER = tempfile.mkdtemp(prefix="allot-cpus-")
ENV = dict(os.environ, ALLOT_DIR=FOLDER)
CPUSET = pathlib.Path("/sys/fs/cgroup/cpuset")
NOBODY = 65534


def allot(*words, uid=None, env=ENV, program=ALLOT):
    def drop():
        if uid is not None:
            os.setgid(uid)
            os.setuid(uid)
    return subprocess.run([program, *map(str, words)], env=env, capture_output=True, text=True,
                          preexec_fn=drop, timeout=120)


def run(*words, **more):
    return allot("cpus", *words, **more)


def expect_line(result, status, *words):
    """The command failed with this status, and one line that holds all the words."""
    assert result.returncode == status, (result.returncode, result.stdout, result.stderr)
    assert result.stderr.startswith("allot: ") and result.stderr.count("\n") == 1, result.stderr
    for word in words:
        assert word in result.stderr, (word, result.stderr)


def mask(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("Cpus_allowed_list:"):
            return line.split(":")[1].strip()


def sleeper(uid=None):
    return subprocess.Popen(["sleep", "100"], preexec_fn=(lambda: os.setuid(uid)) if uid else None)


def our_groups():
    return {p.name for p in CPUSET.glob("allot-cmdtest*")} if CPUSET.is_dir() else set()


def wait_for(condition):
    """Until it holds; at most 30 s."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "waited 30 s in vain"
        time.sleep(0.02)


def leases():
    return {p.name for p in pathlib.Path(FOLDER).glob("*.lease")}


SHOW = "sed -n 's/^Cpus_allowed_list:.//p' /proc/self/status"


def level_in(text):
    """The level that `run` printed on its one line, which says why when it is not enforced."""
    line = [line for line in text.splitlines() if line.startswith("allot: CPUs ")]
    assert len(line) == 1, text
    level = line[0].split(": ")[2].split()[0].rstrip(":")
    assert level in ("enforced", "advised"), text
    assert level == "enforced" or len(line[0].split(": ")) > 3, text
    return level


def mask_or_none(pid):
    try:
        return mask(pid)
    except (FileNotFoundError, ProcessLookupError):
        return None


def checked(*checks):
    """Runs them one after the other; the exit status, 77 (skipped) when allot was built without its CPU part."""
    # One test of real groups at a time; see live_machine.h.
    turn = open("/tmp/allot-cpus-test.lock", "a")
    fcntl.lockf(turn, fcntl.LOCK_EX)
    try:
        if run("show").returncode != 0:
            print("built without the CPU part")
            return 77
        for check in checks:
            check()
            print(f"{check.__name__}: ok")
    finally:
        shutil.rmtree(FOLDER)
    return 0
