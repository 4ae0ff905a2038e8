"""Runs the checks of one kind (memory, time or life), writes their results, prints a table.

Every step runs, whatever the ones before it did; a step that hangs is ended at its own limit. The
whole run ends before its deadline. Results are written after every step, so that a run that is cut
off loses nothing it had. Files: one JSON a group of steps, summary.json, README.md, log.txt. The time
checks end with a line a case: what was granted, what was achieved, whether the promise held.
"""
import argparse
import json
import os
import platform
import subprocess
import sys
import time
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import common  # noqa: E402
import time_cases  # noqa: E402
from common import Machine, Skip, StepFailed  # noqa: E402

DEADLINE_S = {"memory": 460, "time": 355, "quick": 150, "guarantee": 480, "edges": 400, "programs": 420, "life": 290}


def first_line(command, cwd=None):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=cwd)
        return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else None
    except (OSError, subprocess.TimeoutExpired):
        return None


def commit_of(root):
    """The commit this tree was built from: said by the caller, by git, or by a file of the build."""
    if os.environ.get("ALLOT_COMMIT"):
        return os.environ["ALLOT_COMMIT"]
    commit = first_line(["git", "rev-parse", "HEAD"], cwd=root)
    if commit:
        changed = first_line(["git", "status", "--porcelain", "--untracked-files=no"], cwd=root)
        return commit + ("+changes" if changed else "")
    for name in ("build/commit", "build/bin/commit"):
        try:
            with open(os.path.join(root, name)) as file:
                return file.read().strip()
        except OSError:
            continue
    return "unknown"


def gpu_state(machine):
    if machine.sim:
        return {"name": "software GPU"}
    chosen_gpu = [] if machine.gpu is None else ["-i", str(machine.gpu)]
    fields = "name,driver_version,memory.total,clocks.sm,clocks.mem,power.draw,temperature.gpu"
    line = first_line(["nvidia-smi", *chosen_gpu, f"--query-gpu={fields}", "--format=csv,noheader"])
    if line is None:
        return {}
    return dict(zip(fields.split(","), [part.strip() for part in line.split(",")]))


def processor():
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.machine()


def describe(machine, kind):
    return {"check": kind, "commit": commit_of(machine.root),
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "gpu": gpu_state(machine),
            "software_gpu": machine.sim, "cpu": processor(), "cpus": os.cpu_count(),
            "kernel": platform.release(), "libc": " ".join(platform.libc_ver()),
            "python": platform.python_version(), "load": list(os.getloadavg()),
            "command": " ".join(["tools/gpu_check/gpu_check.sh"] + sys.argv[3:])}


def folder_of(machine, about):
    folder = os.environ.get("OUT")
    if not folder:
        driver = about["gpu"].get("driver_version", "software" if machine.sim else "unknown")
        folder = os.path.join(machine.root, "bench", "results", f"{about['date'][:10]}-{driver}")
    os.makedirs(folder, exist_ok=True)
    return folder


class Results:
    def __init__(self, root, folder, about):
        self.root = root
        self.folder = folder
        self.about = about
        self.groups = {}
        self.rows = []

    def write(self, name, content):
        with open(os.path.join(self.folder, name), "w") as file:
            text = content if isinstance(content, str) else json.dumps(content, indent=1) + "\n"
            # Where the checkout and Python lie says nothing about the card.
            file.write(text.replace(self.root + "/", "").replace(os.path.dirname(sys.executable) + "/", ""))

    def add(self, step, verdict, seconds, why, figures):
        row = {"step": step.name, "result": verdict, "seconds": round(seconds, 1)}
        if why:
            row["why"] = why
        self.rows.append(row)
        self.groups.setdefault(step.group, []).append({**row, "figures": figures})
        self.write(step.group + ".json", {"about": self.about, "steps": self.groups[step.group]})
        self.write("summary.json", {"about": self.about, "counts": self.counts(), "steps": self.rows})

    def counts(self):
        return {verdict: sum(row["result"] == verdict for row in self.rows)
                for verdict in ("pass", "FAIL", "skip")}

    def table(self):
        lines = [f"{row['step']:<26}{row['result']:<6}{row['seconds']:>7.1f} s  "
                 f"{row.get('why', '').splitlines()[0][:110] if row.get('why') else ''}".rstrip()
                 for row in self.rows]
        counts = self.counts()
        lines.append(f"{counts['pass']} passed, {counts['FAIL']} failed, {counts['skip']} skipped")
        return "\n".join(lines)

    def cases(self):
        cases = time_cases.cases_of(self.groups)
        return "\n".join([time_cases.HEADER] + [time_cases.line(case) for case in cases]) if cases else ""

    def readme(self):
        about = self.about
        gpu = ", ".join(f"{key} {value}" for key, value in about["gpu"].items())
        cases = f"```\n{self.cases()}\n```\n\n" if self.cases() else ""
        return (f"# {about['check']} checks of {about['date'][:10]}\n\n"
                f"- command: `{about['command']}`\n- commit: {about['commit']}\n- GPU: {gpu}\n"
                f"- machine: {about['cpu']}, {about['cpus']} CPUs, Linux {about['kernel']}, "
                f"{about['libc']}, Python {about['python']}\n\n```\n{self.table()}\n```\n\n{cases}"
                "One JSON file a group of steps; fields are explained in bench/README.md.\n")


