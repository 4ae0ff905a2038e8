// Finding the driver without being led to our own libraries.
#include "cli/gpus/libraries.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "abi/env.h"
#include "cli/failure.h"

namespace allot::cli {
namespace {

class Variable {
 public:
  Variable(const char* name, const char* value) : name_(name) { setenv(name, value, 1); }
  ~Variable() { unsetenv(name_); }

 private:
  const char* name_;
};

TEST(FindDriver, TheVariableNamesTheFile) {
  const Variable chosen(ALLOT_ENV_REAL_CUDA, "/proc/self/exe");
  EXPECT_EQ(find_driver().cuda, "/proc/self/exe");
}

TEST(FindDriver, AVariableThatNamesNothingIsNotReplacedByASearch) {
  const Variable chosen(ALLOT_ENV_REAL_CUDA, "/nonexistent/libcuda.so.1");
  EXPECT_EQ(find_driver().cuda, "");
}

TEST(FindDriver, ARelativePathIsRefused) {
  const Variable chosen(ALLOT_ENV_REAL_NVML, "libnvidia-ml.so.1");
  EXPECT_THROW(find_driver(), Failure);
}

TEST(Folders, StandBesideTheCommand) {
  EXPECT_TRUE(own_executable().starts_with("/"));
  EXPECT_TRUE(shim_folder().ends_with("/lib/allot"));
  EXPECT_TRUE(sim_folder().ends_with("/lib/allot-sim"));
}

}  // namespace
}  // namespace allot::cli
