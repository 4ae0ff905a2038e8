// The checks of the machine and its driver. Each says what it found where, so that a reader can
// verify it by hand; none changes anything.
#include "cli/doctor/doctor_checks.h"

#include <dirent.h>
#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <fstream>

#include "cli/failure.h"
#include "cli/gpus/elf_exports.h"
#include "cli/output.h"
#include "driver/entries.h"

namespace allot::cli {
namespace {

void add(Findings* findings, Verdict verdict, const char* check, std::string found,
         std::string advice = "") {
  findings->push_back({verdict, check, std::move(found), std::move(advice)});
}

std::string real_path(const std::string& path) {
  char buffer[PATH_MAX];
  return realpath(path.c_str(), buffer) != nullptr ? buffer : path;
}

// Loads `path` in a child, as the loader does when a program starts. Empty when that works.
std::string load_problem(const std::string& path) {
  int ends[2];
  if (pipe(ends) != 0) return describe_errno(errno);
  const pid_t child = fork();
  if (child == 0) {
    close(ends[0]);
    const char* why = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL) == nullptr ? dlerror() : "";
    const ssize_t n = write(ends[1], why, std::string_view(why).size());
    _exit(n < 0 ? 1 : 0);
  }
  close(ends[1]);
  char text[1024];
  const ssize_t n = child < 0 ? 0 : read(ends[0], text, sizeof text);
  close(ends[0]);
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child) return "it could not be tried";
  if (n > 0) return std::string(text, static_cast<size_t>(n));
  return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? "" : "the process that loaded it crashed";
}

}  // namespace

std::vector<std::string> processes_named(std::string_view name) {
  std::vector<std::string> found;
  DIR* folder = opendir("/proc");
  if (folder == nullptr) return found;
  while (const dirent* entry = readdir(folder)) {
    const std::string pid = entry->d_name;
    if (pid.find_first_not_of("0123456789") != std::string::npos) continue;
    std::ifstream file("/proc/" + pid + "/comm");
    std::string comm;
    if (std::getline(file, comm) && comm.starts_with(name)) found.push_back(pid);
  }
  closedir(folder);
  return found;
}

void check_driver(const DriverFiles& driver, const Inventory& inventory, Findings* findings) {
  if (driver.cuda.empty()) {
    add(findings, Verdict::kProblem, "driver", "libcuda.so.1 was not found",
        "install the NVIDIA driver (in a container: its 'compute' capability), or use --sim");
  } else {
    const std::string real = real_path(driver.cuda);
    add(findings, Verdict::kGood, "driver",
        fmt::format("{}{}{}", driver.cuda, real == driver.cuda ? "" : fmt::format(" ({})", real),
                    inventory.software ? ", the software GPU" : ""));
  }
  if (driver.nvml.empty()) {
    add(findings, Verdict::kProblem, "nvml", "libnvidia-ml.so.1 was not found",
        "give the container the driver's 'utility' capability: without NVML the memory that "
        "contexts and "
        "modules take is not measured");
  } else {
    add(findings, Verdict::kGood, "nvml",
        fmt::format(
            "{}{}", driver.nvml,
            inventory.driver_version.empty() ? "" : ", driver " + inventory.driver_version));
  }
  if (!inventory.problem.empty()) {
    add(findings, Verdict::kProblem, "gpus", inventory.problem,
        "run 'nvidia-smi'; check that /dev/nvidia* exist and can be opened");
    return;
  }
  for (const Gpu& gpu : inventory.gpus) {
    const std::string text = fmt::format("GPU {} {} {}, {}", gpu.index, harmless(gpu.name),
                                         size_text(gpu.total_bytes), gpu.uuid_text);
    if (!gpu.mig_enabled) {
      add(findings, Verdict::kGood, "gpus", text);
    } else {
      add(findings, Verdict::kNote, "mig",
          text + ": MIG is on; its instances count as GPUs of their own",
          "give --gpu and --gpu-mem the instance's MIG UUID");
    }
  }
  if (inventory.gpus.empty()) {
    add(findings, Verdict::kProblem, "gpus", "the driver lists no GPU", "run 'nvidia-smi'");
  }
}

void check_exports(const DriverFiles& driver, Findings* findings) {
  if (driver.cuda.empty()) return;
  constexpr size_t kShown = 8;
  size_t known = 0;
  std::vector<std::string> unknown;
  for (const std::string& name : exported_functions(driver.cuda)) {
    // "cu" and a capital letter: the driver API. Other exports are the driver's own.
    if (!name.starts_with("cu") || name.size() < 3 || name[2] < 'A' || name[2] > 'Z') continue;
    if (driver::cuda().find_by_symbol(name.c_str()) != nullptr) {
      ++known;
    } else {
      unknown.push_back(name);
    }
  }
  if (known == 0 && unknown.empty()) {
    add(findings, Verdict::kNote, "entries",
        "the driver's exports could not be read from " + driver.cuda);
    return;
  }
  if (unknown.empty()) {
    add(findings, Verdict::kGood, "entries", fmt::format("all {} driver entries are known", known));
    return;
  }
  std::string text = fmt::format("{} driver entries are known, {} are not:", known, unknown.size());
  for (size_t i = 0; i < unknown.size() && i < kShown; ++i) text += " " + unknown[i];
  if (unknown.size() > kShown) text += " ...";
  add(findings, Verdict::kNote, "entries", text,
      "they pass through unchanged; memory they take is seen only in NVML's figure. A newer allot "
      "may know "
      "them");
}

void check_shim(Findings* findings) {
  try {
    const ShimFiles shim = need_shim();
    for (const std::string& path : {shim.cuda, shim.nvml}) {
      const std::string problem = load_problem(path);
      if (problem.empty()) {
        add(findings, Verdict::kGood, "libraries", path + " loads");
      } else {
        add(findings, Verdict::kProblem, "libraries",
            fmt::format("{} does not load: {}", path, problem),
            "install allot whole; its libraries need glibc 2.17 or newer");
      }
    }
  } catch (const Failure& failure) {
    add(findings, Verdict::kProblem, "libraries", failure.line(), "install allot whole");
  }
  try {
    add(findings, Verdict::kGood, "simulator", "the software GPU is " + need_sim().cuda);
  } catch (const Failure&) {
    add(findings, Verdict::kNote, "simulator",
        "this installation has no software GPU: --sim and demo will not work");
  }
}

void check_mps(Findings* findings) {
  const char* pipe_folder = std::getenv("CUDA_MPS_PIPE_DIRECTORY");
  const std::vector<std::string> servers = processes_named("nvidia-cuda-mps");
  const char* consequence =
      "memory limits hold under MPS (enforced in each client); GPU time of its clients is held at "
      "level launch";
  if (!servers.empty()) {
    add(findings, Verdict::kNote, "mps",
        fmt::format("an MPS daemon runs (pid {}): {}", servers.front(), consequence));
  } else if (pipe_folder != nullptr) {
    add(findings, Verdict::kNote, "mps",
        fmt::format("CUDA_MPS_PIPE_DIRECTORY is {}, but no MPS daemon was found: {}", pipe_folder,
                    consequence));
  } else {
    add(findings, Verdict::kGood, "mps", "no MPS daemon found");
  }
}

void check_memory(bool gpus_found, Findings* findings) {
  if (gpus_found) {
    add(findings, Verdict::kGood, "memory",
        "enforced: every allocation is charged before the driver is called (docs/limits.md lists "
        "what is not "
        "seen)");
  } else {
    add(findings, Verdict::kNote, "memory", "enforced once there is a GPU");
  }
}

}  // namespace allot::cli
