// See guest_kernel.h.
#include "guest_kernel.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace allot::kernel_test {

using model::Cpusets;
using model::Hierarchy;
using model::Mask;

namespace {

std::string read_fd(int fd) {
  std::string text;
  char buffer[4096];
  off_t at = 0;
  while (true) {
    ssize_t size = pread(fd, buffer, sizeof buffer, at);
    if (size < 0) return "!" + std::to_string(errno);
    if (size == 0) return text;
    text.append(buffer, static_cast<size_t>(size));
    if (static_cast<size_t>(size) < sizeof buffer) return text;  // these files come in one piece
    at += size;
  }
}

Mask field_of(const std::string& status, const char* field) {
  Mask mask;
  size_t at = status.find(field);
  if (at == std::string::npos) return mask;
  at += std::strlen(field);
  model::parse_list(std::string_view(status).substr(at, status.find('\n', at) - at), 1024, &mask);
  return mask;
}

}  // namespace

GuestKernel::GuestKernel(Hierarchy hierarchy) : hierarchy_(hierarchy), root_("/cg") {
  mkdir("/cg", 0755);
  const char* type = hierarchy == Hierarchy::kV2 ? "cgroup2" : "cgroup";
  const char* data = hierarchy == Hierarchy::kV2   ? ""
                     : hierarchy == Hierarchy::kV1 ? "cpuset"
                                                   : "cpuset,cpuset_v2_mode";
  if (mount("none", "/cg", type, 0, data) != 0) {
    std::printf("driver: cannot mount %s (%s): %s\n", type, data, std::strerror(errno));
    std::abort();
  }
}

int GuestKernel::write_file(const std::string& path, const std::string& text) {
  int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return errno;
  ssize_t size = write(fd, text.data(), text.size());
  int err = size < 0 ? errno : 0;
  close(fd);
  return err;
}

std::string GuestKernel::read_file(const std::string& path) {
  int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return "!" + std::to_string(errno);
  std::string text = read_fd(fd);
  close(fd);
  return text;
}

model::Machine GuestKernel::machine() {
  model::Machine machine;
  auto list = [&](const char* path) {
    Mask mask;
    model::parse_list(read_file(path), 1024, &mask);
    return mask;
  };
  machine.possible_cpus = list("/sys/devices/system/cpu/possible");
  machine.online_cpus = list("/sys/devices/system/cpu/online");
  machine.possible_nodes = list("/sys/devices/system/node/possible");
  machine.memory_nodes = list("/sys/devices/system/node/has_memory");
  if (hierarchy_ != Hierarchy::kV2) {
    int level = -1;
    while (write_file(root_ + "/cpuset.sched_relax_domain_level", std::to_string(level + 1)) == 0)
      ++level;
    write_file(root_ + "/cpuset.sched_relax_domain_level", "-1");
    machine.sched_domain_level_max = level - 1;
  }
  return machine;
}

int GuestKernel::affinity(int real, const std::string& list) {
  Mask mask;
  model::parse_list(list, 8, &mask);
  cpu_set_t set;
  CPU_ZERO(&set);
  for (int cpu = mask.first(); cpu >= 0; cpu = mask.next(cpu)) CPU_SET(cpu, &set);
  return sched_setaffinity(real, sizeof set, &set) == 0 ? 0 : errno;
}

int GuestKernel::hotplug(int cpu, bool up) {
  return write_file("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/online",
                    up ? "1" : "0");
}

// The kernel frees a removed group after an RCU grace period; until then it still counts as a
// child.
void GuestKernel::wait_groups(size_t count) {
  for (int i = 0; i < 20000; ++i) {
    std::string text = cached_read("proc", "cgroups");
    size_t at = text.find("\ncpuset\t");
    if (at == std::string::npos) return;
    unsigned hierarchy = 0;
    unsigned groups = 0;
    if (std::sscanf(text.c_str() + at + 8, "%u %u", &hierarchy, &groups) == 2 && groups == count)
      return;
    usleep(500);
  }
  std::printf("driver: removed groups are not freed\n");
}

// Any write to subtree_control first waits for controllers that are going away.
void GuestKernel::drain() {
  write_file(root_ + "/cgroup.subtree_control", "\n");
}

