#!/usr/bin/env python3
"""Tests of the checks' own machinery: what is summed, what fails, what is written. No GPU needed."""
import json
import os
import sys
import tempfile
import time
import types
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import common  # noqa: E402
import main  # noqa: E402
import sampler  # noqa: E402
import steps_ends  # noqa: E402,F401
import steps_frameworks  # noqa: E402,F401
import steps_memory  # noqa: E402
import steps_overhead  # noqa: E402,F401
import steps_parity  # noqa: E402,F401
import steps_processes  # noqa: E402,F401
import steps_edges  # noqa: E402,F401
import steps_guarantee  # noqa: E402,F401
import steps_programs  # noqa: E402,F401
import steps_time  # noqa: E402,F401
import steps_time_overhead  # noqa: E402,F401
import steps_time_torch  # noqa: E402,F401
import steps_views  # noqa: E402,F401
import time_cases  # noqa: E402
import traced  # noqa: E402

MIB = common.MIB


class SamplerTest(unittest.TestCase):
    def test_highest_sum_is_of_one_sample(self):
        watch = sampler.Watch()
        watch.known = {10: "a", 11: "a"}
        watch.add([(10, 5), (11, 1)])
        watch.add([(10, 1), (11, 5)])
        self.assertEqual(watch.result()["max_bytes"], {"a": 6})

    def test_descendants_belong_to_the_group(self):
        watch = sampler.Watch()
        watch.groups = {os.getppid(): "a"}
        watch.add([(os.getpid(), 7), (1, 9)])
        self.assertEqual(watch.result()["max_bytes"], {"a": 7, "other": 9})
        self.assertEqual(watch.result()["samples"], 1)


class CapTest(unittest.TestCase):
    def figures(self, over):
        return {"samples": 9, "max_physical_bytes": 1, "over_bytes": over, "shortfall_bytes": -over}

    def test_one_byte_over_fails(self):
        with self.assertRaises(common.StepFailed):
            steps_memory.check_cap(self.figures(1), None)
        steps_memory.check_cap(self.figures(0), 2 * MIB)

    def test_unusable_slice_fails(self):
        steps_memory.check_cap(self.figures(-2 * MIB), 2 * MIB)
        with self.assertRaises(common.StepFailed):
            steps_memory.check_cap(self.figures(-2 * MIB - 1), 2 * MIB)

    def test_nothing_seen_fails(self):
        with self.assertRaises(common.StepFailed):
            steps_memory.check_cap({**self.figures(-1), "max_physical_bytes": 0}, None)


class StepsTest(unittest.TestCase):
    def test_names_are_unique_and_needs_are_known(self):
        names = [step.name for step in common.STEPS]
        self.assertEqual(len(names), len(set(names)))
        known = {"torch", "jax", "cupy", "numba", "numpy", "nvidia-smi", "nvcc"}
        for step in common.STEPS:
            self.assertLessEqual(set(step.needs), known, step.name)
            self.assertFalse(step.sim and step.needs, step.name)

    def test_the_list_of_time_checks_fits_its_time(self):
        listed = [step for step in common.STEPS if main.kind_of(step) == "time" and not step.extra]
        self.assertLessEqual(sum(step.cost for step in listed), main.DEADLINE_S["time"])

    def test_the_list_of_guarantees_fits_its_time(self):
        listed = [step for step in common.STEPS if step.group == "time_guarantee"]
        self.assertEqual(len(listed), 10)
        calibrations = 30
        self.assertLessEqual(sum(step.cost for step in listed) + calibrations, main.DEADLINE_S["guarantee"])
        edges = [step for step in common.STEPS if step.group == "time_edges"]
        self.assertEqual(len(edges), 7)
        self.assertLessEqual(sum(step.cost for step in edges) + calibrations, main.DEADLINE_S["edges"])

    def test_every_program_is_there(self):
        folder = os.path.dirname(os.path.abspath(__file__))
        for name in os.listdir(folder):
            if not name.startswith("steps_"):
                continue
            with open(os.path.join(folder, name)) as file:
                text = file.read()
            for part in text.split('machine.python("')[1:]:
                self.assertTrue(os.path.exists(os.path.join(common.PROGRAMS, part.split('"')[0])), part[:30])


