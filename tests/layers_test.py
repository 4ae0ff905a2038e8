#!/usr/bin/env python3
"""Checks that every #include of ours goes in the direction that ARCHITECTURE.md draws.

The tables below are the rule: a folder may include itself and what stands behind it, and so may a room
(a folder inside src/shim or src/cli). A file that includes anything else, or a folder or room that the
tables do not know, fails; so does a table with a circle in it. `layers_test.py --self-test` shows on
made-up trees that the check can fail.
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
# Inside these folders: room -> rooms that it may include. "" is the files that lie beside the rooms.
ROOMS = {
    "src/shim": {
        "process": set(),
        "nvml": {"process"},
        "time": {"process", "nvml"},
        "memory": {"process", "time", "nvml"},
        "swap": {"process", "time", "memory"},
        "entry": {"process", "time", "memory", "swap"},
    },
    "src/cli": {
        "ground": set(),
        "gpus": {"ground"},
        "region": {"ground", "gpus"},
        "evict": {"ground", "gpus", "region"},
        "cpus": {"ground"},
        "manual": {"ground"},
        "log": {"ground"},
        "launch": {"ground", "gpus", "region", "evict", "cpus", "log"},
        "doctor": {"ground", "gpus", "region", "launch"},
        "": {"ground", "gpus", "region", "evict", "cpus", "launch", "doctor", "manual", "log"},
    },
}
# Files beside the rooms that every room may use, by the name before the dot.
GROUND = {"src/cli": {"commands", "failure", "output", "screen", "slice_spec", "usage", "words"}}
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)
SUFFIXES = {".h", ".cc", ".c", ".S", ".inc"}


def folder_of(path):
    """The folder of the table in which a file (relative to the root) lies, or None."""
    parts = path.parts
    for name in ("/".join(parts[:2]), parts[0]):
        if name in MAY_INCLUDE:
            return name
    return None


def room_of(path):
    """The room of a file (relative to the root) inside its folder; None in a folder without rooms."""
    folder = folder_of(path)
    if folder not in ROOMS:
        return None
    inside = path.relative_to(folder).parts
    if len(inside) > 1:
        return inside[0]
    stem = path.name.split(".")[0]
    return "ground" if stem.removesuffix("_test") in GROUND.get(folder, set()) else ""


def circles(table):
    """The rooms from which a way along the arrows leads back to them."""
    def reach(room, seen):
        for other in table.get(room, set()) - seen:
            seen.add(other)
            reach(other, seen)
        return seen
    return sorted(room for room in table if room in reach(room, set()))


def target_of(root, source, text):
    """The file that an include names, relative to the root, or None when it is not one of ours."""
    for base in (root, root / "src", (root / source).parent):
        candidate = (base / text).resolve()
        if candidate.is_file() and root in candidate.parents:
            return candidate.relative_to(root)
    return None


def violations(root):
    root = root.resolve()
    found = [f"{folder}: the arrows of tests/layers_test.py lead in a circle: {', '.join(bad)}"
             for folder, table in [("the tree", MAY_INCLUDE), *ROOMS.items()] if (bad := circles(table))]
    for top in ("abi", "src", "sim", "tests", "fuzz"):
        for path in sorted((root / top).rglob("*")):
            if path.suffix not in SUFFIXES or not path.is_file():
                continue
            source = path.relative_to(root)
            mine = folder_of(source)
            if mine is None:
                found.append(f"{source}: its folder is not in the table of tests/layers_test.py")
                continue
            room = room_of(source)
            if room is not None and room not in ROOMS[mine]:
                found.append(f"{source}: its room is not in the table of tests/layers_test.py")
                continue
            for text in INCLUDE.findall(path.read_text(errors="replace")):
                target = target_of(root, source, text)
                theirs = folder_of(target) if target else None
                # What is generated into the build tree is named <folder>/<file>, like its source.
                if target is None and f"src/{text.split('/')[0]}" in MAY_INCLUDE:
                    theirs = f"src/{text.split('/')[0]}"
                if theirs and theirs != mine and theirs not in MAY_INCLUDE[mine]:
                    found.append(f"{source}: includes \"{text}\", but {mine} may not include {theirs}")
                other = room_of(target) if target and theirs == mine else None
                if other is not None and other != room and other not in ROOMS[mine][room]:
                    found.append(f"{source}: includes \"{text}\", but in {mine} the room "
                                 f"\"{room}\" may not include \"{other}\"")
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
        (root / "sim/b.cc").unlink()
        for folder in ("src/shim/process", "src/shim/time", "src/cli/gpus"):
            (root / folder).mkdir(parents=True)
        (root / "src/shim/process/a.h").write_text("")
        (root / "src/shim/time/b.cc").write_text('#include "shim/process/a.h"\n')
        assert violations(root) == [], "time including process must pass"
        (root / "src/shim/time/b.h").write_text("")
        (root / "src/shim/process/a.h").write_text('#include "shim/time/b.h"\n')
        assert len(violations(root)) == 1, "process including time must be found"
        (root / "src/shim/process/a.h").write_text("")
        (root / "src/shim/stray.cc").write_text("")
        assert len(violations(root)) == 1, "a file beside the rooms of shim must be found"
        (root / "src/shim/stray.cc").unlink()
        (root / "src/cli/failure.h").write_text("")
        (root / "src/cli/gpus/c.h").write_text('#include "cli/failure.h"\n')
        (root / "src/cli/cmd_x.cc").write_text('#include "cli/gpus/c.h"\n#include "x.h"\n')
        assert violations(root) == [], "a command including a room, and a room the ground, must pass"
        (root / "src/cli/gpus/c.h").write_text('#include "cli/x.h"\n')
        assert len(violations(root)) == 1, "a room including what lies beside it must be found"
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"], "a circle must be found"
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == [], "a tree has no circle"


if __name__ == "__main__":
    self_test()
    if sys.argv[1:] == ["--self-test"]:
        sys.exit(0)
    bad = violations(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "."))
    print("\n".join(bad) or "every include goes in its direction")
    sys.exit(1 if bad else 0)