def run_step(machine, step, results, log):
    begin = time.monotonic()
    figures, why, verdict = {}, "", "pass"
    try:
        lacking = [machine.missing[need] for need in step.needs if need in machine.missing]
        if machine.sim and not step.sim:
            raise Skip("needs a card")
        if lacking:
            raise Skip(lacking[0])
        if machine.left() < step.cost:
            raise Skip("no time left in this run")
        figures = step.function(machine) or {}
    except Skip as skip:
        verdict, why = "skip", str(skip)
    except StepFailed as failure:
        verdict, why, figures = "FAIL", str(failure), failure.figures
    except Exception as error:  # a fault of the check itself is a failure of its step, no more
        verdict, why = "FAIL", f"{type(error).__name__}: {error}"
        log.write(traceback.format_exc())
    seconds = time.monotonic() - begin
    results.add(step, verdict, seconds, why, figures)
    line = f"{step.name:<26}{verdict:<6}{seconds:>6.1f} s  {why}".rstrip()
    print(line, flush=True)
    log.write(line + "\n" + json.dumps(figures) + "\n")
    log.flush()


def merge(folders, only):
    """Medians over the cases of several runs (of the steps that `only` names): time_medians.json in the first folder (or $OUT), and a table."""
    runs = [time_cases.read_cases(folder, only) for folder in folders]
    merged = time_cases.merge(runs)
    target = os.environ.get("OUT") or folders[0]
    os.makedirs(target, exist_ok=True)
    with open(os.path.join(target, "time_medians.json"), "w") as file:
        json.dump({"runs": [os.path.basename(folder.rstrip("/")) for folder in folders], "cases": merged},
                  file, indent=1)
        file.write("\n")
    print("\n".join([time_cases.HEADER] + [time_cases.line(case) for case in merged]))
    missed = sum(not time_cases.good(case) for case in merged)
    print(f"{len(merged) - missed} of {len(merged)} cases hold, medians of {len(runs)} runs")
    return 1 if missed else 0


def read_options():
    parser = argparse.ArgumentParser(description="checks a built tree against a GPU")
    parser.add_argument("--root", required=True)
    parser.add_argument("kind", nargs="?", choices=("memory", "time", "life"), default="memory")
    parser.add_argument("variant", nargs="?", choices=("full", "quick"), default="full",
                        help="time: quick takes two minutes")
    parser.add_argument("--sim", action="store_true", help="use the software GPU")
    parser.add_argument("--only", default="", help="only steps whose names begin so, by commas")
    parser.add_argument("--level", help="time: auto, channel, launch or observe for every slice")
    parser.add_argument("--gpu", type=int, metavar="INDEX",
                        help="of several GPUs this one; runs on different ones do not disturb each other")
    parser.add_argument("--repeat", type=int, default=1, metavar="N",
                        help="time: the chosen steps N times, each run within its own time, and their medians")
    parser.add_argument("--merge", help="time: folders of earlier runs by commas; prints their medians")
    parser.add_argument("--build", help="build folder; default: build/ in the checkout")
    parser.add_argument("--list", action="store_true", help="name the steps and end")
    return parser.parse_args()


