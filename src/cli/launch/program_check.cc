// Reads the first page of the program: an ELF header and its program headers, or "#!".
#include "cli/launch/program_check.h"

#include <elf.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>
#include <vector>

#include "cli/failure.h"

namespace allot::cli {
namespace {

#if defined(__x86_64__)
constexpr uint16_t kOwnMachine = EM_X86_64;
#elif defined(__aarch64__)
constexpr uint16_t kOwnMachine = EM_AARCH64;
#else
constexpr uint16_t kOwnMachine = EM_NONE;
#endif
constexpr int kScriptDepth = 4;  // the kernel's own limit of interpreters of interpreters

bool is_regular(const std::string& path) {
  struct stat about = {};
  return stat(path.c_str(), &about) == 0 && S_ISREG(about.st_mode);
}

bool gains_privileges(const std::string& path) {
  struct stat about = {};
  if (stat(path.c_str(), &about) != 0) return false;
  if ((about.st_mode & S_ISUID) != 0 && about.st_uid != geteuid()) return true;
  if ((about.st_mode & S_ISGID) != 0 && (about.st_mode & S_IXGRP) != 0 &&
      about.st_gid != getegid()) {
    return true;
  }
  // File capabilities raise AT_SECURE as well, except for root, which has them already.
  return geteuid() != 0 && getxattr(path.c_str(), "security.capability", nullptr, 0) > 0;
}

std::string read_at(int file, size_t bytes, off_t offset) {
  std::string text(bytes, '\0');
  const ssize_t n = pread(file, text.data(), bytes, offset);
  text.resize(n > 0 ? static_cast<size_t>(n) : 0);
  return text;
}

// The interpreter of a "#!" line; empty when it is not such a line.
std::string script_interpreter(std::string_view head) {
  if (!head.starts_with("#!")) return "";
  head.remove_prefix(2);
  head = head.substr(0, head.find('\n'));
  const size_t begin = head.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return "";
  head.remove_prefix(begin);
  return std::string(head.substr(0, head.find_first_of(" \t")));
}

Preload elf_effect(int file, const std::string& head) {
  Elf64_Ehdr header;
  if (head.size() < sizeof header) return Preload::kWorks;
  std::memcpy(&header, head.data(), sizeof header);
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_machine != kOwnMachine) {
    return Preload::kOtherMachine;
  }
  bool dynamic = false;
  for (unsigned i = 0; i < header.e_phnum && i < 256; ++i) {
    Elf64_Phdr part;
    const std::string bytes = read_at(
        file, sizeof part, static_cast<off_t>(header.e_phoff + uint64_t{i} * header.e_phentsize));
    if (bytes.size() < sizeof part) return Preload::kWorks;
    std::memcpy(&part, bytes.data(), sizeof part);
    if (part.p_type != PT_INTERP) continue;
    dynamic = true;
    const std::string loader =
        read_at(file, std::min<size_t>(part.p_filesz, 4096), static_cast<off_t>(part.p_offset));
    if (loader.find("ld-musl") != std::string::npos) return Preload::kOtherLoader;
  }
  return dynamic ? Preload::kWorks : Preload::kStatic;
}

}  // namespace

std::string resolve_program(const std::string& name, const char* path) {
  if (name.empty()) throw Failure(kExitNotFound, "the program's name is empty; write it after --");
  std::vector<std::string> candidates;
  if (name.find('/') != std::string::npos) {
    candidates.push_back(name);
  } else {
    // Without PATH, execvp searches the C library's default.
    std::string_view folders = path != nullptr ? path : "/bin:/usr/bin";
    for (;;) {
      const size_t end = folders.find(':');
      const std::string folder(folders.substr(0, end));
      candidates.push_back((folder.empty() ? "." : folder) + "/" + name);
      if (end == std::string_view::npos) break;
      folders.remove_prefix(end + 1);
    }
  }
  int why = ENOENT;
  for (const std::string& candidate : candidates) {
    if (access(candidate.c_str(), X_OK) == 0) {
      if (is_regular(candidate)) return candidate;
      why = EISDIR;
    } else if (errno != ENOENT && errno != ENOTDIR && why == ENOENT) {
      why = errno;
    }
  }
  const bool searched = name.find('/') == std::string::npos;
  if (why == ENOENT || (searched && why == EISDIR)) {
    throw Failure(kExitNotFound, fmt::format("{}: no such program{}", name,
                                             searched ? " in PATH; write its path, or correct PATH"
                                                      : "; check the path"));
  }
  throw Failure(kExitNotExecutable,
                fmt::format("{}: cannot be executed: {}; check the file and its mode", name,
                            describe_errno(why)));
}

Preload preload_effect(const std::string& path) {
  std::string current = path;
  for (int depth = 0; depth < kScriptDepth; ++depth) {
    const int file = open(current.c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) return gains_privileges(current) ? Preload::kSetId : Preload::kWorks;
    const std::string head = read_at(file, 512, 0);
    const std::string interpreter = script_interpreter(head);
    Preload effect = Preload::kWorks;
    // The kernel ignores the set-user-ID bits of a script, so they count only on other files.
    if (interpreter.empty() && gains_privileges(current)) {
      effect = Preload::kSetId;
    } else if (head.starts_with(ELFMAG)) {
      effect = elf_effect(file, head);
    }
    close(file);
    if (interpreter.empty()) return effect;
    current = interpreter;
  }
  return Preload::kWorks;
}

}  // namespace allot::cli
