#!/usr/bin/env python3
"""What tools/kernel_test.py sends into the guest for --replay: every operation, in its order, however they are written down.

    replay_test.py

No QEMU: only the file that the guest would read is looked at. The guest takes operations apart at ';'.
"""
import pathlib
import random
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
import kernel_test

OPERATIONS = ["mkdir /a", "write /a cpuset.cpus 0-1", "write /a cpuset.mems %0a", "fork 1 2", "offline 3", "online 3",
              "rmdir /a"]


def sent(text):
    """The operations that the guest gets for this argument of --replay."""
    files = {}
    words = kernel_test.arguments_of(kernel_test.parse(["--replay", text]), files)
    assert "allot.mode=replay" in words, words
    return [op.strip() for op in files["replay.txt"][1].decode().split(";") if op.strip()]


def main():
    generator = random.Random(18)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "ops"
        for _ in range(300):
            ops = [generator.choice(OPERATIONS) for _ in range(generator.randint(1, 9))]
            text = ""
            for op in ops:
                text += op + generator.choice(["\n", ";", ";\n", "\n\n", "\n# a comment\n", " ; "])
            path.write_text(text)
            assert sent(str(path)) == ops, (text, sent(str(path)))
            assert sent(";".join(ops) + ";") == ops
    print("every operation of a replay is sent")
    return 0


if __name__ == "__main__":
    sys.exit(main())
