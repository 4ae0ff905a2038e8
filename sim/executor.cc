// Taking work from a context's streams in an order that CUDA allows, and doing it.
//
// A head may run when everything it must follow has ended: an event it waits for, a value in
// memory, and, for the legacy stream and the blocking ones, each other's earlier work (compared by
// Work::order). Streams are otherwise independent; here they take turns on one thread, so nothing
// may block the thread while another stream could run: host functions are handed to a second
// thread.
#include "executor.h"

#include <signal.h>
#include <sys/prctl.h>

#include <algorithm>

#include "context.h"
#include "handles.h"
#include "runtime.h"

namespace allot::sim {
namespace {

uint64_t read_value(uint64_t address, bool wide) {
  return wide ? __atomic_load_n(reinterpret_cast<uint64_t*>(address), __ATOMIC_ACQUIRE)
              : __atomic_load_n(reinterpret_cast<uint32_t*>(address), __ATOMIC_ACQUIRE);
}

bool value_there(const ValueBody& body) {
  const uint64_t now = read_value(body.address, body.wide);
  switch (body.flags & 3u) {
    case CU_STREAM_WAIT_VALUE_GEQ:
      return body.wide ? static_cast<int64_t>(now - body.value) >= 0
                       : static_cast<int32_t>(static_cast<uint32_t>(now - body.value)) >= 0;
    case CU_STREAM_WAIT_VALUE_EQ:
      return now == body.value;
    case CU_STREAM_WAIT_VALUE_AND:
      return (now & body.value) != 0;
    default:
      return body.wide ? ~(now | body.value) != 0 : static_cast<uint32_t>(~(now | body.value)) != 0;
  }
}

bool blocking(const Stream* s) {
  return (s->flags & CU_STREAM_NON_BLOCKING) == 0;
}

// Legacy stream and blocking streams wait for each other's earlier work.
bool order_allows(const Context* c, const Stream* s, uint64_t order) {
  if (!blocking(s)) return true;
  if (!s->legacy) {
    const Stream* legacy = c->streams[0];
    return legacy->queue.empty() || legacy->queue.front().order > order;
  }
  return std::all_of(c->streams.begin(), c->streams.end(), [&](const Stream* other) {
    return other == s || !blocking(other) || other->queue.empty() ||
           other->queue.front().order > order;
  });
}

bool event_done(const WaitBody& wait) {
  if (wait.event->shared != nullptr) return wait.event->shared->done.load() >= wait.number;
  return wait.event->completed.load() >= wait.number;
}

// Next stream whose head may run; null = none. Context::mutex held.
Stream* pick(Context* c) {
  Stream* best = nullptr;
  c->polls = false;
  for (Stream* s : c->streams) {
    if (s->queue.empty() || s->in_host) continue;
    const Work& head = s->queue.front();
    if (best != nullptr &&
        (best->priority < s->priority ||
         (best->priority == s->priority && best->queue.front().order < head.order))) {
      continue;
    }
    if (!order_allows(c, s, head.order)) continue;
    if (const auto* wait = std::get_if<WaitBody>(&head.body);
        wait != nullptr && !event_done(*wait)) {
      if (wait->event->shared != nullptr) c->polls = true;
      continue;
    }
    if (const auto* value = std::get_if<ValueBody>(&head.body);
        value != nullptr && value->wait && !value_there(*value)) {
      c->polls = true;
      continue;
    }
    best = s;
  }
  return best;
}

void fail(Context* c, CUresult error) {
  CUresult none = CUDA_SUCCESS;
  c->error.compare_exchange_strong(none, error);
}

void record(const RecordBody& body, int64_t time_ns) {
  EventState& event = *body.event;
  if (event.completed.load() < body.number) {
    event.time_ns = time_ns;
    event.completed = body.number;
  }
  if (event.shared != nullptr && event.shared->done.load() < body.number) {
    event.shared->time_ns = time_ns;
    event.shared->done = body.number;
  }
}

// Does `work`, the head of `s` until now. No lock is held.
void perform(Context* c, Stream* s, Work& work, GpuHold& gpu) {
  if (c->error != CUDA_SUCCESS) {
    // What waits on this context still must end; only its own effects are gone.
    if (auto* body = std::get_if<RecordBody>(&work.body)) record(*body, now_ns());
    return;
  }
  const int64_t ready = std::max(work.ready_ns, s->end_ns);
  CUresult result = CUDA_SUCCESS;
  if (auto* kernel = std::get_if<KernelBody>(&work.body)) {
    const KernelOutcome outcome = do_kernel(*kernel);
    result = outcome.result;
    if (result == CUDA_SUCCESS) s->end_ns = gpu.run(outcome.duration_ns, ready, c->quit);
  } else if (auto* set = std::get_if<SetBody>(&work.body)) {
    result = do_set(*set);
    const auto bytes = static_cast<int64_t>(set->width * set->element * set->height);
    s->end_ns = gpu.run(2'000 + bytes / 1500, ready, c->quit);
  } else if (auto* copy = std::get_if<CopyBody>(&work.body)) {
    gpu.wait_resumed(c->quit);
    result = do_copy(*copy);
    s->end_ns = std::max(ready, now_ns());
  } else if (auto* event = std::get_if<RecordBody>(&work.body)) {
    record(*event, ready);
    s->end_ns = ready;
  } else if (auto* wait = std::get_if<WaitBody>(&work.body)) {
    s->end_ns = std::max<int64_t>(ready, wait->event->time_ns);
  } else if (auto* value = std::get_if<ValueBody>(&work.body)) {
    s->end_ns = ready;
    if (value->wait) {
      s->end_ns = std::max(ready, now_ns());
    } else if (value->wide) {
      __atomic_store_n(reinterpret_cast<uint64_t*>(value->address), value->value, __ATOMIC_RELEASE);
    } else {
      __atomic_store_n(reinterpret_cast<uint32_t*>(value->address),
                       static_cast<uint32_t>(value->value), __ATOMIC_RELEASE);
    }
  } else if (auto* task = std::get_if<TaskBody>(&work.body)) {
    task->run();
  }
  if (result != CUDA_SUCCESS) fail(c, result);
}

// The head of `s` has ended. Context::mutex held.
void finish(Context* c, Stream* s) {
  const uint64_t completed = s->completed.fetch_add(1) + 1;
  c->pending.fetch_sub(1);
  if (completed >= s->wake_at.load()) {
    s->wake_at = UINT64_MAX;
    hub().notify();
  }
  if (s->destroyed && s->queue.empty()) {
    std::erase(c->streams, s);
    Handles<Stream>::bury(s);
  }
}

// An event was recorded: whoever waits for it, here or in other contexts, looks again.
void notify_others(Context* c) {
  hub().notify();
  if (living_context_count() == 1) return;
  for (Context* other : living_contexts()) {
    if (other == c) continue;
    std::lock_guard<std::mutex> lock(other->mutex);
    if (other->executor_waits) other->work.notify_one();
  }
}

void host_loop(Context* c) {
  std::unique_lock<std::mutex> lock(c->mutex);
  while (true) {
    c->host_work.wait(lock, [&] { return c->quit || !c->host_queue.empty(); });
    if (c->quit) return;
    auto [s, body] = std::move(c->host_queue.front());
    c->host_queue.pop_front();
    lock.unlock();
    if (auto* host = std::get_if<HostBody>(&body)) {
      if (c->error == CUDA_SUCCESS) host->function(host->data);
    } else if (auto* call = std::get_if<CallbackBody>(&body)) {
      call->function(call->stream, c->error.load(), call->data);
    }
    lock.lock();
    s->end_ns = std::max(s->end_ns, now_ns());
    s->in_host = false;
    s->queue.pop_front();
    finish(c, s);
    c->work.notify_one();
  }
}

bool is_host(const Body& body) {
  return std::holds_alternative<HostBody>(body) || std::holds_alternative<CallbackBody>(body);
}

// A thread that never takes a signal meant for the host.
std::thread quiet_thread(void (*body)(Context*), Context* c) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread thread(body, c);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return thread;
}

void wait_for_work(Context* c, std::unique_lock<std::mutex>& lock) {
  c->executor_waits = true;
  if (c->polls) {
    c->work.wait_for(lock, std::chrono::microseconds(50));
  } else {
    c->work.wait(lock);
  }
  c->executor_waits = false;
}

void executor_loop(Context* c) {
  prctl(PR_SET_TIMERSLACK, 1000);
  GpuHold gpu(c->gpu, c->group);
  bool holding = false;
  std::unique_lock<std::mutex> lock(c->mutex);
  while (!c->quit) {
    Stream* s = pick(c);
    if (s == nullptr) {
      if (holding) {  // dry: the GPU goes to others before this thread sleeps
        lock.unlock();
        gpu.idle();
        holding = false;
        lock.lock();
        continue;
      }
      wait_for_work(c, lock);
      continue;
    }
    if (is_host(s->queue.front().body)) {
      if (!c->host_thread.joinable()) {
        c->host_thread = quiet_thread(host_loop, c);
      }
      s->in_host = true;
      c->host_queue.emplace_back(s, s->queue.front().body);
      c->host_work.notify_one();
      continue;
    }
    Work work = std::move(s->queue.front());
    s->queue.pop_front();
    lock.unlock();
    perform(c, s, work, gpu);
    holding = true;
    const bool tells_others = std::holds_alternative<RecordBody>(work.body);
    lock.lock();
    if (c->quit) break;
    finish(c, s);
    if (tells_others) {
      lock.unlock();
      notify_others(c);
      lock.lock();
    }
  }
  lock.unlock();
  gpu.idle();
}

}  // namespace

void start_executor(Context* c) {
  if (!c->executor.joinable()) c->executor = quiet_thread(executor_loop, c);
}

void stop_executor(Context* c) {
  {
    std::lock_guard<std::mutex> lock(c->mutex);
    c->quit = true;
  }
  GpuHold(c->gpu, c->group).kick();
  c->work.notify_all();
  c->host_work.notify_all();
  hub().notify();
  if (c->executor.joinable()) c->executor.join();
  if (c->host_thread.joinable()) c->host_thread.join();
}

void wake_executors() {
  notify_others(nullptr);
}

}  // namespace allot::sim
