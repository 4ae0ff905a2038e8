// How programs come to the shim: what it exports and needs, dlopen by any name, cuGetProcAddress.
#include <dlfcn.h>
#include <link.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "driver/entries.h"
#include "tests/shim/harness.h"

namespace allot::shim_test {
namespace {

std::vector<std::string> lines_of(const std::vector<std::string>& command) {
  const Outcome outcome = run_program(command, {});
  EXPECT_EQ(outcome.status, 0) << command[0] << ": " << outcome.output;
  std::vector<std::string> lines;
  std::istringstream stream(outcome.output);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

std::string library(const char* name) {
  return library_folder() + "/" + name;
}

std::set<std::string> exports_of(const std::string& path) {
  std::set<std::string> names;
  for (const std::string& line : lines_of({"nm", "-D", "--defined-only", path})) {
    std::istringstream words(line);
    std::string address, type, name;
    words >> address >> type >> name;
    names.insert(name.substr(0, name.find('@')));
  }
  return names;
}

std::set<std::string> table_of(const driver::Table& table) {
  std::set<std::string> names;
  for (const driver::Entry& entry : table.entries()) names.insert(entry.symbol);
  return names;
}

// Acceptance test 9, third part.
TEST(Library, ExportsExactlyTheTableAndTheOverrides) {
  std::set<std::string> expected = table_of(driver::cuda());
  for (const char* name :
       {"ioctl", "dlopen", "execve", "execv", "execvp", "execvpe", "execl", "execlp", "execle",
        "fexecve", "posix_spawn", "posix_spawnp", "__asan_default_options"}) {
    expected.insert(name);
  }
  EXPECT_EQ(exports_of(library("libcuda.so.1")), expected);
  EXPECT_EQ(exports_of(library("libnvidia-ml.so.1")), table_of(driver::nvml()));
}

#if !ALLOT_TEST_SANITIZED
TEST(Library, NeedsNothingButLibcAndNoNewerThanGlibc228) {
  for (const char* name : {"libcuda.so.1", "libnvidia-ml.so.1"}) {
    for (const std::string& line : lines_of({"readelf", "-d", library(name)})) {
      if (line.find("(NEEDED)") == std::string::npos) continue;
      const bool libc = line.find("[libc.so.6]") != std::string::npos ||
                        line.find("[libdl.so.2]") != std::string::npos ||
                        line.find("[libpthread.so.0]") != std::string::npos;
      EXPECT_TRUE(libc) << name << ": " << line;
    }
    for (const std::string& line : lines_of({"objdump", "-T", library(name)})) {
      EXPECT_EQ(line.find("GLIBCXX"), std::string::npos) << line;
      EXPECT_EQ(line.find("CXXABI"), std::string::npos) << line;
      const size_t at = line.find("GLIBC_2.");
      if (at == std::string::npos) continue;
      EXPECT_LE(std::stoi(line.substr(at + 8)), 28) << name << ": " << line;
    }
  }
}
#endif

std::string file_of(void* address) {
  Dl_info info = {};
  return dladdr(address, &info) != 0 ? std::filesystem::weakly_canonical(info.dli_fname).string()
                                     : "";
}

SLICE_TEST(DlopenByAnyNameGivesTheShim) {
  const std::string ours = std::filesystem::weakly_canonical(library("libcuda.so.1"));
  const std::string nvml = std::filesystem::weakly_canonical(library("libnvidia-ml.so.1"));
  for (const std::string& name :
       {std::string("libcuda.so.1"), std::string("libcuda.so"), sim_folder() + "/libcuda.so.1",
        sim_folder() + "/libcuda.so", std::string("libcuda.so.580.65.06")}) {
    void* handle = dlopen(name.c_str(), RTLD_NOW);
    ASSERT_NE(handle, nullptr) << name;
    EXPECT_EQ(file_of(dlsym(handle, "cuMemAlloc_v2")), ours) << name;
  }
  for (const std::string& name : {std::string("libnvidia-ml.so.1"), std::string("libnvidia-ml.so"),
                                  sim_folder() + "/libnvidia-ml.so.1"}) {
    void* handle = dlopen(name.c_str(), RTLD_NOW);
    ASSERT_NE(handle, nullptr) << name;
    EXPECT_EQ(file_of(dlsym(handle, "nvmlDeviceGetMemoryInfo")), nvml) << name;
  }
}

SLICE_TEST(DlopenWithDeepbindGivesTheShim) {
#if !ALLOT_TEST_SANITIZED  // the sanitizers refuse RTLD_DEEPBIND
  void* handle = dlopen("libcuda.so.1", RTLD_NOW | RTLD_DEEPBIND | RTLD_LOCAL);
  ASSERT_NE(handle, nullptr);
  EXPECT_EQ(file_of(dlsym(handle, "cuInit")),
            std::filesystem::weakly_canonical(library("libcuda.so.1")));
#endif
}

SLICE_TEST(DlopenOfOtherLibrariesIsUntouched) {
  EXPECT_EQ(dlopen(nullptr, RTLD_NOW), dlopen(nullptr, RTLD_NOW));
  EXPECT_NE(dlopen("libm.so.6", RTLD_NOW), nullptr);
  EXPECT_EQ(dlopen("libcuda_nothing.so", RTLD_NOW), nullptr);
  EXPECT_NE(std::string(dlerror()).find("libcuda_nothing.so"), std::string::npos);
  EXPECT_EQ(dlopen("libcudart.so.999", RTLD_NOW), nullptr);
}

// libc's dlopen takes its caller from the return address: a library's RUNPATH must work through us.
CASE(OpensAbsolutePathOfDriver) {
  void* handle = dlopen((sim_folder() + "/libcuda.so.1").c_str(), RTLD_NOW);
  ASSERT_NE(handle, nullptr);
  EXPECT_EQ(file_of(dlsym(handle, "cuInit")),
            std::filesystem::weakly_canonical(sim_folder() + "/libcuda.so.1"));
}

TEST(Shim, DlopenByPathGivesTheDriverOutsideASliceAndWhenDisabled) {
  const Outcome outside = run_case("OpensAbsolutePathOfDriver", slice_environment({.memory = ""}));
  EXPECT_TRUE(outside.ok()) << outside.output;
  const Outcome disabled =
      run_case("OpensAbsolutePathOfDriver", slice_environment({.more = {{"ALLOT_DISABLE", "1"}}}));
  EXPECT_TRUE(disabled.ok()) << disabled.output;
}

// The variants of the table: what the shim gives for a name is, for every version and flag, either
// the driver's own function or our hook for exactly that function.
struct Parity {
  const Cuda& shim;
  const Cuda& real;
  // The driver's address -> exported symbols.
  std::map<void*, std::set<std::string>> symbols_of_real;
  std::map<void*, void*> hook_of_real;  // seen so far; must be one to one
  int hooked = 0;

  Parity(const Cuda& s, const Cuda& r) : shim(s), real(r) {
    for (const driver::Entry& entry : driver::cuda().entries()) {
      if (void* address = dlsym(real.library, entry.symbol))
        symbols_of_real[address].insert(entry.symbol);
    }
  }

  void check(const char* name, int version, cuuint64_t flags) {
    void* expected = nullptr;
    void* got = nullptr;
    int expected_status = -1;
    int got_status = -1;
    const CUresult expected_result =
        real.cuGetProcAddress_v2(name, &expected, version, flags, &expected_status);
    ASSERT_EQ(shim.cuGetProcAddress_v2(name, &got, version, flags, &got_status), expected_result)
        << name;
    ASSERT_EQ(got_status, expected_status) << name;
    ASSERT_EQ(got == nullptr, expected == nullptr) << name;
    if (got == expected) return;
    ++hooked;
    EXPECT_EQ(file_of(got), std::filesystem::weakly_canonical(library("libcuda.so.1"))) << name;
    const auto [at, fresh] = hook_of_real.emplace(expected, got);
    EXPECT_EQ(at->second, got) << name << ": two hooks for one function of the driver";
    (void)fresh;
  }
};

// Acceptance test 8.
SLICE_TEST(GetProcAddressGivesTheVariantOfTheBareDriver) {
  const Cuda cuda;
  Parity parity(cuda, bare());
  std::set<std::string> names;
  for (const driver::Entry& entry : driver::cuda().entries()) {
    names.insert(entry.name);
    names.insert(entry.symbol);
  }
  names.insert("cuNobodyKnowsThis");
  for (const std::string& name : names) {
    for (const int version : {2000, 3020, 7000, 11000, 11080, 12000, 12050, 13000, 99000}) {
      for (const cuuint64_t flags : {0, 1, 2}) parity.check(name.c_str(), version, flags);
    }
  }
  EXPECT_GT(parity.hooked, 200);
  std::set<void*> hooks;
  for (const auto& [driver_function, hook] : parity.hook_of_real) {
    EXPECT_TRUE(hooks.insert(hook).second) << "one hook for two functions of the driver";
  }
  // Hooked by symbol means hooked by name too.
  void* by_name = nullptr;
  ASSERT_EQ(cuda.cuGetProcAddress("cuMemAlloc", &by_name, 13000, 0), CUDA_SUCCESS);
  EXPECT_EQ(file_of(by_name), std::filesystem::weakly_canonical(library("libcuda.so.1")));
}

// A new driver entry that takes or gives memory must get a hook, or a reason to have none.
SLICE_TEST(EveryEntryThatTakesGivesOrCountsMemoryIsHooked) {
  const std::set<std::string> reasons = {
      "cuMemPoolImportFromShareableHandle",  // memory of another process, charged there
      "cuMemPoolImportPointer",              // the same
      "cuDeviceSetGraphMemAttribute",        // resets a high-water mark
      "cuLogicalEndpointImport",             // addresses, no memory
  };
  const auto address_of = [](const Cuda& cuda, const driver::Entry& entry) {
    void* address = nullptr;
    const cuuint64_t flags = entry.variant == driver::Variant::kNone ? 1 : 2;
    EXPECT_EQ(cuda.cuGetProcAddress_v2(entry.name, &address, entry.since, flags, nullptr),
              CUDA_SUCCESS);
    return address;
  };
  const Cuda cuda;
  // The software GPU has one function for all that it does not support: it stands for none of them.
  std::map<void*, int> shared;
  std::vector<const driver::Entry*> entries;
  for (const driver::Entry& entry : driver::cuda().entries()) {
    switch (entry.cls) {
      case driver::Class::kAlloc:
      case driver::Class::kFree:
      case driver::Class::kImport:
      case driver::Class::kTrim:
      case driver::Class::kMemQuery:
      case driver::Class::kProc:
        if (reasons.count(entry.symbol) == 0) entries.push_back(&entry);
        break;
      default:
        break;
    }
  }
  for (const driver::Entry* entry : entries) ++shared[address_of(bare(), *entry)];
  int checked = 0;
  for (const driver::Entry* entry : entries) {
    void* real = address_of(bare(), *entry);
    if (real == nullptr || shared[real] > 1) continue;
    EXPECT_NE(address_of(cuda, *entry), real) << entry->symbol << " is not hooked";
    ++checked;
  }
  EXPECT_GE(checked, 28);
}

SLICE_TEST(AddressesFromGetProcAddressAreCharged) {
  const Cuda cuda;
  void* get = nullptr;
  ASSERT_EQ(cuda.cuGetProcAddress_v2("cuGetProcAddress", &get, 12000, 0, nullptr), CUDA_SUCCESS);
  void* alloc = nullptr;
  int status = 0;
  using Get = CUresult (*)(const char*, void**, int, cuuint64_t, int*);
  ASSERT_EQ(reinterpret_cast<Get>(get)("cuMemAlloc", &alloc, 12000, 0, &status), CUDA_SUCCESS);
  start_cuda(cuda);
  const uint64_t before = ledger_charged(ALLOT_KIND_LINEAR);
  CUdeviceptr block = 0;
  ASSERT_EQ(reinterpret_cast<CUresult (*)(CUdeviceptr*, size_t)>(alloc)(&block, 5 * kMiB),
            CUDA_SUCCESS);
  EXPECT_EQ(ledger_charged(ALLOT_KIND_LINEAR) - before, 6 * kMiB);
}

CASE(CountsDevices) {
  const Cuda cuda;
  int count = 0;
  EXPECT_EQ(cuda.cuInit(0), CUDA_ERROR_NO_DEVICE);
  EXPECT_EQ(cuda.cuDeviceGetCount(&count), CUDA_ERROR_NOT_INITIALIZED);
  EXPECT_TRUE(std::filesystem::is_empty(machine_folder() + "/region"));
}

TEST(Shim, WithoutADriverThereIsNoDevice) {
  Environment environment = slice_environment({});
  environment["ALLOT_REAL_CUDA"] = "/nonexistent/libcuda.so.1";
  const Outcome outcome = run_case("CountsDevices", environment);
  EXPECT_TRUE(outcome.ok()) << outcome.output;
}

}  // namespace
}  // namespace allot::shim_test
