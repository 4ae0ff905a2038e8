#!/usr/bin/env python3
"""Checks that one thing has one word (docs/glossary.md), and that comments end at column 100.

WORDS lists what is not written any more: old names of things that the glossary names, phrases that a
reader has to parse twice, and "he" for a process. ALLOWED lists where such a word may stay, with the
reason. An entry of ALLOWED that matches nothing fails too. History stays as it was written:
CHANGELOG.md, bench/results and fuzz/corpus are not read. `words_test.py --count` prints a count for
each word; `--self-test` shows on made-up trees that the check can fail.
"""
import pathlib
import re
import sys
import tempfile

WORDS = [  # name, what is not written, what is written instead
    ("tenant", r"(?i)tenant", "slice"),
    ("seat", r"\b[Ss]eats?\b|\w_seats?\b|\bseats?_\w|SEAT|Seats?(?=[A-Z])", "client"),
    ("bell", r"\b[Bb]ells?\b|kBell|\w_bell\b|\bbell_\w", "wake, wake_seq"),
    ("fills", r"\bfills_|\.fills\b|\bbool fills\b|kFills|[Ff]ill(?:s|ing)? (?:its|their|the) windows?\b",
     "saturates"),
    ("player", r"\b[Pp]layers?\b|\bkCrumb\b|\bkSliver", "claimant, minimum weight, minimum window"),
    ("deal", r"\bdeal(?:_\w+)?\(", "allocate_max_min"),
    ("freight, passage", r"[Ff]reight|\b[Pp]assages?\b", "ticket"),
    ("loose", r"\bloose\b|LOOSE|\w_loose\b", "detached"),
    ("turn", r"\bTurn(?:Sim)?\b|\btime_turn\b|\bkOwes|_owed\b", "overrun debt"),
    ("go on", r"\b(?:go|goes|going|went|gone) on\b", "continue, resume, run"),
    ("let go", r"\b(?:lets?|letting) (?:\w+ )?go\b|\blet_go\b", "release, resume, detach"),
    ("ask after", r"\bask(?:s|ed|ing)? after\b", "query, check"),
    ("stand in", r"\b(?:stand|stands|stood|standing)[ -]in\b", "is in, replaces"),
    ("he", r"\b(?:he|him|his|himself)\b", "it, they"),
]
# Path (a regular expression for its whole), what matches in the line, why.
ALLOWED = [
    (r".*", r"ALLOT_TENANT\b", "the variable that launchers and containers already set"),
    (r"abi/region\.h", r"AllotTenantFile|ALLOT_TENANT_[A-Z_]+", "names of region 1.1, for its readers"),
    (r"docs/glossary\.md", r"tenant", "the field's word, in the column for it"),
    (r"docs/region\.md", r"NAME\.tenant", "what files of development versions were called"),
    (r"tests/words_test\.py", r".*", "the list itself"),
]
COLUMNS = 100
COMMENT = re.compile(r"//|/\*|^ *\*")
SOURCES = {".h", ".cc", ".c", ".S", ".inc"}
TEXTS = SOURCES | {".py", ".sh", ".md", ".txt", ".cmake", ".cu", ".map"}
TOPS = ("abi", "src", "sim", "tests", "fuzz", "tools", "docs", "bench", "cmake")
HISTORY = ("bench/results/", "fuzz/corpus/")


def files_of(root):
    for top in TOPS:
        for path in sorted((root / top).rglob("*")):
            name = path.relative_to(root).as_posix()
            if path.is_file() and path.suffix in TEXTS and not name.startswith(HISTORY):
                yield name, path
    for path in sorted(root.glob("*")):
        if path.is_file() and path.name != "CHANGELOG.md" and (path.suffix in TEXTS or path.name == "dev"):
            yield path.name, path


def violations(root):
    """Lines for people, and how often each word was found where it may not stand."""
    found, counts, used = [], {name: 0 for name, _, _ in WORDS}, set()
    words = [(name, re.compile(pattern), instead) for name, pattern, instead in WORDS]
    allowed = [(re.compile(path), re.compile(text)) for path, text, _ in ALLOWED]
    for name, path in files_of(root):
        here = [(i, text) for i, (where, text) in enumerate(allowed) if where.fullmatch(name)]
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if path.suffix in SOURCES and len(line) > COLUMNS and COMMENT.search(line):
                found.append(f"{name}:{number}: {len(line)} columns, {COLUMNS} are the most")
            rest = line
            for i, text in here:
                if text.search(rest):
                    used.add(i)
                    rest = text.sub("", rest)
            for word, pattern, instead in words:
                hit = pattern.search(rest)
                if hit:
                    counts[word] += 1
                    found.append(f"{name}:{number}: \"{hit.group(0)}\"; write: {instead}")
    for i, (path, text, _) in enumerate(ALLOWED):
        if i not in used:
            found.append(f"ALLOWED of tests/words_test.py: ({path}, {text}) matches nothing; remove it")
    return found, counts


def self_test():
    with tempfile.TemporaryDirectory() as name:
        root = pathlib.Path(name)
        for folder in ("abi", "src/shim", "docs", "tests", "bench/results"):
            (root / folder).mkdir(parents=True)
        (root / "abi/region.h").write_text("typedef AllotSliceFile AllotTenantFile;  // ALLOT_TENANT\n")
        (root / "docs/glossary.md").write_text("| slice | tenant |\n")
        (root / "docs/region.md").write_text("`NAME.tenant`\n")
        (root / "tests/words_test.py").write_text("tenant\n")
        (root / "bench/results/old.md").write_text("a tenant takes a seat\n")
        assert violations(root)[0] == [], "a clean tree, with its history, must pass"
        for bad in ("int tenant_count;", "AllotTimeSeat* seat;", "header.bell", "bool fills;", "Player p;",
                    "deal(weights);", "Freight freight;", "bool loose;", "class Turn {", "// it goes on",
                    "// let it go", "// asked after", "// stands in for", "// his slot", "// " + "x" * 98):
            (root / "src/shim/a.cc").write_text(bad + "\n")
            assert violations(root)[0], f"\"{bad[:20]}\" must be found"
        for good in ("// a doorbell rings; the turn of another; it returns", "fills(array); // fills a block",
                     "// the slot in turn; an ideal; standing by; this; the history", "// " + "x" * 97, "x" * 101):
            (root / "src/shim/a.cc").write_text(good + "\n")
            assert violations(root)[0] == [], f"\"{good[:20]}\" must pass: {violations(root)[0]}"
        (root / "docs/region.md").write_text("nothing\n")
        assert violations(root)[0], "an entry of ALLOWED that matches nothing must be found"


if __name__ == "__main__":
    self_test()
    if sys.argv[1:] == ["--self-test"]:
        sys.exit(0)
    arguments = [argument for argument in sys.argv[1:] if argument != "--count"]
    bad, number_of = violations(pathlib.Path(arguments[0] if arguments else ".").resolve())
    if "--count" in sys.argv:
        print("\n".join(f"{number_of[name]:5} {name}" for name, _, _ in WORDS))
    print("\n".join(bad) or "one word for each thing")
    sys.exit(1 if bad else 0)
