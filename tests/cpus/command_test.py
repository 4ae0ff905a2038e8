#!/usr/bin/env python3
"""allot cpus and run --cpus as a user meets them: outputs, exit statuses, one line for each kind of bad
input, and nothing left changed after it. What needs CPUs to go off line, or version 2, is in
tests/kernel/guest_commands.sh.

    command_test.py ALLOT MACHINES

Exits with 77 (skipped) when the command was built without its CPU part.
"""
import fcntl
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree

from machines import as_list

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


def check_run():
    last = max(os.sched_getaffinity(0))
    result = allot("run", "--cpus", f"{last},", "--name", "cmdtest", "--", "sh", "-c", SHOW + "; exit 7")
    assert (result.returncode, result.stdout.strip()) == (7, str(last)), (result.stdout, result.stderr)
    level = level_in(result.stderr)
    assert our_groups() == set() and leases() == set(), (our_groups(), leases())
    # A pinned caller does not pin the slice.
    count = len(os.sched_getaffinity(0))
    pinned = subprocess.run([ALLOT, "run", "--cpus", str(count), "--any-cpu", "--name", "cmdtest", "--", "sh", "-c", SHOW], env=ENV,
                            capture_output=True, text=True, timeout=120,
                            preexec_fn=lambda: os.sched_setaffinity(0, {last}))
    if level == "enforced":
        wide = allot("run", "--cpus", count, "--name", "cmdtest", "--", "sh", "-c", SHOW)
        assert pinned.stdout == wide.stdout != "", (pinned, wide)
    result = allot("run", "--cpus", f"{last},", "--exec", "--name", "cmdtest", "--", "sh", "-c", "echo $$; " + SHOW)
    assert result.returncode == 0 and result.stdout.split()[1] == str(last), (result.stdout, result.stderr)
    run("show")
    allot("run", "--cpus", f"{last},", "--", "true")  # takes away what --exec had to leave
    assert our_groups() == set() and leases() == set(), (our_groups(), leases())


def check_memory_policy():
    """Each of numactl's policies, as the kernel shows it for the program's own memory."""
    last = max(os.sched_getaffinity(0))
    if not pathlib.Path("/proc/self/numa_maps").exists() or not pathlib.Path("/sys/devices/system/node/node0").exists():
        return
    node = json.loads(run("show", "--json").stdout)["nodes"][0]["node"]
    for word, shown, said in (("bind", f"bind:{node}", f"memory node {node}"),
                              ("preferred", f"prefer:{node}", f"memory first from node {node}"),
                              ("interleave", f"interleave:{node}", f"memory interleaved over node {node}"),
                              ("local", "local", "memory from the local node")):
        result = allot("run", "--cpu-list", last, "--mem-policy", word, "--", "cat", "/proc/self/numa_maps")
        assert result.returncode == 0, result.stderr
        # A sandbox may forbid the call; then the line says so instead.
        assert said in result.stderr, result.stderr
        if "anywhere" not in result.stderr:
            stack = [line for line in result.stdout.splitlines() if " stack " in line + " "]
            assert stack and stack[0].split()[1] == shown, (word, stack)
    expect_line(allot("run", "--cpu-list", last, "--mem-policy", "near", "--", "true"), 2, "use bind, preferred")
    expect_line(allot("run", "--mem-policy", "local", "--", "true"), 2, "--mem-policy requires --cpus")
    expect_line(allot("run", "--cpu-list", last, "--mem-policy", "local", "--mems", "0", "--", "true"), 2, "leave --mems out")
    with sleeper() as process:
        expect_line(run("attach", process.pid, "--cpu-list", last, "--mem-policy", "interleave"), 2, "sets its memory policy itself")
        process.terminate()


def check_lists():
    """What --cpu-list names is what runs there; tests/cpus/cpu_words_test.cc has the laws."""
    cpus = sorted(os.sched_getaffinity(0))
    for words, expected in ((f"+{len(cpus) - 1}", cpus[-1:]), (f"!{cpus[0]}", cpus[1:]), (hex(1 << cpus[-1]), cpus[-1:]),
                            (f"{cpus[0]}-{cpus[-1]}:{cpus[-1] - cpus[0] or 1}", [cpus[0], cpus[-1]])):
        planned = json.loads(run("plan", "--cpu-list", words, "--json").stdout)["slices"][0]["cpus"]
        assert planned == as_list(expected), (words, planned)
    expect_line(run("plan", "--cpu-list", "core:99"), 2, "there is no core 99")
    expect_line(run("plan", "--cpu-list", "+999"), 2, "counts the allowed CPUs from 0")


