#!/usr/bin/env python3
"""Checks that every #include of ours goes in the direction that ARCHITECTURE.md draws.

The table below is the rule: a folder may include itself and what stands behind it. A file that
includes anything else, or a folder that the table does not know, fails. `layers_test.py --self-test`
shows on made-up trees that the check can fail.
"""
import pathlib
import re
import sys
import tempfile

MAY_INCLUDE = {
    "abi": set(),
    "src/base": {"abi"},
    "src/sys": {"abi", "src/base"},
    "src/core": {"abi", "src/base"},
    "src/driver": {"abi", "src/base"},
    "src/shm": {"abi", "src/base", "src/sys", "src/core"},
    "src/shim": {"abi", "src/base", "src/sys", "src/core", "src/driver", "src/shm"},
    "src/bench": {"abi", "src/base", "src/driver"},
    "src/cpus": {"abi", "src/base", "src/sys", "src/model"},
    "src/model": {"abi", "src/base", "src/core"},
    "src/cli": {"abi", "src/base", "src/sys", "src/core", "src/driver", "src/shm", "src/bench",
                "src/cpus", "src/model"},
    "sim": {"abi", "src/base", "src/driver"},
    "tests": {"abi", "src/base", "src/sys", "src/core", "src/driver", "src/shm", "src/shim", "src/cpus",
              "src/model"},
    "fuzz": {"abi", "src/base", "src/sys", "src/core", "src/driver", "src/shm", "src/shim", "src/cli"},
}
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)
SUFFIXES = {".h", ".cc", ".c", ".S", ".inc"}


def folder_of(path):
    """The folder of the table in which a file (relative to the root) lies, or None."""
    parts = path.parts
    for name in ("/".join(parts[:2]), parts[0]):
        if name in MAY_INCLUDE:
            return name
    return None


def target_of(root, source, text):
    """The file that an include names, relative to the root, or None when it is not one of ours."""
    for base in (root, root / "src", (root / source).parent):
        candidate = (base / text).resolve()
        if candidate.is_file() and root in candidate.parents:
            return candidate.relative_to(root)
    return None


def violations(root):
    root = root.resolve()
    found = []
    for top in ("abi", "src", "sim", "tests", "fuzz"):
        for path in sorted((root / top).rglob("*")):
            if path.suffix not in SUFFIXES or not path.is_file():
                continue
            source = path.relative_to(root)
            mine = folder_of(source)
            if mine is None:
                found.append(f"{source}: its folder is not in the table of tests/layers_test.py")
                continue
            for text in INCLUDE.findall(path.read_text(errors="replace")):
                target = target_of(root, source, text)
                theirs = folder_of(target) if target else None
                # What is generated into the build tree is named <folder>/<file>, like its source.
                if target is None and f"src/{text.split('/')[0]}" in MAY_INCLUDE:
                    theirs = f"src/{text.split('/')[0]}"
                if theirs and theirs != mine and theirs not in MAY_INCLUDE[mine]:
                    found.append(f"{source}: includes \"{text}\", but {mine} may not include {theirs}")
    return found


def self_test():
    with tempfile.TemporaryDirectory() as name:
        root = pathlib.Path(name)
        for folder in ("abi", "src/core", "src/sys", "src/cli", "sim", "tests", "fuzz"):
            (root / folder).mkdir(parents=True)
        (root / "src/sys/clock.h").write_text("")
        (root / "src/core/a.cc").write_text('#include "sys/clock.h"\n')
        assert len(violations(root)) == 1, "core including sys must be found"
        (root / "src/core/a.cc").write_text("#include <vector>\n")
        assert violations(root) == [], "a clean tree must pass"
        (root / "sim/b.cc").write_text('#include "../src/cli/x.h"\n')
        (root / "src/cli/x.h").write_text("")
        assert len(violations(root)) == 1, "sim including cli must be found"


if __name__ == "__main__":
    self_test()
    if sys.argv[1:] == ["--self-test"]:
        sys.exit(0)
    bad = violations(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "."))
    print("\n".join(bad) or "every include goes in its direction")
    sys.exit(1 if bad else 0)
