// See subject.h.
#include "subject.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace allot::kernel_test {

enum Command : int { kSleep = 0, kMakeChild, kWakeUp, kExitThread, kExitProcess, kSpin };

struct Slot {
  std::atomic<int> command{kSleep};
  std::atomic<int> done{0};
  std::atomic<int> stop{0};
  int real = 0;
  int process = 0;  // virtual id of the leader
  long result = 0;
  uint64_t flags = 0;
  int cgroup_fd = -1;
  Slot* child = nullptr;
  char* stack = nullptr;
};

namespace {

constexpr size_t kStack = 16384;
std::vector<Slot*> free_slots;

// A system call without the C library: subjects have no errno of their own.
long raw(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0, long f = 0) {
  register long r10 asm("r10") = d;
  register long r8 asm("r8") = e;
  register long r9 asm("r9") = f;
  long result = 0;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
               : "rcx", "r11", "memory");
  return result;
}

void run_subject(Slot* slot);

// clone3 on a new stack: the child calls run_subject(slot) and never comes back.
long raw_clone3(clone_args* args, Slot* slot) {
  args->stack = reinterpret_cast<uint64_t>(slot->stack);
  args->stack_size = kStack;
  long result = 0;
  register void (*entry)(Slot*) asm("r12") = run_subject;
  register Slot* argument asm("r13") = slot;
  asm volatile(
      "syscall\n"
      "test %%rax, %%rax\n"
      "jnz 1f\n"
      "xor %%ebp, %%ebp\n"
      "mov %%r13, %%rdi\n"
      "call *%%r12\n"
      "hlt\n"
      "1:\n"
      : "=a"(result)
      : "a"(SYS_clone3), "D"(args), "S"(sizeof(clone_args)), "r"(entry), "r"(argument)
      : "rcx", "r11", "memory");
  return result;
}

void make_child(Slot* slot, bool from_driver) {
  clone_args args{};
  args.flags = slot->flags;
  if ((slot->flags & CLONE_THREAD) == 0) {
    // Every process becomes a child of the driver, so that the driver can wait for its end. With
    // CLONE_PARENT the signal is the parent's, and must not be given.
    if (from_driver) {
      args.exit_signal = SIGCHLD;
    } else {
      args.flags |= CLONE_PARENT;
    }
  }
  if (slot->cgroup_fd >= 0) {
    args.flags |= CLONE_INTO_CGROUP;
    args.cgroup = static_cast<uint64_t>(slot->cgroup_fd);
  }
  slot->result = raw_clone3(&args, slot->child);
}

void run_subject(Slot* slot) {
  while (true) {
    int what = slot->command.load(std::memory_order_acquire);
    if (what == kSleep) {
      raw(SYS_futex, reinterpret_cast<long>(&slot->command), FUTEX_WAIT, kSleep);
      continue;
    }
    if (what == kMakeChild) make_child(slot, false);
    if (what == kExitThread) raw(SYS_exit, 0);
    if (what == kExitProcess) raw(SYS_exit_group, 0);
    slot->command.store(kSleep, std::memory_order_release);
    slot->done.store(1, std::memory_order_release);
    raw(SYS_futex, reinterpret_cast<long>(&slot->done), FUTEX_WAKE, 1);
    if (what == kSpin) {
      while (slot->stop.load(std::memory_order_relaxed) == 0) asm volatile("" ::: "memory");
    }
  }
}

}  // namespace

Subjects::Subjects() = default;

