// The checks of the region's folder: who shares it, whether it is safe and outlives a logout.
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "abi/env.h"
#include "cli/doctor/doctor_checks.h"
#include "cli/failure.h"
#include "cli/output.h"
#include "cli/region/region_view.h"
#include "shm/slice_file.h"

namespace allot::cli {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kLeastFreeBytes = 16u << 20;  // a slice takes some 100 KiB
constexpr const char* kOwnFolders = "/dev/shm";
constexpr const char* kOwnFolder = "allot-";
constexpr const char* kMakeFolder = "install -d -m 1777 /run/allot";
constexpr unsigned kFirstUser = 1000;  // logind spares system users

void add_region(Findings* findings, Verdict verdict, std::string found, std::string advice = "") {
  findings->push_back({verdict, "region", std::move(found), std::move(advice)});
}

// The last setting of logind.conf(5) and what is dropped beside it; "yes" is systemd's default.
bool logout_removes_files() {
  if (!fs::exists("/run/systemd/system")) return false;
  bool removes = true;
  std::vector<fs::path> files = {"/etc/systemd/logind.conf"};
  std::error_code ignored;
  for (const char* folder : {"/usr/lib/systemd/logind.conf.d", "/etc/systemd/logind.conf.d"}) {
    for (const auto& entry : fs::directory_iterator(folder, ignored)) files.push_back(entry.path());
  }
  for (const fs::path& file : files) {
    std::ifstream text(file);
    for (std::string line; std::getline(text, line);) {
      if (!line.starts_with("RemoveIPC=")) continue;
      const std::string value = line.substr(10);
      removes = !(value == "no" || value == "false" || value == "0" || value == "off");
    }
  }
  return removes;
}

bool lingers() {
  return fs::exists("/var/lib/systemd/linger/" + owner_text(geteuid()));
}

// Folders that other users have made for themselves, as allot does without /run/allot.
std::string folders_of_others() {
  std::string list;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(kOwnFolders, ignored)) {
    const std::string name = entry.path().filename();
    struct stat about = {};
    if (!name.starts_with(kOwnFolder) || stat(entry.path().c_str(), &about) != 0) continue;
    const bool own = name == kOwnFolder + std::to_string(about.st_uid);
    if (own && S_ISDIR(about.st_mode) && about.st_uid != geteuid())
      list += (list.empty() ? "" : ", ") + owner_text(about.st_uid);
  }
  return list;
}

// A folder of this user's own: nobody else counts what is promised in it.
void check_own_folder(const std::string& folder, Findings* findings) {
  const char* chosen = std::getenv(ALLOT_ENV_DIR);
  if ((chosen != nullptr && *chosen != '\0') || shm::is_shared(folder.c_str())) return;
  if (const std::string others = folders_of_others(); !others.empty()) {
    add_region(
        findings, Verdict::kNote,
        fmt::format("shares are not counted together with those of other users who have slices of "
                    "their own: {}",
                    others),
        fmt::format("one folder for all; as root: {}", kMakeFolder));
  }
  if (geteuid() >= kFirstUser && logout_removes_files() && !lingers()) {
    add_region(
        findings, Verdict::kNote,
        fmt::format("{}/{}{} is removed when you log out (RemoveIPC in logind.conf(5)), under "
                    "slices that run on",
                    kOwnFolders, kOwnFolder, geteuid()),
        fmt::format("as root: {}; or: loginctl enable-linger", kMakeFolder));
  }
}

}  // namespace

void check_region(Findings* findings) {
  try {
    const std::string folder = region_folder(false);
    check_own_folder(folder, findings);
    if (folder.empty()) {
      add_region(findings, Verdict::kGood, "no region folder yet; 'allot run' makes it");
      return;
    }
    const RegionView region = read_region();
    for (const UnreadableSlice& file : region.unreadable) {
      add_region(findings, Verdict::kProblem,
                 fmt::format("{}: {}", harmless(file.path), file.reason),
                 "end its programs, or remove the file when no program uses it");
    }
    if (access(folder.c_str(), W_OK | X_OK) != 0) {
      add_region(findings, Verdict::kProblem, fmt::format("{}: {}", folder, describe_errno(errno)),
                 "give yourself write permission, or set ALLOT_DIR to another folder");
      return;
    }
    struct statvfs space = {};
    const uint64_t free = statvfs(folder.c_str(), &space) == 0
                              ? uint64_t{space.f_bavail} * space.f_frsize
                              : kLeastFreeBytes;
    if (free < kLeastFreeBytes) {
      add_region(findings, Verdict::kProblem,
                 fmt::format("{}: only {} free", folder, size_text(free)),
                 "free some of it, or set ALLOT_DIR to a folder elsewhere");
      return;
    }
    add_region(findings, Verdict::kGood,
               fmt::format("{}: {} slice{}{}", folder, region.slices.size(),
                           region.slices.size() == 1 ? "" : "s",
                           shm::is_shared(folder.c_str()) ? ", of all users" : ""));
  } catch (const Failure& failure) {
    add_region(findings, Verdict::kProblem, failure.line(),
               "the command above, or set ALLOT_DIR to a folder of yours");
  }
}

}  // namespace allot::cli
