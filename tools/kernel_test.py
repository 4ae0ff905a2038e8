#!/usr/bin/env python3
"""Runs the cpuset model against a real Linux kernel in QEMU, without KVM.

  tools/kernel_test.sh [--ops N] [--seed S] [--kernel 6.1|6.12] [--hierarchy v1|v2|v1v2mode]
                       [--replay FILE|LINE] [--record FILE] [--log FILE] [--guest PROGRAM]
  tools/kernel_test.sh --commands BUILD [--only CHECK,... | --without CHECK,...] [--kernel ...] [--hierarchy ...]

Fetches Debian's cloud kernel (apt-get download, nothing is installed), packs the guest driver
(tests/kernel/guest_driver.cc) as /init of an initramfs, boots 8 CPUs on 2 memory nodes and reads the
driver's report from the serial port. With --commands the guest runs `allot` itself, of that build
folder, through the checks of tests/kernel/guest_commands.sh. Exit status: 0 no mismatch, 1 mismatch,
2 usage, 77 skipped because QEMU, busybox or the kernel cannot be had. The last line says which.
"""
import argparse
import pathlib
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
OPS_PER_EPISODE = 200  # kOpsPerEpisode of tests/kernel/ops.h
META_PACKAGE = {"6.1": "linux-image-cloud-amd64", "6.12": "linux-image-6.12-cloud-amd64"}


class Skip(Exception):
    """Why the test cannot run here."""


def run(command, **options):
    return subprocess.run(command, capture_output=True, text=True, **options)


def kernel_image(version, cache):
    """The vmlinuz of Debian's newest cloud kernel of that version, unpacked under cache."""
    folder = cache / version
    found = sorted(folder.glob("boot/vmlinuz-*"))
    if found:
        return found[-1]
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise Skip("no apt-get and dpkg-deb to fetch a kernel with")
    pattern = r"Depends: (linux-image-" + re.escape(version) + r"[.\w+-]*)"
    match = re.search(pattern, run(["apt-cache", "depends", META_PACKAGE[version]]).stdout)
    if not match:  # a fresh image has no package lists; without rights this fails, and that is said below
        run(["apt-get", "update", "-q"])
        match = re.search(pattern, run(["apt-cache", "depends", META_PACKAGE[version]]).stdout)
    if not match:
        raise Skip(f"apt offers no {META_PACKAGE[version]} (apt-get update?)")
    with tempfile.TemporaryDirectory() as place:
        fetched = run(["apt-get", "download", match.group(1)], cwd=place)
        packages = list(pathlib.Path(place).glob("*.deb"))
        if fetched.returncode or not packages:
            raise Skip(f"apt-get download {match.group(1)} failed")
        folder.mkdir(parents=True, exist_ok=True)
        run(["dpkg-deb", "-x", str(packages[0]), place + "/x"], check=True)
        shutil.copytree(place + "/x/boot", folder / "boot", dirs_exist_ok=True)
    return sorted(folder.glob("boot/vmlinuz-*"))[-1]


def cpio(files):
    """An uncompressed newc archive; files maps names to (mode, bytes)."""
    archive = bytearray()
    for number, (name, (mode, data)) in enumerate(list(files.items()) + [("TRAILER!!!", (0, b""))], 1):
        text = name.encode() + b"\0"
        fields = [number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(text), 0]
        archive += b"070701" + b"".join(b"%08x" % field for field in fields) + text
        archive += b"\0" * (-len(archive) % 4) + data
        archive += b"\0" * (-len(archive) % 4)
    return bytes(archive)


def with_folders(files):
    """The same files behind the folders that hold them."""
    folders = sorted({str(parent) for name in files for parent in pathlib.PurePath(name).parents} - {"."})
    return {**{folder: (0o040755, b"") for folder in folders}, **files}


def programs(paths):
    """Dynamically linked programs for the guest's /bin, with the libraries they need."""
    files = {}
    for path in paths:
        files["bin/" + path.name] = (0o100755, path.read_bytes())
        for library in re.findall(r"(/\S+) \(0x", run(["ldd", str(path)]).stdout):
            files[library.lstrip("/")] = (0o100755, pathlib.Path(library).read_bytes())
    return files


class Guest:
    """One boot: lines of the serial port come as an iterator."""

    def __init__(self, kernel, files, arguments, limit, side_by_side=False):
        self.place = tempfile.TemporaryDirectory()
        files = {**with_folders(files), "dev": (0o040755, b""), "proc": (0o040755, b""), "sys": (0o040755, b"")}
        initrd = pathlib.Path(self.place.name) / "initrd"
        initrd.write_bytes(cpio(files))
        # One thread for all CPUs is twice as fast as one each where there are few real ones; time shares
        # need CPUs that really run side by side.
        threads = "multi" if side_by_side else "single"
        command = ["qemu-system-x86_64", "-accel", "tcg,thread=" + threads, "-cpu", "max", "-smp", "8", "-m", "768",
                   "-nographic", "-no-reboot",
                   "-nodefaults", "-serial", "stdio",
                   "-object", "memory-backend-ram,id=m0,size=384M", "-object", "memory-backend-ram,id=m1,size=384M",
                   "-numa", "node,nodeid=0,cpus=0-3,memdev=m0", "-numa", "node,nodeid=1,cpus=4-7,memdev=m1",
                   "-kernel", str(kernel), "-initrd", str(initrd), "-append",
                   "console=ttyS0 quiet loglevel=1 panic=-1 mitigations=off nokaslr no_timer_check random.trust_cpu=on " + arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT)
        self.deadline = time.monotonic() + limit

    def lines(self):
        """Lines as they come; ends with the guest, or after the time limit."""
        pending = queue.Queue()

        def reader():
            for raw in self.process.stdout:
                pending.put(raw.decode(errors="replace").rstrip("\r\n"))
            pending.put(None)

        threading.Thread(target=reader, daemon=True).start()
        while True:
            try:
                line = pending.get(timeout=max(0.1, self.deadline - time.monotonic()))
            except queue.Empty:
                self.process.kill()
                yield "TIMEOUT"
                return
            if line is None:
                return
            yield line

    def close(self):
        self.process.kill()
        self.process.wait()
        self.place.cleanup()