def load_steps(kind):
    if kind == "memory":
        import steps_memory  # noqa: F401
        import steps_views  # noqa: F401
        import steps_frameworks  # noqa: F401
        import steps_overhead  # noqa: F401
        import steps_parity  # noqa: F401
        import steps_processes  # noqa: F401
    elif kind == "life":
        import steps_life  # noqa: F401
    else:
        import steps_edges  # noqa: F401
        import steps_ends  # noqa: F401
        import steps_guarantee  # noqa: F401
        import steps_programs  # noqa: F401
        import steps_time  # noqa: F401
        import steps_time_more  # noqa: F401
        import steps_time_overhead  # noqa: F401
        import steps_time_torch  # noqa: F401
    # The time steps borrow from the memory ones, whose steps come along.
    return [step for step in common.STEPS if kind_of(step) == kind]


def kind_of(step):
    for kind in ("time", "life"):
        if step.group.startswith(kind):
            return kind
    return "memory"


def prefixes(options):
    prefix = {"time": "t.", "life": "l."}.get(options.kind, "")
    return tuple(part if part.startswith(prefix) else prefix + part
                 for part in options.only.split(",") if part)


def chosen(steps, options):
    only = prefixes(options)
    if only:
        return [step for step in steps if step.name.startswith(only)]
    return [step for step in steps if not step.extra and (options.variant == "full" or step.quick)]


def run_all(machine, steps, options, results, folder):
    with open(os.path.join(folder, "log.txt"), "w") as log:
        log.write(json.dumps(results.about) + "\n")
        if any(step.needs for step in steps):
            import warm
            warm.start(machine, options.kind)
        for step in steps:
            run_step(machine, step, results, log)
    results.about["gpu_after"] = gpu_state(machine)
    results.write("summary.json",
                  {"about": results.about, "counts": results.counts(), "steps": results.rows})
    results.write("README.md", results.readme())


def seconds_for(options, steps):
    if options.kind != "time":
        return DEADLINE_S[options.kind]
    if steps and all(step.group == "time_guarantee" for step in steps):
        return DEADLINE_S["guarantee"]
    if steps and all(step.group == "time_edges" for step in steps):
        return DEADLINE_S["edges"]
    if steps and all(step.group == "time_programs" for step in steps):
        return DEADLINE_S["programs"]
    return DEADLINE_S["quick" if options.variant == "quick" else "time"]


def run_once(options, steps, build, below):
    """The steps, with their own results folder (`below` the usual one); the exit status and that folder."""
    quick = options.kind == "time" and options.variant == "quick"
    machine = Machine(options.root, build, options.sim, time.monotonic() + seconds_for(options, steps), quick,
                      options.level, options.gpu)
    about = describe(machine, options.kind)
    folder = folder_of(machine, about)
    if below:
        folder = os.path.join(folder, below)
        os.makedirs(folder, exist_ok=True)
    results = Results(machine.root, folder, about)
    try:
        run_all(machine, steps, options, results, folder)
    finally:
        machine.close()
    print("\n" + results.table() + f"\nresults in {folder}")
    if results.cases():
        print("\n" + results.cases())
    return (1 if results.counts()["FAIL"] else 0), folder


def main():
    options = read_options()
    if options.merge:
        return merge(options.merge.split(","), prefixes(options))
    steps = chosen(load_steps(options.kind), options)
    if options.list:
        print("\n".join(f"{step.name:<26}{step.cost:>5.0f} s" if options.kind != "memory" else step.name
                        for step in steps))
        return 0
    build = os.path.abspath(options.build or os.path.join(options.root, "build"))
    for program in ("allot", "allot-bench"):
        if not os.access(os.path.join(build, "bin", program), os.X_OK):
            print(f"gpu_check: {build}/bin/{program} is not there; run ./dev build first", file=sys.stderr)
            return 2
    if options.repeat <= 1:
        return run_once(options, steps, build, None)[0]
    folders = []
    for number in range(options.repeat):
        print(f"run {number + 1} of {options.repeat}", flush=True)
        folders.append(run_once(options, steps, build, f"run{number + 1}")[1])
    os.environ.setdefault("OUT", os.path.dirname(folders[0]))
    return merge(folders, prefixes(options))


if __name__ == "__main__":
    sys.exit(main())
