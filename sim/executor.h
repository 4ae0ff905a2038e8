// The thread that does a context's work.
#pragma once

namespace allot::sim {

struct Context;

void start_executor(Context* context);  // Context::mutex held; once per life of a context

}  // namespace allot::sim
