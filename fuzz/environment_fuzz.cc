// The environment and the flags of a slice, of any content: what a process starts with (ALLOT_*,
// HAMi's names), what it hands to its children, and the texts that `allot run` and `allot set`
// read.
//
// The input is lines. One that begins with a byte below 32 is a variable by its number in kNames,
// with the rest as its value; any other is the entry itself. An empty line ends the environment
// that the process starts with; what follows is the one it makes for a child. Checked besides not
// reading or writing outside (the arrays are as large as planned, to the byte): limits are in
// range, a name is a name, a child keeps every entry of its own, has every variable of the slice,
// and being completed twice changes nothing.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "cli/failure.h"
#include "cli/launch/child_env.h"
#include "cli/slice_spec.h"
#include "shim/entry/child_environment.h"
#include "shim/process/own_files.h"
#include "shim/process/slice_search.h"
#include "shim/process/start_environment.cc"  // for its state: a process reads its environment once
#include "shm/slice_file.h"

namespace allot::shm {

// Stand for the machine (fuzz/CMakeLists.txt gives slice_search.cc these names): no file is made or
// read.
Result<void> fuzz_region_folder(const char* dir, bool, char* out) {
  if (dir != nullptr && dir[0] != '\0' && dir[0] != '/') return fail(Errc::kBadValue);
  TextBuf text(out, kPathBytes);
  text.text(dir != nullptr && dir[0] != '\0' ? dir : "/dev/shm/allot-0");
  if (text.cut()) return fail(Errc::kBadValue);
  return {};
}
Result<void> fuzz_find_slice_of_ancestors(const char*, uint32_t, char*) {
  return fail(Errc::kNotFound);
}
Result<void> fuzz_find_default_slice(const char*, char*) {
  return fail(Errc::kNotFound);
}

}  // namespace allot::shm

namespace allot::shim {

const char* own_folder() {
  return "/o";
}

// As at the start of a process.
void forget_start() {
  if (environment.variables != own_variables && environment.variables != nullptr) {
    sys::unmap(environment.variables, most_variables * sizeof(char*) + room_bytes);
  }
  environment = {};
  room = own_room;
  room_bytes = kRoom;
  room_used = 0;
  most_variables = kMost;
  ready.store(false);
}

}  // namespace allot::shim

namespace {

using namespace allot;

constexpr const char* kNames[32] = {ALLOT_ENV_SLICE,
                                    ALLOT_ENV_NAME,
                                    ALLOT_ENV_DIR,
                                    ALLOT_ENV_GPU_MEM,
                                    "ALLOT_GPU_MEM_0",
                                    "ALLOT_GPU_MEM_15",
                                    ALLOT_ENV_GPU_SHARE,
                                    "ALLOT_GPU_SHARE_0",
                                    ALLOT_ENV_GPU_MAX,
                                    "LD_PRELOAD",
                                    ALLOT_ENV_PRIORITY,
                                    ALLOT_ENV_LEVEL,
                                    ALLOT_ENV_FAIL,
                                    ALLOT_ENV_DISABLE,
                                    ALLOT_ENV_LOG,
                                    ALLOT_ENV_LIBDIR,
                                    ALLOT_ENV_REAL_CUDA,
                                    ALLOT_ENV_SIGNALS,
                                    ALLOT_ENV_SIM_GPUS,
                                    ALLOT_ALIAS_GPU_MEM,
                                    ALLOT_ALIAS_GPU_SHARE,
                                    ALLOT_ALIAS_PRIORITY,
                                    ALLOT_ALIAS_POLICY,
                                    ALLOT_ALIAS_REGION,
                                    "LD_LIBRARY_PATH",
                                    "PATH",
                                    "CUDA_DEVICE_MEMORY_LIMIT_0",
                                    "CUDA_DEVICE_SM_LIMIT_0",
                                    "CUDA_VISIBLE_DEVICES",
                                    "ALLOT_GPU_MAX_0",
                                    "ALLOT_",
                                    ""};

void require(bool condition) {
  if (!condition) std::abort();
}

struct Environments {
  std::vector<std::string> start, child;
};

Environments read_input(std::string_view text) {
  Environments read;
  bool second = false;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    std::string line(text.substr(0, end));
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    if (line.empty()) second = true;
    if (line.empty()) continue;
    const uint8_t first = static_cast<uint8_t>(line[0]);
    if (first < 32) line = std::string(kNames[first]) + "=" + line.substr(1);
    line = line.c_str();  // an entry ends at its NUL
    (second ? read.child : read.start).push_back(line);
  }
  return read;
}

std::vector<char*> pointers(std::vector<std::string>& entries) {
  std::vector<char*> all;
  for (std::string& entry : entries) all.push_back(entry.data());
  all.push_back(nullptr);
  return all;
}

std::string_view name_of(std::string_view entry) {
  return entry.substr(0, entry.find('='));
}

