// Physical memory of the software GPUs: 2 MiB pages of one sparse file per GPU.
//
// A page belongs to one process slot (Page::owner). The host commits memory when a page is first
// touched and takes it back (a hole is punched) when the page is freed, so a card may be larger
// than the machine. Freed pages read as zero for their next owner.
//
// Every GPU's file is mapped once, whole: physical page p stands at gpu_base(g) + p * 2 MiB. Memory
// whose pages lie in a row is used at that address and costs no system call; memory in pieces gets
// a range of its own by map_runs().
#pragma once

#include <cstdint>
#include <vector>

#include "machine.h"

namespace allot::sim {

struct Run {  // pages in a row
  uint32_t first;
  uint32_t count;
};
using Runs = std::vector<Run>;

// Maps GPU `gpu`'s file. False when the file or address space cannot be had. Once per process and
// GPU.
bool open_vram(uint32_t gpu);
uint64_t gpu_base(uint32_t gpu);  // 0 before open_vram

// `count` pages for this process, in as few runs as can be. Empty when the card is full. Clears
// dead processes away before it gives up. Takes the machine lock.
Runs take_pages(uint32_t gpu, uint32_t count);
// Pages back to the card. Their contents are dropped. `touched` false: nobody wrote to them.
void give_pages(uint32_t gpu, const Runs& runs, bool touched = true);
uint64_t free_bytes(uint32_t gpu);  // reclaims dead processes first

// Maps `runs` in order at `va` (inside a range of reserve_va), or makes them unreachable again.
bool map_runs(uint32_t gpu, const Runs& runs, uint64_t va, int protection);
uint64_t reserve_va(uint64_t bytes, uint64_t alignment, uint64_t wish);  // PROT_NONE; 0 = none
void clear_va(uint64_t va, uint64_t bytes);                              // back to PROT_NONE
void release_va(uint64_t va, uint64_t bytes);

// Shares. A share is named by (index, generation); holders are process slots.
struct ShareName {
  uint32_t index;
  uint64_t generation;
};
bool make_share(uint32_t gpu, const Runs& runs, ShareName* out);
// Adds this process as holder and returns the pages; empty when the name is stale.
Runs hold_share(const ShareName& name, uint32_t* gpu);
void drop_share(uint32_t index);
// A descriptor that keeps the share until it is closed everywhere, by every process it was sent to.
// -1: none.
int open_share_holder(const ShareName& name);

// An evicted process. Its pages keep their places (so its addresses stay right) and their contents,
// which the host holds anyway, but the card has them free. False, nothing changed: places or,
// coming back, room on the card are missing on some GPU. Takes the machine lock.
bool park_pages();
bool unpark_pages();
// Whether this process shares memory with others, as owner or as user.
bool has_shares();

// For machine.cc, which holds the lock.
void drop_closed_shares_locked(Machine* m);
void drop_share_locked(Machine* m, uint32_t index, uint32_t slot);
void free_all_of_locked(Machine* m, uint32_t gpu, uint32_t slot);
void recount_locked(Machine* m);

}  // namespace allot::sim
