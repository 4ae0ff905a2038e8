#!/usr/bin/env python3
"""Checks that the pages lead somewhere: every relative link of a tracked .md file names a file, every
#anchor a heading of it, and every path of ours in `backticks` a file or folder of this tree. The C example
of docs/region.md compiles without a warning. Samples show what the programs print today: the columns of a
table, the advice of `allot doctor`, and the messages that docs/troubleshooting.md quotes. The files that
ARCHITECTURE.md puts into a room are there.

`pages_test.py --self-test` shows on made-up pages that the check can fail.
"""
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*$", re.M)
FENCE = re.compile(r"^```.*?^```$", re.M | re.S)
# A path from the root of the tree; with {braces}, <angles>, * or a blank it is a pattern or an example.
PATH = re.compile(r"`((?:abi|src|sim|tests|fuzz|tools|docs|cmake)/[\w./+-]*|\w+/results/[\w./-]*)`")


def anchor(heading):
    """The name that a heading gets: lower case, blanks to dashes, marks dropped."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def anchors(page):
    return {anchor(h) for h in HEADING.findall(FENCE.sub("", page.read_text()))}


def broken(root, pages):
    found = []
    for page in pages:
        text = FENCE.sub("", (root / page).read_text())
        for groups in LINK.findall(text):
            link = groups[0] or groups[1]
            if re.match(r"[a-z]+:", link):
                continue
            name, _, mark = link.partition("#")
            target = (root / page).parent / name if name else root / page
            if not target.exists():
                found.append(f"{page}: {link}: no such file")
            elif mark and target.suffix == ".md" and mark not in anchors(target):
                found.append(f"{page}: {link}: {target.name} has no such heading")
        for path in PATH.findall(text):
            stem = root / path
            if not stem.exists() and not list(stem.parent.glob(stem.name + ".*")):
                found.append(f"{page}: `{path}`: no such file")
    return found


def literals(root, folder):
    """The string literals of a folder's sources, those that the compiler joins joined."""
    one = r'"(?:[^"\\\n]|\\.)*"'
    found = set()
    for source in sorted((root / folder).rglob("*.cc")):
        text = re.sub(r"^\s*//.*$", "", source.read_text(), flags=re.M)
        for run in re.findall(rf"{one}(?:\s*{one})*", text):
            found.add("".join(part[1:-1] for part in re.findall(one, run)).replace('\\"', '"'))
    return found


def columns(source):
    """The columns of the table that a source prints."""
    table = re.search(r"std::vector<Column>\{(.*?)\}\}", source.read_text(), re.S)
    return re.findall(r'\{"([A-Z]+)"', table.group(1)) if table else []


def is_in_order(header, all_columns):
    rest = iter(all_columns)
    return all(name in rest for name in header)


def old_samples(root, pages):
    """Samples that no program of today prints."""
    found = []
    tables = [columns(root / "src/cli" / name) for name in ("ps_text.cc", "cmd_gpus.cc")]
    doctor = literals(root, "src/cli/doctor")
    for page in pages:
        for sample in FENCE.findall((root / page).read_text()):
            for line in sample.splitlines():
                if re.match(r"(NAME|INDEX)  ", line) and not any(is_in_order(line.split(), t) for t in tables):
                    found.append(f"{page}: no command prints the columns {line}")
                advice = re.match(r" +-> (.*)", line)
                if advice and not any(advice.group(1) in text for text in doctor):
                    found.append(f"{page}: doctor does not say \"{advice.group(1)}\"")
    return found


# What a message holds of the moment: sizes, names, numbers.
VARIABLE = re.compile(r"\.\.\.|'?\b(?:NAMES?|PATH|N|M)\b'?|\d+(?:\.\d+)?(?: [KMGT]iB|%)?")


def old_messages(root, page):
    """Messages that a page quotes and no program prints: each part between two variables must be in a literal."""
    known = [part for folder in ("src/cli", "src/cpus", "src/shim") for text in literals(root, folder)
             for part in re.split(r"\{[^}]*\}", text)]
    text = (root / page).read_text()
    quoted = re.findall(r"^\*\*`([^`]* [^`]* [^`]*)`", text, re.M)
    table = re.search(r"^\| message \|.*?(?=\n\n)", text, re.S | re.M)
    for row in table.group(0).splitlines()[2:] if table else []:
        quoted += re.findall(r"`([^`]*)`", row.split("|")[1])
    return [f"{page}: no program says \"{message}\"" for message in quoted
            if not all(any(part.strip() in text for text in known)
                       for part in VARIABLE.split(message) if len(part.strip()) > 5)]


