"""What happens to a slice's channels, and to its neighbours, when its agent cannot continue.

Each case begins while the slice's window is closed, so that its channels are disabled: it is killed, crashes,
exits, is stopped for a while, or its agent's thread alone is held or lost. None of it is in the list that fits six
minutes; `--only ends` runs it.
"""
import os
import signal
import subprocess
import time

from common import Skip, expect, step
from region import CLIENT_ACTIVE, CLIENT_OPEN, Region
from steps_life import Program, programs, slice_of
from time_cases import Cases, Judge, at_least, at_most, shown
from traced import HeldThread, thread_named

MAX = 30
NAME, BESIDE = "gpu-check-ends", "gpu-check-beside"


def closing(region, is_open=False):
    """Waits until its window has just closed (or opened)."""
    wanted = CLIENT_ACTIVE | (CLIENT_OPEN if is_open else 0)
    for flags in (wanted ^ CLIENT_OPEN, wanted):
        found = region.wait(lambda now, flags=flags: now & (CLIENT_ACTIVE | CLIENT_OPEN) == flags, 5)
        expect(found is not None, "its window neither opens nor closes")


def rate_after(program, at, begin, end):
    """Launches a second from `begin` to `end` seconds after `at`; waits for that."""
    time.sleep(max(0.0, at + end + 0.05 - time.monotonic()))
    return program.rate(at + begin, at + end)


def gone(program, seconds):
    """Seconds until it and the `allot run` that waits for it have ended; None when they do not."""
    begin = time.monotonic()
    try:
        program.process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    return time.monotonic() - begin


ENDINGS = {"SIGKILL": signal.SIGKILL, "SIGABRT": signal.SIGABRT, "SIGSEGV": signal.SIGSEGV,
           "SIGTERM": signal.SIGTERM, "exit()": signal.SIGUSR1}  # life.py calls exit() when USR1 comes


def limited(machine, load, *options):
    """A program under a ceiling of MAX, at work."""
    program = Program(machine, NAME, options=("--gpu-max", str(MAX), *options))
    program.ask(f"load {load}", 60)
    return program


@step("t.ends_killed", "time_more", sim=True, cost=50, extra=True)
def ended_in_a_closed_window(machine):
    """A slice of long kernels that ends in whatever way: at once, and its neighbour has the whole GPU again."""
    cases, judge = Cases(), Judge(machine)
    with programs(Program(machine, BESIDE)) as (beside,):
        beside.ask("load 1ms", 60)
        alone = rate_after(beside, time.monotonic(), 0.3, 1.3)
        bare = Program(machine, "bare", bare=True)
        bare.ask("load 50ms", 60)
        time.sleep(0.5)
        os.kill(bare.pid, signal.SIGKILL)
        cases.figures["bare SIGKILL s"] = gone(bare, 20)
        bare.end()
        for what, number in ENDINGS.items():
            with programs(limited(machine, "50ms")) as (program,):
                shared = rate_after(beside, time.monotonic(), 0.3, 1.0)
                region = Region(slice_of(machine, NAME)["path"])
                closing(region)
                os.kill(program.pid, number)
                took = gone(program, 20)
                at = time.monotonic()
                region.close()
                after = rate_after(beside, at, 0.2, 1.2)
                left = slice_of(machine, NAME)
            cases.figures[what] = {"seconds": took, "shared": shared, "after": after, "left": left}
            cases.add(f"ends by {what}", None, took * 1e3 if took is not None else None,
                      judge.at_most("gone ms", took * 1e3 if took is not None else None, 1000),
                      judge.at_least("neighbour of alone", after / alone, 0.98),
                      shown("before", shared / alone), at_most("slices left", 0 if left is None else 1, 0))
    return cases.done()


