#!/usr/bin/env python3
"""Installs a build with DESTDIR and a prefix, and runs held programs from there, away from the build.

    install_test.py CMAKE BUILD_FOLDER

Checked: everything lies where a packager looks for it; nothing points into the build folder; `--sim` of an
installation without the component `sim` says what to install; the program in a slice has the installed
library and its limit holds; an installation that was moved works on.
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

PREFIX = "/usr/local"
MUST = ["bin/allot", "lib/tmpfiles.d/allot.conf", "lib/allot/libcuda.so.1", "lib/allot/libcuda.so", "lib/allot/libnvidia-ml.so.1",
        "share/man/man1/allot.1", "share/man/man1/allot-run.1", "share/man/man1/allot-cpus-plan.1", "share/man/man5/allot.conf.5",
        "share/bash-completion/completions/allot", "share/zsh/site-functions/_allot",
        "share/fish/vendor_completions.d/allot.fish", "share/doc/allot/LICENSE", "share/doc/allot/docs/commands.md"]
SIM = ["lib/tmpfiles.d/allot-sim.conf", "lib/allot-sim/libcuda.so.1", "lib/allot-sim/libnvidia-ml.so.1"]
wrong = []


def expect(truth, what):
    if not truth:
        wrong.append(what)


def install(cmake, build, destdir, component):
    subprocess.run([cmake, "--install", build, "--prefix", PREFIX, "--component", component], check=True,
                   stdout=subprocess.DEVNULL, env={**os.environ, "DESTDIR": str(destdir)}, timeout=120)


def allot(root, folder, *words):
    # Nothing of the caller's: an installation stands on its own.
    clean = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "ALLOT_DIR": str(folder), "LC_ALL": "C.UTF-8"}
    if "ASAN_OPTIONS" in os.environ:
        clean["ASAN_OPTIONS"] = os.environ["ASAN_OPTIONS"]
    return subprocess.run([str(root / "bin/allot"), *words], capture_output=True, text=True, timeout=120,
                          env=clean, cwd="/")


def check_files(root, build, names):
    for name in names:
        expect((root / name).exists(), f"{name} is not installed")
    for path in root.rglob("*"):
        if path.is_symlink():
            expect(not os.readlink(path).startswith("/"), f"{path}: an absolute link")
    for name in ("bin/allot", "lib/allot/libcuda.so.1"):
        text = subprocess.run(["readelf", "-d", root / name], capture_output=True, text=True, timeout=60).stdout
        expect("RUNPATH" not in text and "RPATH" not in text, f"{name} has a search path of its own")
    left = [p for p in (root / "share").rglob("*") if p.is_file() and str(build) in p.read_text(errors="replace")]
    expect(not left, f"the build folder is named in {left}")


def check_held(root, folder):
    maps = allot(root, folder, "run", "--sim", "--gpu-mem", "1G", "--", "cat", "/proc/self/maps")
    expect(maps.returncode == 0, f"run: {maps.stderr}")
    expect(f"{root}/lib/allot/libcuda.so.1" in maps.stdout, "the program has not the installed library")
    held = allot(root, folder, "run", "--sim=80G", "--gpu-mem", "1G", "--", str(root / "bin/allot"), "bench",
                 "alloc", "--json")
    expect(held.returncode == 0, f"bench alloc: {held.stdout}{held.stderr}")
    got = json.loads(held.stdout) if held.returncode == 0 else {}
    total = got.get("memory_before", {}).get("total")
    expect(total == 1 << 30, f"bench alloc saw {total} bytes, not its limit of 1 GiB")
    expect(0 < got.get("granted_bytes", 0) < 1 << 30, f"bench alloc got {got.get('granted_bytes')} bytes under a limit of 1 GiB")


def main():
    cmake, build = sys.argv[1], pathlib.Path(sys.argv[2]).resolve()
    with tempfile.TemporaryDirectory() as temporary:
        temporary = pathlib.Path(temporary)
        folder, destdir = temporary / "slices", temporary / "dest"
        folder.mkdir(mode=0o700)
        root = pathlib.Path(f"{destdir}{PREFIX}")
        install(cmake, build, destdir, "allot")
        check_files(root, build, MUST)
        expect(not (root / "lib/allot-sim").exists(), "component allot brings the software GPU")
        lone = allot(root, folder, "run", "--sim", "--", "true")
        expect(lone.returncode == 125 and "install it" in lone.stderr, f"without sim: {lone.stderr}")
        install(cmake, build, destdir, "sim")
        check_files(root, build, MUST + SIM)
        check_held(root, folder)
        moved = temporary / "elsewhere"
        shutil.move(root, moved)
        check_held(moved, folder)
    for line in wrong:
        print(line)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
