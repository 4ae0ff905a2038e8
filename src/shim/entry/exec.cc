// The exec family and posix_spawn: a program started with an empty environment (`env -i`, sudo-like
// launchers, job runners) stays in its slice.
//
// This concerns only a process that was itself started in a slice; any other gets libc's function
// with its own arguments. The code also runs in vfork children, which share memory with their
// parent: it writes only to memory of its own, and only the process that owns the slot marks it
// (AllotSlot.execing). errno is that of the call.
#include <dlfcn.h>
#include <spawn.h>
#include <unistd.h>

#include <atomic>
#include <cstdarg>
#include <cstddef>

#include "shim/entry/child_environment.h"
#include "shim/process/process.h"
#include "sys/environment.h"
#include "sys/file.h"
#include "sys/glibc_floor.h"
#include "sys/keep_errno.h"
#include "sys/process.h"

namespace allot::shim {
namespace {

using Execve = int (*)(const char*, char* const*, char* const*);
using Fexecve = int (*)(int, char* const*, char* const*);
using Spawn = int (*)(pid_t*, const char*, const posix_spawn_file_actions_t*,
                      const posix_spawnattr_t*, char* const*, char* const*);

// libc's functions, looked up when the library loads: dlsym takes a lock that a forked child of a
// threaded program may never get.
struct Libc {
  std::atomic<void*> execve{nullptr};
  std::atomic<void*> execvpe{nullptr};
  std::atomic<void*> fexecve{nullptr};
  std::atomic<void*> posix_spawn{nullptr};
  std::atomic<void*> posix_spawnp{nullptr};
};
constinit Libc libc;

template <class Fn>
Fn real_function(std::atomic<void*>& place, const char* name) {
  void* address = place.load(std::memory_order_acquire);
  if (address == nullptr) {
    address = dlsym(RTLD_NEXT, name);
    place.store(address, std::memory_order_release);
  }
  return reinterpret_cast<Fn>(address);
}

__attribute__((constructor)) void look_up() {
  const sys::KeepErrno keep;
  real_function<Execve>(libc.execve, "execve");
  real_function<Execve>(libc.execvpe, "execvpe");
  real_function<Fexecve>(libc.fexecve, "fexecve");
  real_function<Spawn>(libc.posix_spawn, "posix_spawn");
  real_function<Spawn>(libc.posix_spawnp, "posix_spawnp");
}

// Marks our slot: the next image may not have our library. From then on the slot lives only as long
// as the process maps the slice file.
void mark_execing(bool execing) {
  if (process.state.load(std::memory_order_acquire) != State::kOn) return;
  if (process.pid != sys::current_pid()) return;
  shm::set_execing(process.slice, process.slot, execing);
}

constexpr uint64_t kMostOnStack = 24 * 1024;  // a thread may have no more than 64 KiB

// For an environment that is too large for the stack. In a child of vfork the mapping stays with
// the parent after exec. Without memory the child must find its slice by its ancestors.
template <class Start>
int with_slice_mapped(char* const* envp, const EnvironmentPlan& plan, uint64_t bytes, Start start) {
  void* memory = nullptr;
  {
    const sys::KeepErrno keep;
    const Result<void*> mapped = sys::map_memory(bytes);
    if (mapped) memory = *mapped;
  }
  if (memory == nullptr) return start(envp);
  char** entries = static_cast<char**>(memory);
  complete_environment(envp, plan, entries, reinterpret_cast<char*>(entries + plan.entries));
  const int result = start(entries);
  const sys::KeepErrno keep;
  sys::unmap(memory, bytes);
  return result;
}

// Calls call(environment) with the completed `envp`; the array and its texts are on this stack
// frame where they fit.
template <class Call>
int with_slice(char* const* envp, Call call) {
  const EnvironmentPlan plan = plan_environment(envp);
  if (!plan.needed) return call(envp);
  const uint64_t bytes = uint64_t{plan.entries} * sizeof(char*) + plan.text_bytes + 1;
  if (bytes > kMostOnStack) return with_slice_mapped(envp, plan, bytes, call);
  char** entries = static_cast<char**>(__builtin_alloca(plan.entries * sizeof(char*)));
  char* text = static_cast<char*>(__builtin_alloca(plan.text_bytes + 1));
  complete_environment(envp, plan, entries, text);
  return call(entries);
}

template <class Call>
int exec_with_slice(char* const* envp, Call call) {
  return with_slice(envp, [&](char* const* environment) {
    mark_execing(true);
    const int result = call(environment);
    const sys::KeepErrno keep;
    mark_execing(false);
    return result;
  });
}

int exec_path(const char* path, char* const* argv, char* const* envp) {
  return exec_with_slice(envp, [&](char* const* environment) {
    return real_function<Execve>(libc.execve, "execve")(path, argv, environment);
  });
}

int exec_search(const char* file, char* const* argv, char* const* envp) {
  return exec_with_slice(envp, [&](char* const* environment) {
    return real_function<Execve>(libc.execvpe, "execvpe")(file, argv, environment);
  });
}

// Arguments of execl, execlp and execle up to their final null.
size_t count_arguments(va_list list) {
  size_t count = 1;
  while (va_arg(list, char*) != nullptr) ++count;
  return count;
}

}  // namespace

#define ALLOT_EXPORT extern "C" __attribute__((visibility("default")))

ALLOT_EXPORT int execve(const char* path, char* const argv[], char* const envp[]) noexcept {
  return exec_path(path, argv, envp);
}

ALLOT_EXPORT int execv(const char* path, char* const argv[]) noexcept {
  return exec_path(path, argv, environ);
}

ALLOT_EXPORT int execvp(const char* file, char* const argv[]) noexcept {
  return exec_search(file, argv, environ);
}

ALLOT_EXPORT int execvpe(const char* file, char* const argv[], char* const envp[]) noexcept {
  return exec_search(file, argv, envp);
}

ALLOT_EXPORT int fexecve(int fd, char* const argv[], char* const envp[]) noexcept {
  return exec_with_slice(envp, [&](char* const* environment) {
    return real_function<Fexecve>(libc.fexecve, "fexecve")(fd, argv, environment);
  });
}

// The three variadic forms: the arguments become an array on this stack frame. ALLOT_ARGUMENTS
// leaves `list` after the final null.
#define ALLOT_ARGUMENTS(first, argv, list)                                         \
  va_list list;                                                                    \
  va_start(list, first);                                                           \
  const size_t argc = first == nullptr ? 0 : count_arguments(list);                \
  va_end(list);                                                                    \
  char** argv = static_cast<char**>(__builtin_alloca((argc + 1) * sizeof(char*))); \
  argv[0] = const_cast<char*>(first);                                              \
  va_start(list, first);                                                           \
  for (size_t i = 1; i <= argc; ++i) argv[i] = va_arg(list, char*)

ALLOT_EXPORT int execl(const char* path, const char* first, ...) noexcept {
  ALLOT_ARGUMENTS(first, argv, list);
  va_end(list);
  return exec_path(path, argv, environ);
}

ALLOT_EXPORT int execlp(const char* file, const char* first, ...) noexcept {
  ALLOT_ARGUMENTS(first, argv, list);
  va_end(list);
  return exec_search(file, argv, environ);
}

ALLOT_EXPORT int execle(const char* path, const char* first, ...) noexcept {
  ALLOT_ARGUMENTS(first, argv, list);
  char* const* envp = va_arg(list, char* const*);
  va_end(list);
  return exec_path(path, argv, envp);
}

ALLOT_EXPORT int posix_spawn(pid_t* pid, const char* path,
                             const posix_spawn_file_actions_t* actions,
                             const posix_spawnattr_t* attributes, char* const argv[],
                             char* const envp[]) {
  return with_slice(envp, [&](char* const* environment) {
    return real_function<Spawn>(libc.posix_spawn, "posix_spawn")(pid, path, actions, attributes,
                                                                 argv, environment);
  });
}

ALLOT_EXPORT int posix_spawnp(pid_t* pid, const char* file,
                              const posix_spawn_file_actions_t* actions,
                              const posix_spawnattr_t* attributes, char* const argv[],
                              char* const envp[]) {
  return with_slice(envp, [&](char* const* environment) {
    return real_function<Spawn>(libc.posix_spawnp, "posix_spawnp")(pid, file, actions, attributes,
                                                                   argv, environment);
  });
}

}  // namespace allot::shim
