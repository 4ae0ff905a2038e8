// Pages, their owners, and their addresses in this process.
#include "vram.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <mutex>

namespace allot::sim {
namespace {

struct Opened {
  std::mutex mutex;
  int fd[kMaxGpus];
  std::atomic<uint64_t> base[kMaxGpus];
};

Opened& opened() {
  static Opened& state = *new Opened;
  return state;
}

// mmap as the kernel sees it: a sanitizer would otherwise prepare shadow for the whole card.
void* raw_map(void* at, size_t bytes, int protection, int flags, int fd, int64_t offset) {
  const long r = syscall(SYS_mmap, at, bytes, protection, flags, fd, offset);
  return r == -1 ? MAP_FAILED : reinterpret_cast<void*>(r);
}

int vram_fd(uint32_t gpu) {
  return opened().fd[gpu];
}

// clear_slot() also runs in processes that opened no GPU (NVML): open for the moment.
int borrow_fd(uint32_t gpu, bool* close_it) {
  *close_it = opened().base[gpu].load() == 0;
  if (!*close_it) return vram_fd(gpu);
  return open((machine_folder() + "/gpu" + std::to_string(gpu) + ".vram").c_str(),
              O_RDWR | O_CLOEXEC);
}

void punch(int fd, uint32_t first, uint32_t count) {
  if (fd < 0) return;
  fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(first * kPageBytes),
            static_cast<off_t>(count * kPageBytes));
}

void take_run(Gpu& gpu, uint32_t first, uint32_t count, uint32_t slot, Runs* runs) {
  for (uint32_t i = first; i < first + count; i++) {
    gpu.pages[i] = Page{static_cast<uint16_t>(slot + 1), 0, 0};
  }
  if (!runs->empty() && runs->back().first + runs->back().count == first) {
    runs->back().count += count;
  } else {
    runs->push_back(Run{first, count});
  }
}

// First fit from the cursor on, then from the start; page_count when there is no such run.
uint32_t find_run(const Gpu& gpu, uint32_t from, uint32_t to, uint32_t count) {
  uint32_t length = 0;
  for (uint32_t i = from; i < to; i++) {
    length = gpu.pages[i].owner == 0 ? length + 1 : 0;
    if (length == count) return i + 1 - count;
  }
  return gpu.page_count;
}

bool take_locked(Machine* m, uint32_t index, uint32_t count, uint32_t slot, Runs* runs) {
  Gpu& gpu = m->gpus[index];
  if (gpu.free_pages < count) return false;
  // The count goes first: dying in between leaves it too small, which recount_locked() mends.
  gpu.free_pages -= count;
  uint32_t first = find_run(gpu, gpu.cursor, gpu.page_count, count);
  if (first == gpu.page_count) first = find_run(gpu, 0, gpu.page_count, count);
  if (first != gpu.page_count) {
    take_run(gpu, first, count, slot, runs);
    gpu.cursor = first + count;
  } else {
    uint32_t left = count;
    for (uint32_t i = 0; left > 0 && i < gpu.page_count; i++) {
      if (gpu.pages[i].owner != 0) continue;
      take_run(gpu, i, 1, slot, runs);
      left--;
    }
    gpu.cursor = 0;
  }
  m->slots[slot].pages[index] += count;
  return true;
}

void give_locked(Machine* m, uint32_t index, const Run& run) {
  Gpu& gpu = m->gpus[index];
  for (uint32_t i = run.first; i < run.first + run.count; i++) {
    if (gpu.pages[i].owner == 0) continue;
    ProcessSlot& owner = m->slots[gpu.pages[i].owner - 1];
    const bool parked = gpu.pages[i].share == kParked;
    parked ? owner.parked[index]-- : owner.pages[index]--;
    gpu.pages[i] = Page{};
    if (!parked) gpu.free_pages++;
  }
  gpu.cursor = std::min(gpu.cursor, run.first);
}

}  // namespace

