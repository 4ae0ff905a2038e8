// Asks a driver for its GPUs in a child process, which answers as JSON through a pipe.
//
// What must not happen here: the command itself loading the driver (cuInit forks helpers and takes
// 0.2 s, a broken driver may hang). Inside a slice our libraries are loaded already and answer
// instead of the driver: then this is what the slice sees, as with nvidia-smi.
#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "cli/failure.h"
#include "cli/gpus/gpu_inventory.h"
#include "driver/nvml_abi.h"

namespace allot::cli {
namespace {

using nlohmann::json;
constexpr int kAnswerSeconds = 60;  // a cold driver on an 8-GPU machine needs up to 20 s

template <class Function>
Function* symbol(void* library, const char* name) {
  return reinterpret_cast<Function*>(dlsym(library, name));
}

json gpu_entry(const char* uuid, const char* name, uint64_t total, uint64_t free, bool free_known) {
  return {
      {"uuid", uuid}, {"name", name}, {"total", total}, {"free", free}, {"free_known", free_known}};
}

struct Nvml {
  explicit Nvml(void* library)
      : uuid(symbol<int(nvmlDevice_t, char*, unsigned)>(library, "nvmlDeviceGetUUID")),
        name(symbol<int(nvmlDevice_t, char*, unsigned)>(library, "nvmlDeviceGetName")),
        memory(symbol<int(nvmlDevice_t, nvmlMemory_t*)>(library, "nvmlDeviceGetMemoryInfo")),
        mig_mode(symbol<int(nvmlDevice_t, unsigned*, unsigned*)>(library, "nvmlDeviceGetMigMode")),
        mig_count(symbol<int(nvmlDevice_t, unsigned*)>(library, "nvmlDeviceGetMaxMigDeviceCount")),
        mig_device(symbol<int(nvmlDevice_t, unsigned, nvmlDevice_t*)>(
            library, "nvmlDeviceGetMigDeviceHandleByIndex")) {}
  int (*uuid)(nvmlDevice_t, char*, unsigned);
  int (*name)(nvmlDevice_t, char*, unsigned);
  int (*memory)(nvmlDevice_t, nvmlMemory_t*);
  int (*mig_mode)(nvmlDevice_t, unsigned*, unsigned*);
  int (*mig_count)(nvmlDevice_t, unsigned*);
  int (*mig_device)(nvmlDevice_t, unsigned, nvmlDevice_t*);