def lost_rooms(root):
    """Files that the tables of rooms in ARCHITECTURE.md name and that are not in their room."""
    found, folder = [], ""
    for line in (root / "ARCHITECTURE.md").read_text().splitlines():
        heading = re.match(r"#+ (?:Rooms of (\S+))?", line)
        if heading:
            folder = heading.group(1) or ""
        row = re.match(r"\| `(\w+)/` \|(.*)", line)
        if not folder or not row:
            continue
        room = root / folder / row.group(1)
        found += [f"ARCHITECTURE.md: {folder}/{row.group(1)} has no {name}"
                  for name in re.findall(r"`([a-z][a-z_]*(?:\*|\.h|\.cc)?)`", row.group(2))
                  if not list(room.glob(name if "." in name else name if name.endswith("*") else name + ".*"))]
    return found


def example_problem(root):
    """What the compiler says of the example, or nothing."""
    if not shutil.which("cc"):
        return ""
    command = ["cc", "-std=c11", "-D_DEFAULT_SOURCE", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{root}",
               str(root / "docs/examples/read_region.c")]
    return subprocess.run(command, capture_output=True, text=True).stderr


def self_test():
    with tempfile.TemporaryDirectory() as name:
        root = pathlib.Path(name)
        (root / "src").mkdir()
        (root / "src/a.cc").write_text("")
        (root / "b.md").write_text("# What it `is`\n")
        (root / "a.md").write_text("[b](b.md#what-it-is) [web](https://x.y) `src/a.cc` `src/a`\n```\n[no](no)\n```\n")
        assert broken(root, ["a.md"]) == [], broken(root, ["a.md"])
        for text in ("[b](c.md)", "[b](b.md#what)", "![b](b.svg)", "`src/b.cc`"):
            (root / "a.md").write_text(text + "\n")
            assert len(broken(root, ["a.md"])) == 1, text
        (root / "src/cli/doctor").mkdir(parents=True)
        (root / "src/cli/ps_text.cc").write_text('Table t(std::vector<Column>{{"NAME", 0}, {"USED", 1}, {"MAX", 0}});')
        (root / "src/cli/cmd_gpus.cc").write_text('"{} has {}" " left, ask"')
        (root / "src/cli/doctor/a.cc").write_text('"end " "it"')
        (root / "a.md").write_text("```\nNAME  MAX\n   -> end it\n```\n**`GPU 0 has 2 GiB left, ask`**\n")
        assert old_samples(root, ["a.md"]) + old_messages(root, "a.md") == []
        for text in ("```\nNAME  MAX  USED\n```", "```\nNAME  PEAK\n```", "```\n   -> end all\n```"):
            (root / "a.md").write_text(text + "\n")
            assert len(old_samples(root, ["a.md"])) == 1, text
        (root / "a.md").write_text("**`GPU 0 had 2 GiB left over`**\n\n| message | |\n|---|---|\n| `has nothing` | |\n\n")
        assert len(old_messages(root, "a.md")) == 2
        (root / "ARCHITECTURE.md").write_text("### Rooms of src/cli\n| `doctor/` | `a`, `a.cc`, `a*` |\n## End\n| `x/` | `y` |\n")
        assert lost_rooms(root) == []
        (root / "ARCHITECTURE.md").write_text("### Rooms of src/cli\n| `doctor/` | `b`, `a.h`, `b*` |\n")
        assert len(lost_rooms(root)) == 3


if __name__ == "__main__":
    self_test()
    if sys.argv[1:] == ["--self-test"]:
        sys.exit(0)
    top = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    tracked = [p.relative_to(top) for p in sorted(top.rglob("*.md")) if not
               {"build", ".git", "results"} & set(p.relative_to(top).parts)]
    bad = broken(top, tracked) + old_samples(top, tracked) + old_messages(top, "docs/troubleshooting.md") + lost_rooms(top)
    if problem := example_problem(top):
        bad.append(problem)
    print("\n".join(bad) or f"{len(tracked)} pages, every link leads somewhere")
    sys.exit(1 if bad else 0)
