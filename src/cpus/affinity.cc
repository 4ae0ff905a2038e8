// Affinity and thread state: see affinity.h. Raw system calls, because glibc's sched_getaffinity
// hides the size that the kernel returned.
#include "cpus/affinity.h"

#include <fmt/format.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

namespace allot::cpus {

int set_affinity(pid_t tid, const CpuSet& set) {
  return syscall(SYS_sched_setaffinity, tid, CpuSet::bytes(), set.words()) == 0 ? 0 : errno;
}

int get_affinity(pid_t tid, CpuSet* set) {
  *set = {};
  return syscall(SYS_sched_getaffinity, tid, CpuSet::bytes(), set->words()) >= 0 ? 0 : errno;
}

int reset_user_mask(pid_t tid) {
  return set_affinity(tid, CpuSet::range(0, kMaxCpus - 1));
}

std::vector<pid_t> threads_of(const FsRoot& fs, pid_t pid) {
  std::vector<pid_t> tids;
  for (const std::string& name : fs.list(fmt::format("/proc/{}/task", pid))) {
    pid_t tid = 0;
    std::from_chars(name.data(), name.data() + name.size(), tid);
    if (tid > 0) tids.push_back(tid);
  }
  std::sort(tids.begin(), tids.end());
  return tids;
}

std::optional<CpuSet> mask_in_proc(const FsRoot& fs, pid_t pid, pid_t tid) {
  std::optional<std::string> status = fs.read(fmt::format("/proc/{}/task/{}/status", pid, tid));
  if (!status) return std::nullopt;
  Result<CpuSet> set = parse_list(status_value(*status, "Cpus_allowed_list"));
  if (!set) return std::nullopt;
  return *set;
}

std::optional<ThreadStat> thread_stat(const FsRoot& fs, pid_t pid, pid_t tid) {
  std::optional<std::string> text = fs.read(fmt::format("/proc/{}/task/{}/stat", pid, tid));
  if (!text) return std::nullopt;
  // The name in parentheses may hold anything, so fields are counted from the last ")": the next
  // one is field 3.
  size_t close = text->rfind(')');
  if (close == std::string::npos) return std::nullopt;
  std::string_view rest = trim(std::string_view(*text).substr(close + 1));
  ThreadStat stat;
  uint64_t user = 0, system = 0;
  for (int field = 3; !rest.empty(); ++field) {
    size_t end = rest.find(' ');
    std::string_view word = rest.substr(0, end);
    auto number = [&word](auto* out) {
      std::from_chars(word.data(), word.data() + word.size(), *out);
    };
    if (field == 3) stat.state = word.empty() ? '?' : word[0];
    if (field == 4) number(&stat.parent);
    if (field == 9) number(&stat.flags);
    if (field == 14) number(&user);
    if (field == 15) number(&system);
    if (field == 22) number(&stat.start_ticks);
    if (field == 39) number(&stat.last_cpu);
    if (end == std::string_view::npos) break;
    rest.remove_prefix(end + 1);
  }
  stat.cpu_ticks = user + system;
  return stat;
}

std::optional<ProcessId> identify(const FsRoot& fs, pid_t pid) {
  std::optional<ThreadStat> stat = thread_stat(fs, pid, pid);
  if (!stat) return std::nullopt;
  return ProcessId{pid, stat->start_ticks};
}

bool alive(const FsRoot& fs, const ProcessId& id) {
  std::optional<ThreadStat> stat = thread_stat(fs, id.pid, id.pid);
  if (!stat || stat->start_ticks != id.start_ticks) return false;
  if (stat->state == 'X') return false;
  if (stat->state != 'Z') return true;
  // A leader that ended before its other threads shows as a zombie while the process still runs.
  return threads_of(fs, id.pid).size() > 1;
}

}  // namespace allot::cpus
