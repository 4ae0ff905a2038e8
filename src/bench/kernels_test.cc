// The PTX text keeps its contract with the software GPU: entry names, order and width of
// parameters. Where the vendor's assembler is on the machine, it must take the text too.
#include "bench/kernels.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <regex>
#include <string>
#include <vector>

namespace allot::bench {
namespace {

std::map<std::string, std::vector<std::string>> entries_of(const std::string& ptx) {
  std::map<std::string, std::vector<std::string>> entries;
  const std::regex entry(R"(\.visible \.entry (\w+)\(([^)]*)\)\s*\{)");
  const std::regex parameter(R"(\.param (\.u\d+) \w+)");
  for (std::sregex_iterator it(ptx.begin(), ptx.end(), entry), end; it != end; ++it) {
    const std::string list = (*it)[2];
    std::vector<std::string>& kinds = entries[(*it)[1]];
    for (std::sregex_iterator p(list.begin(), list.end(), parameter); p != end; ++p) {
      kinds.push_back((*p)[1]);
    }
  }
  return entries;
}

TEST(KernelPtx, HasTheEntriesTheSoftwareGpuKnows) {
  const std::map<std::string, std::vector<std::string>> expected = {
      {"allot_spin", {".u64", ".u64"}},
      {"allot_spin_told", {".u64", ".u64", ".u64", ".u64"}},
      {"allot_fill", {".u64", ".u64", ".u32"}},
      {"allot_check", {".u64", ".u64", ".u32", ".u64"}},
      {"allot_fma", {".u64", ".u64", ".u32"}},
  };
  EXPECT_EQ(entries_of(kernel_ptx()), expected);
  EXPECT_TRUE(expected.count(kSpinKernel) && expected.count(kSpinToldKernel) &&
              expected.count(kFillKernel));
  EXPECT_TRUE(expected.count(kCheckKernel) && expected.count(kFmaKernel));
}

TEST(KernelPtx, OpensAsOldDriversWantIt) {
  const std::string ptx = kernel_ptx();
  EXPECT_EQ(ptx.rfind(".version 7.0\n.target sm_70\n.address_size 64\n", 0), 0u);
  for (const char c : ptx) EXPECT_TRUE(c == '\n' || (c >= ' ' && c <= '~')) << int{c};
}

TEST(KernelPtx, EveryLabelIsDefinedOnceAndUsed) {
  const std::string ptx = kernel_ptx();
  const std::regex label(R"(\n([A-Z_]+):)"), branch(R"(bra ([A-Z_]+);)");
  std::map<std::string, int> defined, used;
  for (std::sregex_iterator it(ptx.begin(), ptx.end(), label), end; it != end; ++it) {
    ++defined[(*it)[1]];
  }
  for (std::sregex_iterator it(ptx.begin(), ptx.end(), branch), end; it != end; ++it) {
    ++used[(*it)[1]];
  }
  for (const auto& [name, count] : defined) {
    EXPECT_EQ(count, 1) << name;
    EXPECT_TRUE(used.count(name)) << name;
  }
  for (const auto& [name, count] : used) EXPECT_TRUE(defined.count(name)) << name;
}

TEST(KernelPtx, AssemblesWhereAToolkitIs) {
  if (std::system("ptxas --version >/dev/null 2>&1") != 0) {
    GTEST_SKIP() << "no ptxas on this machine";
  }
  const std::string file = testing::TempDir() + "/allot_kernels.ptx";
  std::ofstream(file) << kernel_ptx();
  EXPECT_EQ(std::system(("ptxas -arch=sm_90 -o /dev/null " + file).c_str()), 0);
}

}  // namespace
}  // namespace allot::bench