class TimeCasesTest(unittest.TestCase):
    def case(self, error, total, achieved=30.0):
        cases = time_cases.Cases()
        cases.add("a 30", 30, achieved, time_cases.at_most("error", error, 1),
                  time_cases.at_least("total", total, 0.97), time_cases.shown("MHz", None))
        return cases

    def test_every_check_of_a_case_must_hold(self):
        self.assertEqual(len(self.case(-1, 0.97).done()["cases"]), 1)
        for error, total in ((1.01, 1), (-1.01, 1), (0, 0.96), (None, 1), (0, None)):
            with self.assertRaises(common.StepFailed) as failed:
                self.case(error, total).done()
            self.assertEqual(len(failed.exception.figures["cases"]), 1, "what was measured is kept")

    def test_medians_are_judged_anew(self):
        runs = [self.case(error, 1, achieved).figures["cases"]
                for error, achieved in ((0.2, 30.2), (9.0, 39.0), (0.4, 30.4))]
        merged = time_cases.merge(runs)
        self.assertEqual(len(merged), 1)
        self.assertEqual(merged[0]["checks"][0]["value"], 0.4)
        self.assertEqual(merged[0]["achieved"], 30.4)
        self.assertTrue(time_cases.good(merged[0]))
        self.assertIn("ok", time_cases.line(merged[0]))

    def test_what_could_mostly_not_be_measured_does_not_hold(self):
        runs = [self.case(error, 1).figures["cases"] for error in (None, None, 0.1)]
        self.assertFalse(time_cases.good(time_cases.merge(runs)[0]))

    def test_a_case_of_one_run_only_is_kept(self):
        merged = time_cases.merge([[], self.case(0, 1).figures["cases"]])
        self.assertEqual(merged[0]["repetitions"], 1)


class RunTest(unittest.TestCase):
    def run_steps(self, *functions):
        machine = types.SimpleNamespace(missing={"torch": "no Python package torch"}, sim=False,
                                        left=lambda: 100)
        with tempfile.TemporaryDirectory() as folder:
            results = main.Results("/nowhere", folder, {"check": "memory"})
            with open(os.path.join(folder, "log.txt"), "w") as log:
                for i, (function, needs) in enumerate(functions):
                    step = common.Step(f"x.{i}", "memory", function, needs, True)
                    main.run_step(machine, step, results, log)
            with open(os.path.join(folder, "memory.json")) as file:
                return results, json.load(file)["steps"]

    def test_verdicts(self):
        def fine(_):
            return {"bytes": 3}

        def wrong(_):
            common.expect(False, "it did not hold", {"bytes": 4})

        def broken(_):
            raise KeyError("granted_bytes")

        results, steps = self.run_steps((fine, ()), (wrong, ()), (broken, ()), (fine, ("torch",)))
        self.assertEqual([step["result"] for step in steps], ["pass", "FAIL", "FAIL", "skip"])
        self.assertEqual(steps[1]["figures"], {"bytes": 4})
        self.assertIn("granted_bytes", steps[2]["why"])
        self.assertEqual(steps[3]["why"], "no Python package torch")
        self.assertEqual(results.counts(), {"pass": 1, "FAIL": 2, "skip": 1})
        self.assertIn("1 passed, 2 failed, 1 skipped", results.table())


class ProcessTest(unittest.TestCase):
    def machine(self):
        machine = common.Machine.__new__(common.Machine)
        machine.plain_env = machine.bare_env = dict(os.environ)
        machine.deadline = time.monotonic() + 60
        return machine

    def test_a_hung_program_is_ended_with_its_children(self):
        begin = time.monotonic()
        ran = self.machine().run(["sh", "-c", "sleep 600 & sleep 600"], 1)
        self.assertTrue(ran.timed_out)
        self.assertLess(time.monotonic() - begin, 20)
        with self.assertRaises(common.StepFailed):
            ran.json()

    def test_a_held_thread_stands_still_and_ends_alone(self):
        program = ("import threading, time; "
                   "threading.Thread(target=lambda: time.sleep(600), daemon=True).start(); "
                   "print('{}', flush=True); time.sleep(600)")
        machine = self.machine()
        process = machine.start([sys.executable, "-c", program])
        try:
            self.assertEqual(common.wait_for_line(process, 10), "{}")
            other = next(int(t) for t in os.listdir(f"/proc/{process.pid}/task") if int(t) != process.pid)
            try:
                held = traced.HeldThread(other)
            except OSError as error:
                self.skipTest(f"no tracing here: {error}")
            with open(f"/proc/{process.pid}/task/{other}/stat") as file:
                self.assertEqual(file.read().rsplit(")", 1)[1].split()[0], "t")
            held.end()
            until = time.monotonic() + 10
            while os.path.exists(f"/proc/{process.pid}/task/{other}") and time.monotonic() < until:
                time.sleep(0.01)
            self.assertFalse(os.path.exists(f"/proc/{process.pid}/task/{other}"))
            self.assertIsNone(process.poll())
        finally:
            common.stop(process)
            process.communicate()

    def test_the_last_object_is_the_result(self):
        ran = self.machine().run(["sh", "-c", "echo '{\"a\": 1}'; echo noise; echo '{\"a\": 2}'; echo end"], 10)
        self.assertEqual(ran.json(), {"a": 2})

    def test_waits_for_a_line(self):
        machine = self.machine()
        process = machine.start(["sh", "-c", "echo no; echo '{\"a\": 1}'; sleep 600"])
        try:
            self.assertEqual(common.wait_for_line(process, 10), '{"a": 1}')
        finally:
            common.stop(process)
            process.communicate()


if __name__ == "__main__":
    unittest.main()
