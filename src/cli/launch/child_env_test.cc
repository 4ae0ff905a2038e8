// The environment that a program in a slice starts with.
#include "cli/launch/child_env.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace allot::cli {
namespace {

std::string value(const std::vector<std::string>& env, const std::string& name) {
  std::string found = "(unset)";
  int count = 0;
  for (const std::string& entry : env) {
    if (!entry.starts_with(name + "=")) continue;
    found = entry.substr(name.size() + 1);
    ++count;
  }
  EXPECT_LE(count, 1) << name;
  return found;
}

SliceEnvironment slice() {
  SliceEnvironment out;
  out.shim = {"/opt/lib/allot", "/opt/lib/allot/libcuda.so.1", "/opt/lib/allot/libnvidia-ml.so.1"};
  out.slice_path = "/dev/shm/allot-0/alice.slice";
  return out;
}

TEST(SliceEnvironment, SetsWhatTheLibrariesNeed) {
  const char* inherited[] = {"HOME=/root", nullptr};
  const auto env = slice_environment(slice(), inherited);
  EXPECT_EQ(value(env, "HOME"), "/root");
  EXPECT_EQ(value(env, "LD_PRELOAD"),
            "/opt/lib/allot/libcuda.so.1 /opt/lib/allot/libnvidia-ml.so.1");
  EXPECT_EQ(value(env, "LD_LIBRARY_PATH"), "/opt/lib/allot");
  EXPECT_EQ(value(env, "ALLOT_TENANT"), "/dev/shm/allot-0/alice.slice");
  EXPECT_EQ(value(env, "ALLOT_FAIL"), "closed");
  EXPECT_EQ(value(env, "ALLOT_REAL_CUDA"), "(unset)");
  EXPECT_EQ(value(env, "CUDA_VISIBLE_DEVICES"), "(unset)");
}

TEST(SliceEnvironment, TheUsersPreloadsComeFirstAndOursBehind) {
  const char* inherited[] = {"LD_PRELOAD=/a.so:/b.so", "LD_LIBRARY_PATH=/x::/y", nullptr};
  const auto env = slice_environment(slice(), inherited);
  EXPECT_EQ(value(env, "LD_PRELOAD"),
            "/a.so /b.so /opt/lib/allot/libcuda.so.1 /opt/lib/allot/libnvidia-ml.so.1");
  EXPECT_EQ(value(env, "LD_LIBRARY_PATH"), "/opt/lib/allot:/x::/y");
}

TEST(SliceEnvironment, APreloadedDriverBecomesTheOneBehindUs) {
  const char* inherited[] = {"LD_PRELOAD=/a.so /compat/libcuda.so.1", nullptr};
  const auto env = slice_environment(slice(), inherited);
  EXPECT_EQ(value(env, "LD_PRELOAD"),
            "/a.so /opt/lib/allot/libcuda.so.1 /opt/lib/allot/libnvidia-ml.so.1");
  EXPECT_EQ(value(env, "ALLOT_REAL_CUDA"), "/compat/libcuda.so.1");
}

TEST(SliceEnvironment, ASanitizersRuntimeStaysFirst) {
  const char* inherited[] = {"LD_PRELOAD=/usr/lib/libtsan.so.2 /a.so", nullptr};
  EXPECT_EQ(
      value(slice_environment(slice(), inherited), "LD_PRELOAD"),
      "/usr/lib/libtsan.so.2 /a.so /opt/lib/allot/libcuda.so.1 /opt/lib/allot/libnvidia-ml.so.1");
}

TEST(SliceEnvironment, DoesNotGrowWhenItIsThereAlready) {
  const char* inherited[] = {
      "LD_PRELOAD=/opt/lib/allot/libcuda.so.1 /opt/lib/allot/libnvidia-ml.so.1",
      "LD_LIBRARY_PATH=/opt/lib/allot", nullptr};
  const auto env = slice_environment(slice(), inherited);
  EXPECT_EQ(value(env, "LD_PRELOAD"),
            "/opt/lib/allot/libcuda.so.1 /opt/lib/allot/libnvidia-ml.so.1");
  EXPECT_EQ(value(env, "LD_LIBRARY_PATH"), "/opt/lib/allot");
}

TEST(SliceEnvironment, TheSliceWinsOverLeftovers) {
  const char* inherited[] = {"ALLOT_DISABLE=1", "ALLOT_TENANT=/old", "CUDA_VISIBLE_DEVICES=3",
                             "ALLOT_FAIL=open", nullptr};
  SliceEnvironment wanted = slice();
  wanted.visible_gpus = "GPU-1,GPU-0";
  const auto env = slice_environment(wanted, inherited);
  EXPECT_EQ(value(env, "ALLOT_DISABLE"), "(unset)");
  EXPECT_EQ(value(env, "ALLOT_TENANT"), "/dev/shm/allot-0/alice.slice");
  EXPECT_EQ(value(env, "CUDA_VISIBLE_DEVICES"), "GPU-1,GPU-0");
  EXPECT_EQ(value(env, "ALLOT_FAIL"), "closed");
}

TEST(SliceEnvironment, TheSoftwareGpuTakesTheDriversPlace) {
  SliceEnvironment wanted = slice();
  wanted.simulated = true;
  wanted.sim = {"/opt/lib/allot-sim/libcuda.so.1", "/opt/lib/allot-sim/libnvidia-ml.so.1", true};
  wanted.sim_spec = "2x80G";
  const auto env = slice_environment(wanted, nullptr);
  EXPECT_EQ(value(env, "ALLOT_REAL_CUDA"), "/opt/lib/allot-sim/libcuda.so.1");
  EXPECT_EQ(value(env, "ALLOT_REAL_NVML"), "/opt/lib/allot-sim/libnvidia-ml.so.1");
  EXPECT_EQ(value(env, "ALLOT_SIM_GPUS"), "2x80G");
}

TEST(SliceEnvironment, WithoutPreloadTheLoaderIsLeftAlone) {
  const char* inherited[] = {"LD_PRELOAD=/a.so", nullptr};
  SliceEnvironment wanted = slice();
  wanted.preload = false;
  const auto env = slice_environment(wanted, inherited);
  EXPECT_EQ(value(env, "LD_PRELOAD"), "/a.so");
  EXPECT_EQ(value(env, "LD_LIBRARY_PATH"), "(unset)");
}

}  // namespace
}  // namespace allot::cli
