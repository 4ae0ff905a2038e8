// Paths only; nothing is loaded here. What must not happen here: our own preloaded library is taken
// for the driver.
#include "cli/gpus/libraries.h"

#include <unistd.h>

#include <climits>
#include <cstdlib>

#include "abi/env.h"
#include "cli/failure.h"
#include "cli/slice_spec.h"
#include "sys/library.h"

namespace allot::cli {
namespace {

constexpr const char* kCuda = "libcuda.so.1";
constexpr const char* kNvml = "libnvidia-ml.so.1";

std::string canonical(const std::string& path) {
  char buffer[PATH_MAX];
  return realpath(path.c_str(), buffer) != nullptr ? buffer : "";
}

std::string folder_of(const std::string& path) {
  return path.substr(0, path.rfind('/'));
}

std::string installed(const char* subfolder) {
  // <prefix>/bin/allot -> <prefix>/lib/<subfolder>
  return folder_of(folder_of(own_executable())) + "/lib/" + subfolder;
}

bool readable(const std::string& path) {
  return access(path.c_str(), R_OK) == 0;
}

// The file that the variable `chosen_by` names, else the one that the loader would take without our
// libraries.
std::string find_library(const char* name, const char* chosen_by) {
  if (const char* chosen = std::getenv(chosen_by); chosen != nullptr && *chosen != '\0') {
    if (*chosen != '/') {
      refuse("{}: '{}' is not an absolute path; write the whole path of {}", chosen_by, chosen,
             name);
    }
    return readable(chosen) ? chosen : "";
  }
  // Inside a slice of another installation, LD_LIBRARY_PATH names the libraries of that one first.
  const char* other = std::getenv(ALLOT_ENV_LIBDIR);
  const std::string ours = other != nullptr && *other != '\0' ? other : shim_folder();
  sys::LibraryQuery query{name};
  query.library_path = std::getenv("LD_LIBRARY_PATH");
  query.skip_folder = ours.c_str();
  char path[PATH_MAX];
  return sys::find_library({}, query, path, sizeof path) ? path : "";
}

}  // namespace

std::string own_executable() {
  static const std::string path = canonical("/proc/self/exe");
  if (path.empty())
    refuse("/proc/self/exe cannot be read; mount /proc, allot finds its libraries by it");
  return path;
}

std::string shim_folder() {
  return installed("allot");
}

std::string sim_folder() {
  return installed("allot-sim");
}

ShimFiles need_shim() {
  ShimFiles shim;
  shim.folder = shim_folder();
  shim.cuda = shim.folder + "/" + kCuda;
  shim.nvml = shim.folder + "/" + kNvml;
  if (shim.folder.find_first_of(" :;") != std::string::npos) {
    refuse("{}: LD_PRELOAD cannot name a path with a space, ':' or ';'; install allot elsewhere",
           shim.folder);
  }
  for (const std::string& path : {shim.cuda, shim.nvml}) {
    if (!readable(path)) {
      refuse(
          "{} is missing; allot finds its libraries in ../lib/allot beside itself: install it "
          "whole",
          path);
    }
  }
  return shim;
}

DriverFiles find_driver() {
  DriverFiles driver;
  driver.cuda = find_library(kCuda, ALLOT_ENV_REAL_CUDA);
  driver.nvml = find_library(kNvml, ALLOT_ENV_REAL_NVML);
  const std::string sim = canonical(sim_folder());
  driver.software =
      !sim.empty() && !driver.cuda.empty() && folder_of(canonical(driver.cuda)) == sim;
  return driver;
}

DriverFiles need_sim() {
  DriverFiles sim{sim_folder() + "/" + kCuda, sim_folder() + "/" + kNvml, true};
  for (const std::string& path : {sim.cuda, sim.nvml}) {
    if (!readable(path)) {
      refuse(
          "--sim: {} is missing; the software GPU is found in ../lib/allot-sim beside allot: "
          "install it",
          path);
    }
  }
  return sim;
}

DriverFiles use_sim(const std::string& spec) {
  if (spec != "default") {
    check_sim_spec("--sim", spec);
    setenv(ALLOT_ENV_SIM_GPUS, spec.c_str(), 1);
  } else if (const char* usual = std::getenv(ALLOT_ENV_SIM_GPUS); usual != nullptr) {
    check_sim_spec(ALLOT_ENV_SIM_GPUS, usual);
  }
  return need_sim();
}

void only_look() {
  setenv(ALLOT_ENV_SIM_LOOK, "1", 1);
}

}  // namespace allot::cli
