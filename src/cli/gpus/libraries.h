// Where the libraries are: our own, beside the command; the driver's; the software GPU's.
//
//   <prefix>/bin/allot
//   <prefix>/lib/allot/      libcuda.so.1 libnvidia-ml.so.1      what a slice preloads
//   <prefix>/lib/allot-sim/  libcuda.so.1 libnvidia-ml.so.1      the software GPU
#pragma once

#include <string>

namespace allot::cli {

// A driver's two libraries, by absolute path; empty = not found.
struct DriverFiles {
  std::string cuda;
  std::string nvml;
  bool software = false;  // they are the software GPU's
};

// Folders relative to the running command. Throw a Failure when /proc/self/exe cannot be read.
std::string own_executable();
std::string shim_folder();
std::string sim_folder();

// The preloaded libraries. Checks that they are there and that LD_PRELOAD can name them (it splits
// at spaces and colons). Throws a Failure (exit 125) that says what is missing.
struct ShimFiles {
  std::string folder;
  std::string cuda;
  std::string nvml;
};
ShimFiles need_shim();

// The machine's driver: ALLOT_REAL_CUDA and ALLOT_REAL_NVML, else the loader's search
// (LD_LIBRARY_PATH, its cache, the usual folders) without our libraries and without the toolkit's
// stubs. Empty when not found.
DriverFiles find_driver();

// The software GPU's libraries; throws a Failure (exit 125) when this build has none.
DriverFiles need_sim();

// The same for what `--sim[=SPEC]` said ("default" without one): checks the SPEC (exit 2), or the
// variable ALLOT_SIM_GPUS that stands for it, and hands it to the children of this process.
DriverFiles use_sim(const std::string& spec);

// From now on the software GPU is only looked at: this process's children make and change nothing
// of it.
void only_look();

}  // namespace allot::cli
