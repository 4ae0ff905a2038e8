// The entries of the driver and of NVML as data: which symbols exist, by which name and from which
// version a program can ask for them, and what each one does to memory or to GPU time.
//
// The tables are src/driver/cuda_entries.txt and nvml_entries.txt; at build time
// tools/gen_driver.py turns them into arrays and hash tables. Lookups take constant time, allocate
// nothing, take no lock and are safe in a signal handler and in a forked child. What must not
// happen here: a decision. A class says what an entry is; the shim decides what to do about it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace allot::driver {

// How an entry reads a default stream, cuda.h's CUDA_API_PER_THREAD_DEFAULT_STREAM.
enum class Variant : uint8_t {
  kNone,  // the legacy default stream, or no stream at all
  kPtds,  // per-thread default stream, entry without a stream argument
  kPtsz,  // per-thread default stream, entry with a stream argument
};

// What an entry does. The heads of the two tables explain each class.
enum class Class : uint8_t {
  kPlain,
  kInit,
  // CUDA
  kProc,
  kAlloc,
  kFree,
  kImport,
  kHost,
  kMap,
  kUnmap,
  kTrim,
  kMemQuery,
  kSubmit,
  kWait,
  kCapture,
  kGraph,
  kCreate,
  kDestroy,
  kCheckpoint,
  // NVML
  kMemoryInfo,
  kBarInfo,
  kProcessList,
  kUtilisation,
  kAccounting,
  kFields,
  kCount,
  kHandle,
  kIdentity,
};

struct Entry {
  const char* symbol;  // exported by the library, e.g. "cuMemcpyHtoD_v2_ptds"
  const char* name;    // asked of cuGetProcAddress, e.g. "cuMemcpyHtoD"
  int since;  // CUDA: first version, 13000 = 13.0, 0 = never by cuGetProcAddress. NVML: branch
  Variant variant;
  Class cls;
};

// Generated: in name order, entries that share a name are neighbours, oldest version first.
struct NameGroup {
  uint16_t first;
  uint16_t count;
};

// One library's entries. Copies are views of constant data.
class Table {
 public:
  // All entries, in the order of the jump stubs' slots (sorted by symbol).
  std::span<const Entry> entries() const { return entries_; }

  // The entry of an exported symbol, or null when the table has none. Any thread, signal-safe.
  const Entry* find_by_symbol(const char* symbol) const;

  // The entry that cuGetProcAddress(name, version) returns on a driver that has all entries: the
  // newest of that name which is not newer than `version`. With `per_thread` it is the ptds or ptsz
  // form, where there is one. An exported symbol that is not a name (cuMemAlloc_v2) finds itself.
  // Null when `name` is unknown, or when every entry of that name is newer. Any thread,
  // signal-safe. Source: cuGetProcAddress in the CUDA driver API reference, "Driver Entry Point
  // Access".
  const Entry* find_by_name(const char* name, int version, bool per_thread) const;

  // Whether any entry has this name, whatever its version. Any thread, signal-safe.
  bool has_name(const char* name) const;

  // Position of an entry of this table in entries(), which is its slot in the jump stubs.
  unsigned index_of(const Entry& entry) const {
    return static_cast<unsigned>(&entry - entries_.data());
  }

  constexpr Table(std::span<const Entry> entries, std::span<const uint16_t> by_symbol,
                  std::span<const uint16_t> by_name, std::span<const NameGroup> names,
                  std::span<const uint16_t> name_order)
      : entries_(entries),
        by_symbol_(by_symbol),
        by_name_(by_name),
        names_(names),
        name_order_(name_order) {}

 private:
  std::span<const uint16_t> group_of(const char* name) const;

  std::span<const Entry> entries_;
  std::span<const uint16_t> by_symbol_;  // open addressing: 1 + index into entries_, 0 = empty
  std::span<const uint16_t> by_name_;    // open addressing: 1 + index into names_, 0 = empty
  std::span<const NameGroup> names_;
  std::span<const uint16_t> name_order_;  // indexes into entries_, grouped by name
};

// libcuda.so.1 and libnvidia-ml.so.1.
const Table& cuda();
const Table& nvml();

// Slot numbers by symbol, for hooks: kCuda_cuMemAlloc_v2, kNvml_nvmlDeviceGetMemoryInfo.
enum CudaIndex : unsigned {
#define ALLOT_ENTRY(index, symbol, name, since, variant, cls) kCuda_##symbol = index,
#include "driver/cuda_entries.inc"
  kCudaEntryCount = ALLOT_CUDA_ENTRY_COUNT
};
enum NvmlIndex : unsigned {
#define ALLOT_ENTRY(index, symbol, name, since, variant, cls) kNvml_##symbol = index,
#include "driver/nvml_entries.inc"
  kNvmlEntryCount = ALLOT_NVML_ENTRY_COUNT
};

}  // namespace allot::driver
