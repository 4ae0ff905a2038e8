#!/usr/bin/env bash
# run.sh BUILD OUT [benchmark arguments]: the Google Benchmark programs of a build, JSON into OUT.
#
# The cost of the shim's hooks is measured on the software GPU, inside a slice, because that needs no
# card: what the shim adds to a call is the shim's own work, whoever answers behind it. Other programs
# whose names end in -benchmark or _bench run as they are. machine.json says where it was.
set -euo pipefail
build=$(cd "${1:?usage: run.sh BUILD OUT}" && pwd)
out=${2:?usage: run.sh BUILD OUT}
shift 2
mkdir -p "$out"
out=$(cd "$out" && pwd)
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export ALLOT_SIM_DIR=$scratch
status=0

in_slice() { "$build/bin/allot" run --sim=1x8G --gpu-mem 6G -- "$@"; }

python3 - "$root" >"$out/machine.json" <<'END'
import json, os, platform, subprocess, sys
model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo")
              if line.startswith("model name")), platform.machine())
commit = subprocess.run(["git", "-C", sys.argv[1], "rev-parse", "HEAD"], capture_output=True, text=True)
print(json.dumps({"cpu": model, "cpus": os.cpu_count(), "kernel": platform.release(),
                  "libc": " ".join(platform.libc_ver()), "commit": commit.stdout.strip() or "unknown",
                  "gpu": "software", "load": os.getloadavg()}, indent=1))
END

for program in "$build"/bin/*-benchmark "$build"/bin/*_bench; do
  [ -x "$program" ] || continue
  name=$(basename "$program")
  arguments=(--benchmark_out="$out/$name.json" --benchmark_out_format=json "$@")
  if [ "$name" = allot-hooks-benchmark ]; then
    in_slice "$program" "${arguments[@]}" || status=1
  else
    "$program" "${arguments[@]}" || status=1
  fi
done

[ -s "$out/allot-hooks-benchmark.json" ] && python3 - "$out/allot-hooks-benchmark.json" <<'END'
import json, sys
print(f"\n{'added by the shim (ns, median of pairs)':<44}{'added':>9}{'through it':>12}{'driver':>9}{'target':>9}")
targets = {"launch": 50, "alloc_free_4k": 500, "churn": 500, "cuGetProcAddress": 1000}
for row in json.load(open(sys.argv[1]))["benchmarks"]:
    if "added_ns" in row:
        name = row["name"].split("/iterations")[0]
        target = targets.get(name.split("/")[0], "")
        print(f"{name:<44}{row['added_ns']:>9.1f}{row['hooked_ns']:>12.1f}{row['real_ns']:>9.1f}{target:>9}")
END
echo "results in $out"
exit $status
