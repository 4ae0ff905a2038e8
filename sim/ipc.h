// Memory and events that processes of one software machine share by handle.
#pragma once

#include "driver/cuda_abi.h"
#include "machine.h"
#include "memory.h"

namespace allot::sim {

struct Context;

// A handle for the block of that kind around `address`; another process opens and closes it.
bool name_memory(uint64_t address, Kind kind, CUipcMemHandle* out);
CUresult open_memory(CUdeviceptr* out, const CUipcMemHandle& handle);
CUresult close_memory(CUdeviceptr address);

// Closes the memory of other processes that `context` has opened.
void drop_context_ipc(Context* context);
IpcEvent* take_ipc_event();  // null: all are in use
void drop_ipc_event(IpcEvent* event);

}  // namespace allot::sim
