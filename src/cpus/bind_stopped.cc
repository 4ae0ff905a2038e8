// The stop protocol of attach.h.
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <map>
#include <set>

#include "cpus/attach.h"

namespace allot::cpus {
namespace {

using Clock = std::chrono::steady_clock;

double ms_since(Clock::time_point from) {
  return std::chrono::duration<double, std::milli>(Clock::now() - from).count();
}

// Continues the process when it goes out of scope, and when this process dies before that: a helper
// holds the other end of a pipe and acts on end-of-file without a farewell.
class StopGuard {
 public:
  explicit StopGuard(pid_t pid) : pid_(pid) {
    int ends[2];
    if (pipe(ends) != 0) return;
    helper_ = fork();
    if (helper_ == 0) {
      close(ends[1]);
      setsid();  // Ctrl-C is for us, not for the helper
      char farewell = 0;
      if (::read(ends[0], &farewell, 1) != 1) kill(pid_, SIGCONT);
      _exit(0);
    }
    close(ends[0]);
    pipe_ = ends[1];
  }
  StopGuard(const StopGuard&) = delete;
  StopGuard& operator=(const StopGuard&) = delete;
  ~StopGuard() {
    if (stopped_) kill(pid_, SIGCONT);
    if (pipe_ >= 0) {
      // Should the write fail, the helper sends one SIGCONT more.
      if (write(pipe_, "x", 1) != 1) errno = 0;
      close(pipe_);
    }
    if (helper_ > 0) waitpid(helper_, nullptr, 0);
  }
  bool ready() const { return helper_ > 0; }
  int stop() {
    if (kill(pid_, SIGSTOP) != 0) return errno;
    stopped_ = true;
    return 0;
  }

 private:
  pid_t pid_;
  pid_t helper_ = -1;
  int pipe_ = -1;
  bool stopped_ = false;
};

bool is_stopped(char state) {
  return state == 'T' || state == 't';
}
bool is_over(char state) {
  return state == 'Z' || state == 'X';
}

int thread_count(const FsRoot& fs, pid_t pid) {
  std::string status = fs.read(fmt::format("/proc/{}/status", pid)).value_or("");
  std::string_view text = status_value(status, "Threads");
  int n = 0;
  std::from_chars(text.data(), text.data() + text.size(), n);
  return n;
}

// Waits until every thread is stopped; `tids` are then all of them. Returns 0, ESRCH or ETIMEDOUT.
// A thread seen stopped is not looked at again: only SIGCONT or SIGKILL would change it.
int wait_all_stopped(const FsRoot& fs, pid_t pid, int timeout_ms, std::vector<pid_t>* tids) {
  Clock::time_point end = Clock::now() + std::chrono::milliseconds(timeout_ms);
  std::set<pid_t> still;
  while (true) {
    *tids = threads_of(fs, pid);
    if (tids->empty()) return ESRCH;
    bool all = true;
    for (pid_t tid : *tids) {
      if (still.count(tid) != 0) continue;
      std::optional<ThreadStat> stat = thread_stat(fs, pid, tid);
      if (stat && (is_stopped(stat->state) || is_over(stat->state))) {
        still.insert(tid);
      } else {
        all = false;
        if (stat) break;  // still running: the rest can wait, too
      }
    }
    // The listing may have skipped threads while others ended; the kernel's own count tells.
    if (all && thread_count(fs, pid) == static_cast<int>(tids->size())) return 0;
    if (Clock::now() >= end) return ETIMEDOUT;
    poll(nullptr, 0, 1);
  }
}

tl::unexpected<Failure> gone(pid_t pid) {
  return failure(Errc::kNotFound, fmt::format("process {} has ended", pid), ESRCH);
}

// Sets every mask; puts back those already set when one is refused. ESRCH of a single thread cannot
// happen while stopped, except by SIGKILL, and is then no failure.
int bind_all(const std::vector<pid_t>& tids, const CpuSet& cpus, const CpuSet* only, int* bound) {
  std::map<pid_t, CpuSet> before;
  for (pid_t tid : tids) {
    CpuSet old;
    const bool known = get_affinity(tid, &old) == 0;
    if (only != nullptr && known && old != *only) continue;
    if (known) before[tid] = old;
    int error = set_affinity(tid, cpus);
    if (error == ESRCH) continue;
    if (error != 0) {
      for (auto& [done, mask] : before) {
        if (done != tid && !mask.empty()) set_affinity(done, mask);
      }
      return error;
    }
    ++*bound;
  }
  return 0;
}

}  // namespace

int threads_outside(pid_t pid, const CpuSet& cpus) {
  int outside = 0;
  for (pid_t tid : threads_of(FsRoot{}, pid)) {
    std::optional<ThreadStat> stat = thread_stat(FsRoot{}, pid, tid);
    if (!stat || is_over(stat->state)) continue;  // the dead do not run anywhere
    CpuSet mask;
    // An empty answer is a thread whose only CPU is offline: it is not elsewhere.
    if (get_affinity(tid, &mask) == 0 && !cpus.contains(mask)) ++outside;
  }
  return outside;
}

Expected<BindReport> bind_stopped(pid_t pid, const CpuSet& cpus, int timeout_ms,
                                  const CpuSet* only) {
  FsRoot fs;
  std::optional<ThreadStat> leader = thread_stat(fs, pid, pid);
  if (!leader) return failure(Errc::kNotFound, fmt::format("there is no process {}", pid), ESRCH);
  if ((leader->flags & kPfKthread) != 0) {
    return failure(Errc::kUnsupported, fmt::format("process {} is a kernel thread", pid), EINVAL);
  }
  if (pid == getpid()) return failure(Errc::kUnsupported, "allot cannot stop itself", EINVAL);
  BindReport report;
  StopGuard guard(pid);
  if (!guard.ready())
    return failure(Errc::kSystem, "cannot start the helper that would continue the process",
                   EAGAIN);
  Clock::time_point from = Clock::now();
  std::vector<pid_t> tids;
  // A process that its user has stopped already stays stopped.
  bool already = is_stopped(leader->state);
  int error = already ? 0 : guard.stop();
  if (error == ESRCH) return gone(pid);
  if (error != 0) {
    return failure(Errc::kNoPermission, fmt::format("process {} belongs to another user", pid),
                   error);
  }
  error = wait_all_stopped(fs, pid, timeout_ms, &tids);
  report.stop_ms = ms_since(from);
  if (error == ESRCH) return gone(pid);
  if (error != 0) {
    return failure(Errc::kSystem,
                   fmt::format("a thread of process {} did not stop within {} ms", pid, timeout_ms),
                   error);
  }
  error = bind_all(tids, cpus, only, &report.threads);
  if (error != 0) {
    Hierarchy h = find_hierarchy(fs);
    std::string group = group_of(fs, h, pid).value_or("");
    std::string why = std::strerror(error);
    if (Expected<GroupState> state = read_group(fs, h, group); error == EINVAL && state)
      why = fmt::format("its cpuset {} allows CPUs {} only", group, to_list(state->effective_cpus));
    return failure(error == EPERM ? Errc::kNoPermission : Errc::kUnsupported,
                   fmt::format("cannot bind process {} to CPUs {}: {}", pid, to_list(cpus), why),
                   error);
  }
  if (report.threads == 0 && only == nullptr) return gone(pid);
  report.unverified = threads_outside(pid, cpus);
  report.paused_ms = ms_since(from);
  return report;
}

}  // namespace allot::cpus
