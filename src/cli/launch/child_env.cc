// Builds a new list instead of calling setenv: the command's own environment, and so the children
// that ask the driver, must stay outside the slice.
#include "cli/launch/child_env.h"

#include <algorithm>
#include <string_view>

#include "abi/env.h"

namespace allot::cli {
namespace {

class Environment {
 public:
  explicit Environment(const char* const* inherited) {
    for (; inherited != nullptr && *inherited != nullptr; ++inherited)
      entries_.emplace_back(*inherited);
  }

  std::string get(std::string_view name) const {
    for (const std::string& entry : entries_) {
      if (is(entry, name)) return entry.substr(name.size() + 1);
    }
    return "";
  }

  void unset(std::string_view name) {
    std::erase_if(entries_, [&](const std::string& entry) { return is(entry, name); });
  }

  void set(std::string_view name, std::string_view value) {
    unset(name);
    entries_.push_back(std::string(name) + "=" + std::string(value));
  }

  std::vector<std::string> take() { return std::move(entries_); }

 private:
  static bool is(std::string_view entry, std::string_view name) {
    return entry.size() > name.size() && entry.starts_with(name) && entry[name.size()] == '=';
  }
  std::vector<std::string> entries_;
};

// `first`, then the parts of `old` (joined by any of `separators`) that are not in it already.
std::string put_first(const std::vector<std::string>& first, const std::string& old,
                      std::string_view separators, char joiner, bool keep_empty) {
  std::string out;
  for (const std::string& part : first) out += (out.empty() ? "" : std::string(1, joiner)) + part;
  size_t begin = 0;
  while (!old.empty() && begin <= old.size()) {
    const size_t end = std::min(old.find_first_of(separators, begin), old.size());
    const std::string part = old.substr(begin, end - begin);
    begin = end + 1;
    if (part.empty() && !keep_empty) continue;
    if (std::find(first.begin(), first.end(), part) == first.end()) out += joiner + part;
  }
  return out;
}

// A driver in LD_PRELOAD (forward compatibility) would stand before us: it becomes the one that we
// call.
bool is_driver(std::string_view path, std::string_view stem) {
  const std::string_view name = path.substr(path.rfind('/') + 1);
  return name.starts_with(stem) && (name.size() == stem.size() || name[stem.size()] == '.');
}

// The user's own libraries come first, so that tracers and memory savers see the program's calls,
// and ours behind them hold the limit.
std::string preload_list(const SliceEnvironment& slice, Environment& env) {
  const std::string old = env.get("LD_PRELOAD");
  std::string out;
  for (size_t begin = 0; begin < old.size();) {
    const size_t end = std::min(old.find_first_of(" :", begin), old.size());
    const std::string part = old.substr(begin, end - begin);
    begin = end + 1;
    if (part.empty() || part == slice.shim.cuda || part == slice.shim.nvml) continue;
    const bool cuda = is_driver(part, "libcuda.so");
    const bool nvml = is_driver(part, "libnvidia-ml.so");
    if (cuda && !slice.simulated) env.set(ALLOT_ENV_REAL_CUDA, part);
    if (nvml && !slice.simulated) env.set(ALLOT_ENV_REAL_NVML, part);
    if (!cuda && !nvml) out += part + ' ';
  }
  return out + slice.shim.cuda + ' ' + slice.shim.nvml;
}

}  // namespace

std::vector<std::string> slice_environment(const SliceEnvironment& slice,
                                           const char* const* inherited) {
  Environment env(inherited);
  if (slice.preload) {
    env.set("LD_PRELOAD", preload_list(slice, env));
    // An empty part of LD_LIBRARY_PATH means the current folder: odd, but the user's.
    env.set("LD_LIBRARY_PATH",
            put_first({slice.shim.folder}, env.get("LD_LIBRARY_PATH"), ":;", ':', true));
  }
  env.set(ALLOT_ENV_SLICE, slice.slice_path);
  env.set(ALLOT_ENV_LIBDIR, slice.shim.folder);
  env.set(ALLOT_ENV_FAIL, slice.fail_closed ? "closed" : "open");
  env.unset(ALLOT_ENV_DISABLE);  // it would disable the new slice
  if (!slice.visible_gpus.empty()) env.set("CUDA_VISIBLE_DEVICES", slice.visible_gpus);
  if (slice.simulated) {
    env.set(ALLOT_ENV_REAL_CUDA, slice.sim.cuda);
    env.set(ALLOT_ENV_REAL_NVML, slice.sim.nvml);
    if (!slice.sim_spec.empty()) env.set(ALLOT_ENV_SIM_GPUS, slice.sim_spec);
  }
  return env.take();
}

}  // namespace allot::cli
