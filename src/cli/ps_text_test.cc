// The listing of slices: it fits, in an order that people expect.
#include "cli/ps_text.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "cli/screen.h"

namespace allot::cli {
namespace {

PsRow row_of(const std::string& name, unsigned gpus) {
  PsRow row;
  row.slice.name = name;
  row.slice.user = "somebody-with-a-long-name";
  row.slice.flags = ALLOT_SLICE_SOFTWARE;
  ProcessView process;
  process.pid = 4194304;
  process.command =
      "/opt/conda/envs/train/bin/python " + std::string(300, 'x') + " --and more words of it";
  for (unsigned i = 0; i < gpus; ++i) {
    SliceGpuView gpu;
    gpu.index = static_cast<int>(i);
    gpu.used_bytes = gpu.peak_bytes = 123456789012;
    gpu.limit_bytes = 223456789012;
    gpu.physical_bytes = 323456789012;
    gpu.share_permille = 333;
    gpu.max_permille = 1000;
    gpu.time_used_ns = UINT64_MAX;
    gpu.refused = UINT64_MAX;
    row.slice.gpus.push_back(gpu);
    ByKind kinds{};
    for (uint64_t& kind : kinds) kind = 123456789012;
    process.charges.push_back(kinds);
  }
  row.slice.processes.push_back(process);
  return row;
}

size_t widest_of(const std::string& text) {
  size_t widest = 0;
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos;
       begin = end + 1) {
    widest = std::max(widest, columns_of(text.substr(begin, end - begin)));
  }
  return widest;
}

TEST(PsText, FitsTheTerminal) {
  std::vector<PsRow> rows = {row_of(std::string(63, 'n'), 8), row_of("a", 1), row_of("b", 0)};
  rows[0].cpus = CpuPart{"0-3,8-11,16-19,24-27", true, "", 1};
  rows[2].only_cpus = true;
  rows[2].cpus = CpuPart{"4", false, "", 2};
  for (const size_t width : {60u, 80u, 100u, 132u, 200u}) {
    const std::string text = ps_text(rows, {}, true, width);
    EXPECT_LE(widest_of(text), width) << text;
    for (const char* word : {"NAME", "USED", "STATE", "GPU 7 (software): 115 GiB used"})
      EXPECT_NE(text.find(word), std::string::npos) << width << text;
  }
  for (const size_t width : {1u, 20u, 40u})
    EXPECT_NE(ps_text(rows, {}, true, width).find("USED"), std::string::npos);
  const std::string whole = ps_text(rows, {}, true, SIZE_MAX / 2);
  for (const char* word : {"REFUSED", "PEAK", "PRIORITY", "CPUS", "0-3,8-11,16-19,24-27"})
    EXPECT_NE(whole.find(word), std::string::npos) << word;
  EXPECT_NE(whole.find(std::string(63, 'n')), std::string::npos);
}

TEST(PsText, At80ColumnsTheColumnsThatMatterAreThere) {
  std::vector<PsRow> rows = {row_of("alice", 1)};
  rows[0].slice.user = "alice";
  const std::string text = ps_text(rows, {}, true, 80);
  for (const char* word : {"NAME", "USER", "GPU", "USED", "LIMIT", "SHARE", "MAX", "STATE", "TIME"})
    EXPECT_NE(text.find(word), std::string::npos) << word << "\n" << text;
  EXPECT_EQ(text.find("CPUS"), std::string::npos) << "no slice has any";
}

TEST(NaturalLess, NumbersCountAsNumbers) {
  std::vector<std::string> names = {
      "job10", "job2", "job1", "job", "job02", "a99999999999999999999999", "a3", "job1x"};
  std::sort(names.begin(), names.end(), natural_less);
  EXPECT_EQ(names, (std::vector<std::string>{"a3", "a99999999999999999999999", "job", "job1",
                                             "job1x", "job02", "job2", "job10"}));
}

}  // namespace
}  // namespace allot::cli
