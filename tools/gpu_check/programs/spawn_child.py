"""spawn_child.py PROGRAM...: runs it from a thread with an empty environment."""
import subprocess
import sys
import threading

result = {}


def child():
    result["done"] = subprocess.run(sys.argv[1:], env={}, capture_output=True, text=True)


thread = threading.Thread(target=child)
thread.start()
thread.join()
sys.stdout.write(result["done"].stdout)
sys.stderr.write(result["done"].stderr)
sys.exit(result["done"].returncode)
