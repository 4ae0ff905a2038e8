#!/usr/bin/env python3
"""Checks that every command and every flag of --help is in the manual pages and in the completions of
bash, zsh and fish, that nothing else is, and that groff, man and mandoc have no complaint.

    manual_test.py ALLOT FOLDER     FOLDER is what `allot generate FOLDER` wrote

bash and fish are asked what they offer; zsh completes only in its line editor, so its functions are read. A shell or formatter that
is not installed is named and passed over. At the end the check is tried on copies with one flag taken out.
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ENVIRONMENT = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "LC_ALL": "C.UTF-8", "TERM": "dumb"}
FLAG = re.compile(r"^  (?:(-\w), )?(--[a-z][a-z0-9-]*)", re.M)


def run(*command, **more):
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=ENVIRONMENT, **more)
    return done.stdout, done.stderr


def commands_of(allot):
    """{("cpus", "plan"): {"flags": [...], "subs": [...]}}, from what --help prints."""
    found, todo = {}, [()]
    while todo:
        path = todo.pop()
        text = run(allot, *path, "--help")[0]
        part = re.search(r"^Commands:\n((?:  .*\n)+)", text, re.M)
        subs = re.findall(r"^  (\S+)", part.group(1), re.M) if part else []
        flags = re.sub(r"^(?:Commands|Examples?):\n(?:  .*\n)+", "", text, flags=re.M)
        found[path] = {"subs": subs, "flags": [f for pair in FLAG.findall(flags) for f in pair if f]}
        todo += [path + (sub,) for sub in subs]
    return found


def page(folder, path):
    return folder / "man1" / ("-".join(("allot",) + path) + ".1")


def check_pages(folder, commands):
    wrong = []
    pages = {page(folder, path) for path in commands}
    for extra in set((folder / "man1").iterdir()) - pages:
        wrong.append(f"{extra.name}: no command has this page")
    for path, command in commands.items():
        name = page(folder, path)
        if not name.exists():
            wrong.append(f"{name.name} is missing")
            continue
        heads = [line.replace("\\-", "-") for line in re.findall(r"^\.TP\n(.*)$", name.read_text(), re.M)]
        have = {flag for head in heads for flag in re.findall(r"\\fB(-[\w-]+)\\fR", head)}
        wrong += [f"{name.name}: {flag} is missing" for flag in set(command["flags"]) - have]
        wrong += [f"{name.name}: {flag} is no flag" for flag in have - set(command["flags"])]
        wrong += [f"{name.name}: {sub} is missing" for sub in command["subs"]
                  if not any(f"-{sub}\\fR(1)" in head for head in heads)]
    return wrong


def check_rendering(folder):
    wrong = []
    tools = {"mandoc": ["mandoc", "-T", "lint", "-W", "warning"], "man": ["man", "--warnings=w", "-Tutf8", "-l"],
             "groff": ["groff", "-man", "-ww", "-Tutf8", "-z"]}
    for tool, command in tools.items():
        if not shutil.which(tool):
            print(f"passed over: {tool} is not installed")
            continue
        for name in sorted((folder / "man1").iterdir()) + sorted((folder / "man5").iterdir()):
            out, error = run(*command, str(name))
            text = out + error if tool == "mandoc" else error
            # Pages of the build are not in the manual's folder yet.
            text = "\n".join(l for l in text.splitlines() if "referenced manual not found" not in l)
            wrong += [f"{tool}: {line}" for line in text.splitlines()]
    return wrong


def bash_offers(folder, words):
    script = ('source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); compopt() { :; }; _allot\n'
              'printf "%s\\n" "${COMPREPLY[@]}"')
    return run("bash", "--norc", "-c", script, "bash", str(folder / "completions/allot.bash"), *words)


def fish_offers(folder, words):
    out, error = run("fish", "--no-config", "-c", 'source $argv[1]; complete -C "$argv[2]"',
                     str(folder / "completions/allot.fish"), " ".join(words))
    return "\n".join(line.split("\t")[0] for line in out.splitlines()), error


def check_zsh_text(folder, commands):
    """Each command's function has its flags, and the shell can read the file."""
    name = folder / "completions" / "_allot"
    text, wrong = name.read_text(), []
    wrong += run("zsh", "-n", str(name))[1].splitlines()
    for path, command in commands.items():
        function = "_".join(("_allot",) + path)
        body = re.search(rf"^{function}\(\) \{{\n(.*?)^\}}", text, re.M | re.S)
        have = re.findall(r"^    '(?:\([^)]*\)|\*)(-[\w-]*\w)", body.group(1), re.M) if body else []
        wrong += [f"zsh: {function}: {flag} is missing" for flag in set(command["flags"]) ^ set(have)]
        wrong += [f"zsh: {function}: {sub} is missing" for sub in command["subs"]
                  if f"        {sub}) _allot" not in body.group(1)]
    return wrong