@step("t.ends_stopped", "time_more", sim=True, cost=25, extra=True)
def stopped_for_a_while(machine):
    """SIGSTOP for two seconds, in a closed and in an open window; then its ceiling holds as before.

    Nobody can stop its channels meanwhile, so an open window counts as used for all that time, of which the
    ceiling over a second is paid back: the rate is judged from then on.
    """
    cases, judge = Cases(), Judge(machine)
    with programs(Program(machine, BESIDE), Program(machine, NAME, options=("--gpu-max", str(MAX)))) as (
            beside, program):
        beside.ask("load 1ms", 60)
        alone = rate_after(beside, time.monotonic(), 0.3, 1.3)
        own = program.ask("load 1ms", 60)
        for what, is_open in (("closed", False), ("open", True)):
            time.sleep(0.8)
            region = Region(slice_of(machine, NAME)["path"])
            closing(region, is_open)
            os.kill(program.pid, signal.SIGSTOP)
            at = time.monotonic()
            meanwhile = rate_after(beside, at, 0.8, 2.0)
            os.kill(program.pid, signal.SIGCONT)
            at = time.monotonic()
            first = rate_after(program, at, 0.0, 1.0)
            again = [rate_after(each, at, 1.2, 3.2) for each in (program, beside)]
            region.close()
            slice = slice_of(machine, NAME)["processes"][0]
            parts = [rate / alone * 100 for rate in again]
            cases.figures[what] = {"meanwhile": meanwhile, "again": again, "slice": slice}
            cases.add(f"stopped {what}", MAX, parts[0],
                      judge.at_least("neighbour of alone", meanwhile / alone, 0.95),
                      judge.at_most("error after", parts[0] - MAX, 2), shown("neighbour after", parts[1] / 100),
                      shown("first second", first / alone * 100))
            expect(slice["level"] == "channel", f"held by {slice['level']} ({slice['reason']})", cases.figures)
        cases.figures.update({"alone": alone, "load": own})
    return cases.done()


def agent_of(program):
    tid = thread_named(program.pid, "allot-agent")
    expect(tid is not None, "no thread allot-agent")
    try:
        return HeldThread(tid)
    except OSError as error:
        raise Skip(f"no tracing here: {error}")


def wait_for_level(machine, level, seconds):
    """Seconds until `ps` names it; None when it does not."""
    begin = time.monotonic()
    while time.monotonic() - begin < seconds:
        processes = slice_of(machine, NAME)["processes"]
        if processes and processes[0]["level"] == level:
            return time.monotonic() - begin
        time.sleep(0.02)
    return None


@step("t.ends_agent", "time_more", sim=True, cost=35, extra=True)
def agent_lost(machine):
    """The agent's thread alone is held, and released; then it ends. The program runs on, without a limit; what
    it used so in an open window the ceiling over a second takes back when the agent continues."""
    cases, judge = Cases(), Judge(machine)
    with programs(Program(machine, NAME, options=("--fail", "open"))) as (program,):
        program.ask("load 1ms", 60)
        alone = rate_after(program, time.monotonic(), 0.3, 1.3)
        machine.run([machine.allot, "set", NAME, "--gpu-max", MAX], 20)
        for what in ("held closed", "held open", "ended closed"):
            time.sleep(1.0)
            region = Region(slice_of(machine, NAME)["path"])
            closing(region, "open" in what)
            agent = agent_of(program)
            if what == "ended closed":
                agent.end()
            noticed = wait_for_level(machine, "observe", 10)
            free = rate_after(program, time.monotonic(), 0.2, 1.2)
            checks = [at_most("noticed s", noticed, 4), judge.at_least("of alone", free / alone, 0.97)]
            if what != "ended closed":
                agent.detach()
                back = wait_for_level(machine, "channel", 10)
                at = time.monotonic()
                first = rate_after(program, at, 0.0, 1.0) / alone * 100
                again = rate_after(program, at, 1.2, 3.2) / alone * 100
                checks += [at_most("back s", back, 1), judge.at_most("error after", again - MAX, 2),
                           shown("first second", first)]
            region.close()
            cases.figures[what] = {"noticed_s": noticed, "free": free,
                                   "slice": slice_of(machine, NAME)}
            cases.add(f"agent {what}", None, free / alone * 100, *checks)
    judge_closed(machine, cases)
    return cases.done()


def judge_closed(machine, cases):
    """`--fail closed`: its next launch is refused, and so it ends."""
    with programs(limited(machine, "1ms", "--fail", "closed")) as (program,):
        time.sleep(1.0)
        region = Region(slice_of(machine, NAME)["path"])
        closing(region)
        agent_of(program).end()
        took = gone(program, 15)
        region.close()
        said = program.process.communicate(timeout=20)[1] if took is not None else ""
    cases.figures["closed"] = {"seconds": took, "said": said[-600:]}
    cases.add("agent ended, --fail closed", None, took, at_most("refused s", took, 4),
              at_least("by error 800", int(": 800" in said), 1))
