#!/usr/bin/env python3
"""Adds up what the test runs really did, so that the closing count cannot lie.

Arguments: LABEL=RESULTS_FOLDER ... as ./dev leaves them: ctest.xml (JUnit, one entry a ctest test)
and gtest/*.xml (one file a GoogleTest program). A GoogleTest program counts by its cases, any other
test as one. Skipped cases are named with their reason. A program that ctest saw fail although none
of its cases did (a crash, a time-out) counts as one failure. No test at all is a failure.
"""
import pathlib
import sys
import xml.etree.ElementTree as ET


def gtest_cases(path):
    """Yields (name, state, reason) for each case of one GoogleTest program."""
    for case in ET.parse(path).getroot().iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}"
        skipped = case.find("skipped")
        if case.find("failure") is not None:
            yield name, "failed", ""
        elif skipped is not None or case.get("result") == "skipped":
            reason = (skipped.get("message") if skipped is not None else "") or "no reason given"
            lines = [l for l in reason.strip().splitlines() if l.strip()]
            yield name, "skipped", lines[-1] if lines else "no reason given"
        elif case.get("status") == "notrun":
            continue
        else:
            yield name, "passed", ""


def ctest_entries(folder):
    """Yields (program, state, output) for each ctest test."""
    for case in ET.parse(folder / "ctest.xml").getroot().iter("testcase"):
        status = case.get("status", "")
        state = "passed"
        if case.find("failure") is not None or status == "fail":
            state = "failed"
        elif case.find("skipped") is not None or status in ("notrun", "skipped", "disabled"):
            state = "skipped"
        out = case.findtext("system-out") or ""
        yield case.get("name"), state, out


def count(label, folder):
    """Returns (passed, failed names, skipped [(name, reason)]) of one build's run."""
    passed, failed, skipped = 0, [], []
    for program, state, output in ctest_entries(folder):
        xml = folder / "gtest" / f"{program}.xml"
        cases = []
        if xml.exists():
            try:
                cases = list(gtest_cases(xml))
            except ET.ParseError:
                state = "failed"
        if not cases:
            if state == "passed":
                passed += 1
            elif state == "failed":
                failed.append(f"{label}: {program}")
            else:
                lines = [l.strip() for l in output.splitlines() if l.strip()]
                why = next((l for l in lines if l.upper().startswith("SKIP")), lines[-1] if lines else "no reason given")
                skipped.append((f"{label}: {program}", why))
            continue
        before = len(failed)
        for name, case_state, reason in cases:
            if case_state == "passed":
                passed += 1
            elif case_state == "failed":
                failed.append(f"{label}: {program} {name}")
            else:
                skipped.append((f"{label}: {program} {name}", reason))
        if state == "failed" and len(failed) == before:
            failed.append(f"{label}: {program} (ended abnormally)")
    return passed, failed, skipped


def main():
    total, failed, skipped = 0, [], []
    for argument in sys.argv[1:]:
        label, folder = argument.split("=", 1)
        folder = pathlib.Path(folder)
        if not (folder / "ctest.xml").exists():
            failed.append(f"{label}: no results")
            continue
        p, f, s = count(label, folder)
        print(f"{label}: {p} passed, {len(f)} failed, {len(s)} skipped")
        total, failed, skipped = total + p, failed + f, skipped + s
    for name, reason in skipped:
        print(f"skipped  {name}: {reason}")
    for name in failed:
        print(f"FAILED   {name}")
    print(f"{total} passed, {len(failed)} failed, {len(skipped)} skipped")
    return 1 if failed or total == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
