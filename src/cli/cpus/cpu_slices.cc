// See cpu_slices.h. A folder without leases is left alone: opening the ledger would make its lock.
#include "cli/cpus/cpu_slices.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "cli/screen.h"
#include "cpus/leases.h"

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

}  // namespace

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
