#!/usr/bin/env python3
"""Checks that the pages lead somewhere: every relative link of a tracked .md file names a file, every
#anchor a heading of it, and every path of ours in `backticks` a file or folder of this tree. The C example
of docs/region.md compiles without a warning.

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


if __name__ == "__main__":
    self_test()
    if sys.argv[1:] == ["--self-test"]:
        sys.exit(0)
    top = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    tracked = [p.relative_to(top) for p in sorted(top.rglob("*.md")) if not
               {"build", ".git", "results"} & set(p.relative_to(top).parts)]
    bad = broken(top, tracked)
    if problem := example_problem(top):
        bad.append(problem)
    print("\n".join(bad) or f"{len(tracked)} pages, every link leads somewhere")
    sys.exit(1 if bad else 0)
