#!/usr/bin/env python3
"""allot cpus attach, set, detach and watch on running processes: what is printed is what the kernel shows, whatever came
before, however many ask at once, and whatever strangers do.

    change_test.py ALLOT MACHINES

Exits with 77 (skipped) when the command was built without its CPU part.
"""
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

from live import (ALLOT, CPUSET, ENV, FOLDER, allot, checked, expect_line, leases, mask,
                  mask_or_none, our_groups, run, sleeper, wait_for)
from machines import as_list


def check_dying_process():
    for delay in (0.0, 0.01, 0.02, 0.04):
        process = subprocess.Popen(["sleep", str(delay)])
        result = run("attach", process.pid, "--cpus", "1", "--name", "cmdtest")
        process.wait()
        if result.returncode != 0:
            expect_line(result, 125, f"process {process.pid}")
    allot("run", "--cpus", "1", "--", "true")
    assert our_groups() == set() and leases() == set(), (our_groups(), leases())


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


def check_change():
    """Rows 1-3 and 13-16 of the CPU faults: a second attach, ten at once, a foreign cpuset, nested runs."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        return
    a, b = cpus[-2], cpus[-1]
    process = sleeper()

    def leases():
        return [j for j in (json.loads(p.read_text()) for p in pathlib.Path(FOLDER).glob("*.lease"))
                if j["member"][0] == process.pid]

    try:
        assert run("attach", process.pid, "--cpus", f"{b},", "--name", "cmdtest", "--exclusive").returncode == 0
        result = run("attach", process.pid, "--cpu-list", a)
        assert result.returncode == 0 and mask(process.pid) == str(a), (result.stdout, result.stderr)
        assert [j["cpus"] for j in leases()] == [str(a)], leases()
        result = run("set", "cmdtest", "--cpus", f"{a},{b}", "--json")
        assert result.returncode == 0, result.stderr
        assert json.loads(result.stdout)["granted"] == f"{a}-{b}" == mask(process.pid), result.stdout
        expect_line(run("set", "cmdtest", "--cpus", "900-901"), 2, "there is no CPU")
        assert mask(process.pid) == f"{a}-{b}" and len(leases()) == 1
        at_once = [subprocess.Popen([ALLOT, "cpus", "attach", str(process.pid), "--cpu-list", str((a, b)[i % 2])],
                                    env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for i in range(10)]
        for one in at_once:
            one.communicate(timeout=60)
            assert one.returncode == 0
        assert len(leases()) == 1 and leases()[0]["cpus"] == mask(process.pid), (leases(), mask(process.pid))
        assert run("detach", process.pid).returncode == 0
        assert leases() == [] and our_groups() == set() and mask(process.pid) != str(a)
        expect_line(run("detach", "cmdtest"), 125, "no slice of CPUs is called cmdtest")
    finally:
        process.kill()
        process.wait()
    expect_line(run("attach", "--cpus", "1", "--", "-1"), 2, "'-1' is not a process number")
    expect_line(run("attach", "abc", "--cpus", "1"), 2, "'abc' is not a process number")
    expect_line(run("attach", os.getpid(), "--cpus", "1", "--near-gpu", "x"), 2, "'x' is no GPU number")
    if pathlib.Path("/proc/2/status").exists() and "kthreadd" in pathlib.Path("/proc/2/status").read_text():
        expect_line(run("attach", "2", "--cpus", f"{a},", "--no-cpuset"), 125, "kernel thread")
    result = allot("run", "--cpus", f"{b},", "--exclusive", "--", ALLOT, "run", "--cpus", f"{b},", "--", "true")
    assert result.returncode == 0, result.stderr
    result = subprocess.run(["taskset", "-c", str(a), ALLOT, "run", "--cpus", f"{b},", "--", "true"], env=ENV,
                            capture_output=True, text=True, timeout=60)
    expect_line(result, 2, "--any-cpu")


def check_set_and_detach_say_what_was_read_back():
    """Whatever came before, `set` gives the CPUs asked for, and `detach` says what the kernel then allows."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        return
    a, b = cpus[-2], cpus[-1]
    both = as_list([a, b])
    # A mask that allot set is gone in whatever is given next, also one that the kernel only remembers.
    for path in ([both], [a, both], [both, b, both], [b, a, both]):
        with sleeper() as process:
            assert run("attach", process.pid, "--cpu-list", b, "--no-cpuset", "--name", "cmdtest").returncode == 0
            for wanted in path:
                said = json.loads(run("set", "cmdtest", "--cpu-list", wanted, "--json").stdout)
                assert said["granted"] == str(wanted) == mask(process.pid), (path, said, mask(process.pid))
            said = json.loads(run("detach", "cmdtest", "--json").stdout)
            assert said == {"slice": "cmdtest", "processes": 1, "granted": mask(process.pid)}, said
            assert mask(process.pid) == as_list(cpus), mask(process.pid)
            process.kill()
    # A mask that the process chose itself stays, and is said.
    with sleeper() as process:
        os.sched_setaffinity(process.pid, {a})
        result = run("attach", process.pid, "--cpu-list", both, "--name", "cmdtest")
        assert f"CPUs {mask(process.pid)}:" in result.stdout, result.stdout
        if mask(process.pid) != both:  # Linux 6.2 and later
            assert f"own masks allow CPUs {a} of {both} only" in result.stderr, result.stderr
            run("set", "cmdtest", "--cpu-list", both)
            assert mask(process.pid) == str(a)
            said = run("detach", "cmdtest")
            assert said.stdout == f"cmdtest: 1 process may use CPUs {a} now\n", said
        process.kill()
    # Affinity alone for what has a cpuset already: the cpuset is changed, and that is said.
    with sleeper() as process:
        if json.loads(run("attach", process.pid, "--cpu-list", b, "--json").stdout)["group"]:
            result = run("attach", process.pid, "--cpu-list", both, "--no-cpuset")
            assert mask(process.pid) == both and "its cpuset was changed" in result.stderr, result
        process.kill()
    # Children of a slice without a cpuset hold to the same masks, and go along.
    with subprocess.Popen(["sh", "-c", "read go; sleep 100 & echo $!; wait"], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as parent:
        run("attach", parent.pid, "--cpu-list", b, "--no-cpuset", "--name", "cmdtest")
        parent.stdin.write("go\n")
        parent.stdin.flush()
        child = int(parent.stdout.readline())
        assert mask(child) == str(b)
        said = json.loads(run("set", str(child), "--cpu-list", a, "--json").stdout)
        assert (mask(parent.pid), mask(child), said["processes"]) == (str(a), str(a), 2), said
        run("attach", parent.pid, "--cpu-list", both, "--name", "cmdtest")
        assert run("detach", "cmdtest").returncode == 0
        assert mask(parent.pid) == mask(child) == as_list(cpus)
        parent.kill()
        os.kill(child, signal.SIGKILL)
    # The program has ended, its child lives on in the group: the slice can still be changed.
    result = allot("run", "--cpu-list", b, "--name", "cmdtest", "--", "sh", "-c",
                   "sleep 100 </dev/null >/dev/null 2>&1 & echo $!")
    child = int(result.stdout)
    if our_groups():
        assert run("set", "cmdtest", "--cpu-list", a).returncode == 0 and mask(child) == str(a)
        assert run("detach", "cmdtest").returncode == 0 and mask(child) == as_list(cpus)
    os.kill(child, signal.SIGKILL)
    wait_for(lambda: our_groups() == set())


def empty_and_remove(group):
    for pid in (group / "cgroup.procs").read_text().split():
        (CPUSET / "cgroup.procs").write_text(pid + "\n")
    group.rmdir()


def check_a_group_that_is_gone_is_made_anew():
    """Another program has removed the slice's group: set and attach give what is asked for, detach says what is so."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2 or not os.access(CPUSET / "tasks", os.W_OK):
        return
    with sleeper() as process:
        for command in (["set", "cmdtest"], ["attach", process.pid]):
            assert run("attach", process.pid, "--cpu-list", cpus[-1], "--name", "cmdtest").returncode == 0
            empty_and_remove(CPUSET / list(our_groups())[0])
            said = json.loads(run(*command, "--cpu-list", cpus[-2], "--json").stdout)
            assert (said["granted"], said["name"], said["level"]) == (str(cpus[-2]), "cmdtest", "enforced"), said
            assert mask(process.pid) == str(cpus[-2]) and len(leases()) == len(our_groups()) == 1
        empty_and_remove(CPUSET / list(our_groups())[0])
        said = run("detach", "cmdtest").stdout
        assert said == f"cmdtest: 1 process may use CPUs {mask(process.pid)} now\n", said
        assert leases() == set()
        process.kill()


def check_a_name_that_several_have():
    """Two slices of one name, and a slice that is named like another's process: refused, with those that are meant."""
    last = max(os.sched_getaffinity(0))
    with sleeper() as one, sleeper() as two:
        for process in (one, two):
            assert run("attach", process.pid, "--cpu-list", last, "--name", "cmdtest").returncode == 0
        expect_line(run("detach", "cmdtest"), 2, f"cmdtest of process {one.pid}", f"cmdtest of process {two.pid}")
        for process in (one, two):
            assert run("detach", process.pid).returncode == 0
        assert run("attach", one.pid, "--cpu-list", last, "--name", two.pid).returncode == 0
        assert run("attach", two.pid, "--cpu-list", last, "--name", "cmdtest").returncode == 0
        expect_line(run("detach", two.pid), 2, f"{two.pid} of process {one.pid}", f"cmdtest of process {two.pid}")
        for name in (one.pid, "cmdtest"):
            assert run("detach", name).returncode == 0
        one.kill()
        two.kill()


def check_one_owner_of_ten():
    """Row 3: ten processes want one CPU for themselves at the same time; one gets it, nine get the sentence."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        return
    for more in ([], ["--no-cpuset"]):
        sleepers = [sleeper() for _ in range(10)]
        before = [mask(s.pid) for s in sleepers]
        at_once = [subprocess.Popen([ALLOT, "cpus", "attach", str(s.pid), "--cpu-list", str(cpus[-1]), "--exclusive",
                                     "--name", f"cmdtest{i}", *more], env=ENV, stdout=subprocess.PIPE,
                                    stderr=subprocess.PIPE, text=True) for i, s in enumerate(sleepers)]
        said = [(one.communicate(timeout=60)[1], one.returncode) for one in at_once]
        winners = [i for i, (_, status) in enumerate(said) if status == 0]
        assert len(winners) == 1, said
        for i, (line, status) in enumerate(said):
            if i not in winners:
                assert status == 125 and line.count("\n") == 1, said
                assert f"CPU {cpus[-1]} is leased to cmdtest{winners[0]}" in line, line
                assert mask(sleepers[i].pid) == before[i], "who was refused is as it was"
        assert mask(sleepers[winners[0]].pid) == str(cpus[-1])
        assert len(leases()) == 1, leases()
        for s in sleepers:
            s.kill()
            s.wait()
        allot("run", "--cpus", "1", "--", "true")
        wait_for(lambda: our_groups() == set())


def check_nested_slices():
    """A slice inside a slice: neither is changed, ended or given away from under the other."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2 or not os.access(CPUSET / "tasks", os.W_OK):
        return
    a, b = cpus[-2], cpus[-1]
    outer = subprocess.Popen([ALLOT, "run", "--cpu-list", f"{a},{b}", "--exclusive", "--name", "cmdtest-outer", "--", ALLOT,
                              "run", "--cpu-list", str(b), "--name", "cmdtest-inner", "--", "sh", "-c", "echo $$; exec sleep 100"],
                             env=ENV, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    program = int(outer.stdout.readline())
    inner = int(pathlib.Path(f"/proc/{program}/stat").read_text().rsplit(")", 1)[1].split()[1])
    try:
        assert mask(program) == str(b)
        expect_line(run("set", "cmdtest-outer", "--cpu-list", a), 125, "it holds the cpuset", "cmdtest-inner", f"CPUs {b}")
        expect_line(run("detach", "cmdtest-outer"), 125, "cmdtest-outer holds the cpuset", "cmdtest-inner")
        assert mask(program) == str(b) and len(leases()) == 2, "a refused change changed something"
        # What the outer slice has is there for the inner one.
        assert run("set", "cmdtest-inner", "--cpu-list", f"{a},{b}").returncode == 0 and mask(program) == as_list([a, b])
        assert run("set", "cmdtest-inner", "--cpu-list", a).returncode == 0 and mask(program) == str(a)
        expect_line(allot("run", "--cpu-list", b, "--", "true"), 125, f"CPU {b} is leased to cmdtest-outer")
        # Both launchers are killed: the outer CPUs stay taken for as long as anybody lives inside.
        for pid in (outer.pid, inner):
            os.kill(pid, signal.SIGKILL)
        outer.wait()
        wait_for(lambda: mask_or_none(inner) is None)
        expect_line(allot("run", "--cpu-list", b, "--", "true"), 125, f"CPU {b} is leased to cmdtest-outer")
    finally:
        os.kill(program, signal.SIGKILL)
    wait_for(lambda: mask_or_none(program) is None)
    wait_for(lambda: allot("run", "--cpu-list", b, "--", "true").returncode == 0 and our_groups() == set())
    assert leases() == set(), leases()


def check_watch_ends_with_its_slice():
    """A slice that was named and is over: watch says so and ends; while it lives, watch stays."""
    last = max(os.sched_getaffinity(0))
    program = subprocess.Popen([ALLOT, "run", "--cpu-list", str(last), "--name", "cmdtest", "--", "sleep", "100"], env=ENV,
                               stderr=subprocess.DEVNULL)
    wait_for(lambda: any("cmdtest" in name for name in leases()))
    watch = subprocess.Popen([ALLOT, "cpus", "watch", "cmdtest"], env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             text=True)
    assert watch.stderr.readline().startswith("allot: watching 1 slice in ")
    program.terminate()
    program.wait()
    out, error = watch.communicate(timeout=30)
    assert watch.returncode == 0 and error == "allot: 'cmdtest' has ended\n", (watch.returncode, out, error)


ZOMBIE_LEADER = """
import ctypes, threading, time
threading.Thread(target=lambda: time.sleep(100)).start()
print('up', flush=True)
ctypes.CDLL(None).syscall(60, 0)  # exit(2) ends this thread alone
"""


def check_attach_of_odd_processes():
    """Row 8: the first thread is a zombie and others live. Row 7: attach --mems moves pages, or says that it did not."""
    last = max(os.sched_getaffinity(0))
    with subprocess.Popen([sys.executable, "-c", ZOMBIE_LEADER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "up\n"
        stat = pathlib.Path(f"/proc/{process.pid}/stat")
        wait_for(lambda: stat.read_text().rsplit(")", 1)[1].split()[0] == "Z")
        for more in (["--no-cpuset"], []):
            result = run("attach", process.pid, "--cpu-list", last, "--name", "cmdtest", *more)
            assert result.returncode == 0, (result.stdout, result.stderr)
        run("detach", process.pid)
        process.kill()
    with sleeper() as process:
        result = run("attach", process.pid, "--cpu-list", last, "--name", "cmdtest", "--mems", "auto", "--json")
        report = json.loads(result.stdout)
        assert result.returncode == 0, result.stderr
        if report["group"] and (CPUSET / "tasks").exists():
            assert pathlib.Path(report["group"], "cpuset.memory_migrate").read_text() == "1\n", report
        run("detach", process.pid)
        process.kill()


def check_watch_sees_strangers():
    """Rows 5, 6 and 17: whatever a stranger does to a slice is undone or said, with the true reason."""
    cpus = sorted(os.sched_getaffinity(0))
    if not os.access(CPUSET / "tasks", os.W_OK) or len(cpus) < 2:
        return
    wide = f"{cpus[0]}-{cpus[-1]}" if cpus == list(range(cpus[0], cpus[-1] + 1)) else ",".join(map(str, cpus))
    program = subprocess.Popen([ALLOT, "run", "--cpus", wide, "--name", "cmdtest", "--", "sh", "-c", "sleep 100 & wait"],
                               env=ENV, stderr=subprocess.DEVNULL)
    watch, child = None, None
    try:
        wait_for(lambda: our_groups() and len((CPUSET / list(our_groups())[0] / "tasks").read_text().split()) == 2)
        group = CPUSET / list(our_groups())[0]
        child = int((group / "tasks").read_text().split()[-1])
        said = open(FOLDER + "/said", "w+")
        watch = subprocess.Popen([ALLOT, "cpus", "watch", "cmdtest", "--no-rebalance"], env=ENV, stdout=said,
                                 stderr=subprocess.STDOUT)

        def output():
            return pathlib.Path(FOLDER, "said").read_text()

        def inside(pid):
            return group.is_dir() and str(pid) in (group / "tasks").read_text().split()

        time_of = {}
        subprocess.run(["taskset", "-a", "-p", hex(1 << cpus[-1]), str(child)], stdout=subprocess.DEVNULL, check=True)
        # It has looked once when it has said something about a later change.
        (group / "cpuset.cpus").write_text(f"{cpus[0]}\n")
        wait_for(lambda: "another program wrote" in output())
        wait_for(lambda: (group / "cpuset.cpus").read_text().strip() == as_list(cpus))
        begin = time.monotonic()
        (CPUSET / "tasks").write_text(f"{child}\n")
        wait_for(lambda: inside(child))
        time_of["moved back"] = time.monotonic() - begin
        assert f"process {child}" in output() and "it was in" in output(), output()
        everybody = (group / "tasks").read_text().split()
        begin = time.monotonic()
        for pid in everybody:
            (CPUSET / "tasks").write_text(pid + "\n")
        try:
            group.rmdir()
        except OSError:
            pass  # the watcher was quicker
        wait_for(lambda: all(inside(pid) for pid in everybody))
        time_of["made again"] = time.monotonic() - begin
        subprocess.run(["taskset", "-p", hex(1 << cpus[0]), str(child)], stdout=subprocess.DEVNULL, check=True)
        wait_for(lambda: f"process {child} is on CPUs {cpus[0]} of" in output())
        print("  " + ", ".join(f"{what} in {seconds:.2f} s" for what, seconds in time_of.items()))
    finally:
        for process in (watch, program):
            if process is not None:
                process.terminate()
                process.wait()
        if child is not None:
            os.kill(child, signal.SIGKILL)
    allot("run", "--cpu-list", cpus[-1], "--", "true")  # removes the group of the child that outlived its program
    wait_for(lambda: our_groups() == set())
    pathlib.Path(FOLDER, "said").unlink()


if __name__ == "__main__":
    sys.exit(checked(check_attach_of_odd_processes, check_watch_sees_strangers, check_attach, check_change,
                     check_set_and_detach_say_what_was_read_back, check_a_group_that_is_gone_is_made_anew, check_a_name_that_several_have, check_one_owner_of_ten, check_nested_slices,
                     check_watch_ends_with_its_slice, check_dying_process))