int GuestKernel::write_op(const Op& op) {
  std::string text = op.text;
  if (text.starts_with('@')) {
    int id = std::atoi(text.c_str() + 1);
    text = std::to_string(subjects_.known(id) ? subjects_.real(id) : kNoSuchTask) + "\n";
  }
  bool control = op.file == "cgroup.subtree_control";
  if (control) forget_files("");
  int err = write_file(root_ + op.path + "/" + op.file, text);
  if (control) drain();
  return err;
}

int GuestKernel::apply(const Op& op, const Cpusets& before) {
  switch (op.kind) {
    case Kind::kMkdir:
      return mkdir((root_ + op.path).c_str(), 0755) == 0 ? 0 : errno;
    case Kind::kRmdir: {
      forget_files(op.path);
      if (rmdir((root_ + op.path).c_str()) != 0) return errno;
      wait_groups(before.groups().size() - 1);
      return 0;
    }
    case Kind::kWrite:
      return write_op(op);
    case Kind::kForkInto: {
      int fd = open((root_ + op.path).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
      if (fd < 0) return errno;
      int err = ESRCH;  // a parent that shrinking has left out; the model looks for the group first
      if (subjects_.known(op.tid) || op.tid == 1) err = subjects_.fork(op.tid, op.child, false, fd);
      close(fd);
      return err;
    }
    case Kind::kFork:
    case Kind::kThread:
      if (!subjects_.known(op.tid) && op.tid != 1) return ESRCH;
      return subjects_.fork(op.tid, op.child, op.kind == Kind::kThread);
    case Kind::kExit: {
      if (!subjects_.known(op.tid)) return ESRCH;
      for (auto& [id, fd] : status_fds_) close(fd);
      status_fds_.clear();
      return subjects_.exit(op.tid);
    }
    case Kind::kWake:
      return subjects_.known(op.tid) ? subjects_.wake(op.tid) : ESRCH;
    case Kind::kAffinity:
      return affinity(subjects_.known(op.tid) ? subjects_.real(op.tid) : kNoSuchTask, op.text);
    case Kind::kOffline:
      return hotplug(op.cpu, false);
    case Kind::kOnline:
      return hotplug(op.cpu, true);
  }
  return EINVAL;
}

std::string GuestKernel::cached_read(const std::string& group, const std::string& file) {
  // v1 keeps a snapshot of tasks and cgroup.procs behind an open file: these are opened anew.
  bool fresh = hierarchy_ != Hierarchy::kV2 && (file == "tasks" || file == "cgroup.procs");
  std::string path = group == "proc" ? "/proc/" + file : root_ + group + "/" + file;
  if (fresh) return read_file(path);
  auto found = fds_.find(path);
  if (found == fds_.end()) {
    int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return "!" + std::to_string(errno);
    found = fds_.emplace(path, fd).first;
  }
  return read_fd(found->second);
}

void GuestKernel::forget_files(const std::string& group) {
  std::string prefix = root_ + group;
  for (auto it = fds_.begin(); it != fds_.end();) {
    if (it->first.starts_with(prefix) && !it->first.starts_with("/proc")) {
      close(it->second);
      it = fds_.erase(it);
    } else {
      ++it;
    }
  }
}

std::vector<int> GuestKernel::ids_in(const std::string& text) const {
  std::vector<int> ids;
  for (size_t at = 0; at < text.size(); at = text.find('\n', at) + 1) {
    int id = subjects_.virtual_of(std::atoi(text.c_str() + at));
    if (id != 0) ids.push_back(id);
    if (text.find('\n', at) == std::string::npos) break;
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

Mask GuestKernel::task_mask(int real, const char* field) {
  return field_of(read_file("/proc/" + std::to_string(real) + "/status"), field);
}

std::vector<std::string> GuestKernel::observe(const Cpusets& model) {
  std::vector<std::string> lines;
  std::map<int, std::string> group_of;
  bool v2 = hierarchy_ == Hierarchy::kV2;
  for (const std::string& path : model.groups()) {
    std::string dir = path == "/" ? "" : path;
    std::vector<std::string> files = model.files(path);
    if (v2 && std::find(files.begin(), files.end(), "cpuset.cpus.effective") == files.end() &&
        access((root_ + dir + "/cpuset.cpus.effective").c_str(), F_OK) == 0) {
      lines.push_back(path + " has a cpuset");
    }
    for (const std::string& file : files) {
      std::string text = cached_read(dir, file);
      bool ids = file == "tasks" || file == "cgroup.threads" || file == "cgroup.procs";
      if (text.starts_with('!')) {
        text = "-";
      } else if (ids) {
        std::string mapped;
        for (int id : ids_in(text)) {
          mapped += std::to_string(id) + " ";
          if (file != "cgroup.procs") group_of[id] = path;
        }
        text = mapped;
      }
      std::replace(text.begin(), text.end(), '\n', ' ');
      lines.push_back(path + " " + file + " " + text);
    }
  }
  std::vector<int> ids{1};
  for (const auto& [id, slot] : subjects_.all()) ids.push_back(id);
  for (int id : ids) {
    auto found = status_fds_.find(id);
    if (found == status_fds_.end()) {
      int fd = open(("/proc/" + std::to_string(subjects_.real(id)) + "/status").c_str(),
                    O_RDONLY | O_CLOEXEC);
      found = status_fds_.emplace(id, fd).first;
    }
    std::string status = read_fd(found->second);
    lines.push_back("task " + std::to_string(id) + " " + group_of[id] + " cpus " +
                    field_of(status, "\nCpus_allowed_list:\t").list() + " mems " +
                    field_of(status, "\nMems_allowed_list:\t").list());
  }
  return lines;
}

void GuestKernel::remove_below(const std::string& path) {
  DIR* dir = opendir(path.c_str());
  if (dir == nullptr) return;
  while (const dirent* entry = readdir(dir)) {
    if (entry->d_type != DT_DIR || entry->d_name[0] == '.') continue;
    std::string child = path + "/" + entry->d_name;
    remove_below(child);
    if (::rmdir(child.c_str()) != 0)
      std::printf("driver: rmdir %s: %s\n", child.c_str(), std::strerror(errno));
  }
  closedir(dir);
}

// Both kernels can lose CPUs of partitions that are gone (the model has it, too): they stay out of
// the root's effective set. A partition over them that ends gives them back.
void GuestKernel::reclaim_lost_cpus() {
  write_file(root_ + "/cgroup.subtree_control", "+cpuset");
  std::string group = root_ + "/reclaim";
  mkdir(group.c_str(), 0755);
  for (const char* cpus : {"1-7", "0-6"}) {
    write_file(group + "/cpuset.cpus", cpus);
    write_file(group + "/cpuset.cpus.partition", "isolated");
    write_file(group + "/cpuset.cpus.partition", "member");
  }
  ::rmdir(group.c_str());
  wait_groups(1);
}

void GuestKernel::reset() {
  for (auto& [id, fd] : status_fds_) close(fd);
  status_fds_.clear();
  forget_files("");
  subjects_.exit_all();
  for (int cpu = 1; cpu < 8; ++cpu) hotplug(cpu, true);
  remove_below(root_);
  wait_groups(1);
  if (hierarchy_ == Hierarchy::kV2) {
    reclaim_lost_cpus();
    for (const char* off : {"-cpuset", "-misc", "-pids"})
      write_file(root_ + "/cgroup.subtree_control", off);
    drain();
    // A partition took CPUs from the driver's own mask, and 6.1 does not give them back.
    affinity(1, "0-7");
    // Domains that 6.12 has made anew carry their deadline servers, others may not
    // (domains_6_12.cc).
    hotplug(7, false);
    hotplug(7, true);
    return;
  }
  for (const char* file : {"cpu_exclusive", "mem_exclusive", "sched_load_balance"}) {
    write_file(root_ + "/cpuset." + file, "1");
  }
  for (const char* file : {"mem_hardwall", "memory_migrate", "memory_spread_page",
                           "memory_spread_slab", "memory_pressure_enabled"}) {
    write_file(root_ + "/cpuset." + file, "0");
  }
  write_file(root_ + "/cpuset.sched_relax_domain_level", "-1");
  write_file(root_ + "/cgroup.clone_children", "0");
}

}  // namespace allot::kernel_test