def check_run_beside_a_gpu():
    env = dict(ENV, ALLOT_DIR=tempfile.mkdtemp(prefix="allot-cpus-gpu-"))
    last = max(os.sched_getaffinity(0))
    result = allot("run", "--sim", "--gpu-mem", "1G", "--cpus", f"{last},", "--name", "cmdtest", "--", "sh", "-c",
                   SHOW + "; echo $LD_PRELOAD", env=env)
    if "libraries" in result.stderr or "sim" in result.stderr:
        print(f"without the software GPU: {result.stderr.strip()}")
    else:
        assert result.returncode == 0 and "libcuda" in result.stdout and result.stdout.startswith(f"{last}\n"), result
        level_in(result.stderr)
    shutil.rmtree(env["ALLOT_DIR"])


def check_run_refuses():
    before = our_groups(), leases(), os.sched_getaffinity(0)
    for words, status, line in ((["--cpus", "0-999"], 2, "there is no CPU"), (["--cpus", ""], 2, "empty"),
                                (["--cpus", "one"], 2, "not a number"), (["--cpus", "0"], 2, "0"),
                                (["--cpus", "9999"], 125, "no room for 9999"), (["--exclusive"], 2, "--cpus"),
                                (["--cpus", "1", "--mems", "77"], 2, "no memory node 77"),
                                (["--cpus", "1", "--cores", "--threads"], 2, "--threads"),
                                (["--cpus", "gpu", "--near-gpu", "99"], 125, "no GPU 99")):
        expect_line(allot("run", *words, "--", "true"), status, line)
    expect_line(allot("run", "--cpus", "1", "--", "/nonexistent/program"), 127, "/nonexistent/program")
    broken = pathlib.Path(FOLDER) / "broken"
    broken.write_text("#!/nonexistent/interpreter\n")
    broken.chmod(0o755)
    for more in ([], ["--exec"]):
        assert allot("run", *more, "--cpus", "1", "--", broken).returncode == 127
    broken.unlink()
    assert (our_groups(), leases(), os.sched_getaffinity(0)) == before, (our_groups(), leases())


def check_killed_launcher():
    last = max(os.sched_getaffinity(0))
    launcher = subprocess.Popen([ALLOT, "run", "--cpus", f"{last},", "--name", "cmdtest", "--", "sh", "-c",
                                 "echo $$; exec sleep 100"], env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True)
    program = int(launcher.stdout.readline())
    launcher.stderr.readline()
    launcher.kill()
    launcher.wait()
    groups = our_groups()
    assert allot("run", "--cpus", f"{last},", "--", "true").returncode == 0
    assert our_groups() == groups and len(leases()) == 1, "the program still runs there"
    assert mask(program) == str(last)
    os.kill(program, signal.SIGKILL)
    launcher.stdout.read()  # ends with the last process that has the pipe
    wait_for(lambda: mask_or_none(program) is None)
    assert allot("run", "--cpus", f"{last},", "--", "true").returncode == 0
    assert our_groups() == set() and leases() == set(), (our_groups(), leases())


def mask_or_none(pid):
    try:
        return mask(pid)
    except (FileNotFoundError, ProcessLookupError):
        return None


def check_dying_process():
    for delay in (0.0, 0.01, 0.02, 0.04):
        process = subprocess.Popen(["sleep", str(delay)])
        result = run("attach", process.pid, "--cpus", "1", "--name", "cmdtest")
        process.wait()
        if result.returncode != 0:
            expect_line(result, 125, f"process {process.pid}")
    allot("run", "--cpus", "1", "--", "true")
    assert our_groups() == set() and leases() == set(), (our_groups(), leases())


def check_plan():
    plan = json.loads(run("plan", "--machine", MACHINES / "desktop", "--cpus", 4, "--json").stdout)
    assert plan["slices"][0]["cpus"] == "1-2,9-10", plan
    plan = json.loads(run("plan", "--machine", MACHINES / "two_sockets", "--slice", "a=8:gpu=0",
                          "--slice", "b=2:gpu=3:cores:exclusive", "--json").stdout)
    a, b = plan["slices"]
    assert b["cpus"] == "32-33,96-97" and a["effective"] == a["cpus"], plan
    expect_line(run("plan", "--machine", MACHINES / "desktop", "--slice", "a=9", "--slice", "b=9"), 125, "no room for 9 CPUs for a")
    expect_line(run("plan"), 2, "--cpus")
    expect_line(run("plan", "--slice", "a=1:near"), 2, "'near'")


def marks_in(text):
    """The marks of all rows of a map: what stands there and is no list of CPUs."""
    rows = [line for line in text.splitlines() if re.match(r"    +\d[-,.\d]* ", line) and "iB" not in line]
    return "".join(token for row in rows for token in row.split() if not re.fullmatch(r"\d[-,.\d]*", token))


