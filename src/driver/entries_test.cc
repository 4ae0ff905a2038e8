// The tables themselves, and the lookups in them. Runs without a toolkit; tools/driver_parity.py
// compares the tables with the vendor's headers where there are some.
#include "driver/entries.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>
#include <utility>

namespace allot::driver {
namespace {

const char* symbol_of(const Entry* entry) {
  return entry == nullptr ? "(none)" : entry->symbol;
}

std::string cuda_by_name(const char* name, int version, bool per_thread = false) {
  return symbol_of(cuda().find_by_name(name, version, per_thread));
}

class BothTables : public testing::TestWithParam<const Table*> {};
INSTANTIATE_TEST_SUITE_P(Driver, BothTables, testing::Values(&cuda(), &nvml()));

TEST_P(BothTables, EverySymbolStandsOnceAndIsFoundWhereItStands) {
  std::set<std::string> seen;
  for (const Entry& entry : GetParam()->entries()) {
    EXPECT_TRUE(seen.insert(entry.symbol).second) << entry.symbol << " twice";
    EXPECT_EQ(GetParam()->find_by_symbol(entry.symbol), &entry) << entry.symbol;
  }
}

TEST_P(BothTables, UnknownSymbolsAreNotFound) {
  for (const char* text :
       {"", "c", "cu", "nvml", "cuMemAllo", "cuMemAlloc_v2x", "nvmlInit_v3", "malloc"}) {
    EXPECT_EQ(GetParam()->find_by_symbol(text), nullptr) << text;
    EXPECT_EQ(GetParam()->find_by_name(text, 99999, false), nullptr) << text;
  }
  EXPECT_EQ(GetParam()->find_by_symbol(nullptr), nullptr);
  EXPECT_EQ(GetParam()->find_by_name(nullptr, 13000, false), nullptr);
}

TEST_P(BothTables, IndexIsThePositionInTheOrderOfSymbols) {
  const auto entries = GetParam()->entries();
  for (unsigned i = 0; i < entries.size(); ++i) EXPECT_EQ(GetParam()->index_of(entries[i]), i);
  for (size_t i = 1; i < entries.size(); ++i) {
    EXPECT_LT(std::string(entries[i - 1].symbol), entries[i].symbol);
  }
}

TEST(CudaTable, HasEveryEntryOfDriver580AndTheLaterOnes) {
  size_t in_580 = 0;
  for (const Entry& entry : cuda().entries()) in_580 += entry.since <= 13000;
  EXPECT_EQ(in_580, 674u);
  EXPECT_EQ(cuda().entries().size(), size_t{kCudaEntryCount});
  EXPECT_GT(size_t{kCudaEntryCount}, in_580);
}

TEST(NvmlTable, HasEveryEntryOfBranch580AndTheLaterOnes) {
  size_t in_580 = 0;
  for (const Entry& entry : nvml().entries()) in_580 += entry.since == 0;
  EXPECT_EQ(in_580, 404u);
  EXPECT_EQ(nvml().entries().size(), size_t{kNvmlEntryCount});
}

TEST(CudaTable, EnumeratorsNameTheirEntries) {
  EXPECT_STREQ(cuda().entries()[kCuda_cuMemAlloc_v2].symbol, "cuMemAlloc_v2");
  EXPECT_STREQ(nvml().entries()[kNvml_nvmlDeviceGetMemoryInfo_v2].symbol,
               "nvmlDeviceGetMemoryInfo_v2");
}

TEST(CudaTable, VariantFollowsFromTheSymbolAndHasItsLegacyForm) {
  for (const Entry& entry : cuda().entries()) {
    const std::string symbol = entry.symbol;
    const bool ptds = symbol.ends_with("_ptds");
    const bool ptsz = symbol.ends_with("_ptsz");
    EXPECT_EQ(entry.variant, ptds   ? Variant::kPtds
                             : ptsz ? Variant::kPtsz
                                    : Variant::kNone)
        << symbol;
    if (!ptds && !ptsz) continue;
    const Entry* legacy = cuda().find_by_symbol(symbol.substr(0, symbol.size() - 5).c_str());
    ASSERT_NE(legacy, nullptr) << symbol << " has no legacy form";
    EXPECT_STREQ(legacy->name, entry.name) << symbol;
  }
}

TEST(CudaTable, AllEntriesOfANameHaveOneClass) {
  std::map<std::string, const Entry*> first;
  for (const Entry& entry : cuda().entries()) {
    const auto [at, added] = first.emplace(entry.name, &entry);
    EXPECT_EQ(at->second->cls, entry.cls) << at->second->symbol << " and " << entry.symbol;
  }
}

TEST(CudaTable, SymbolIsTheNameWithAVersionSuffix) {
  for (const Entry& entry : cuda().entries()) {
    EXPECT_TRUE(std::string(entry.symbol).starts_with(entry.name)) << entry.symbol;
    std::string rest = std::string(entry.symbol).substr(std::string(entry.name).size());
    if (entry.variant != Variant::kNone) rest.resize(rest.size() - 5);
    EXPECT_TRUE(rest.empty() || (rest.size() == 3 && rest.starts_with("_v"))) << entry.symbol;
  }
}

TEST(CudaTable, NoTwoEntriesOfANameShareVersionAndVariant) {
  std::set<std::pair<std::string, std::pair<int, int>>> seen;
  for (const Entry& entry : cuda().entries()) {
    if (entry.since == 0) continue;
    EXPECT_TRUE(seen.insert({entry.name, {entry.since, static_cast<int>(entry.variant)}}).second)
        << entry.symbol;
  }
}

TEST(CudaTable, LaterSuffixComesWithALaterVersion) {
  for (const Entry& entry : cuda().entries()) {
    if (entry.variant != Variant::kNone || entry.since == 0) continue;
    for (int suffix = 2; suffix <= 4; ++suffix) {
      const std::string later = std::string(entry.name) + "_v" + std::to_string(suffix);
      if (later <= entry.symbol) continue;
      const Entry* next = cuda().find_by_symbol(later.c_str());
      if (next != nullptr) {
        EXPECT_GT(next->since, entry.since) << later;
      }
    }
  }
}

TEST(CudaTable, ClassesOfTheEntriesThatMatterMost) {
  const std::pair<const char*, Class> expected[] = {
      {"cuInit", Class::kInit},
      {"cuGetProcAddress", Class::kProc},
      {"cuGetProcAddress_v2", Class::kProc},
      {"cuMemAlloc", Class::kAlloc},
      {"cuMemAlloc_v2", Class::kAlloc},
      {"cuMemAllocPitch_v2", Class::kAlloc},
      {"cuMemAllocManaged", Class::kAlloc},
      {"cuMemAllocAsync_ptsz", Class::kAlloc},
      {"cuMemAllocFromPoolAsync", Class::kAlloc},
      {"cuArrayCreate_v2", Class::kAlloc},
      {"cuArray3DCreate_v2", Class::kAlloc},
      {"cuMipmappedArrayCreate", Class::kAlloc},
      {"cuMemCreate", Class::kAlloc},
      {"cuMemFree_v2", Class::kFree},
      {"cuMemFreeAsync", Class::kFree},
      {"cuMemRelease", Class::kFree},
      {"cuMemUnmap", Class::kUnmap},
      {"cuIpcOpenMemHandle_v2", Class::kImport},
      {"cuImportExternalMemory", Class::kImport},
      {"cuMemGetInfo_v2", Class::kMemQuery},
      {"cuDeviceTotalMem_v2", Class::kMemQuery},
      {"cuLaunchKernel", Class::kSubmit},
      {"cuLaunchKernelEx_ptsz", Class::kSubmit},
      {"cuLaunchCooperativeKernelMultiDevice", Class::kSubmit},
      {"cuLaunchHostFunc_v2", Class::kSubmit},
      {"cuGraphLaunch_ptsz", Class::kSubmit},
      {"cuMemcpyBatchAsync_v2", Class::kSubmit},
      {"cuMemsetD32Async", Class::kSubmit},
      {"cuMemPrefetchAsync_v2", Class::kSubmit},
      {"cuStreamBatchMemOp_v2", Class::kSubmit},
      {"cuEventRecordWithFlags_ptsz", Class::kSubmit},
      {"cuStreamWaitEvent", Class::kSubmit},
      {"cuGraphAddMemAllocNode", Class::kGraph},
      {"cuStreamBeginCapture_v2", Class::kCapture},
      {"cuCtxCreate_v4", Class::kCreate},
      {"cuDevicePrimaryCtxRelease_v2", Class::kDestroy},
      {"cuMemPoolTrimTo", Class::kTrim},
  };
  for (const auto& [symbol, cls] : expected) {
    const Entry* entry = cuda().find_by_symbol(symbol);
    ASSERT_NE(entry, nullptr) << symbol;
    EXPECT_EQ(entry->cls, cls) << symbol;
  }
}

TEST(CudaLookup, GivesTheNewestEntryThatIsNotNewerThanTheVersion) {
  EXPECT_EQ(cuda_by_name("cuMemAlloc", 2000), "cuMemAlloc");
  EXPECT_EQ(cuda_by_name("cuMemAlloc", 3010), "cuMemAlloc");
  EXPECT_EQ(cuda_by_name("cuMemAlloc", 3020), "cuMemAlloc_v2");
  EXPECT_EQ(cuda_by_name("cuMemAlloc", 13000), "cuMemAlloc_v2");
  EXPECT_EQ(cuda_by_name("cuCtxCreate", 11030), "cuCtxCreate_v2");
  EXPECT_EQ(cuda_by_name("cuCtxCreate", 11040), "cuCtxCreate_v3");
  EXPECT_EQ(cuda_by_name("cuCtxCreate", 12050), "cuCtxCreate_v4");
  EXPECT_EQ(cuda_by_name("cuStreamGetCaptureInfo", 12020), "cuStreamGetCaptureInfo_v2");
  EXPECT_EQ(cuda_by_name("cuLaunchKernelEx", 11050), "(none)");
  EXPECT_EQ(cuda_by_name("cuLaunchKernelEx", 11060), "cuLaunchKernelEx");
}

TEST(CudaLookup, GivesThePerThreadFormOnlyWhenAskedAndWhereThereIsOne) {
  EXPECT_EQ(cuda_by_name("cuMemcpyHtoD", 13000), "cuMemcpyHtoD_v2");
  EXPECT_EQ(cuda_by_name("cuMemcpyHtoD", 13000, true), "cuMemcpyHtoD_v2_ptds");
  EXPECT_EQ(cuda_by_name("cuLaunchKernel", 12000, true), "cuLaunchKernel_ptsz");
  EXPECT_EQ(cuda_by_name("cuLaunchKernel", 4000, true), "cuLaunchKernel");  // ptsz came with 7.0
  EXPECT_EQ(cuda_by_name("cuMemAlloc", 13000, true), "cuMemAlloc_v2");
}

TEST(CudaLookup, TakesAFullSymbolForAName) {
  EXPECT_EQ(cuda_by_name("cuMemAlloc_v2", 13000), "cuMemAlloc_v2");
  EXPECT_EQ(cuda_by_name("cuMemAlloc_v2", 3010), "(none)");
}

TEST(CudaLookup, NeverGivesWhatTheDriverNeverGives) {
  EXPECT_EQ(cuda_by_name("cuMemGetAttribute", 13000), "(none)");
  EXPECT_EQ(cuda_by_name("cuEGLApiInit", 13000), "(none)");
  EXPECT_TRUE(cuda().has_name("cuMemGetAttribute"));
  EXPECT_FALSE(cuda().has_name("cuMemAlloc_v2"));
}

TEST(NvmlLookup, FindsByNameWhateverTheBranch) {
  EXPECT_STREQ(symbol_of(nvml().find_by_symbol("nvmlDeviceGetComputeRunningProcesses_v3")),
               "nvmlDeviceGetComputeRunningProcesses_v3");
  EXPECT_EQ(nvml().find_by_symbol("nvmlDeviceGetComputeRunningProcesses_v3")->cls,
            Class::kProcessList);
}

}  // namespace
}  // namespace allot::driver
