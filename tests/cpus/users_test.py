#!/usr/bin/env python3
"""CPU slices of users who are not root, or not alone: a ledger in a folder that several share, rights that are missing,
no space for a lease.

    users_test.py ALLOT MACHINES

Exits with 77 (skipped) when the command was built without its CPU part.
"""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

from live import (ALLOT, CPUSET, ENV, NOBODY, allot, checked, expect_line, leases, level_in, mask,
                  our_groups, run, sleeper, wait_for)


def check_forged_leases():
    """What a user writes into a shared folder moves nobody else's process or group, and holds nobody up: not even where
    root reads it."""
    if os.geteuid() != 0:
        return
    folder = pathlib.Path(tempfile.mkdtemp(prefix="allot-cpus-forged-"))
    os.chmod(folder, 0o1777)
    env = dict(ENV, ALLOT_DIR=str(folder))
    last, victim = max(os.sched_getaffinity(0)), sleeper()

    def start_of(pid):
        return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19])

    def forge(file, **changes):
        lease = {"name": "forged", "cpus": str(last), "blocked": "", "exclusive": True, "mems": "", "group": "",
                 "launcher": [victim.pid, start_of(victim.pid)], "member": [victim.pid, start_of(victim.pid)], **changes}
        path = folder / file
        path.write_text(json.dumps(lease))
        os.chown(path, NOBODY, NOBODY)

    own = f"allot-forged.{victim.pid}.{start_of(victim.pid)}"
    group = CPUSET / own
    try:
        before = mask(victim.pid)
        if os.access(CPUSET / "tasks", os.W_OK):
            group.mkdir()  # root's
            (group / "cpuset.mems").write_text((CPUSET / "cpuset.mems").read_text())
            (group / "cpuset.cpus").write_text((CPUSET / "cpuset.cpus").read_text())
        for changes in ({}, {"group": str(group)}, {"group": str(CPUSET)}, {"group": "/etc"}, {"member": [1, start_of(1)]}):
            for file in (own + ".lease", "other.lease"):
                forge(file, **changes)
                result = run("watch", "--once", "--json", env=env)
                assert (result.returncode, result.stdout) == (0, ""), (changes, result)
                expect_line(run("detach", "forged", env=env), 125, "no slice of CPUs is called forged")
                assert mask(victim.pid) == before and mask(1) != str(last)
                if group.is_dir():
                    assert (group / "cpuset.cpus").read_text() == (CPUSET / "cpuset.cpus").read_text()
        os.mkfifo(folder / "pipe.lease")
        (folder / "link.lease").symlink_to("/dev/zero")
        (folder / "large.lease").write_bytes(b"[" * (1 << 20))
        (folder / "deep.lease").write_bytes(b"[" * (60 << 10))
        os.mkdir(folder / "folder.lease")
        result = allot("run", "--cpu-list", last, "--exclusive", "--", "true", env=env)
        assert result.returncode == 0, result.stderr
        (folder / "cpus.lock").unlink()
        os.mkfifo(folder / "cpus.lock")
        result = allot("run", "--cpu-list", last, "--exclusive", "--", "true", env=env)
        assert "cpus.lock is not a file; remove it" in result.stderr, result.stderr
    finally:
        if group.is_dir():
            group.rmdir()
        victim.kill()
        victim.wait()
        shutil.rmtree(folder)


def check_without_rights():
    if os.geteuid() != 0:
        print("not root: cannot try another user's rights")
        return
    folder = tempfile.mkdtemp(prefix="allot-cpus-nobody-")
    # Where that user may read it: a checkout may lie in a home that is closed to others.
    program = shutil.copy(ALLOT, folder)
    os.chown(folder, NOBODY, NOBODY)
    as_nobody = {"uid": NOBODY, "program": program}
    if allot("run", "--cpus", "1", "--", "true", env=dict(ENV, ALLOT_DIR="/nonexistent"), **as_nobody).returncode != 125:
        raise AssertionError("a ledger that cannot be made was not reported")
    os.mkdir(folder + "/leases")
    os.chown(folder + "/leases", NOBODY, NOBODY)
    as_nobody["env"] = dict(ENV, ALLOT_DIR=folder + "/leases")
    mine, theirs = sleeper(), sleeper(NOBODY)
    try:
        before = mask(mine.pid)
        expect_line(run("attach", mine.pid, "--cpus", "0,", **as_nobody), 125, "belongs to another user")
        assert mask(mine.pid) == before
        said = run("explain", "affinity", mine.pid, "0", **as_nobody)
        assert said.returncode == 1 and said.stdout.startswith("EPERM: "), said
        said = run("explain", "affinity", theirs.pid, "0", **as_nobody)
        assert said.returncode == 0 and said.stdout.startswith("works: "), said
        result = run("attach", theirs.pid, "--cpus", "0,", "--json", **as_nobody)
        assert result.returncode == 0, result.stderr
        report = json.loads(result.stdout)
        assert report["level"] == "advised" and report["reason"], report
        assert mask(theirs.pid) == "0"
    finally:
        for process in (mine, theirs):
            process.kill()
            process.wait()
        shutil.rmtree(folder)