def check_map():
    """Each CPU once, whatever the machine and the width, in text and in the picture; nobody's colours in a pipe."""
    for machine in sorted(p for p in MACHINES.iterdir() if p.is_dir()):
        known = json.loads(run("show", "--machine", machine, "--json").stdout)
        online = [cpu["cpu"] for cpu in known["cpus"] if cpu["online"]]
        for width in (20, 33, 40, 57, 80, 81, 132, 400):
            shown = run("show", "--machine", machine, env=dict(ENV, COLUMNS=str(width))).stdout
            assert len(marks_in(shown)) == len(online), (machine, width, shown)
            assert "\x1b" not in shown, shown
            for line in shown.splitlines():
                # Only a word that is longer than a line makes one that is too wide.
                assert len(line) <= width or " " not in line.strip(), (machine, width, line)
        picture = pathlib.Path(FOLDER) / "map.svg"
        assert run("show", "--machine", machine, "--svg", picture).returncode == 0
        root = xml.etree.ElementTree.parse(picture).getroot()
        numbers = [e.text for e in root.iter() if e.tag.endswith("text") and e.get("text-anchor") == "end" and e.text]
        assert sorted(map(int, numbers)) == online, (machine, numbers)
        right, bottom = float(root.get("width")), float(root.get("height"))
        for e in root.iter():
            if e.tag.endswith("rect") and e.get("x"):
                assert float(e.get("x")) + float(e.get("width")) <= right, (machine, e.attrib)
                assert float(e.get("y")) + float(e.get("height")) <= bottom, (machine, e.attrib)
        picture.unlink()
    planned = pathlib.Path(FOLDER) / "plan.svg"
    run("plan", "--machine", MACHINES / "desktop", "--slice", "<a>&=3:threads", "--slice", "b=4", "--svg", planned)
    drawn = planned.read_text()
    xml.etree.ElementTree.fromstring(drawn)
    assert drawn.count('class="s0"') == 3 + 1 and drawn.count('class="s1"') == 4 + 1, drawn
    planned.unlink()
    # Slices of this machine are in the map.
    with subprocess.Popen([ALLOT, "run", "--cpus", str(max(os.sched_getaffinity(0))) + ",", "--name", "mapped", "--",
                           "sleep", "100"], env=ENV, stderr=subprocess.DEVNULL) as program:
        wait_for(lambda: "mapped" in run("show").stdout)
        assert marks_in(run("show").stdout).count("A") == 1, run("show").stdout
        program.terminate()


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


def check_two_users():
    """Row 19: a folder of root's that all may write to, and a ledger made under umask 022."""
    if os.geteuid() != 0:
        return
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
    finally:
        shutil.rmtree(folder)


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


def kernel_thread():
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
            # PF_KTHREAD, and PF_NO_SETAFFINITY: bound to its CPU for good
            if int(fields[6]) & 0x200000 and int(fields[6]) & 0x4000000:
                return int(path.parent.name)
        except (OSError, IndexError):
            continue
    return None


def check_explain_knows_files():
    """Row 11: what the kernel answers for files and tasks that have no rule of CPUs."""
    if not os.access(CPUSET / "tasks", os.W_OK):
        return
    group = CPUSET / "cmdtest-explain"
    group.mkdir()
    try:
        for file, text in (("notify_on_release", "1"), ("cpuset.memory_pressure", "1"), ("cgroup.clone_children", "0"),
                           ("tasks", kernel_thread()), ("tasks", "0x"), ("cpuset.cpus", "9999")):
            if text is None:
                continue
            said = json.loads(run("explain", "--json", "write", group / file, text).stdout)
            try:
                (group / file).write_text(f"{text}\n")
                real = 0
            except OSError as error:
                real = error.errno
            assert said["errno"] == real, (file, text, said, real)
    finally:
        group.rmdir()


def check_explain_and_watch():
    if (CPUSET / "cpuset.cpus").exists():
        result = run("explain", "--json", "write", CPUSET / "cpuset.cpus", "0")
        said = json.loads(result.stdout)
        assert result.returncode == 1 and said["errno_name"] == "EACCES", said
    result = run("watch", "--once", "--dry-run", "--json")
    assert result.returncode == 0 and result.stdout == "", (result.stdout, result.stderr)


def main():
    # One test of real groups at a time; see live_machine.h.
    turn = open("/tmp/allot-cpus-test.lock", "a")
    fcntl.lockf(turn, fcntl.LOCK_EX)
    try:
        if run("show").returncode != 0:
            print("built without the CPU part")
            return 77
        for check in (check_map, check_show, check_plan, check_run, check_run_beside_a_gpu, check_memory_policy, check_lists,
                      check_run_refuses, check_killed_launcher, check_attach_of_odd_processes, check_lease_of_a_child,
                      check_full_folder, check_watch_sees_strangers, check_explain_knows_files, check_attach, check_change, check_two_users, check_dying_process, check_without_rights, check_explain_and_watch):
            check()
            print(f"{check.__name__}: ok")
    finally:
        shutil.rmtree(FOLDER)
    return 0


if __name__ == "__main__":
    sys.exit(main())
