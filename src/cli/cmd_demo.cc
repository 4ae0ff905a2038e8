// allot demo: two programs share one software GPU, each held to its memory. Needs no GPU.
//
// Everything shown is measured while it happens: the programs are `allot run ... -- allot bench
// alloc`, and the numbers beside them are read from the region while they run. The exit status is 0
// only if both were held to their limits. All files are in a folder of their own, which is removed
// at the end.
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "abi/env.h"
#include "bench/child.h"
#include "cli/commands.h"
#include "cli/failure.h"
#include "cli/gpus/libraries.h"
#include "cli/output.h"
#include "cli/region/region_view.h"

namespace allot::cli {
namespace {

using nlohmann::json;

constexpr double kPatienceSeconds = 30;  // an idle machine needs less than a second
constexpr uint64_t kMiB = 1u << 20;
constexpr uint64_t kStepBytes = 64 * kMiB;
constexpr const char* kCard = "16G";

// A folder for the demo's own region and software GPU.
class Stage {
 public:
  Stage() {
    const char* base = access("/dev/shm", W_OK | X_OK) == 0 ? "/dev/shm" : "/tmp";
    std::string pattern = std::string(base) + "/allot-demo-XXXXXX";
    if (mkdtemp(pattern.data()) == nullptr) {
      refuse("demo: cannot make a folder in {}: {}", base, describe_errno(errno));
    }
    folder_ = pattern;
    for (const char* part : {"/region", "/sim"}) mkdir((folder_ + part).c_str(), 0700);
    setenv(ALLOT_ENV_DIR, (folder_ + "/region").c_str(), 1);
    setenv(ALLOT_ENV_SIM_DIR, (folder_ + "/sim").c_str(), 1);
  }
  ~Stage() {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  Stage(const Stage&) = delete;
  Stage& operator=(const Stage&) = delete;

 private:
  std::string folder_;
};

struct Actor {
  std::string name;
  std::string limit_text;
  uint64_t limit_bytes;
};

bench::Child start(const Actor& actor) {
  const std::string allot = own_executable();
  return bench::Child(
      {allot, "run", std::string("--sim=") + kCard, "--gpu-mem", actor.limit_text, "--name",
       actor.name, "--", allot, "bench", "alloc", "--step", "64M", "--hold", "60", "--json"},
      {});
}

const SliceView* slice_named(const RegionView& region, const std::string& name) {
  for (const SliceView& slice : region.slices) {
    if (slice.name == name) return &slice;
  }
  return nullptr;
}

std::string kinds_of(const SliceGpuView& gpu) {
  std::string text;
  for (unsigned kind = 0; kind < ALLOT_KINDS; ++kind) {
    if (gpu.by_kind[kind] == 0) continue;
    text += fmt::format("{}{} {}", text.empty() ? "" : " + ", kind_text(kind),
                        gpu.by_kind[kind] / kMiB);
  }
  return text;
}

// A line, broken where it does not fit the screen.
void tell(const std::string& line) {
  print(wrapped(line, screen_width(), 9) + "\n");
}

// What the program itself said, in a sentence.
bool tell_program(const Actor& actor, const json& said) {
  const bool oom = said.value("refused_with", json()) == "CUDA_ERROR_OUT_OF_MEMORY";
  const uint64_t granted = said.value("granted_bytes", uint64_t{0});
  const json before = said.value("memory_before", json::object());
  tell(fmt::format("  {:<6} sees a GPU of {} MiB; took {} MiB in steps of 64, then got {}",
                   actor.name, before.value("total", uint64_t{0}) / kMiB, granted / kMiB,
                   said.value("refused_with", json()).is_string()
                       ? said["refused_with"].get<std::string>()
                       : "no refusal"));
  return oom && granted > 0 && granted <= actor.limit_bytes &&
         before.value("total", uint64_t{0}) == actor.limit_bytes &&
         said.value("mismatches", 1) == 0;
}

// What the region says about it, read now, while the program holds its memory.
bool tell_region(const Actor& actor, const RegionView& region, const json& said) {
  const SliceView* slice = slice_named(region, actor.name);
  if (slice == nullptr || slice->gpus.empty()) {
    tell(fmt::format("  {:<6} is not in the region", actor.name));
    return false;
  }
  const SliceGpuView& gpu = slice->gpus[0];
  tell(fmt::format("  {:<6} {} of {} MiB in use ({}), {} requests refused, pid {}", actor.name,
                   gpu.used_bytes / kMiB, gpu.limit_bytes / kMiB, kinds_of(gpu), gpu.refused,
                   slice->processes.empty() ? 0 : slice->processes[0].pid));
  // Held: full to within one step, not a byte over, and the region agrees with the program.
  return slice->software() && gpu.limit_bytes == actor.limit_bytes &&
         gpu.used_bytes <= gpu.limit_bytes && gpu.used_bytes + kStepBytes > gpu.limit_bytes &&
         gpu.refused > 0 && gpu.used_bytes >= said.value("granted_bytes", UINT64_MAX);
}

json answer_of(const Actor& actor, bench::Child& child) {
  const std::optional<std::string> line = child.line(kPatienceSeconds);
  json said = line ? json::parse(*line, nullptr, false) : json();
  if (!said.is_object()) {
    refuse("demo: {}'s program printed nothing for {} s; try 'allot doctor --sim'", actor.name,
           kPatienceSeconds);
  }
  return said;
}

bool play() {
  const Actor alice = {"alice", "3G", 3072 * kMiB};
  const Actor bob = {"bob", "5G", 5120 * kMiB};
  print(wrapped("Two programs share one software GPU of 16 GiB. It is allot's own simulation of a "
                "GPU, and its memory is this machine's: the demo needs no real GPU. Both programs "
                "take memory until they are refused.",
                screen_width(), 0) +
        "\n\n");
  for (const Actor& actor : {alice, bob}) {
    print(
        fmt::format("  $ allot run --sim=16G --gpu-mem {} --name {} -- \\\n"
                    "      allot bench alloc --step 64M --hold 60\n",
                    actor.limit_text, actor.name));
  }
  print("\n");
  bench::Child first = start(alice);
  bench::Child second = start(bob);
  const json alice_said = answer_of(alice, first);
  const json bob_said = answer_of(bob, second);
  print("What the programs saw:\n");
  bool held = tell_program(alice, alice_said);
  held = tell_program(bob, bob_said) && held;

  print("\n");
  print(wrapped("What the region says while both hold their memory ('allot ps' shows the same):",
                screen_width(), 0) +
        "\n");
  const RegionView together = read_region();
  held = tell_region(alice, together, alice_said) && held;
  held = tell_region(bob, together, bob_said) && held;

  print("\nbob's program is killed; its memory comes back, alice keeps hers:\n");
  if (const pid_t victim = bob_said.value("pid", 0); victim > 1) kill(victim, SIGKILL);
  const int bob_status = second.wait(kPatienceSeconds);
  const RegionView alone = read_region();
  tell(fmt::format(
      "  bob    ended with status {}, {}", bob_status,
      slice_named(alone, "bob") == nullptr ? "its slice is gone" : "its slice is STILL THERE"));
  held = bob_status == kExitSignalBase + SIGKILL && slice_named(alone, "bob") == nullptr && held;
  held = tell_region(alice, alone, alice_said) && held;

  first.signal(SIGTERM);
  first.wait(kPatienceSeconds);
  const bool empty = read_region().slices.empty();
  print(fmt::format("\n{}\n", held && empty ? "Both were held to their memory. (software GPU)"
                                            : "NOT HELD: see above. (software GPU)"));
  return held && empty;
}

}  // namespace

void add_demo(CLI::App& app, int* exit_status) {
  CLI::App* sub =
      app.add_subcommand("demo", "show two programs on one software GPU, each held to its memory");
  sub->footer(
      "Takes a few seconds and needs no GPU. Exit status: 0 only if both programs were held.\n\n"
      "Example:\n"
      "  allot demo");
  sub->callback([exit_status] {
    need_sim();
    need_shim();
    const Stage stage;
    *exit_status = play() ? kExitOk : kExitProblems;
  });
}

}  // namespace allot::cli
