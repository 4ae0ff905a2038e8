// Runs a part of a test as a process of its own, inside a slice of a private software machine.
//
//   SLICE_TEST(Name, options) { ... }
//
// is a GoogleTest whose body runs in a child: this program again, with the two libraries preloaded,
// limits in its environment, and ALLOT_DIR and ALLOT_SIM_DIR in a folder that is removed
// afterwards. Other processes of the same machine are made with run_case() and CASE(Name) { ... };
// run_program() runs anything else.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/ledger.h"
#include "shm/slice_file.h"
#include "tests/shim/driver.h"

namespace allot::shim_test {

using Environment = std::map<std::string, std::string>;

struct Options {
  std::string memory = "8G";   // ALLOT_GPU_MEM; "" = not set: outside a slice
  std::string gpus = "1x80G";  // ALLOT_SIM_GPUS
  Environment more = {};       // set besides
};

struct Outcome {
  int status = -1;  // as waitpid gives it
  std::string output;
  bool ok() const { return status == 0; }
};

// Folder of the machine of this test (of the child's parent, in a child).
const std::string& machine_folder();

// The environment of a process in the slice / of one that only has the software machine.
Environment slice_environment(const Options& options);
Environment bare_environment(const Options& options);

// Runs a program to its end and takes its output. `environment` replaces everything but PATH and
// HOME.
Outcome run_program(const std::vector<std::string>& command, const Environment& environment);

// This program as the process of CASE(name), with the arguments at case_arguments().
Outcome run_case(const std::string& name, const Environment& environment,
                 const std::vector<std::string>& arguments = {});
std::vector<std::string> case_command(const std::string& name,
                                      const std::vector<std::string>& arguments = {});
const std::vector<std::string>& case_arguments();

// Starts a case without waiting; its stdout is at `out`. Closed and waited for by finish().
struct Running {
  pid_t pid = -1;
  int out = -1;
  int in = -1;
};
Running start_case(const std::string& name, const Environment& environment,
                   const std::vector<std::string>& arguments = {});
std::string read_line(Running& running);
void write_line(Running& running, const std::string& line);
Outcome finish(Running& running);

struct CaseRegistration {
  CaseRegistration(const char* name, void (*body)());
};

// ---- in a child -----------------------------------------------------------------------------

// cuInit, and the primary context of device 0 made current.
void start_cuda(const Cuda& cuda, CUdevice device = 0);

// The software GPU itself, past the shim.
const Cuda& bare();

// Bytes of the card in use by anybody, as the card says; for the device of the current context.
uint64_t physical_used();

// What the slice's account says: of the whole slice, and of this process by kind.
uint64_t ledger_used(uint32_t gpu = 0);
uint64_t ledger_charged(AllotKind kind, uint32_t gpu = 0);

// Whether this process has a slot in its slice.
bool has_slot();

std::string library_folder();
std::string sim_folder();

inline constexpr uint64_t kMiB = 1ull << 20;
inline constexpr uint64_t kGiB = 1ull << 30;

// Waits until condition() or 10 s have passed; returns whether it came true.
bool wait_until(const std::function<bool()>& condition);

#define CASE(name)                                                                           \
  static void case_##name();                                                                 \
  static const ::allot::shim_test::CaseRegistration registration_##name(#name, case_##name); \
  static void case_##name()

#define SLICE_TEST(name, ...)                                                                      \
  static void case_##name();                                                                       \
  static const ::allot::shim_test::CaseRegistration registration_##name(#name, case_##name);       \
  TEST(Shim, name) {                                                                               \
    const ::allot::shim_test::Outcome outcome =                                                    \
        ::allot::shim_test::run_case(#name, ::allot::shim_test::slice_environment({__VA_ARGS__})); \
    EXPECT_EQ(outcome.status, 0) << outcome.output;                                                \
  }                                                                                                \
  static void case_##name()

}  // namespace allot::shim_test