def check_two_users():
    """Row 19: a folder of root's that all may write to, and a ledger made under umask 022. Each user sees and keeps
    off what the other has."""
    if os.geteuid() != 0:
        return
    protected = pathlib.Path("/proc/sys/fs/protected_regular")
    print(f"  fs.protected_regular is {protected.read_text().strip() if protected.exists() else 'not there'}")
    folder = tempfile.mkdtemp(prefix="allot-cpus-shared-")
    program = shutil.copy(ALLOT, folder)
    os.chmod(folder, 0o755)
    os.mkdir(folder + "/ledger")
    os.chmod(folder + "/ledger", 0o1777)
    env = dict(ENV, ALLOT_DIR=folder + "/ledger")
    try:
        for uid in (NOBODY, NOBODY - 1):
            result = allot("run", "--cpus", "1", "--", "true", env=env, uid=uid, program=program)
            assert result.returncode == 0, result.stderr
        cpus = sorted(os.sched_getaffinity(0))
        if len(cpus) < 2:
            return
        first = subprocess.Popen([program, "run", "--cpu-list", str(cpus[-1]), "--exclusive", "--name", "theirs", "--",
                                  "sleep", "100"], env=env, stderr=subprocess.DEVNULL, preexec_fn=lambda: os.setuid(NOBODY))
        other = {"env": env, "uid": NOBODY - 1, "program": program}
        wait_for(lambda: "theirs" in run("show", **other).stdout)
        expect_line(allot("run", "--cpu-list", cpus[-1], "--", "true", **other), 125, "is leased to theirs")
        expect_line(run("detach", "theirs", **other), 125, "another user")
        assert "theirs" in run("show", **other).stdout
        first.terminate()
        first.wait()
        result = allot("run", "--cpu-list", cpus[-1], "--", "true", **other)
        assert result.returncode == 0, result.stderr
    finally:
        shutil.rmtree(folder)


def check_lease_of_a_child():
    """Row 12: the program ends, its child stays on an exclusive CPU that no cpuset fences: the lease stays too."""
    cpus = sorted(os.sched_getaffinity(0))
    if os.geteuid() != 0 or len(cpus) < 2:
        return
    folder = tempfile.mkdtemp(prefix="allot-cpus-child-")
    program = shutil.copy(ALLOT, folder)
    os.chmod(folder, 0o755)
    os.mkdir(folder + "/ledger")
    os.chown(folder + "/ledger", NOBODY, NOBODY)
    as_nobody = {"uid": NOBODY, "program": program, "env": dict(ENV, ALLOT_DIR=folder + "/ledger")}
    words = ["run", "--cpus", f"{cpus[-1]},", "--exclusive", "--"]
    result = allot(*words, "sh", "-c", "sleep 100 </dev/null >/dev/null 2>&1 & echo $!", **as_nobody)
    child = int(result.stdout)
    try:
        assert result.returncode == 0, result.stderr
        level_in("".join(line + "\n" for line in result.stderr.splitlines()))
        expect_line(allot(*words, "true", **as_nobody), 125, "is leased to")
    finally:
        os.kill(child, signal.SIGKILL)
    wait_for(lambda: allot(*words, "true", **as_nobody).returncode == 0)
    shutil.rmtree(folder)


def check_full_folder():
    """Row 20: no space for a lease is said as that, and nothing is left."""
    if os.geteuid() != 0:
        return
    folder = tempfile.mkdtemp(prefix="allot-cpus-full-")
    script = ('mount -t tmpfs -o size=4k none "$0" 2>/dev/null || exit 77; head -c 4096 /dev/zero >"$0/full"; '
              'ALLOT_DIR="$0" "$1" run --cpu-list "$2" -- true; status=$?; ls "$0" >&2; exit $status')
    result = subprocess.run(["unshare", "-m", "sh", "-c", script, folder, ALLOT, str(max(os.sched_getaffinity(0)))],
                            env=ENV, capture_output=True, text=True, timeout=60)
    os.rmdir(folder)
    if result.returncode == 77 or "unshare" in result.stderr:
        print("no mount here: cannot fill a folder")
        return
    line, *left = result.stderr.splitlines()
    assert result.returncode == 125 and "No space left" in line and line.startswith("allot: "), result.stderr
    assert not [name for name in left if name.endswith(".lease")], left
    assert our_groups() == set()


if __name__ == "__main__":
    sys.exit(checked(check_lease_of_a_child, check_full_folder, check_two_users, check_forged_leases, check_without_rights))
