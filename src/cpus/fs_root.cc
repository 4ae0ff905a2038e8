// Reading small kernel files below a root folder: see fs_root.h.
#include "cpus/fs_root.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

namespace allot::cpus {

std::string_view trim(std::string_view text) {
  constexpr std::string_view kBlanks = " \t\r\n";
  size_t from = text.find_first_not_of(kBlanks);
  if (from == std::string_view::npos) return {};
  return text.substr(from, text.find_last_not_of(kBlanks) - from + 1);
}

std::optional<std::string> FsRoot::read(std::string_view absolute) const {
  int fd = open(path(absolute).c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return std::nullopt;
  std::string out;
  char buffer[4096];
  while (true) {
    ssize_t n = ::read(fd, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      int saved = errno;
      close(fd);
      errno = saved;
      return std::nullopt;
    }
    if (n == 0) break;
    out.append(buffer, static_cast<size_t>(n));
  }
  close(fd);
  return out;
}

std::optional<std::string> FsRoot::read_line(std::string_view absolute) const {
  std::optional<std::string> text = read(absolute);
  if (!text) return std::nullopt;
  return std::string(trim(*text));
}

std::optional<long long> FsRoot::read_number(std::string_view absolute) const {
  std::optional<std::string> text = read_line(absolute);
  if (!text) return std::nullopt;
  long long value = 0;
  auto [end, ec] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (ec != std::errc{} || end != text->data() + text->size()) return std::nullopt;
  return value;
}

std::optional<CpuSet> FsRoot::read_list(std::string_view absolute) const {
  std::optional<std::string> text = read_line(absolute);
  if (!text) return std::nullopt;
  Result<CpuSet> set = parse_list(*text);
  if (!set) return std::nullopt;
  return *set;
}

std::vector<std::string> FsRoot::list(std::string_view absolute) const {
  std::vector<std::string> names;
  DIR* dir = opendir(path(absolute).c_str());
  if (dir == nullptr) return names;
  while (dirent* entry = readdir(dir)) {
    std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
  }
  closedir(dir);
  std::sort(names.begin(), names.end());
  return names;
}

bool FsRoot::exists(std::string_view absolute) const {
  return access(path(absolute).c_str(), F_OK) == 0;
}

std::string_view status_value(std::string_view text, std::string_view key) {
  while (!text.empty()) {
    size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    if (line.size() > key.size() && line.substr(0, key.size()) == key && line[key.size()] == ':') {
      return trim(line.substr(key.size() + 1));
    }
    if (end == std::string_view::npos) break;
    text.remove_prefix(end + 1);
  }
  return {};
}

}  // namespace allot::cpus
