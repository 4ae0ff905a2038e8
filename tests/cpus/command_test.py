#!/usr/bin/env python3
"""allot cpus and run --cpus as a user meets them: outputs, exit statuses, one line for each kind of bad
input, and nothing left changed after it. Moving what runs is in change_test.py; what needs CPUs to go off line, or
version 2, is in tests/kernel/guest_commands.sh.

    command_test.py ALLOT MACHINES

Exits with 77 (skipped) when the command was built without its CPU part.
"""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

from live import (ALLOT, CPUSET, ENV, FOLDER, MACHINES, SHOW, allot, checked, expect_line, leases,
                  level_in, mask, mask_or_none, our_groups, run, sleeper, wait_for)
from machines import as_list


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
    run("plan", "--machine", MACHINES / "desktop", "--slice", "a=3:threads", "--slice", "b=4", "--svg", planned)
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


def check_words_are_refused_in_one_line():
    """Names that cannot be names, values that are empty, and slices that are not there."""
    for name in ("a\nb", "a b", "<a>", ".a", "-a", "a/b", "", "x" * 64):
        expect_line(run("plan", "--slice", f"{name}=1"), 2, "--slice")
        expect_line(run("attach", os.getpid(), "--cpus", "1", f"--name={name}"), 2, "--name")
        expect_line(run("watch", "--once", "--", name), 2, "watch: '")
    for flag in ("--cpus", "--cpu-list", "--mems", "--mem-policy", "--near-gpu"):
        for command in (["cpus", "plan"], ["cpus", "attach", "1"], ["cpus", "set", "a"], ["run"]):
            expect_line(allot(*command, "--cpus" if flag != "--cpus" else "--mems", "1", flag, "", "--", "true")
                        if command == ["run"] else allot(*command, flag, ""), 2, f"{flag}: its value is empty")
    for seconds in ("0", "0.0", "0.01"):
        assert run("watch", "--for", seconds).returncode == 0
    for command in (["detach", ""], ["set", "", "--cpus", "1"]):
        expect_line(run(*command), 2, "the slice's name is empty")
    expect_line(run("watch", "nosuch", "--once"), 125, "no slice of CPUs is called 'nosuch'; there is none")
    for words in ("a=1:gpu=", "a=1:gpu=0x", "a=1:gpu=-1", "a=1:mems=", "a=", "=1", "a"):
        expect_line(run("plan", "--slice", words), 2, f"--slice {words}: ")
    expect_line(run("plan", "--cpu-list", "9999"), 2, "--cpu-list 9999: this machine has CPUs")
    expect_line(run("plan", "--slice", "a=9999,"), 2, "--slice a=9999,: this machine has CPUs")
    expect_line(run("plan", "--cpus", "99999999999"), 125, "--cpus 99999999999: no room for so many")
    for given in (["--cpu-list", "7-3"], ["--cpus", "7-3"], ["--slice", "a=7-3"]):
        expect_line(run("plan", *given), 2, "the range 7-3 runs backwards; write 3-7")
    everything = as_list(sorted(os.sched_getaffinity(0)))
    for given in (["--cpu-list", "all"], ["--cpus", "all"], ["--slice", "run=all"]):
        assert json.loads(run("plan", *given, "--json").stdout)["slices"][0]["cpus"] == everything


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


if __name__ == "__main__":
    sys.exit(checked(check_map, check_show, check_plan, check_run, check_run_beside_a_gpu, check_memory_policy,
                     check_lists, check_run_refuses, check_killed_launcher, check_explain_knows_files,
                     check_words_are_refused_in_one_line, check_explain_and_watch))
