// Exports read from a real library, and from damaged ones.
#include "cli/gpus/elf_exports.h"

#include <dlfcn.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace allot::cli {
namespace {

std::string libc_path() {
  Dl_info info = {};
  EXPECT_NE(dladdr(dlsym(RTLD_DEFAULT, "fopen"), &info), 0);
  return info.dli_fname;
}

bool has(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

TEST(ExportedFunctions, FindsWhatTheCLibraryDefines) {
  // A sanitizer may replace fopen: then the C library is another file.
  std::string path = libc_path();
  if (path.find("libc.so") == std::string::npos) path = "/lib/x86_64-linux-gnu/libc.so.6";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no C library at " << path;
  const std::vector<std::string> names = exported_functions(path);
  EXPECT_GT(names.size(), 1000u);
  EXPECT_TRUE(has(names, "fopen"));
  EXPECT_FALSE(has(names, "stdout")) << "data is no function";
}

TEST(ExportedFunctions, WhatIsNoLibraryHasNone) {
  EXPECT_TRUE(exported_functions("/nonexistent").empty());
  EXPECT_TRUE(exported_functions("/dev/null").empty());
  EXPECT_TRUE(exported_functions("/etc/passwd").empty());
}

TEST(ExportedFunctions, ACutLibraryIsSurvivedAtAnyLength) {
  std::ifstream whole("/proc/self/exe", std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(whole)),
                          std::istreambuf_iterator<char>());
  const std::string path = testing::TempDir() + "/allot-cut-" + std::to_string(getpid());
  for (const size_t length : {size_t{0}, size_t{16}, size_t{63}, size_t{64}, bytes.size() / 2}) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes.substr(0, length);
    exported_functions(path);
  }
  // Section table and symbol names pointing anywhere.
  std::string damaged = bytes;
  for (size_t i = 0x28; i < 0x40; ++i) damaged[i] = '\x7f';
  std::ofstream(path, std::ios::binary | std::ios::trunc) << damaged;
  EXPECT_TRUE(exported_functions(path).empty());
  std::remove(path.c_str());
}

}  // namespace
}  // namespace allot::cli
