// Contexts of this process and each thread's stack of current ones.
#pragma once

#include <mutex>

namespace allot::sim {

struct Context;

Context* new_context();
bool push_context(Context* context);  // false: the stack is full
Context* pop_context();               // null: the stack is empty
void set_context(Context* context);   // replaces the top; null takes it away
std::mutex& primary_lock();           // guards retained/alive of primary contexts

// Ends the executor and the host function thread; what was queued stays undone.
void stop_executor(Context* context);

}  // namespace allot::sim
