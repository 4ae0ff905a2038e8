// See stop_members.h. In a slice of GPUs is who holds a slot of it, who was started with it in the
// environment, and who inherited the launcher's descriptor; in one of CPUs who is in its group, or
// without one its program and what that has started.
#include "cli/stop_members.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "abi/env.h"
#include "core/shared.h"
#include "shm/living.h"
#include "sys/process.h"
#ifdef ALLOT_HAVE_CPUS
#include "cli/cpus/cpu_slices.h"
#include "cli/region/region_view.h"
#endif

namespace allot::cli {
namespace {

bool add_pid(void* pids, uint32_t pid) {
  static_cast<Pids*>(pids)->insert(pid);
  return true;
}

bool is_ancestor(uint32_t pid) {
  constexpr int kDeepest = 64;
  uint32_t at = sys::current_pid();
  for (int i = 0; i < kDeepest && at > 1; ++i) {
    const auto process = sys::read_process(sys::Root{}, at);
    if (!process) return false;
    at = process->parent;
    if (at == pid) return true;
  }
  return false;
}

uint32_t launcher_of(const shm::Slice& slice, const shm::Living& living) {
  const auto home = sys::pid_namespace(sys::Root{}, 0);
  const AllotHeader& header = slice.file->header;
  if (!home || *home != header.pid_namespace || header.launcher_pid <= 0) return 0;
  return living.launcher() ? static_cast<uint32_t>(header.launcher_pid) : 0;
}

// A process of another pid namespace has another number here; it is found in /proc where that
// namespace is below ours.
Pids members_of(const shm::Slice& slice) {
  Pids pids;
  const shm::Living living(slice);
  const AllotSliceFile& file = *slice.file;
  const auto home = sys::pid_namespace(sys::Root{}, 0);
  const uint32_t high = core::slots_of(file);
  for (uint32_t i = 0; home && i < high; ++i) {
    const uint64_t word = core::load(file.slot_words[i]);
    if (ALLOT_SLOT_STATE(word) != ALLOT_SLOT_LIVE || !living.slot(i)) continue;
    if (core::load(file.slots[i].pid_namespace) == *home) pids.insert(ALLOT_SLOT_PID(word));
  }
  shm::visit_members(slice, add_pid, &pids);
  const uint32_t launcher = launcher_of(slice, living);
  const bool became_program = pids.contains(launcher) && !living.launcher_waits();
  if (!became_program) pids.erase(launcher);
  pids.erase(0);
  pids.erase(sys::current_pid());
  return pids;
}

bool used_by_others(const shm::Slice& slice) {
  if ((core::load(slice.file->header.flags) & ALLOT_SLICE_LEAVING) != 0) return false;
  const uint32_t launcher = launcher_of(slice, shm::Living(slice));
  // It waits for us, and removes the slice when we have ended.
  if (launcher != 0 && is_ancestor(launcher)) return !members_of(slice).empty();
  return shm::slice_in_use(slice, sys::current_pid());
}

// A descriptor of the slice that its launcher has left to us keeps the slice in use.
void drop_own_hold(const shm::Slice& slice) {
  const uint32_t number = core::load(slice.file->header.members_fd);
  if (number == 0 || number > INT32_MAX) return;
  const auto info = sys::info_of(static_cast<int>(number));
  if (info && info->inode == slice.inode && info->device == slice.device)
    close(static_cast<int>(number));
}

}  // namespace

Ending ending_of(const shm::Slice& slice) {
  drop_own_hold(slice);
  const shm::Slice* at = &slice;
  return {[at] { return members_of(*at); }, [at] { return used_by_others(*at); },
          [at] {
            Pids pids = {launcher_of(*at, shm::Living(*at))};
            pids.erase(0);
            return pids;
          },
          [at] {
            const uint32_t launcher = launcher_of(*at, shm::Living(*at));
            return launcher != 0 && is_ancestor(launcher);
          }};
}

Ending ending_of_cpus(const std::string& name) {
#ifdef ALLOT_HAVE_CPUS
  const std::string folder = region_folder(false);
  const auto now = [folder, name] { return read_cpu_members(folder, name); };
  if (!now()) return {};
  const auto members = [now] {
    Pids pids;
    if (const auto found = now()) pids = found->members;
    pids.erase(sys::current_pid());
    return pids;
  };
  const auto launcher = [now] {
    Pids pids;
    if (const auto found = now()) pids = found->launchers;
    return pids;
  };
  const auto used = [now, members, launcher] {
    if (!now()) return false;
    const Pids waiting = launcher();
    return std::none_of(waiting.begin(), waiting.end(), is_ancestor) || !members().empty();
  };
  return {members, used, launcher, [] { return true; }};
#else
  (void)name;
  return {};
#endif
}

int signal_one(const std::function<Pids()>& who, uint32_t pid, int number) {
  const long held = syscall(SYS_pidfd_open, pid, 0);
  if (held < 0) {
    if (errno != ENOSYS) return errno;
    if (!who().contains(pid)) return ESRCH;
    return kill(static_cast<pid_t>(pid), number) == 0 ? 0 : errno;
  }
  const sys::Fd pidfd(static_cast<int>(held));
  if (!who().contains(pid)) return ESRCH;
  return syscall(SYS_pidfd_send_signal, pidfd.get(), number, nullptr, 0) == 0 ? 0 : errno;
}

std::string hidden_why(const shm::Slice& slice) {
  const auto home = sys::pid_namespace(sys::Root{}, 0);
  if (home && *home != slice.file->header.pid_namespace)
    return "they are in another container (pid namespace)";
  const uint32_t launcher = launcher_of(slice, shm::Living(slice));
  if (launcher == 0) return "another container or user namespace hides them";
  const std::string path = "/proc/" + std::to_string(launcher) + "/environ";
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd >= 0) close(fd);
  if (fd < 0 && (errno == EACCES || errno == EPERM))
    return "this user may not look at them (another user namespace, or another user's)";
  return "";
}

}  // namespace allot::cli
