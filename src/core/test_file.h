// A slice file in anonymous shared memory, for tests of the ledger. Not part of the product.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>

#include "core/ledger.h"

namespace allot::core {

inline constexpr uint64_t kNamespace = 4026531836;

class TestFile {
 public:
  explicit TestFile(uint64_t limit = 1000, uint32_t gpus = 1) {
    file_ =
        static_cast<AllotSliceFile*>(mmap(nullptr, sizeof(AllotSliceFile), PROT_READ | PROT_WRITE,
                                          MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    if (file_ == MAP_FAILED) std::terminate();
    reset(limit, gpus);
  }
  ~TestFile() { munmap(file_, sizeof(AllotSliceFile)); }
  TestFile(const TestFile&) = delete;
  TestFile& operator=(const TestFile&) = delete;

  // Back to an empty slice; clears only what the first `slots` slots can have touched.
  void reset(uint64_t limit, uint32_t gpus, uint32_t slots = 16) {
    std::memset(&file_->header, 0, sizeof(file_->header));
    std::memset(file_->gpus, 0, sizeof(file_->gpus));
    std::memset(file_->slot_words, 0, slots * sizeof(uint64_t));
    std::memset(file_->slots, 0, slots * sizeof(AllotSlot));
    std::memset(file_->swaps, 0, slots * sizeof(AllotSwap));
    file_->header.pid_namespace = kNamespace;
    file_->header.gpu_count = gpus;
    for (uint32_t i = 0; i < gpus; ++i) file_->gpus[i].limit_bytes = limit;
  }

  AllotSliceFile* get() { return file_; }
  AllotSliceFile* operator->() { return file_; }
  Ledger ledger() { return Ledger(file_); }

 private:
  AllotSliceFile* file_;
};

inline SlotOwner owner_of(uint32_t pid) {
  return {pid, 1000u + pid, kNamespace, "test", 1};
}

}  // namespace allot::core
