// What the tests of the life cycle share: a program at work, its threads, the slice's file.
#pragma once

#include <dlfcn.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include "shm/time_view.h"
#include "tests/shim/harness.h"

namespace allot::shim_test {

using Clock = std::chrono::steady_clock;

inline double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// A program with a block of memory; work() submits a set and waits for it.
struct Program {
  using Set = CUresult (*)(CUdeviceptr, unsigned, size_t);
  Cuda cuda;
  CUdeviceptr block = 0;
  Set set = nullptr;
  Program() {
    start_cuda(cuda);
    EXPECT_EQ(cuda.cuMemAlloc_v2(&block, 1 << 20), CUDA_SUCCESS);
    set = reinterpret_cast<Set>(dlsym(cuda.library, "cuMemsetD32_v2"));
    EXPECT_EQ(work(), CUDA_SUCCESS);
  }
  CUresult work(size_t words = 16) const {
    const CUresult result = set(block, 7, words);
    return result != CUDA_SUCCESS ? result : cuda.cuCtxSynchronize();
  }
};

// A thread is to use the context of device 0, too.
inline void join_context(const Cuda& cuda) {
  CUcontext context = nullptr;
  cuda.cuDevicePrimaryCtxRetain(&context, 0);
  cuda.cuCtxSetCurrent(context);
}

inline void say(const std::string& line) {
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
}

// Reads what a child prints up to that line.
inline bool says(Running& child, const std::string& wanted) {
  for (int i = 0; i < 50; ++i) {
    if (read_line(child) == wanted) return true;
  }
  return false;
}

inline std::string slice_file(const std::string& name = "default") {
  return machine_folder() + "/region/" + name + ".slice";
}

// What the accounts of the machine's slice say once the dead are cleared; UINT64_MAX when there is
// no file.
inline uint64_t used_by_the_living(const std::string& name = "default") {
  auto slice = shm::open_slice(slice_file(name).c_str(), true);
  if (!slice) return UINT64_MAX;
  shm::reclaim_dead(*slice);
  core::Ledger ledger(slice->file);
  const uint64_t used = ledger.used(0);
  EXPECT_EQ(used, ledger.recount(0));
  shm::unmap(*slice);
  return used;
}

inline std::string text_of(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// The messages of the machine's processes.
inline std::string log_text() {
  return text_of(machine_folder() + "/log");
}

inline size_t lines_with(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

// The thread of that name in a process, 0 when there is none.
inline pid_t thread_named(pid_t pid, const std::string& name) {
  std::error_code ignored;
  const std::string tasks = "/proc/" + std::to_string(pid) + "/task";
  for (const auto& task : std::filesystem::directory_iterator(tasks, ignored)) {
    if (text_of(task.path().string() + "/comm") == name + "\n")
      return std::stoi(task.path().filename());
  }
  return 0;
}

}  // namespace allot::shim_test
