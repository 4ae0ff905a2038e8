// Where the cpuset hierarchy is mounted, and where in it this process may make groups.
//
// Version 1: below the group we are in. Version 2 adds three rules: the controller must be enabled
// by the parent of the new group; a group with its own processes does not pass controllers on (the
// root of the hierarchy is exempt); and where systemd runs, only what it has delegated may be
// changed.
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>

#include "cpus/cpuset_fs.h"

namespace allot::cpus {
namespace {

struct Mount {
  std::string root;  // the part of the hierarchy that this mount shows
  std::string point;
  std::string type;
  std::string options;  // mount and super options
};

// /proc/self/mountinfo: id parent major:minor root point options [optional...] - type source super
std::vector<Mount> cgroup_mounts(const FsRoot& fs) {
  std::vector<Mount> mounts;
  std::string text = fs.read("/proc/self/mountinfo").value_or("");
  std::string_view rest = text;
  while (!rest.empty()) {
    size_t end = rest.find('\n');
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    std::vector<std::string> words;
    for (size_t at = 0; at < line.size();) {
      size_t stop = std::min(line.find(' ', at), line.size());
      words.emplace_back(line.substr(at, stop - at));
      at = stop + 1;
    }
    size_t dash = 6;
    while (dash < words.size() && words[dash] != "-") ++dash;
    if (dash + 3 >= words.size()) continue;
    if (words[dash + 1] != "cgroup" && words[dash + 1] != "cgroup2") continue;
    mounts.push_back({words[3], words[4], words[dash + 1], words[5] + "," + words[dash + 3]});
  }
  return mounts;
}

bool has_word(std::string_view list, std::string_view word, char separator) {
  while (!list.empty()) {
    size_t end = std::min(list.find(separator), list.size());
    if (list.substr(0, end) == word) return true;
    list.remove_prefix(std::min(end + 1, list.size()));
  }
  return false;
}

// The path of a process in /proc/PID/cgroup: of the line that names `controller`, or of version 2.
std::optional<std::string> path_in_proc(const FsRoot& fs, const std::string& pid, bool v1) {
  std::string text = fs.read(fmt::format("/proc/{}/cgroup", pid)).value_or("");
  std::string_view rest = text;
  while (!rest.empty()) {
    size_t end = std::min(rest.find('\n'), rest.size());
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    size_t a = line.find(':');
    size_t b = a == std::string_view::npos ? a : line.find(':', a + 1);
    if (b == std::string_view::npos) continue;
    std::string_view controllers = line.substr(a + 1, b - a - 1);
    bool match =
        v1 ? has_word(controllers, "cpuset", ',') : line.substr(0, a) == "0" && controllers.empty();
    if (match) return std::string(line.substr(b + 1));
  }
  return std::nullopt;
}

// A path of /proc/PID/cgroup as an absolute one below the mount point.
std::optional<std::string> below_mount(const std::string& point, const std::string& root,
                                       std::string path) {
  if (path.substr(0, 3) == "/..") return std::nullopt;  // outside our cgroup namespace
  if (root != "/" && path.substr(0, root.size()) == root) path = path.substr(root.size());
  if (path == "/" || path.empty()) return point;
  return point + path;
}

bool writable(const FsRoot& fs, const std::string& path) {
  return access(fs.path(path).c_str(), W_OK) == 0;
}

// systemd marks what it has handed over; a folder that an ordinary user owns was handed over.
bool delegated(const FsRoot& fs, const std::string& group) {
  char value[8] = {};
  for (const char* name : {"trusted.delegate", "user.delegate"}) {
    if (getxattr(fs.path(group).c_str(), name, value, sizeof value) > 0 && value[0] == '1')
      return true;
  }
  struct stat info {};
  return stat(fs.path(group).c_str(), &info) == 0 && info.st_uid != 0 && info.st_uid == geteuid();
}

// True when `group` can pass cpuset on to new groups below it.
bool usable_v2_base(const FsRoot& fs, const Hierarchy& h, const std::string& group, bool systemd,
                    std::string* why) {
  if (!has_word(fs.read_line(group + "/cgroup.controllers").value_or(""), "cpuset", ' ')) {
    *why = fmt::format("the cpuset controller is not available in {}", group);
    return false;
  }
  if (systemd && !delegated(fs, group)) {
    *why = fmt::format(
        "{} is owned by systemd; start allot in a delegated unit, as in "
        "\"systemd-run --user --scope -p Delegate=yes\"",
        group);
    return false;
  }
  if (!writable(fs, group) || !writable(fs, group + "/cgroup.procs")) {
    *why = fmt::format("no permission to make groups in {}", group);
    return false;
  }
  if (has_word(fs.read_line(group + "/cgroup.subtree_control").value_or(""), "cpuset", ' '))
    return true;
  // cgroup.type exists everywhere but at the real root, the only group with both
  // processes and children.
  bool real_root = group == h.mount && !fs.exists(group + "/cgroup.type");
  if (!real_root && !fs.read_line(group + "/cgroup.procs").value_or("").empty()) {
    *why = fmt::format("{} has processes of its own, so it cannot pass the cpuset controller on",
                       group);
    return false;
  }
  if (!writable(fs, group + "/cgroup.subtree_control")) {
    *why = fmt::format("no permission to enable cpuset in {}", group);
    return false;
  }
  return true;
}

void find_v2_base(const FsRoot& fs, Hierarchy* h) {
  bool systemd = fs.exists("/run/systemd/system");
  std::string group = h->own.empty() ? h->mount : h->own;
  while (true) {
    std::string why;
    if (usable_v2_base(fs, *h, group, systemd, &why)) {
      h->base = group;
      h->why_not.clear();
      return;
    }
    // The reason nearest to us is the one that the user can do something about.
    if (h->why_not.empty()) h->why_not = why;
    if (group == h->mount) return;
    group = group.substr(0, group.rfind('/'));
    if (group.size() < h->mount.size()) return;
  }
}

}  // namespace

std::optional<std::string> group_of(const FsRoot& fs, const Hierarchy& h, pid_t pid) {
  std::optional<std::string> path =
      path_in_proc(fs, std::to_string(pid), h.kind == CpusetKind::kV1);
  if (!path) return std::nullopt;
  std::string root = "/";
  for (const Mount& mount : cgroup_mounts(fs)) {
    if (mount.point == h.mount) root = mount.root;
  }
  return below_mount(h.mount, root, *path);
}

Hierarchy find_hierarchy(const FsRoot& fs) {
  Hierarchy h;
  h.why_not = "no cpuset hierarchy is mounted";
  for (const Mount& mount : cgroup_mounts(fs)) {
    bool v1 = mount.type == "cgroup" && has_word(mount.options, "cpuset", ',');
    bool v2 =
        mount.type == "cgroup2" &&
        has_word(fs.read_line(mount.point + "/cgroup.controllers").value_or(""), "cpuset", ' ');
    // A controller is in one hierarchy only; a second mount of the same one adds nothing.
    if (h.kind != CpusetKind::kNone || (!v1 && !v2)) continue;
    h.kind = v1 ? CpusetKind::kV1 : CpusetKind::kV2;
    h.mount = mount.point;
    h.prefix = v1 && !fs.exists(mount.point + "/cpuset.cpus") && fs.exists(mount.point + "/cpus")
                   ? ""
                   : "cpuset.";
    h.v2_mode = has_word(mount.options, "cpuset_v2_mode", ',');
    h.own = mount.point;
    if (std::optional<std::string> path = path_in_proc(fs, "self", v1)) {
      h.own = below_mount(mount.point, mount.root, *path).value_or(mount.point);
    }
    if (!fs.exists(h.own)) h.own = mount.point;
  }
  if (h.kind == CpusetKind::kV1) {
    // The folder's mode has no write bit even where root may make groups in it: root passes
    // access(2) all the same, and a read-only mount does not.
    if (writable(fs, h.own) && writable(fs, h.own + "/cgroup.procs")) {
      h.base = h.own;
      h.why_not.clear();
    } else {
      h.why_not = errno == EROFS ? fmt::format("{} is mounted read-only", h.mount)
                                 : fmt::format("no permission to make groups in {}", h.own);
    }
  }
  if (h.kind == CpusetKind::kV2) {
    h.why_not.clear();
    find_v2_base(fs, &h);
  }
  return h;
}

}  // namespace allot::cpus
