// See cpu_slices.h. A folder without leases is left alone: opening the ledger would make its lock.
#include "cli/cpus/cpu_slices.h"

#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>

#include "abi/env.h"
#include "abi/region.h"
#include "cli/failure.h"
#include "cli/screen.h"
#include "cpus/cpuset_fs.h"
#include "cpus/leases.h"
#include "sys/process.h"

namespace allot::cli {
namespace {

bool has_leases(const std::string& folder) {
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    if (entry.path().extension() == ".lease") return true;
  }
  return false;
}

std::string words_of_process(uint32_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/cmdline", std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  while (!text.empty() && text.back() == '\0') text.pop_back();
  std::replace(text.begin(), text.end(), '\0', ' ');
  return harmless(text);
}

void add_with_children(uint32_t pid, const std::multimap<uint32_t, uint32_t>& children,
                       std::set<uint32_t>* out) {
  if (!out->insert(pid).second) return;
  const auto [begin, end] = children.equal_range(pid);
  for (auto child = begin; child != end; ++child) add_with_children(child->second, children, out);
}

std::multimap<uint32_t, uint32_t> children_of_all() {
  std::multimap<uint32_t, uint32_t> children;
  for (const std::string& name : cpus::FsRoot().list("/proc")) {
    uint32_t pid = 0;
    const char* end = name.data() + name.size();
    if (std::from_chars(name.data(), end, pid).ptr != end) continue;
    const auto process = sys::read_process(sys::Root{}, pid);
    if (process && !process->gone()) children.emplace(process->parent, pid);
  }
  return children;
}

}  // namespace

std::optional<CpuMembers> read_cpu_members(const std::string& folder, const std::string& name) {
  if (folder.empty() || !has_leases(folder)) return std::nullopt;
  cpus::Expected<cpus::LockedLedger> ledger = cpus::LockedLedger::open(folder);
  if (!ledger) refuse("{}", ledger.error().text);
  const cpus::FsRoot fs;
  std::optional<CpuMembers> out;
  for (const cpus::Lease& lease : ledger->read(fs)) {
    if (lease.name != name) continue;
    if (!out) out.emplace();
    for (const pid_t pid : cpus::ids_in(fs, lease.group + "/cgroup.procs")) {
      if (!lease.group.empty() && pid > 0) out->members.insert(static_cast<uint32_t>(pid));
    }
    const bool own_program = lease.member.pid > 0 && cpus::alive(fs, lease.member);
    if (own_program && lease.group.empty())
      add_with_children(static_cast<uint32_t>(lease.member.pid), children_of_all(), &out->members);
    if (own_program) out->members.insert(static_cast<uint32_t>(lease.member.pid));
    if (lease.launcher != lease.member && cpus::alive(fs, lease.launcher))
      out->launchers.insert(static_cast<uint32_t>(lease.launcher.pid));
  }
  return out;
}

void refuse_cpus_alone(const std::string& command, const std::string& name) {
  const std::string folder = cpus::lease_folder(std::getenv(ALLOT_ENV_DIR));
  std::error_code ignored;
  if (std::filesystem::exists(folder + "/" + name + ALLOT_REGION_SUFFIX, ignored)) return;
  std::string problem;
  const std::vector<CpuSliceView> slices = read_cpu_slices(folder, &problem);
  const bool there = std::any_of(slices.begin(), slices.end(),
                                 [&](const CpuSliceView& slice) { return slice.name == name; });
  if (!there) return;
  refuse(
      "{}: '{}' is a slice of CPUs alone, it has no GPU; 'allot cpus set {}' changes it, 'allot "
      "stop {}' ends it",
      command, name, name, name);
}

std::vector<CpuSliceView> read_cpu_slices(const std::string& folder, std::string* problem) {
  std::vector<CpuSliceView> out;
  if (folder.empty() || !has_leases(folder)) return out;
  cpus::Expected<cpus::LockedLedger> ledger = cpus::LockedLedger::open(folder);
  if (!ledger) {
    *problem = ledger.error().text;
    return out;
  }
  for (const cpus::Lease& lease : ledger->read(cpus::FsRoot())) {
    CpuSliceView view;
    view.name = harmless(lease.name);
    view.cpus = to_list(lease.cpus);
    view.exclusive = lease.exclusive;
    view.group = harmless(lease.group);
    const pid_t pid = lease.member.pid != 0 ? lease.member.pid : lease.launcher.pid;
    view.pid = pid > 0 ? static_cast<uint32_t>(pid) : 0;
    struct stat about = {};
    if (stat(("/proc/" + std::to_string(pid)).c_str(), &about) == 0) view.uid = about.st_uid;
    view.command = words_of_process(view.pid);
    out.push_back(view);
  }
  return out;
}

}  // namespace allot::cli
