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

// kLent: charged to who offers it. kTaking: that one has ended, and a thread is charging us.
enum class Loan : uint8_t { kLent, kTaking, kCharged };

struct Borrowed {
  uint64_t address;
  uint64_t hash;
  uint64_t bytes;
  uint32_t gpu;
  Loan loan;
  bool closed;  // while it was being charged: who charges takes it out
  uint64_t id;
};

constexpr uint32_t kFirstRoom = 128;
constinit SpinLock borrowing;
constinit Borrowed* list = nullptr;
constinit uint32_t count = 0;
constinit uint32_t room = 0;
constinit uint64_t next_id = 1;
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
    if (list[i].address == address && !list[i].closed) return &list[i];
  }
  return nullptr;
}
Borrowed* find_id(uint64_t id) {
  for (uint32_t i = 0; i < count; ++i) {
    if (list[i].id == id) return &list[i];
  }
  return nullptr;
}

// `borrowing` is held. False when it is there already, or no memory can be had.
bool add(uint64_t address, uint64_t hash, uint64_t bytes, uint32_t gpu, Loan loan) {
  if (find(address) != nullptr || (count == room && !grow())) return false;
  list[count++] = {address, hash, bytes, gpu, loan, false, next_id++};
  if (loan == Loan::kLent) uncharged.fetch_add(1, std::memory_order_release);
  return true;
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
  borrowing.lock();
  const bool added = add(address, hash, bytes, gpu, Loan::kLent);
  borrowing.unlock();
  return added;
}

bool charge_import(uint64_t key, uint64_t bytes, uint32_t gpu) {
  constexpr int kTries = 8;  // each lost one means that another thread maps the same allocation
  for (int tries = 0; tries < kTries; ++tries) {
    uint64_t before = 0;
    borrowing.lock();
    Borrowed* at = find(key);
    const bool there = at != nullptr;
    const bool lent = there && at->loan == Loan::kLent;
    if (lent && bytes > at->bytes) at->bytes = bytes;
    if (there) before = at->bytes;
    borrowing.unlock();
    if (lent || (there && bytes <= before)) return true;
    if (!there && offered_by_another(kDescriptorOffer)) {
      if (borrow(key, kDescriptorOffer, bytes, gpu)) return true;
      continue;
    }
    const Device* device = device_of_gpu(gpu);
    if (device == nullptr || !reserve(*device, ALLOT_KIND_IMPORT, bytes - before)) return false;
    borrowing.lock();
    at = find(key);
    bool done = false;
    if (there && at != nullptr && at->loan != Loan::kLent && at->bytes == before) {
      at->bytes = bytes;
      done = true;
    } else if (!there) {
      done = add(key, kDescriptorOffer, bytes, gpu, Loan::kCharged);
    }
    borrowing.unlock();
    if (done) return true;
    release(*device, ALLOT_KIND_IMPORT, bytes - before);
  }
  return false;
}

void borrowed_closed(uint64_t address) {
  Borrowed gone = {};
  borrowing.lock();
  if (Borrowed* at = find(address)) {
    if (at->loan == Loan::kTaking) {
      at->closed = true;
    } else {
      gone = *at;
      *at = list[--count];
    }
    if (gone.id != 0 && gone.loan == Loan::kLent) uncharged.fetch_sub(1, std::memory_order_release);
  }
  borrowing.unlock();
  if (gone.loan == Loan::kCharged) release_now(gone.gpu, ALLOT_KIND_IMPORT, gone.bytes);
}

void take_over_ended_loans() {
  if (uncharged.load(std::memory_order_acquire) == 0) return;
  for (uint32_t i = 0;; ++i) {
    Borrowed ended = {};
    borrowing.lock();
    const bool more = i < count;
    if (more && list[i].loan == Loan::kLent && !offered_by_another(list[i].hash)) {
      list[i].loan = Loan::kTaking;
      uncharged.fetch_sub(1, std::memory_order_release);
      ended = list[i];
    }
    borrowing.unlock();
    if (!more) return;
    if (ended.id == 0) continue;
    charge_now(ended.gpu, ALLOT_KIND_IMPORT, ended.bytes);
    uint64_t closed_bytes = 0;
    borrowing.lock();
    if (Borrowed* at = find_id(ended.id)) {
      at->loan = Loan::kCharged;
      if (at->closed) {
        closed_bytes = at->bytes;
        *at = list[--count];
      }
    }
    borrowing.unlock();
    if (closed_bytes > 0) release_now(ended.gpu, ALLOT_KIND_IMPORT, closed_bytes);
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
