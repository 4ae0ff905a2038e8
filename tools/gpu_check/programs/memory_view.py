"""Prints the driver's own figures around one allocation of 64 MiB. With `watch`: holds 512 MiB, says
when the total changes, and what an allocation above it then gives."""
import json
import sys
import time

from driver import Driver

MIB = 1 << 20
driver = Driver()
if sys.argv[1:] == ["watch"]:
    held, result = driver.alloc(512 * MIB)
    free, total = driver.memory()
    print(json.dumps({"free": free, "total": total, "held": result}), flush=True)
    until = time.monotonic() + 20
    while driver.memory()[1] == total and time.monotonic() < until:
        time.sleep(0.01)
    free, changed = driver.memory()
    _, result = driver.alloc(changed)
    print(json.dumps({"changed": changed != total, "free": free, "total": changed,
                      "refused_with": result}), flush=True)
    driver.free(held)
else:
    free, total = driver.memory()
    pointer, _ = driver.alloc(64 * MIB)
    after = driver.memory()[0]
    driver.free(pointer)
    print(json.dumps({"free": free, "total": total, "device_total": driver.total(),
                      "free_after": after, "free_end": driver.memory()[0]}), flush=True)