void check_slice() {
  shim::SliceChoice choice;
  if (shim::choose_slice(&choice)) {
    using Kind = shim::SliceChoice::Kind;
    require(choice.kind != Kind::kByLimits || shm::valid_name(choice.name));
    require(choice.kind != Kind::kFile || choice.path[0] != '\0');
    require(std::memchr(choice.path, 0, sizeof(choice.path)) != nullptr);
    require(std::memchr(choice.folder, 0, sizeof(choice.folder)) != nullptr);
  }
  for (const uint32_t gpu : {0u, 1u, 15u, UINT32_MAX}) {
    require(shim::limit_of(gpu) > 0);
    const shim::WantedTime time = shim::wanted_time(gpu);
    require(time.share_permille <= 1000 && time.max_permille <= 1000);
    require(time.max_permille == 0 || time.max_permille >= time.share_permille);
  }
  require(shim::wanted_priority() <= ALLOT_PRIORITY_LOW);
  require(shim::wanted_level() <= ALLOT_LEVEL_OBSERVE);
  static_cast<void>(shim::fails_closed());
}

bool has(const std::vector<std::string>& entries, std::string_view name) {
  for (const std::string& entry : entries) {
    if (name_of(entry) == name) return true;
  }
  return false;
}

bool sets(const std::vector<std::string>& entries, const std::string& name) {
  for (const std::string& entry : entries) {
    if (entry.starts_with(name + "=")) return true;
  }
  return false;
}

std::vector<std::string> completed(std::vector<std::string> child, bool* needed) {
  std::vector<char*> envp = pointers(child);
  const shim::EnvironmentPlan plan = shim::plan_environment(envp.data());
  *needed = plan.needed;
  if (!plan.needed) return child;
  char** out = static_cast<char**>(std::malloc(plan.entries * sizeof(char*)));
  char* text = static_cast<char*>(std::malloc(plan.text_bytes));
  shim::complete_environment(envp.data(), plan, out, text);
  std::vector<std::string> result;
  for (char** at = out; *at != nullptr; ++at) result.emplace_back(*at);
  require(result.size() < plan.entries);
  std::free(out);
  std::free(text);
  return result;
}

void check_child(const std::vector<std::string>& child) {
  bool needed = false;
  const std::vector<std::string> once = completed(child, &needed);
  if (!needed) return;
  for (const std::string& entry : child) require(has(once, name_of(entry)));
  const shim::StartEnvironment& start = shim::start_environment();
  if (!has(child, ALLOT_ENV_SLICE)) {
    for (uint32_t i = 0; i < start.count; ++i) require(has(once, name_of(start.variables[i])));
  }
  bool again = false;
  const std::vector<std::string> twice = completed(once, &again);
  require(!again || twice == once);
}

// A complaint is a Failure; anything else that is thrown ends the program.
template <class Parse>
void parse(Parse one) {
  try {
    one();
  } catch (const cli::Failure& failure) {
    require(failure.exit_status() == cli::kExitUsage && !failure.line().empty());
  }
}

void check_flags(const std::string& text) {
  parse([&] {
    for (const cli::MemoryLimit& limit : cli::parse_gpu_mem("--gpu-mem", text))
      require(limit.bytes > 0 && (limit.bytes <= INT64_MAX || limit.bytes == ALLOT_UNLIMITED));
  });
  parse([&] {
    for (const std::string& gpu : cli::parse_gpu_list("--gpu", text)) require(!gpu.empty());
  });
  parse([&] { require(cli::parse_share_or_none("--gpu-share", text) <= 1000); });
  parse([&] { static_cast<void>(cli::parse_priority("--priority", text)); });
  parse([&] { static_cast<void>(cli::parse_level("--level", text)); });
  parse([&] { static_cast<void>(cli::parse_fail("--fail", text)); });
  parse([&] { cli::check_name("--name", text); });
  const std::string name = cli::default_name(text, INT32_MAX);
  require(shm::valid_name(name.c_str()));
}

// What `allot run` makes of its own environment; made of the result again it stays as it is.
void check_run(std::vector<std::string> inherited) {
  cli::SliceEnvironment slice;
  slice.shim = {"/o", "/o/libcuda.so.1", "/o/libnvidia-ml.so.1"};
  slice.slice_path = "/r/a.slice";
  std::vector<std::string> once = cli::slice_environment(slice, pointers(inherited).data());
  const std::vector<std::string> twice = cli::slice_environment(slice, pointers(once).data());
  require(once == twice);
  require(!sets(once, ALLOT_ENV_DISABLE));
  require(sets(once, ALLOT_ENV_SLICE) && sets(once, "LD_PRELOAD"));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Environments read = read_input({reinterpret_cast<const char*>(data), size});
  std::vector<char*> start = pointers(read.start);
  char** const own = environ;
  environ = start.data();
  shim::forget_start();
  static_cast<void>(shim::start_environment());
  environ = own;
  check_slice();
  check_child(read.child);
  check_child(read.start);
  check_run(read.child);
  for (const std::string& entry : read.start) {
    const size_t equals = entry.find('=');
    check_flags(equals == std::string::npos ? entry : entry.substr(equals + 1));
  }
  return 0;
}
