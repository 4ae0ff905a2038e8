// Memory and events that processes of one software machine share by handle.
#pragma once

#include "machine.h"

namespace allot::sim {

struct Context;

// Closes the memory of other processes that `context` has opened.
void drop_context_ipc(Context* context);
IpcEvent* take_ipc_event();  // null: all are in use
void drop_ipc_event(IpcEvent* event);

}  // namespace allot::sim