bool open_vram(uint32_t gpu) {
  Opened& state = opened();
  std::lock_guard<std::mutex> lock(state.mutex);
  if (state.base[gpu] != 0) return true;
  const uint64_t bytes = machine()->gpus[gpu].page_count * kPageBytes;
  const std::string path = machine_folder() + "/gpu" + std::to_string(gpu) + ".vram";
  const int fd = open_machine_file(path);
  if (fd < 0) return false;
  const uint64_t at =
      ftruncate(fd, static_cast<off_t>(bytes)) == 0 ? reserve_va(bytes, kPageBytes, 0) : 0;
  if (at == 0 || raw_map(reinterpret_cast<void*>(at), bytes, PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd, 0) == MAP_FAILED) {
    close(fd);
    return false;
  }
  madvise(reinterpret_cast<void*>(at), bytes, MADV_DONTDUMP);
  state.fd[gpu] = fd;
  state.base[gpu].store(at);
  return true;
}

uint64_t gpu_base(uint32_t gpu) {
  return opened().base[gpu].load(std::memory_order_relaxed);
}

Runs take_pages(uint32_t gpu, uint32_t count) {
  Runs runs;
  {
    MachineLock lock;
    if (take_locked(machine(), gpu, count, my_slot(), &runs)) return runs;
  }
  reclaim_dead();
  MachineLock lock;
  take_locked(machine(), gpu, count, my_slot(), &runs);
  return runs;
}

void give_pages(uint32_t gpu, const Runs& runs, bool touched) {
  // Contents go while the pages are still ours, or they could be the next owner's.
  if (touched) {
    for (const Run& run : runs) punch(vram_fd(gpu), run.first, run.count);
  }
  MachineLock lock;
  for (const Run& run : runs) give_locked(machine(), gpu, run);
}

uint64_t free_bytes(uint32_t gpu) {
  reclaim_dead();
  MachineLock lock;
  return machine()->gpus[gpu].free_pages * kPageBytes;
}

bool map_runs(uint32_t gpu, const Runs& runs, uint64_t va, int protection) {
  for (const Run& run : runs) {
    const uint64_t bytes = run.count * kPageBytes;
    if (raw_map(reinterpret_cast<void*>(va), bytes, protection,
                MAP_SHARED | MAP_FIXED | MAP_NORESERVE, vram_fd(gpu),
                static_cast<int64_t>(run.first * kPageBytes)) == MAP_FAILED) {
      return false;
    }
    va += bytes;
  }
  return true;
}

uint64_t reserve_va(uint64_t bytes, uint64_t alignment, uint64_t wish) {
  if (bytes == 0 || bytes > (1ull << 46)) return 0;
  alignment = std::max(alignment, kPageBytes);
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  if (wish != 0 && wish % alignment == 0) {
    void* at = raw_map(reinterpret_cast<void*>(wish), bytes, PROT_NONE, flags | MAP_FIXED_NOREPLACE,
                       -1, 0);
    if (at == reinterpret_cast<void*>(wish)) return wish;
    if (at != MAP_FAILED) munmap(at, bytes);
  }
  void* at = raw_map(nullptr, bytes + alignment, PROT_NONE, flags, -1, 0);
  if (at == MAP_FAILED) return 0;
  const auto start = reinterpret_cast<uint64_t>(at);
  const uint64_t aligned = (start + alignment - 1) / alignment * alignment;
  if (aligned > start) munmap(at, aligned - start);
  if (aligned < start + alignment) {
    munmap(reinterpret_cast<void*>(aligned + bytes), start + alignment - aligned);
  }
  return aligned;
}

