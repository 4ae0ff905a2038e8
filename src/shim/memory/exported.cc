// Offers are in the pointer table: key base + 0, base + 1 and so on, one for each handle given out
// for the block; the first one has their number. Blocks begin at multiples of 512, so 512 fit; more
// are not given out in practice, and the region forgets them with the process. Borrowed memory is
// in a list of its own.
#include "shim/memory/exported.h"

#include "shim/memory/charge.h"
#include "shim/process/spin.h"
#include "shm/slice_file.h"
#include "sys/file.h"

namespace allot::shim {
namespace {

constexpr uint32_t kMostOffers = 512;
constinit std::atomic<bool> anything_offered{false};

struct Borrowed {
  uint64_t address;
  uint64_t hash;
  uint64_t bytes;
  uint32_t gpu;
  bool charged;
};

constexpr uint32_t kFirstRoom = 128;
constinit SpinLock borrowing;
constinit Borrowed* list = nullptr;
constinit uint32_t count = 0;
constinit uint32_t room = 0;
constinit std::atomic<uint32_t> uncharged{0};

// `borrowing` is held.
bool grow() {
  const uint32_t wider = room == 0 ? kFirstRoom : room * 2;
  const Result<void*> memory = sys::map_memory(uint64_t{wider} * sizeof(Borrowed));
  if (!memory) return false;
  Borrowed* fresh = static_cast<Borrowed*>(*memory);
  for (uint32_t i = 0; i < count; ++i) fresh[i] = list[i];
  if (list != nullptr) sys::unmap(list, uint64_t{room} * sizeof(Borrowed));
  list = fresh;
  room = wider;
  return true;
}

// `borrowing` is held.
Borrowed* find(uint64_t address) {
  for (uint32_t i = 0; i < count; ++i) {
    if (list[i].address == address) return &list[i];
  }
  return nullptr;
}

bool add(const Borrowed& fresh) {
  borrowing.lock();
  const bool fits = count < room || grow();
  if (fits) {
    list[count++] = fresh;
    if (!fresh.charged) uncharged.fetch_add(1, std::memory_order_release);
  }
  borrowing.unlock();
  return fits;
}

bool offered_by_another(uint64_t hash) {
  return shm::find_export_of_other(process.slice, hash, process.slot);
}

const Device* device_of_gpu(uint32_t gpu) {
  for (uint32_t i = 0; i < process.device_count; ++i) {
    if (process.devices[i].gpu == static_cast<int>(gpu)) return &process.devices[i];
  }
  return nullptr;
}

void end_offer(uint64_t hash) {
  shm::drop_export(process.slice, hash, process.slot);
}

}  // namespace

void offer_block(CUdeviceptr base, uint64_t hash, uint64_t context) {
  if (!shm::add_export(process.slice, hash, process.slot)) return;
  anything_offered.store(true, std::memory_order_release);
  for (uint32_t n = 0; n < kMostOffers; ++n) {
    bool known = false;
    bool ok = true;
    const Entry fresh = {base + n, hash, context, 1, 0, Tag::kOffer, 0};
    const bool taken = process.table.put_or_update(
        fresh, [&](Entry& e) { known = e.owner == hash; }, &ok);
    if (known || !ok) return;
    if (taken) continue;
    if (n > 0) {
      process.table.update(Tag::kOffer, base, [n](Entry& e) {
        if (e.count <= n) e.count = n + 1;
        return true;
      });
    }
    return;
  }
}

void exported_block_gone(CUdeviceptr base) {
  if (!anything_offered.load(std::memory_order_acquire)) return;
  Entry offer;
  if (!process.table.take(Tag::kOffer, base, &offer)) return;
  const uint32_t offers = offer.count;
  end_offer(offer.owner);
  for (uint32_t n = 1; n < offers; ++n) {
    if (process.table.take(Tag::kOffer, base + n, &offer)) end_offer(offer.owner);
  }
}

void exported_context_gone(CUcontext context) {
  if (!anything_offered.load(std::memory_order_acquire)) return;
  const uint64_t owner = reinterpret_cast<uint64_t>(context);
  process.table.drop([owner](const Entry& e) { return e.tag == Tag::kOffer && e.bytes == owner; },
                     [](const Entry& e) { end_offer(e.owner); });
}

bool borrow(uint64_t address, uint64_t hash, uint64_t bytes, uint32_t gpu) {
  return add({address, hash, bytes, gpu, false});
}

bool charge_import(uint64_t key, uint64_t bytes, uint32_t gpu) {
  Borrowed known = {key, kDescriptorOffer, 0, gpu, false};
  borrowing.lock();
  Borrowed* at = find(key);
  const bool there = at != nullptr;
  if (there) {
    known = *at;
    if (!known.charged && bytes > at->bytes) at->bytes = bytes;
  }
  borrowing.unlock();
  if (bytes <= known.bytes || (there && !known.charged)) return true;
  if (!there && offered_by_another(kDescriptorOffer)) {
    return borrow(key, kDescriptorOffer, bytes, gpu);
  }
  const Device* device = device_of_gpu(gpu);
  const uint64_t more = bytes - known.bytes;
  if (device == nullptr || !reserve(*device, ALLOT_KIND_IMPORT, more)) return false;
  if (!there && add({key, kDescriptorOffer, bytes, gpu, true})) return true;
  borrowing.lock();
  at = find(key);
  const bool grown = there && at != nullptr && at->charged;
  if (grown) at->bytes += more;
  borrowing.unlock();
  if (!grown) release(*device, ALLOT_KIND_IMPORT, more);
  return grown;
}

void borrowed_closed(uint64_t address) {
  Borrowed gone = {};
  borrowing.lock();
  if (Borrowed* at = find(address)) {
    gone = *at;
    *at = list[--count];
    if (!gone.charged) uncharged.fetch_sub(1, std::memory_order_release);
  }
  borrowing.unlock();
  if (gone.charged) release_now(gone.gpu, ALLOT_KIND_IMPORT, gone.bytes);
}

void take_over_ended_loans() {
  if (uncharged.load(std::memory_order_acquire) == 0) return;
  for (uint32_t i = 0;; ++i) {
    Borrowed ended = {};
    borrowing.lock();
    const bool more = i < count;
    if (more && !list[i].charged && !offered_by_another(list[i].hash)) {
      list[i].charged = true;
      uncharged.fetch_sub(1, std::memory_order_release);
      ended = list[i];
    }
    borrowing.unlock();
    if (ended.charged) charge_now(ended.gpu, ALLOT_KIND_IMPORT, ended.bytes);
    if (!more) return;
  }
}

void abandon_exports() {
  borrowing.abandon();
  anything_offered.store(false);
  uncharged.store(0);
  list = nullptr;
  count = room = 0;
}

}  // namespace allot::shim