  bool describe(nvmlDevice_t device, json* out) const {
    char uuid_text[NVML_DEVICE_UUID_V2_BUFFER_SIZE] = {};
    char name_text[NVML_DEVICE_NAME_V2_BUFFER_SIZE] = {};
    nvmlMemory_t bytes = {};
    if (uuid == nullptr || uuid(device, uuid_text, sizeof uuid_text - 1) != 0) return false;
    if (name != nullptr) name(device, name_text, sizeof name_text - 1);
    const bool known = memory != nullptr && memory(device, &bytes) == 0;
    *out = gpu_entry(uuid_text, name_text, bytes.total, bytes.free, known);
    return true;
  }
};

// The software GPU knows why it cannot be used. Empty for a driver.
std::string software_problem(void* library) {
  const auto why = symbol<const char*()>(library, "allot_sim_problem");
  return why == nullptr ? "" : fmt::format("the software GPU: {}", why());
}

json ask_nvml(const std::string& path) {
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    return {{"problem", fmt::format("{} cannot be loaded: {}", path, dlerror())}};
  const auto init = symbol<int()>(library, "nvmlInit_v2");
  const auto count_of = symbol<int(unsigned*)>(library, "nvmlDeviceGetCount_v2");
  const auto device_at =
      symbol<int(unsigned, nvmlDevice_t*)>(library, "nvmlDeviceGetHandleByIndex_v2");
  const auto version_of = symbol<int(char*, unsigned)>(library, "nvmlSystemGetDriverVersion");
  const auto cuda_of = symbol<int(int*)>(library, "nvmlSystemGetCudaDriverVersion_v2");
  if (init == nullptr || count_of == nullptr || device_at == nullptr) {
    return {{"problem", fmt::format("{} is not NVML: nvmlInit_v2 is missing", path)}};
  }
  if (const int status = init(); status != 0) {
    if (const std::string why = software_problem(library); !why.empty())
      return {{"problem", why}, {"known", true}};
    return {{"problem", fmt::format("{}: nvmlInit_v2 failed with NVML error {}", path, status)}};
  }
  json out = {{"source", "NVML"}, {"gpus", json::array()}};
  char version[NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE] = {};
  if (version_of != nullptr && version_of(version, sizeof version - 1) == 0)
    out["driver"] = version;
  int cuda = 0;
  if (cuda_of != nullptr && cuda_of(&cuda) == 0) out["cuda"] = cuda;
  out["software"] = dlsym(library, "allot_sim_version") != nullptr;

  const Nvml nvml(library);
  unsigned count = 0;
  count_of(&count);
  for (unsigned i = 0; i < count; ++i) {
    nvmlDevice_t device = nullptr;
    json entry;
    if (device_at(i, &device) != 0 || !nvml.describe(device, &entry)) continue;
    entry["index"] = i;
    unsigned mig = 0;
    unsigned pending = 0;
    unsigned instances = 0;
    if (nvml.mig_mode != nullptr && nvml.mig_mode(device, &mig, &pending) == 0 && mig == 1) {
      entry["mig"] = true;
      if (nvml.mig_count != nullptr) nvml.mig_count(device, &instances);
    }
    out["gpus"].push_back(entry);
    for (unsigned k = 0; k < instances && nvml.mig_device != nullptr; ++k) {
      nvmlDevice_t instance = nullptr;
      json part;
      if (nvml.mig_device(device, k, &instance) != 0 || !nvml.describe(instance, &part)) continue;
      part["index"] = i;
      out["gpus"].push_back(part);
    }
  }
  return out;
}

json ask_cuda(const std::string& path) {
  // The whole machine, in NVML's order.
  setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID", 1);
  unsetenv("CUDA_VISIBLE_DEVICES");
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    return {{"problem", fmt::format("{} cannot be loaded: {}", path, dlerror())}};
  const auto init = symbol<int(unsigned)>(library, "cuInit");
  const auto count_of = symbol<int(int*)>(library, "cuDeviceGetCount");
  const auto device_at = symbol<int(int*, int)>(library, "cuDeviceGet");
  const auto name_of = symbol<int(char*, int, int)>(library, "cuDeviceGetName");
  const auto total_of = symbol<int(size_t*, int)>(library, "cuDeviceTotalMem_v2");
  auto uuid_of = symbol<int(Uuid*, int)>(library, "cuDeviceGetUuid_v2");
  if (uuid_of == nullptr) uuid_of = symbol<int(Uuid*, int)>(library, "cuDeviceGetUuid");
  const auto version_of = symbol<int(int*)>(library, "cuDriverGetVersion");
  if (init == nullptr || count_of == nullptr || device_at == nullptr || uuid_of == nullptr ||
      name_of == nullptr || total_of == nullptr) {
    return {{"problem", fmt::format("{} is not a CUDA driver: an entry is missing", path)}};
  }
  if (const int status = init(0); status != 0) {
    return {{"problem", fmt::format("{}: cuInit failed with CUDA error {}", path, status)}};
  }
  json out = {{"source", "CUDA"}, {"gpus", json::array()}};
  int cuda = 0;
  if (version_of != nullptr && version_of(&cuda) == 0) out["cuda"] = cuda;
  out["software"] = dlsym(library, "allot_sim_version") != nullptr;
  int count = 0;
  count_of(&count);
  for (int i = 0; i < count; ++i) {
    int device = 0;
    Uuid uuid{};
    char name[256] = {};
    size_t total = 0;
    if (device_at(&device, i) != 0 || uuid_of(&uuid, device) != 0) continue;
    name_of(name, sizeof name - 1, device);
    total_of(&total, device);
    json entry = gpu_entry(uuid_to_text(uuid).c_str(), name, total, 0, false);
    entry["index"] = i;
    out["gpus"].push_back(entry);
  }
  return out;
}

// In the child: NVML, else CUDA; the problem of both when neither answers.
json ask_here(const DriverFiles& driver) {
  json answer = {{"problem", "there is no NVML library (libnvidia-ml.so.1)"}};
  if (!driver.nvml.empty()) answer = ask_nvml(driver.nvml);
  if (!answer.contains("problem") || driver.cuda.empty() || answer.contains("known")) return answer;
  json second = ask_cuda(driver.cuda);
  if (!second.contains("problem")) return second;
  return {{"problem",
           answer["problem"].get<std::string>() + "; " + second["problem"].get<std::string>()}};
}

[[noreturn]] void answer_and_end(const DriverFiles& driver, int out) {
  std::string text;
  try {
    text = ask_here(driver).dump(-1, ' ', false, json::error_handler_t::replace);
  } catch (const std::exception& error) {
    text = json{{"problem", error.what()}}.dump();
  }
  for (size_t done = 0; done < text.size();) {
    const ssize_t n = write(out, text.data() + done, text.size() - done);
    if (n <= 0) break;
    done += static_cast<size_t>(n);
  }
  _exit(0);  // not exit: the parent's buffers and handlers are not ours to run
}

// Reads everything that the child writes until it closes the pipe; false when the time is over.
bool read_answer(int in, std::string* text) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(kAnswerSeconds);
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
                          deadline - std::chrono::steady_clock::now())
                          .count();
    pollfd wait = {in, POLLIN, 0};
    if (left <= 0) return false;
    const int ready = poll(&wait, 1, static_cast<int>(left));
    if (ready < 0 && errno != EINTR) return false;
    if (ready <= 0) continue;
    char buffer[4096];
    const ssize_t n = read(in, buffer, sizeof buffer);
    if (n < 0 && errno != EINTR) return false;
    if (n == 0) return true;
    if (n > 0) text->append(buffer, static_cast<size_t>(n));
  }
}

