#!/usr/bin/env python3
"""Shows that every check of rm_parity.py fails when it should, on a small made-up clone.

Each tag of the clone has headers made of our own rm_abi.h, so it agrees with us until one of the two is
changed; then that difference must be reported. Needs a C compiler and git.
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import rm_parity  # noqa: E402  (stands beside this file)

FLAGS = "#define RMCTRL_FLAGS_NON_PRIVILEGED  0x000000008\n"
GENERATED = "".join(f"/*flags=*/ 0x8u,\n/*accessRight=*/0x0u,\n/*methodId=*/ {number}u,\n"
                    for number in rm_parity.CONTROLS.values())

# Each: the file of the clone that is edited and how, and the difference that must be reported.
DIFFERENCES = (
    (f"{rm_parity.SDK}/nvos.h", r"  uint64_t pRightsRequested;\n", "",
     "does not compile: "),
    (f"{rm_parity.SDK}/nvos.h", r"(  uint32_t cmd;\n)(  uint32_t flags;\n)", r"\2\1",
     "NVOS54_PARAMETERS.cmd 12; ours: NVOS54_PARAMETERS.cmd 8"),
    (f"{rm_parity.SDK}/nvos.h", r"NV_ESC_RM_ALLOC 0x2B", "NV_ESC_RM_ALLOC 0x2C", "NV_ESC_RM_ALLOC 44; ours"),
    (f"{rm_parity.SDK}/nvos.h", r"(  NvHandle hVASpace;\n)(  uint32_t engineType.*\n)", r"\2\1",
     "NV_CHANNEL_GROUP_ALLOCATION_PARAMETERS.hVASpace 12"),
    (f"{rm_parity.SDK}/nvos.h", r"FIFO_DISABLE_CHANNELS_MAX_ENTRIES 64", "FIFO_DISABLE_CHANNELS_MAX_ENTRIES 32",
     "sizeof NV2080_CTRL_FIFO_DISABLE_CHANNELS_PARAMS 280"),
    (f"{rm_parity.SDK}/nvos.h", r"#define HOPPER_CHANNEL_GPFIFO_A .*\n", "", "HOPPER_CHANNEL_GPFIFO_A is not there"),
    (rm_parity.GENERATED[0], "0x8u", "0x4u", "SET_TIMESLICE (0xa06c0103) is not for everybody"),
    (rm_parity.GENERATED[0], "0x2080110b", "0x2080110c", "DISABLE_CHANNELS (0x2080110b) is not exported"),
)
TABLE = 'inline constexpr RmBranch kRmBranches[] = {{610, "610.1", "610.%d", %d, true}, %s};\n'


def vendors_headers():
    """Our declarations as the vendor has them: whole structures under their own names, no assertions."""
    text = (ROOT / "src/driver/rm_abi.h").read_text()
    text = re.sub(r"ALLOT_ABI_(SIZE|OFFSET|ASSERT)\(.*?\);\n", "", text, flags=re.S)
    return text.replace("_HEAD", "")


def git(folder, *words):
    who = {"GIT_AUTHOR_NAME": "x", "GIT_AUTHOR_EMAIL": "x", "GIT_COMMITTER_NAME": "x", "GIT_COMMITTER_EMAIL": "x"}
    subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True, env={**os.environ, **who})


def make_clone(folder):
    """610.1 agrees, 610.2 and up have one difference each, 620.1 agrees too."""
    git(folder.parent, "init", "-q", str(folder))
    files = {f"{rm_parity.SDK}/nvos.h": vendors_headers(), f"{rm_parity.SDK}/nvtypes.h": "",
             f"{rm_parity.SDK}/driver/abi_assert.h": (ROOT / "src/driver/abi_assert.h").read_text(),
             f"{rm_parity.UNIX}/nv_escape.h": "", rm_parity.CONTROL_FLAGS: FLAGS,
             rm_parity.GENERATED[0]: GENERATED}

    def commit(tag, name=None, text=None):
        for path, content in {**files, **({name: text} if name else {})}.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(content)
        git(folder, "add", "-A")
        git(folder, "commit", "-q", "--allow-empty", "-m", tag)
        git(folder, "tag", tag)

    commit("610.1")
    for number, (name, pattern, replacement, _) in enumerate(DIFFERENCES, start=2):
        after = re.sub(pattern, replacement, files[name], count=1)
        assert after != files[name], f"the edit of {name} at {pattern} changed nothing"
        commit(f"610.{number}", name, after)
    commit("620.1")


def self_test(cc):
    with tempfile.TemporaryDirectory() as name:
        clone, driver = Path(name) / "clone", Path(name) / "driver"
        driver.mkdir()
        make_clone(clone)
        last = len(DIFFERENCES) + 1

        def failures(table):
            (driver / "rm_branches.h").write_text(table)
            return rm_parity.check(cc, rm_parity.Clone(clone), driver, [ROOT / "src"])[0]

        found = failures(TABLE % (last, last, '{620, "620.1", "620.1", 1, true}'))
        assert not [line for line in found if line.startswith(("610.1:", "620.1:", "rm_branches"))], found
        for number, (_, _, _, expected) in enumerate(DIFFERENCES, start=2):
            assert any(line.startswith(f"610.{number}: {expected}") for line in found), (expected, found)
        found = failures(TABLE % (last, last, '{620, "620.1", "620.1", 1, false}'))
        assert "rm_branches.h says that 620 has other layouts; it has the same" in found, found
        found = failures(TABLE % (last - 1, last - 1, ""))
        assert "branch 620 (620.1) is not in rm_branches.h" in found, found
        assert any(line.startswith("rm_branches.h says 610: ") for line in found), found
    print(f"{len(DIFFERENCES) + 3} differences made, each reported")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cc", default="cc")
    self_test(parser.parse_args().cc)
