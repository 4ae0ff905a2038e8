// The generated jump stubs, loaded as a library whose resolver is ours (stubs_test_library.cc): a
// first call resolves, later ones go straight through, and every argument, the stack and the result
// pass untouched both ways.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "driver/entries.h"

namespace allot::driver {
namespace {

// What one call through a stub carried. Doubles travel in xmm0-7, the rest beyond six on the stack.
using Wide = uint64_t (*)(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, double,
                          double, double, double, double, double, double, double, uint64_t,
                          uint64_t);

uint64_t fold(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f, double x0,
              double x1, double x2, double x3, double x4, double x5, double x6, double x7,
              uint64_t g, uint64_t h) {
  const double doubles[] = {x0, x1, x2, x3, x4, x5, x6, x7};
  uint64_t sum = a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f + 7 * g + 8 * h;
  for (int i = 0; i < 8; ++i) sum += static_cast<uint64_t>(doubles[i]) << (8 + i);
  return sum;
}

class Stubs : public testing::Test {
 protected:
  using Resolver = void* (*)(unsigned index);

  void SetUp() override {
    library_ = dlopen(ALLOT_STUBS_TEST_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    ASSERT_NE(library_, nullptr) << dlerror();
    set_resolver_ =
        reinterpret_cast<void (*)(Resolver)>(dlsym(library_, "allot_test_set_resolver"));
    slots_ =
        static_cast<void**>(reinterpret_cast<void* (*)()>(dlsym(library_, "allot_test_slots"))());
    ASSERT_NE(set_resolver_, nullptr);
  }
  void TearDown() override { dlclose(library_); }

  Wide stub(const char* symbol) { return reinterpret_cast<Wide>(dlsym(library_, symbol)); }
  static uint64_t call(Wide f) { return f(11, 22, 33, 44, 55, 66, 1, 2, 3, 4, 5, 6, 7, 8, 77, 88); }
  static uint64_t expected() { return call(&fold); }

  void* library_ = nullptr;
  void (*set_resolver_)(Resolver) = nullptr;
  void** slots_ = nullptr;
};

unsigned resolved_index = 0;
int resolved_times = 0;

// Dirties every register a resolver may use.
void* resolve_to_fold(unsigned index) {
  resolved_index = index;
  ++resolved_times;
  asm volatile(
      "xorps %%xmm0, %%xmm0; xorps %%xmm1, %%xmm1; xorps %%xmm2, %%xmm2; xorps %%xmm3, %%xmm3;"
      "xorps %%xmm4, %%xmm4; xorps %%xmm5, %%xmm5; xorps %%xmm6, %%xmm6; xorps %%xmm7, %%xmm7;"
      "xor %%edi, %%edi; xor %%esi, %%esi; xor %%edx, %%edx; xor %%ecx, %%ecx; xor %%r8d, %%r8d;"
      "xor %%r9d, %%r9d; xor %%r10d, %%r10d"
      :
      :
      : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "rdi", "rsi", "rdx", "rcx",
        "r8", "r9", "r10", "memory");
  return reinterpret_cast<void*>(&fold);
}

TEST_F(Stubs, FirstCallResolvesAndKeepsEveryArgument) {
  set_resolver_(&resolve_to_fold);
  resolved_times = 0;
  EXPECT_EQ(call(stub("cuMemAlloc_v2")), expected());
  EXPECT_EQ(resolved_index, unsigned{kCuda_cuMemAlloc_v2});
  EXPECT_EQ(resolved_times, 1);
}

TEST_F(Stubs, AFilledSlotIsUsedWithoutTheResolver) {
  set_resolver_(&resolve_to_fold);
  resolved_times = 0;
  slots_[kCuda_cuInit] = reinterpret_cast<void*>(&fold);
  EXPECT_EQ(call(stub("cuInit")), expected());
  EXPECT_EQ(resolved_times, 0);
}

TEST_F(Stubs, EveryStubCarriesItsOwnIndex) {
  set_resolver_(&resolve_to_fold);
  for (const Entry& entry : cuda().entries()) {
    if (slots_[cuda().index_of(entry)] == reinterpret_cast<void*>(&fold)) continue;
    ASSERT_NE(stub(entry.symbol), nullptr) << entry.symbol;
    ASSERT_EQ(call(stub(entry.symbol)), expected()) << entry.symbol;
    EXPECT_EQ(resolved_index, cuda().index_of(entry)) << entry.symbol;
  }
}

// No lambda: the call from its function pointer to its body is the compiler's own, and need not be
// aligned.
void* resolve_if_aligned(unsigned) {
  const auto frame = reinterpret_cast<uintptr_t>(__builtin_frame_address(0));
  return frame % 16 == 0 ? reinterpret_cast<void*>(&fold) : nullptr;
}

TEST_F(Stubs, ResolverRunsOnAnAlignedStack) {
  set_resolver_(&resolve_if_aligned);
  EXPECT_EQ(call(stub("cuMemFree_v2")), expected());
}

TEST_F(Stubs, AnEntryThatNobodyHasAnswersNotSupported) {
  set_resolver_([](unsigned) -> void* { return nullptr; });
  EXPECT_EQ(static_cast<int>(call(stub("cuMemGetLocationInfo"))), 801);
}

TEST_F(Stubs, ThreadsMayResolveTheSameEntryAtOnce) {
  set_resolver_([](unsigned) -> void* { return reinterpret_cast<void*>(&fold); });
  std::vector<std::thread> threads;
  threads.reserve(4);
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this] {
      for (int i = 0; i < 1000; ++i) ASSERT_EQ(call(stub("cuLaunchKernel")), expected());
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(Stubs, OnlyTheTableAndTheExtraNamesAreExported) {
  EXPECT_EQ(dlsym(library_, "allot_cuda_slots"), nullptr);
  EXPECT_EQ(dlsym(library_, "allot_cuda_resolve"), nullptr);
  EXPECT_EQ(dlsym(library_, "allot_cuda_resolve_entry"), nullptr);
  EXPECT_NE(dlsym(library_, "cuGetProcAddress_v2"), nullptr);
}

}  // namespace
}  // namespace allot::driver