Inventory parse_answer(const std::string& text, const DriverFiles& driver) {
  Inventory inventory;
  inventory.software = driver.software;
  const json answer = json::parse(text, nullptr, false);
  if (!answer.is_object()) {
    inventory.problem = "the driver killed the process that queried it";
    return inventory;
  }
  inventory.problem = answer.value("problem", "");
  inventory.source = answer.value("source", "");
  inventory.driver_version = answer.value("driver", "");
  inventory.cuda_version = answer.value("cuda", 0);
  inventory.software = inventory.software || answer.value("software", false);
  for (const json& entry : answer.value("gpus", json::array())) {
    Gpu gpu;
    gpu.uuid_text = entry.value("uuid", "");
    if (!uuid_from_text(gpu.uuid_text, &gpu.uuid)) continue;
    gpu.index = entry.value("index", 0u);
    gpu.name = entry.value("name", "");
    gpu.total_bytes = entry.value("total", uint64_t{0});
    gpu.free_bytes = entry.value("free", uint64_t{0});
    gpu.free_known = entry.value("free_known", false);
    gpu.mig_enabled = entry.value("mig", false);
    inventory.gpus.push_back(std::move(gpu));
  }
  return inventory;
}

}  // namespace

Inventory ask_driver(const DriverFiles& driver) {
  Inventory inventory;
  if (driver.cuda.empty() && driver.nvml.empty()) {
    inventory.problem =
        "there is no NVIDIA driver: neither libnvidia-ml.so.1 nor libcuda.so.1 was found";
    return inventory;
  }
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0)
    refuse("pipe: {}; allow this shell more open files (ulimit -n)", describe_errno(errno));
  const pid_t child = fork();
  if (child < 0) refuse("fork: {}; try again", describe_errno(errno));
  if (child == 0) {
    close(ends[0]);
    answer_and_end(driver, ends[1]);
  }
  close(ends[1]);
  std::string text;
  const bool in_time = read_answer(ends[0], &text);
  close(ends[0]);
  if (!in_time) kill(child, SIGKILL);
  while (waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
  }
  if (!in_time) {
    inventory.problem = fmt::format("the driver did not answer within {} s", kAnswerSeconds);
    return inventory;
  }
  return parse_answer(text, driver);
}

Inventory need_gpus(const DriverFiles& driver) {
  Inventory inventory = ask_driver(driver);
  if (!inventory.problem.empty() && driver.software) refuse("{}", inventory.problem);
  if (!inventory.problem.empty()) {
    refuse(
        "{}; install the NVIDIA driver, or use the software GPU with --sim (details: 'allot "
        "doctor')",
        inventory.problem);
  }
  if (inventory.gpus.empty()) {
    refuse("the driver {} lists no GPU; check 'nvidia-smi', or use the software GPU with --sim",
           inventory.driver_version);
  }
  return inventory;
}

}  // namespace allot::cli
