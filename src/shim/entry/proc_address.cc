// cuGetProcAddress and cuGetProcAddress_v2: the driver answers, and we replace an address that we
// hook.
//
// So versions, per-thread-stream flags and the status word stay the driver's own (docs/adr/0002). A
// small open-addressing table holds the real addresses of all hooked symbols. The first use builds
// it: each thread that comes at once fills a table of its own and publishes it by compare-and-swap;
// the losers discard theirs. There is no lock, because dlsym takes the linker's lock. One look-up
// costs some 10 ns beside the driver's 0.9 us.
#include <atomic>

#include "driver/entries.h"
#include "shim/entry/hooks.h"
#include "shim/process/cuda_calls.h"
#include "shim/process/hook_lists.h"
#include "shim/process/process.h"
#include "shim/process/real_library.h"
#include "sys/file.h"

namespace allot::shim {
namespace {

constexpr uint32_t kPlaces = 1024;  // some 290 hooks: a search ends after one or two places

struct Place {
  uintptr_t address;  // of the driver's function; 0 = free
  const char* symbol;
  void* hook;
};

struct AddressTable {
  Place places[kPlaces];
};

uint32_t place_of(uintptr_t address) {
  return static_cast<uint32_t>((address * 0x9E3779B97F4A7C15ull) >> 40) & (kPlaces - 1);
}

void add(void* context, const Hook& hook) {
  AddressTable& table = *static_cast<AddressTable*>(context);
  const uintptr_t address = reinterpret_cast<uintptr_t>(real_cuda.find(hook.symbol));
  if (address == 0) return;
  uint32_t i = place_of(address);
  for (; table.places[i].address != 0; i = (i + 1) & (kPlaces - 1)) {
    if (table.places[i].address == address)
      return;  // an alias in the driver: the first name counts
  }
  table.places[i] = {address, hook.symbol, hook.function()};
}

const AddressTable* addresses() {
  static constinit std::atomic<AddressTable*> published{nullptr};
  AddressTable* known = published.load(std::memory_order_acquire);
  if (known != nullptr) return known;
  const Result<void*> memory = sys::map_memory(sizeof(AddressTable));
  if (!memory) return nullptr;
  AddressTable* mine = static_cast<AddressTable*>(*memory);
  each_hook(add, mine);
  if (published.compare_exchange_strong(known, mine, std::memory_order_acq_rel)) return mine;
  sys::unmap(mine, sizeof(AddressTable));
  return known;
}

// In a driver where two entries share their code, neither may get the hook of the other.
bool name_fits(const char* asked, const char* symbol) {
  while (*asked != '\0' && *asked == *symbol) {
    ++asked;
    ++symbol;
  }
  return *asked == '\0';
}

void count_unknown(const char* name) {
  if (driver::cuda().has_name(name) || driver::cuda().find_by_symbol(name) != nullptr) return;
  process.unknown_symbols.fetch_add(1, std::memory_order_relaxed);
  if (process.state.load(std::memory_order_acquire) != State::kOn || forked_child()) return;
  const uint32_t seen = process.unknown_symbols.exchange(0, std::memory_order_relaxed);
  __atomic_fetch_add(&process.slice.file->header.unknown_symbols, seen, __ATOMIC_RELAXED);
}

// A program that asks for cuLibraryLoadData uses the runtime API, or loads as it does: it loads
// kernels when it first launches them (driver_memory.cc). It asks before the first context, so the
// headroom is there from the start.
void note_lazy_loader(const char* symbol) {
  if (__builtin_strcmp(symbol, "cuLibraryLoadData") == 0) {
    process.loads_lazily.store(true, std::memory_order_relaxed);
  }
}

// Replaces the driver's function by our hook, if there is one.
void replace(const char* name, void** function) {
  if (name == nullptr || function == nullptr || *function == nullptr) return;
  const AddressTable* table = addresses();
  if (table == nullptr) return;
  const uintptr_t address = reinterpret_cast<uintptr_t>(*function);
  for (uint32_t i = place_of(address); table->places[i].address != 0; i = (i + 1) & (kPlaces - 1)) {
    const Place& place = table->places[i];
    if (place.address != address) continue;
    if (!name_fits(name, place.symbol)) return;
    *function = place.hook;
    note_lazy_loader(place.symbol);
    return;
  }
  count_unknown(name);
}

CUresult get_proc_address(const char* name, void** function, int version, cuuint64_t flags) {
  const CUresult result = real::cuGetProcAddress(name, function, version, flags);
  if (result == CUDA_SUCCESS) replace(name, function);
  return result;
}

CUresult get_proc_address_v2(const char* name, void** function, int version, cuuint64_t flags,
                             int* status) {
  const CUresult result = real::cuGetProcAddress_v2(name, function, version, flags, status);
  if (result == CUDA_SUCCESS) replace(name, function);
  return result;
}

}  // namespace

std::span<const Hook> address_hooks() {
  // Nothing is charged, and a program may ask before cuInit.
  static constexpr Hook hooks[] = {
      unguarded<get_proc_address>("cuGetProcAddress"),
      unguarded<get_proc_address_v2>("cuGetProcAddress_v2"),
  };
  return hooks;
}

}  // namespace allot::shim
