// Streams: finding them by handle, queueing work, waiting for it.
#include <algorithm>

#include <sys/syscall.h>
#include <unistd.h>

#include "executor.h"
#include "handles.h"
#include "runtime.h"

namespace allot::sim {
namespace {

struct ThreadStream {  // trivial cache of this thread's own stream
  Context* context;
  uint64_t serial;
  Stream* stream;
};
thread_local ThreadStream t_stream;

Stream* thread_stream(Context* c) {
  if (t_stream.context == c && t_stream.serial == c->serial) return t_stream.stream;
  const int thread = static_cast<int>(syscall(SYS_gettid));
  Stream* stream = nullptr;
  {
    std::lock_guard<std::mutex> lock(c->mutex);
    auto it = c->thread_streams.find(thread);
    if (it != c->thread_streams.end()) stream = it->second;
  }
  if (stream == nullptr) {
    stream = make_stream(c, 0, 0);
    std::lock_guard<std::mutex> lock(c->mutex);
    c->thread_streams[thread] = stream;
  }
  t_stream = ThreadStream{c, c->serial, stream};
  return stream;
}

// With Context::mutex held; wakes the executor after it is dropped when true.
bool enqueue_locked(Context* c, Stream* s, Body&& body, int64_t now) {
  s->queue.push_back(Work{++c->next_order, now, std::move(body)});
  s->submitted.fetch_add(1);
  c->pending.fetch_add(1);
  return c->executor_waits;
}

// True when `s` has ended `target` pieces of work. When not, asks the executor to say so: called as
// a Hub predicate, where every notice makes each waiter ask again.
bool reached(Stream* s, uint64_t target) {
  if (s->completed.load() >= target) return true;
  uint64_t wanted = s->wake_at.load();
  while (wanted > target && !s->wake_at.compare_exchange_weak(wanted, target)) {
  }
  return s->completed.load() >= target;
}

// A full queue is waited for until some room is there, so that a launching thread sleeps seldom.
void wait_for_room(Stream* s) {
  Context* c = s->context;
  const uint64_t target = s->submitted.load() - kQueueLimit + 32;
  hub().wait([&] { return c->error != CUDA_SUCCESS || c->quit || reached(s, target); });
}

bool full(Stream* s) {
  return s->submitted.load() - s->completed.load() >= kQueueLimit;
}

}  // namespace

CUresult find_stream(CUstream handle, bool ptds, Stream** out) {
  if (handle == nullptr || handle == CU_STREAM_LEGACY || handle == CU_STREAM_PER_THREAD) {
    Context* c = nullptr;
    if (const CUresult r = current_context(&c); r != CUDA_SUCCESS) return r;
    const bool own = handle == CU_STREAM_PER_THREAD || (handle == nullptr && ptds);
    *out = own ? thread_stream(c) : c->legacy;
    return CUDA_SUCCESS;
  }
  auto* s = reinterpret_cast<Stream*>(handle);
  if (s->magic != kStreamMagic) return CUDA_ERROR_INVALID_HANDLE;
  if (const CUresult error = s->context->error.load(); error != CUDA_SUCCESS) return error;
  *out = s;
  return CUDA_SUCCESS;
}

Stream* make_stream(Context* c, unsigned flags, int priority) {
  static std::atomic<uint64_t> last_id{0};
  auto* s = Handles<Stream>::make();
  s->context = c;
  s->flags = flags;
  s->priority = std::clamp(priority, -5, 0);
  s->id = ++last_id;
  std::lock_guard<std::mutex> lock(c->mutex);
  c->streams.push_back(s);
  return s;
}

void destroy_stream(Stream* s) {
  Context* c = s->context;
  std::lock_guard<std::mutex> lock(c->mutex);
  s->magic = 0;
  s->destroyed = true;  // the executor drops it when it has run dry
  if (s->completed.load() == s->submitted.load()) {
    std::erase(c->streams, s);
    Handles<Stream>::bury(s);
  }
}

CUresult submit(Stream* s, Body&& body) {
  if (__builtin_expect(capturing(s), 0)) return capture_body(s, std::move(body));
  Context* c = s->context;
  if (full(s)) {
    wait_for_room(s);
    if (const CUresult error = c->error.load(); error != CUDA_SUCCESS) return error;
  }
  const int64_t now = now_ns();
  bool wake;
  {
    std::lock_guard<std::mutex> lock(c->mutex);
    if (c->quit) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    start_executor(c);
    wake = enqueue_locked(c, s, std::move(body), now);
  }
  if (wake) c->work.notify_one();
  return CUDA_SUCCESS;
}

CUresult submit_all(Stream* s, std::vector<Body>&& bodies) {
  Context* c = s->context;
  if (full(s)) wait_for_room(s);
  if (const CUresult error = c->error.load(); error != CUDA_SUCCESS) return error;
  const int64_t now = now_ns();
  bool wake = false;
  {
    std::lock_guard<std::mutex> lock(c->mutex);
    if (c->quit) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    start_executor(c);
    for (Body& body : bodies) wake = enqueue_locked(c, s, std::move(body), now);
  }
  if (wake) c->work.notify_one();
  return CUDA_SUCCESS;
}

bool idle(const Context* c) {
  return c->pending.load() == 0;
}

CUresult synchronize(Stream* s) {
  Context* c = s->context;
  const uint64_t target = s->submitted.load();
  // The legacy stream also stands for what it would wait for: all blocking streams.
  std::vector<std::pair<Stream*, uint64_t>> others;
  if (s->legacy) {
    std::lock_guard<std::mutex> lock(c->mutex);
    for (Stream* other : c->streams) {
      if ((other->flags & CU_STREAM_NON_BLOCKING) == 0)
        others.emplace_back(other, other->submitted.load());
    }
  }
  hub().wait([&] {
    if (c->error != CUDA_SUCCESS || c->quit) return true;
    return reached(s, target) && std::all_of(others.begin(), others.end(), [](const auto& o) {
             return reached(o.first, o.second);
           });
  });
  pools_after_sync(c->gpu);
  return c->error.load();
}

CUresult synchronize(Context* c) {
  std::vector<std::pair<Stream*, uint64_t>> all;
  {
    std::lock_guard<std::mutex> lock(c->mutex);
    for (Stream* s : c->streams) all.emplace_back(s, s->submitted.load());
  }
  hub().wait([&] {
    return c->error != CUDA_SUCCESS || c->quit ||
           std::all_of(all.begin(), all.end(),
                       [](const auto& o) { return reached(o.first, o.second); });
  });
  pools_after_sync(c->gpu);
  return c->error.load();
}

}  // namespace allot::sim
