// See deeds.h. The protocol: https://systemd.io/JOURNAL_NATIVE_PROTOCOL (one datagram an entry).
#include "cli/log/deeds.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <syslog.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "abi/env.h"
#include "cli/screen.h"

namespace allot::cli {
namespace {

constexpr const char* kSocket = "/run/systemd/journal/socket";
constexpr size_t kMostBytes = 2000;  // of a value: an entry stays far below a datagram's limit
// Says to journald's readers that an entry is one of these.
constexpr const char* kMessageId = "8f5ac2b46d3e4f0e9b71c3d05a6e27f4";

int priority_of(DeedResult result) {
  return result == DeedResult::kDone ? LOG_NOTICE : LOG_WARNING;
}

const char* result_text(DeedResult result) {
  switch (result) {
    case DeedResult::kDone:
      return "done";
    case DeedResult::kRefused:
      return "refused";
    case DeedResult::kFailed:
      return "failed";
  }
  return "?";
}

std::string one_line(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  for (size_t at = 0; (at = text.find('\n', at)) != std::string::npos; at += 2)
    text.replace(at, 1, "; ");
  return harmless(text.substr(0, kMostBytes));
}

bool to_journal(const std::string& entry, const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return false;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  const ssize_t sent = sendto(fd, entry.data(), entry.size(), MSG_DONTWAIT | MSG_NOSIGNAL,
                              reinterpret_cast<const sockaddr*>(&address), sizeof address);
  // A journal that is there and does not take it now has lost it: syslog would be the same daemon.
  const bool there = sent >= 0 || errno == EAGAIN;
  close(fd);
  return there;
}

void write_deed(const Deed& deed) {
  const char* chosen = std::getenv(ALLOT_ENV_JOURNAL);
  if (chosen != nullptr && std::string_view(chosen) == "off") return;
  const std::string path = chosen != nullptr && *chosen == '/' ? chosen : kSocket;
  std::string message = one_line(deed.message);
  if (message.starts_with(deed.slice + ": ")) message.erase(0, deed.slice.size() + 2);
  const std::string result = result_text(deed.result);
  const std::string line =
      fmt::format("{}: {}{}: {}", deed.slice, deed.what,
                  deed.result == DeedResult::kDone ? "" : " " + result, message);
  const int priority = priority_of(deed.result);
  Fields fields = {{"MESSAGE", line},
                   {"PRIORITY", std::to_string(priority)},
                   {"SYSLOG_IDENTIFIER", "allot"},
                   {"MESSAGE_ID", kMessageId},
                   {"ALLOT_DEED", deed.what},
                   {"ALLOT_SLICE", deed.slice},
                   {"ALLOT_RESULT", result},
                   {"ALLOT_TEXT", message}};
  fields.insert(fields.end(), deed.more.begin(), deed.more.end());
  if (to_journal(journal_entry(fields), path)) return;
  openlog("allot", LOG_PID, LOG_USER);
  syslog(priority, "%s", line.c_str());
  closelog();
}

}  // namespace

std::string journal_entry(const Fields& fields) {
  std::string out;
  for (const auto& [name, value] : fields) {
    if (value.find('\n') == std::string::npos) {
      out += name + "=" + value + "\n";
      continue;
    }
    out += name + "\n";
    uint64_t length = value.size();
    for (int i = 0; i < 8; ++i, length >>= 8) out += static_cast<char>(length & 0xff);
    out += value + "\n";
  }
  return out;
}

void log_deed(const Deed& deed) noexcept {
  try {
    write_deed(deed);
  } catch (...) {  // no memory: the deed counts more than its entry
  }
}

}  // namespace allot::cli
