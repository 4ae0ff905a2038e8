#!/usr/bin/env python3
"""allot cpus as a user meets it: outputs, exit statuses, one line for each kind of bad input.

    command_test.py ALLOT MACHINES

Exits with 77 (skipped) when the command was built without its CPU part.
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ALLOT, MACHINES = sys.argv[1], pathlib.Path(sys.argv[2])
FOLDER = tempfile.mkdtemp(prefix="allot-cpus-")
ENV = dict(os.environ, ALLOT_DIR=FOLDER)
CPUSET = pathlib.Path("/sys/fs/cgroup/cpuset")
NOBODY = 65534


def run(*words, uid=None, env=ENV):
    def drop():
        if uid is not None:
            os.setgid(uid)
            os.setuid(uid)
    return subprocess.run([ALLOT, "cpus", *map(str, words)], env=env, capture_output=True, text=True,
                          preexec_fn=drop, timeout=120)


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


def check_plan():
    plan = json.loads(run("plan", "--machine", MACHINES / "desktop", "--cpus", 4, "--json").stdout)
    assert plan["tenants"][0]["cpus"] == "1-2,9-10", plan
    plan = json.loads(run("plan", "--machine", MACHINES / "two_sockets", "--tenant", "a=8:gpu=0",
                          "--tenant", "b=2:gpu=3:cores:exclusive", "--json").stdout)
    a, b = plan["tenants"]
    assert b["cpus"] == "32-33,96-97" and a["effective"] == a["cpus"], plan
    expect_line(run("plan", "--machine", MACHINES / "desktop", "--tenant", "a=9", "--tenant", "b=9"), 125, "no room for 9 CPUs for a")
    expect_line(run("plan"), 2, "--cpus")
    expect_line(run("plan", "--tenant", "a=1:near"), 2, "'near'")


def check_show():
    shown = json.loads(run("show", "--machine", MACHINES / "vm_flat", "--json").stdout)
    assert shown["gpus"][0]["node"] is None and shown["gpus"][0]["cpus"] is None, shown
    assert "slices are" in run("show").stdout
    expect_line(run("show", "--machine", "/nonexistent"), 125, "no list of online CPUs")


def check_attach():
    process = sleeper()
    last = max(os.sched_getaffinity(0))
    try:
        for more in (["--no-cpuset"], []):
            result = run("attach", process.pid, "--cpus", f"{last},", "--name", "cmdtest", "--json", *more)
            assert result.returncode == 0, result.stderr
            report = json.loads(result.stdout)
            assert mask(process.pid) == str(last) == report["cpus"], report
            assert report["level"] == ("enforced" if report["group"] else "advised"), report
            assert report["reason"] or report["level"] == "enforced", report
        before = mask(process.pid), our_groups()
        expect_line(run("attach", process.pid, "--cpus", "0-999"), 2, "there is no CPU")
        expect_line(run("attach", process.pid, "--cpus", ""), 2, "empty")
        expect_line(run("attach", process.pid, "--cpus", "x"), 2, "not a number")
        expect_line(run("attach", process.pid), 2, "--cpus")
        assert (mask(process.pid), our_groups()) == before, "a refused change changed something"
    finally:
        process.kill()
        process.wait()
    expect_line(run("attach", process.pid, "--cpus", "1"), 125, f"there is no process {process.pid}")
    process = sleeper()  # its attach removes what the dead one left
    run("attach", process.pid, "--cpus", f"{last},", "--name", "other", "--no-cpuset")
    process.kill()
    process.wait()
    assert our_groups() == set(), our_groups()


def check_without_rights():
    if os.geteuid() != 0:
        print("not root: cannot try another user's rights")
        return
    folder = tempfile.mkdtemp(prefix="allot-cpus-nobody-")
    os.chown(folder, NOBODY, NOBODY)
    env = dict(ENV, ALLOT_DIR=folder)
    mine, theirs = sleeper(), sleeper(NOBODY)
    try:
        before = mask(mine.pid)
        expect_line(run("attach", mine.pid, "--cpus", "0,", uid=NOBODY, env=env), 125, "belongs to another user")
        assert mask(mine.pid) == before
        result = run("attach", theirs.pid, "--cpus", "0,", "--json", uid=NOBODY, env=env)
        assert result.returncode == 0, result.stderr
        report = json.loads(result.stdout)
        assert report["level"] == "advised" and report["reason"], report
        assert mask(theirs.pid) == "0"
    finally:
        for process in (mine, theirs):
            process.kill()
            process.wait()
        shutil.rmtree(folder)


def check_explain_and_watch():
    if (CPUSET / "cpuset.cpus").exists():
        result = run("explain", "--json", "write", CPUSET / "cpuset.cpus", "0")
        said = json.loads(result.stdout)
        assert result.returncode == 1 and said["errno_name"] == "EACCES", said
    result = run("watch", "--once", "--dry-run", "--json")
    assert result.returncode == 0 and result.stdout == "", (result.stdout, result.stderr)


def main():
    try:
        if run("show").returncode != 0:
            print("built without the CPU part")
            return 77
        for check in (check_show, check_plan, check_attach, check_without_rights, check_explain_and_watch):
            check()
            print(f"{check.__name__}: ok")
    finally:
        shutil.rmtree(FOLDER)
    return 0


if __name__ == "__main__":
    sys.exit(main())