def parse(argv):
    parser = argparse.ArgumentParser(prog="./dev kernel-test", description="compare the cpuset model with a real kernel")
    parser.add_argument("--ops", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="first episode of the seed")
    parser.add_argument("--kernel", choices=sorted(META_PACKAGE), default="6.1")
    parser.add_argument("--hierarchy", choices=["v1", "v2", "v1v2mode"], default="v1")
    parser.add_argument("--replay", help="a file with operations, or the operations themselves, separated by ';'")
    parser.add_argument("--shares", type=int, help="measure the time shares of so many random pinned loads instead")
    parser.add_argument("--commands", type=pathlib.Path, metavar="BUILD", help="check allot itself, of this build folder")
    parser.add_argument("--only", help="of --commands only these checks, joined by commas")
    parser.add_argument("--without", help="of --commands all but these checks")
    parser.add_argument("--record", type=pathlib.Path, help="write the run's operations and hashes here")
    parser.add_argument("--log", type=pathlib.Path, help="write the report here as well")
    parser.add_argument("--guest", type=pathlib.Path, default=ROOT / "build/bin/kernel_guest")
    parser.add_argument("--cache", type=pathlib.Path, default=ROOT / "build/kernel")
    parser.add_argument("--limit", type=int, default=7200, help="seconds")
    return parser.parse_args(argv)


def files_of(options):
    if not options.commands:
        if not options.guest.is_file():
            raise Skip(f"{options.guest} is not built")
        return {"init": (0o100755, options.guest.read_bytes())}
    busybox = shutil.which("busybox")
    if not busybox or run(["ldd", busybox]).returncode == 0:
        raise Skip("no static busybox (package busybox-static)")
    tests = [options.commands / "test" / name for name in ("slice_bench", "attach_storm")]
    needed = [options.commands / "bin/allot", *tests, pathlib.Path(shutil.which("env"))]
    for path in needed:
        if not path.is_file():
            raise Skip(f"{path} is not built")
    script = ROOT / "tests/kernel/guest_commands.sh"
    return {"init": (0o100755, script.read_bytes()), "bin/busybox": (0o100755, pathlib.Path(busybox).read_bytes()),
            **programs(needed)}


def arguments_of(options, files):
    words = [f"allot.hierarchy={options.hierarchy}", f"allot.seed={options.seed}"]
    if options.replay:
        path = pathlib.Path(options.replay)
        text = path.read_text() if ";" not in options.replay and path.is_file() else options.replay
        text = ";".join(line for line in text.splitlines() if line.strip() and not line.startswith("#"))
        files["replay.txt"] = (0o100644, text.encode())
        words.append("allot.mode=replay")
    elif options.commands:
        words.append(f"allot.only={options.only or ''} allot.without={options.without or ''}")
    elif options.shares:
        words += ["allot.mode=shares", f"allot.episodes={options.shares}"]
    else:
        words += [f"allot.first={options.first}", f"allot.episodes={-(-options.ops // OPS_PER_EPISODE)}"]
    return " ".join(words)


def main(argv):
    options = parse(argv)
    if not shutil.which("qemu-system-x86_64"):
        raise Skip("qemu-system-x86_64 is not installed")
    files = files_of(options)
    kernel = kernel_image(options.kernel, options.cache)
    arguments = arguments_of(options, files)
    guest = Guest(kernel, files, arguments, options.limit, side_by_side=bool(options.shares or options.commands))
    log = open(options.log, "w") if options.log else None
    trace, done, started = [], None, time.monotonic()
    header = f"# {options.hierarchy} {kernel.name} seed {options.seed}"
    try:
        for line in guest.lines():
            if line.startswith("T "):
                trace.append(line)
                continue
            if line.startswith("DONE "):
                done = line
            print(line, flush=True)
            if log:
                log.write(line + "\n")
    finally:
        guest.close()
    if options.record:
        options.record.write_text(f"{header} first {options.first}\n" + "\n".join(trace) + "\n")
    summary = f"{header}: {done or 'no end was reported'}, {time.monotonic() - started:.0f} s with boot"
    print(summary)
    if log:
        log.write(summary + "\n")
    return 0 if done and re.search(r"mismatches=0|shares=|failed=0", done) else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Skip as reason:
        print(f"SKIP: {reason}")
        sys.exit(77)
