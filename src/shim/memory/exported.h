// Memory that processes of a slice lend each other by handles: charged once, as long as anybody
// holds it.
//
// Who made it is charged for it and offers it in the region (AllotExport). Who opens an offer of
// its own slice borrows it and pays nothing, until the offer ends: with the block, its context or
// its process. The memory is then kept alive by the borrower alone, who takes the charge over
// before the next thing it asks for.
#pragma once

#include <cstdint>

#include "driver/cuda_abi.h"
#include "shim/process/pointer_table.h"
#include "shim/process/process.h"

namespace allot::shim {

// This process gave out a handle with this hash for the block that begins at `base` and dies with
// `context`. A full region forgets it: openers are then charged. Any thread.
void offer_block(CUdeviceptr base, uint64_t hash, uint64_t context);

// The block at `base` was freed: nobody can open its handles any more. One load while nothing was
// ever offered.
void exported_block_gone(CUdeviceptr base);

// The same for all that died with a context.
void exported_context_gone(CUcontext context);

// `address` was opened by an offer of the slice's own: uncharged, `bytes` large. False when no
// memory can be had to remember it.
bool borrow(uint64_t address, uint64_t hash, uint64_t bytes, uint32_t gpu);

// It was closed.
void borrowed_closed(uint64_t address);

// An exported descriptor cannot be told from another, so processes that have given out any share
// one offer, and whoever imports one borrows it while another process of the slice offers.
inline constexpr uint64_t kDescriptorOffer = 0x64662d746f6c6c61;  // "allot-fd"
inline uint64_t import_key(uint64_t serial) {
  return serial | uint64_t{1} << 63;
}

// An allocation that came by a descriptor is `bytes` large at least: borrowed, or charged to `gpu`
// of the region. False when it does not fit below the limit. Closed by borrowed_closed(key).
bool charge_import(uint64_t key, uint64_t bytes, uint32_t gpu);

// Charges what is borrowed from nobody any more, even above the limit. One load while nothing is
// borrowed.
void take_over_ended_loans();

// In a forked child that starts afresh.
void abandon_exports();

}  // namespace allot::shim