Slot* Subjects::take() {
  Slot* slot = nullptr;
  if (!free_slots.empty()) {
    slot = free_slots.back();
    free_slots.pop_back();
  } else {
    slot = new Slot;
    void* stack = mmap(nullptr, kStack, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    slot->stack = static_cast<char*>(stack);
  }
  slot->command = kSleep;
  slot->done = 0;
  slot->stop = 0;
  slot->real = 0;
  return slot;
}

void Subjects::give_back(int id) {
  Slot* slot = slots_.at(id);
  by_real_.erase(slot->real);
  slots_.erase(id);
  free_slots.push_back(slot);
}

// Bounded: ETIME when a subject does not answer within 60 s.
bool Subjects::command(Slot* slot, int what) {
  slot->done = 0;
  slot->command.store(what, std::memory_order_release);
  syscall(SYS_futex, &slot->command, FUTEX_WAKE, 1);
  timespec limit{60, 0};
  while (slot->done.load(std::memory_order_acquire) == 0) {
    if (syscall(SYS_futex, &slot->done, FUTEX_WAIT, 0, &limit) != 0 && errno == ETIMEDOUT) {
      std::printf("driver: task %d does not answer\n", slot->real);
      return false;
    }
  }
  return true;
}

void Subjects::wait_sleeping(int tid) {
  char path[64];
  std::snprintf(path, sizeof path, "/proc/%d/stat", tid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  for (int i = 0; i < 100000 && fd >= 0; ++i) {
    char text[128];
    ssize_t size = pread(fd, text, sizeof text - 1, 0);
    if (size <= 0) break;
    text[size] = 0;
    const char* paren = std::strrchr(text, ')');
    if (paren != nullptr && paren[2] == 'S') break;
    sched_yield();
  }
  if (fd >= 0) close(fd);
}

int Subjects::fork(int parent, int child, bool thread, int cgroup_fd) {
  Slot* slot = take();
  slot->process = thread ? slots_.at(parent)->process : child;
  uint64_t flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND;
  if (thread) flags |= CLONE_THREAD | CLONE_SYSVSEM;
  long result = 0;
  if (parent == 1) {
    Slot driver;
    driver.flags = flags;
    driver.cgroup_fd = cgroup_fd;
    driver.child = slot;
    make_child(&driver, true);
    result = driver.result;
  } else {
    Slot* from = slots_.at(parent);
    from->flags = flags;
    from->cgroup_fd = cgroup_fd;
    from->child = slot;
    if (!command(from, kMakeChild)) return ETIME;
    result = from->result;
    wait_sleeping(from->real);
  }
  if (result < 0) {
    free_slots.push_back(slot);
    return static_cast<int>(-result);
  }
  slot->real = static_cast<int>(result);
  slots_[child] = slot;
  by_real_[slot->real] = child;
  wait_sleeping(slot->real);
  return 0;
}

int Subjects::wake(int id) {
  Slot* slot = slots_.at(id);
  if (!command(slot, kWakeUp)) return ETIME;
  wait_sleeping(slot->real);
  return 0;
}

int Subjects::spin(int id, bool on) {
  Slot* slot = slots_.at(id);
  if (on) return command(slot, kSpin) ? 0 : ETIME;
  slot->stop = 1;
  wait_sleeping(slot->real);
  slot->stop = 0;
  return 0;
}

int Subjects::exit(int id) {
  Slot* slot = slots_.at(id);
  bool leader = slot->process == id;
  slot->command.store(leader ? kExitProcess : kExitThread, std::memory_order_release);
  syscall(SYS_futex, &slot->command, FUTEX_WAKE, 1);
  if (leader) {
    while (waitpid(slot->real, nullptr, __WALL) < 0 && errno == EINTR) {
    }
    std::vector<int> gone;
    for (const auto& [other, each] : slots_) {
      if (each->process == id) gone.push_back(other);
    }
    for (int other : gone) give_back(other);
  } else {
    int process = slots_.at(slot->process)->real;
    for (int i = 0; i < 1000000 && syscall(SYS_tgkill, process, slot->real, 0) == 0; ++i)
      sched_yield();
    give_back(id);
  }
  return 0;
}

void Subjects::exit_all() {
  while (!slots_.empty()) exit(slots_.begin()->second->process);
}

int Subjects::real(int id) const {
  if (id == 1) return getpid();
  auto found = slots_.find(id);
  return found == slots_.end() ? 0 : found->second->real;
}

int Subjects::virtual_of(int tid) const {
  if (tid == getpid()) return 1;
  auto found = by_real_.find(tid);
  return found == by_real_.end() ? 0 : found->second;
}

int Subjects::process(int id) const {
  return id == 1 ? 1 : slots_.at(id)->process;
}

}  // namespace allot::kernel_test