def check_shell(shell, offers, folder, commands):
    wrong = []
    for path, command in commands.items():
        words = ["allot", *path]
        out, error = offers(folder, words + ["-"])
        have = set(out.split())
        dashes = offers(folder, words + ["--"])[0].split() if shell == "fish" else []
        missing = set(command["flags"]) - have - set(dashes)
        wrong += [f"{shell}: {' '.join(words)}: {flag} is not offered" for flag in sorted(missing)]
        wrong += [f"{shell}: {line}" for line in error.splitlines()]
        if command["subs"]:
            have = set(offers(folder, words + [""])[0].split())
            wrong += [f"{shell}: {' '.join(words)}: {sub} is not offered" for sub in command["subs"]
                      if sub not in have]
    for flag, values in {"--priority": {"high", "normal", "low"}, "--fail": {"open", "closed"}}.items():
        have = set(offers(folder, ["allot", "run", "--gpu-mem", "8G", flag, ""])[0].split())
        if have != values:
            wrong.append(f"{shell}: {flag}: {sorted(have)} is offered, not {sorted(values)}")
    # Behind "--" the words are the program's own.
    if "--gpu-mem" in offers(folder, ["allot", "run", "--", "ls", "--"])[0].split():
        wrong.append(f"{shell}: flags of allot are offered to the program")
    return wrong


def check(folder, commands, rendering=True):
    wrong = check_pages(folder, commands) + (check_rendering(folder) if rendering else [])
    wrong += check_shell("bash", bash_offers, folder, commands)
    if shutil.which("fish"):
        wrong += check_shell("fish", fish_offers, folder, commands)
    else:
        print("passed over: fish is not installed")
    if shutil.which("zsh"):
        wrong += check_zsh_text(folder, commands)
    else:
        print("passed over: zsh is not installed")
    return wrong


def self_test(folder, commands):
    """Each file without one flag, and a page less, must be found."""
    cases = [("man1/allot-set.1", "gpu\\-share", "gpu\\-chare"), ("completions/allot.bash", "--evict-idle", ""),
             ("completions/allot.fish", "-l evict-idle", "-l evict-idly")]
    if shutil.which("zsh"):
        cases.append(("completions/_allot", "--evict-idle=", "--evict-idly="))
    missed = []
    for name, old, new in cases:
        with tempfile.TemporaryDirectory() as temporary:
            copy = pathlib.Path(temporary) / "copy"
            shutil.copytree(folder, copy)
            text = (copy / name).read_text()
            assert old in text, (name, old)
            (copy / name).write_text(text.replace(old, new))
            if "fish" in name and not shutil.which("fish"):
                continue
            if not check(copy, commands, rendering=False):
                missed.append(f"self-test: {name} without {old} was not noticed")
    return missed


def main():
    allot, folder = os.path.abspath(sys.argv[1]), pathlib.Path(sys.argv[2])
    # Completions of names of slices run the command.
    ENVIRONMENT["PATH"] = f"{os.path.dirname(allot)}:{ENVIRONMENT['PATH']}"
    commands = commands_of(allot)
    flags = sum(len(command["flags"]) for command in commands.values())
    if len(commands) < 20 or flags < 100:
        sys.exit(f"manual_test: {len(commands)} commands and {flags} flags were read from --help: too few")
    wrong = check(folder, commands) + self_test(folder, commands)
    for line in wrong:
        print(line)
    print(f"manual: {len(commands)} pages, {flags} flags, {len(wrong)} faults")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