void clear_va(uint64_t va, uint64_t bytes) {
  raw_map(reinterpret_cast<void*>(va), bytes, PROT_NONE,
          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

void release_va(uint64_t va, uint64_t bytes) {
  munmap(reinterpret_cast<void*>(va), bytes);
}

bool make_share(uint32_t gpu_index, const Runs& runs, ShareName* out) {
  MachineLock lock;
  Machine* m = machine();
  Gpu& gpu = m->gpus[gpu_index];
  for (uint32_t i = 0; i < kMaxShares; i++) {
    Share& share = m->shares[i];
    if (share.used != 0) continue;
    memset(&share, 0, sizeof share);
    share.gpu = gpu_index;
    share.first_page = runs[0].first;
    share.generation = m->next_generation++;
    Page* last = nullptr;
    for (const Run& run : runs) {
      for (uint32_t p = run.first; p < run.first + run.count; p++) {
        if (last != nullptr) last->next = p;
        last = &gpu.pages[p];
        last->share = static_cast<uint16_t>(i + 1);
        share.page_count++;
      }
    }
    share.holders[my_slot() / 64] = 1ull << (my_slot() % 64);
    share.used = 1;
    *out = ShareName{i, share.generation};
    return true;
  }
  return false;
}

Runs hold_share(const ShareName& name, uint32_t* gpu_index) {
  Runs runs;
  if (name.index >= kMaxShares) return runs;
  MachineLock lock;
  Machine* m = machine();
  Share& share = m->shares[name.index];
  if (share.used == 0 || share.generation != name.generation) return runs;
  *gpu_index = share.gpu;
  Gpu& gpu = m->gpus[share.gpu];
  uint32_t page = share.first_page;
  for (uint32_t i = 0; i < share.page_count && page < gpu.page_count; i++) {
    if (!runs.empty() && runs.back().first + runs.back().count == page) {
      runs.back().count++;
    } else {
      runs.push_back(Run{page, 1});
    }
    page = gpu.pages[page].next;
  }
  share.holders[my_slot() / 64] |= 1ull << (my_slot() % 64);
  return runs;
}

void drop_share(uint32_t index) {
  MachineLock lock;
  drop_share_locked(machine(), index, my_slot());
}

void drop_share_locked(Machine* m, uint32_t index, uint32_t slot) {
  Share& share = m->shares[index];
  const uint64_t bit = 1ull << (slot % 64);
  if (share.used == 0 || (share.holders[slot / 64] & bit) == 0) return;
  share.holders[slot / 64] &= ~bit;
  uint32_t heir = UINT32_MAX;
  for (uint32_t i = 0; i < kMaxSlots / 64 && heir == UINT32_MAX; i++) {
    if (share.holders[i] != 0)
      heir = i * 64 + static_cast<uint32_t>(__builtin_ctzll(share.holders[i]));
  }
  Gpu& gpu = m->gpus[share.gpu];
  bool close_it = false;
  const int fd = heir == UINT32_MAX ? borrow_fd(share.gpu, &close_it) : -1;
  uint32_t page = share.first_page;
  for (uint32_t i = 0; i < share.page_count && page < gpu.page_count; i++) {
    Page& entry = gpu.pages[page];
    const uint32_t next = entry.next;
    if (heir == UINT32_MAX) {
      punch(fd, page, 1);
      give_locked(m, share.gpu, Run{page, 1});
    } else if (entry.owner == slot + 1) {
      // As on a card, memory of others is in no process's figure.
      m->slots[slot].pages[share.gpu]--;
      m->slots[kDescriptors].pages[share.gpu]++;
      entry.owner = static_cast<uint16_t>(kDescriptors + 1);
    }
    page = next;
  }
  if (heir == UINT32_MAX) share.used = 0;
  if (close_it && fd >= 0) close(fd);
}

namespace {
std::string holder_path(const ShareName& name) {
  return machine_folder() + "/share" + std::to_string(name.index) + "-" +
         std::to_string(name.generation);
}

// flock(2): <sys/file.h> cannot be had beside a folder of ours of that name.
bool lock_whole(int fd, int how) {
  constexpr int kNoWait = 4;
  return syscall(SYS_flock, fd, how | kNoWait) == 0;
}
constexpr int kShared = 1, kExclusive = 2;
}  // namespace

// Each descriptor holds a lock of the share's file, which ends when the last copy of it is closed.
int open_share_holder(const ShareName& name) {
  const int fd = open_machine_file(holder_path(name));
  if (fd < 0) return -1;
  if (!lock_whole(fd, kShared)) {
    close(fd);
    return -1;
  }
  MachineLock lock;
  Share& share = machine()->shares[name.index];
  share.holders[kDescriptors / 64] |= 1ull << (kDescriptors % 64);
  return fd;
}

void drop_closed_shares_locked(Machine* m) {
  for (uint32_t i = 0; i < kMaxShares; i++) {
    Share& share = m->shares[i];
    if (share.used == 0 || (share.holders[kDescriptors / 64] >> (kDescriptors % 64) & 1u) == 0)
      continue;
    const std::string path = holder_path({i, share.generation});
    const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    const bool open_somewhere = fd >= 0 && !lock_whole(fd, kExclusive);
    if (fd >= 0) close(fd);
    if (open_somewhere) continue;
    unlink(path.c_str());
    drop_share_locked(m, i, kDescriptors);
  }
}

bool has_shares() {
  MachineLock lock;
  const uint32_t slot = my_slot();
  for (const Share& share : machine()->shares) {
    if (share.used != 0 && (share.holders[slot / 64] >> (slot % 64) & 1u) != 0) return true;
  }
  return false;
}

namespace {

uint32_t parked_on(const Machine* m, uint32_t g) {
  uint32_t sum = 0;
  for (const ProcessSlot& slot : m->slots) sum += slot.parked[g];
  return sum;
}

void set_parked(Machine* m, uint32_t g, uint32_t slot, bool parked) {
  Gpu& gpu = m->gpus[g];
  for (uint32_t i = 0; i < gpu.page_count; i++) {
    Page& page = gpu.pages[i];
    if (page.owner == slot + 1) page.share = parked ? kParked : 0;
  }
  ProcessSlot& mine = m->slots[slot];
  uint32_t& from = parked ? mine.pages[g] : mine.parked[g];
  uint32_t& to = parked ? mine.parked[g] : mine.pages[g];
  gpu.free_pages = parked ? gpu.free_pages + from : gpu.free_pages - from;
  to += from;
  from = 0;
}

}  // namespace

bool park_pages() {
  MachineLock lock;
  Machine* m = machine();
  const uint32_t slot = my_slot();
  for (uint32_t g = 0; g < m->gpu_count; g++) {
    const uint32_t room = m->gpus[g].page_count - m->gpus[g].card_pages;
    if (parked_on(m, g) + m->slots[slot].pages[g] > room) return false;
  }
  for (uint32_t g = 0; g < m->gpu_count; g++) set_parked(m, g, slot, true);
  return true;
}

bool unpark_pages() {
  reclaim_dead();
  MachineLock lock;
  Machine* m = machine();
  const uint32_t slot = my_slot();
  for (uint32_t g = 0; g < m->gpu_count; g++) {
    if (m->slots[slot].parked[g] > m->gpus[g].free_pages) return false;
  }
  for (uint32_t g = 0; g < m->gpu_count; g++) set_parked(m, g, slot, false);
  return true;
}

void free_all_of_locked(Machine* m, uint32_t gpu_index, uint32_t slot) {
  Gpu& gpu = m->gpus[gpu_index];
  bool close_it = false;
  const int fd = borrow_fd(gpu_index, &close_it);
  for (uint32_t i = 0; i < gpu.page_count;) {
    uint32_t count = 0;
    while (i + count < gpu.page_count && gpu.pages[i + count].owner == slot + 1) count++;
    if (count > 0) {
      punch(fd, i, count);
      give_locked(m, gpu_index, Run{i, count});
    }
    i += count + 1;
  }
  if (close_it && fd >= 0) close(fd);
}

void recount_locked(Machine* m) {
  for (uint32_t g = 0; g < m->gpu_count; g++) {
    Gpu& gpu = m->gpus[g];
    for (ProcessSlot& slot : m->slots) slot.pages[g] = slot.parked[g] = 0;
    uint32_t taken = 0;
    for (uint32_t i = 0; i < gpu.page_count; i++) {
      if (gpu.pages[i].owner == 0 || gpu.pages[i].owner > kMaxSlots) continue;
      ProcessSlot& owner = m->slots[gpu.pages[i].owner - 1];
      const bool parked = gpu.pages[i].share == kParked;
      parked ? owner.parked[g]++ : owner.pages[g]++;
      taken += parked ? 0 : 1;
    }
    gpu.free_pages = taken < gpu.card_pages ? gpu.card_pages - taken : 0;
  }
}

}  // namespace allot::sim
