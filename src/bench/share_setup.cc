// Command lines, and the calibrations with their file.
#include "bench/share_setup.h"

#include <fmt/format.h>
#include <unistd.h>

#include <climits>
#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "abi/env.h"
#include "bench/child.h"

namespace allot::bench {
namespace {

constexpr double kStartSeconds = 90;  // a cold card, a loaded machine

std::string folder_of(const std::string& path) {
  return path.substr(0, path.rfind('/'));
}

std::string own_program() {
  char path[PATH_MAX];
  const ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
  if (n <= 0) throw Failure(125, "/proc/self/exe cannot be read; mount /proc");
  return std::string(path, static_cast<size_t>(n));
}

std::string percent(uint32_t permille) {
  return permille == 0 ? "none" : fmt::format("{}.{}", permille / 10, permille % 10);
}

nlohmann::json read_file(const std::string& path) {
  std::ifstream file(path);
  auto known = file ? nlohmann::json::parse(file, nullptr, false) : nlohmann::json();
  return known.is_object() ? known : nlohmann::json::object();
}

nlohmann::json calibrate(const ShareSetup& setup, const ShareOptions& options,
                         const LoadSpec& load) {
  Child child(setup.worker({"--calibrate", "--load", load_json(load).dump(), "--gpu",
                            std::to_string(options.gpu)}),
              setup.bare());
  const auto line = child.line(kStartSeconds);
  const int status = line ? child.wait(10) : child.wait(1);
  if (!line || status != 0) {
    throw Failure(
        status == 125 ? 125 : 1,
        fmt::format("share: the calibration of '{}' ended with {}", kind_name(load.kind), status));
  }
  return nlohmann::json::parse(*line);
}

}  // namespace

ShareSetup::ShareSetup(const ShareOptions& options) : options_(options) {
  const std::string self = own_program(), folder = folder_of(self);
  allot_ = folder + "/allot";
  self_ = {self};
  if (self == allot_) self_.push_back("bench");
  self_.push_back("share-worker");
  if (options.allot && access(allot_.c_str(), X_OK) != 0) {
    throw Failure(125, allot_ + " is missing; install it beside this program, or add --no-allot");
  }
  // Inside a slice the calibration would be held to it.
  if (std::getenv(ALLOT_ENV_SLICE) != nullptr) bare_["LD_PRELOAD"] = bare_[ALLOT_ENV_SLICE] = "";
  if (options.sim.empty()) return;
  const std::string library = folder_of(folder) + "/lib/allot-sim";
  if (access((library + "/libcuda.so.1").c_str(), R_OK) != 0) {
    throw Failure(125, "--sim: " + library + "/libcuda.so.1 is missing; build or install it");
  }
  const char* before = std::getenv("LD_LIBRARY_PATH");
  bare_["LD_LIBRARY_PATH"] =
      library + (before != nullptr && *before != '\0' ? ":" + std::string(before) : "");
  if (options.sim != "default") bare_[ALLOT_ENV_SIM_GPUS] = options.sim;
}

Words ShareSetup::worker(const Words& arguments) const {
  Words words = self_;
  words.insert(words.end(), arguments.begin(), arguments.end());
  return words;
}

std::string ShareSetup::slice_name(size_t index) const {
  return fmt::format("bench-{}-{}", getpid(), index);
}

Words ShareSetup::slice(size_t index, const SliceSpec& spec, double iters_per_us,
                        const std::string& gpu) const {
  // In a slice of one GPU that one is number 0.
  const bool alone = options_.allot && !gpu.empty();
  Words program =
      worker({"--load", load_json(spec.load).dump(), "--iters-per-us",
              fmt::format("{}", iters_per_us), "--gpu", std::to_string(alone ? 0 : options_.gpu)});
  if (!options_.allot) return program;
  Words words = {allot_, "run", "--name", slice_name(index)};
  if (!options_.sim.empty())
    words.push_back(options_.sim == "default" ? "--sim" : "--sim=" + options_.sim);
  const auto add = [&](const char* flag, const std::string& value) {
    if (!value.empty()) words.insert(words.end(), {flag, value});
  };
  add("--gpu", gpu);
  if (spec.grant.share_permille != 0) add("--gpu-share", percent(spec.grant.share_permille));
  if (spec.grant.max_permille != 0) add("--gpu-max", percent(spec.grant.max_permille));
  add("--priority", spec.priority);
  if (spec.latency_ms > 0) add("--gpu-latency", fmt::format("{}", spec.latency_ms));
  add("--level", spec.level.empty() ? options_.level : spec.level);
  words.push_back("--");
  words.insert(words.end(), program.begin(), program.end());
  return words;
}

Words ShareSetup::set(size_t index, const Grant& before, const Grant& after) const {
  Words words = {allot_, "set", slice_name(index)};
  // Slices change one after the other: in between their shares may sum to more than the whole.
  if (before.share_permille != after.share_permille)
    words.insert(words.end(), {"--gpu-share", percent(after.share_permille), "--overcommit"});
  if (before.max_permille != after.max_permille)
    words.insert(words.end(), {"--gpu-max", percent(after.max_permille)});
  return words;
}

std::vector<Calibration> calibrate_all(const ShareSetup& setup, const ShareOptions& options,
                                       const std::vector<SliceSpec>& slices,
                                       nlohmann::ordered_json* about) {
  nlohmann::json known =
      options.calibration.empty() ? nlohmann::json::object() : read_file(options.calibration);
  std::vector<Calibration> all;
  bool learned = false;
  nlohmann::ordered_json used = nlohmann::ordered_json::object();
  for (const SliceSpec& slice : slices) {
    const std::string key = slice.load.calibration_key();
    if (!known.contains(key)) {
      known[key] = calibrate(setup, options, slice.load);
      learned = true;
    }
    const nlohmann::json& found = known[key];
    all.push_back(calibration_from_json(found.at("calibration")));
    (*about)["gpu"] = found.at("gpu");
    (*about)["driver"] = found.at("driver");
    (*about)["gpu_uuid"] = found.value("uuid", "");
    used[key] = found.at("calibration");
  }
  (*about)["calibrations"] = used;
  if (learned && !options.calibration.empty()) {
    const std::string fresh = options.calibration + fmt::format(".{}", getpid());
    std::ofstream(fresh) << known.dump(1) << "\n";
    std::rename(fresh.c_str(), options.calibration.c_str());
  }
  return all;
}

}  // namespace allot::bench
