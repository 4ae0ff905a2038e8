// Processes from /proc. Even the kernel's text is parsed with bounds: a command name may hold any
// byte, also ')' and newline.
#include "sys/process.h"

#include <cerrno>

#include <string_view>

#include "base/text.h"
#include "sys/raw.h"

namespace allot::sys {
namespace {

// "/proc/<pid>/<name>", or "/proc/self/<name>" for 0.
struct ProcPath {
  char text[64];
  ProcPath(uint32_t pid, std::string_view name) {
    TextBuf path(text, sizeof(text));
    path.text("/proc/");
    if (pid == 0) {
      path.text("self");
    } else {
      path.u64(pid);
    }
    path.put('/').text(name);
  }
};

// Moves `*at` past spaces and one field.
bool skip_field(const char** at, const char* end) {
  while (*at < end && **at == ' ') ++*at;
  const char* begin = *at;
  while (*at < end && **at != ' ' && **at != '\n') ++*at;
  return *at > begin;
}

bool number_field(const char** at, const char* end, uint64_t* value) {
  while (*at < end && **at == ' ') ++*at;
  return read_u64(at, end, value);
}

bool parse_stat(const char* text, uint32_t length, Process* out) {
  const char* end = text + length;
  const char* at = text;
  uint64_t pid;
  if (!read_u64(&at, end, &pid) || end - at < 2 || at[0] != ' ' || at[1] != '(') return false;
  at += 2;
  const char* close = end;  // the last ')': the name may contain others
  while (close > at && close[-1] != ')') --close;
  if (close == at) return false;
  uint32_t name = 0;
  for (const char* c = at; c < close - 1 && name < sizeof(out->command) - 1; ++c) {
    out->command[name++] = *c;
  }
  out->command[name] = '\0';
  at = close;
  while (at < end && *at == ' ') ++at;
  if (at == end) return false;
  out->state = *at++;  // field 3
  uint64_t parent, threads, start;
  if (!number_field(&at, end, &parent)) return false;  // field 4
  for (int field = 5; field < 20; ++field) {
    if (!skip_field(&at, end)) return false;
  }
  if (!number_field(&at, end, &threads)) return false;  // field 20
  if (!skip_field(&at, end)) return false;
  if (!number_field(&at, end, &start)) return false;  // field 22
  out->pid = static_cast<uint32_t>(pid);
  out->parent = static_cast<uint32_t>(parent);
  out->threads = static_cast<uint32_t>(threads);
  out->start_time = start;
  return true;
}

// "begin-end perms offset major:minor inode ..."
struct MapLine {
  uint64_t begin;
  uint64_t end;
  MapKey key;
  bool writable;
};

bool parse_map_line(const char* at, const char* end, MapLine* out) {
  if (!read_hex(&at, end, &out->begin) || at == end || *at++ != '-') return false;
  if (!read_hex(&at, end, &out->end)) return false;
  out->writable = end - at > 2 && at[2] == 'w';
  if (!skip_field(&at, end) || !skip_field(&at, end)) return false;
  while (at < end && *at == ' ') ++at;
  if (!read_hex(&at, end, &out->key.major) || at == end || *at++ != ':') return false;
  if (!read_hex(&at, end, &out->key.minor)) return false;
  return number_field(&at, end, &out->key.inode);
}

// Calls `visit` for each line of a maps file until it returns true, and returns that. Keeps only
// the start of each line: the path at its end may have any length.
template <class Visit>
Result<bool> scan_maps(Root root, uint32_t pid, Visit visit) {
  auto fd = open_file(root, ProcPath(pid, "maps").text, O_RDONLY);
  if (!fd) return tl::unexpected<Error>(fd.error());
  char line[160];
  uint32_t length = 0;
  char chunk[4096];
  for (;;) {
    long got = raw_call(SYS_read, fd->get(), raw_pointer(chunk), sizeof(chunk));
    if (raw_failed(got)) return tl::unexpected<Error>(error_of(static_cast<int>(-got)));
    if (got == 0) return false;
    for (long i = 0; i < got; ++i) {
      if (chunk[i] != '\n') {
        if (length < sizeof(line)) line[length++] = chunk[i];
        continue;
      }
      MapLine parsed;
      if (parse_map_line(line, line + length, &parsed) && visit(parsed)) return true;
      length = 0;
    }
  }
}

}  // namespace

Result<Process> read_process(Root root, uint32_t pid) {
  char text[2048];
  auto length = read_file(root, ProcPath(pid, "stat").text, text, sizeof(text));
  if (!length) return tl::unexpected<Error>(length.error());
  Process process = {};
  if (!parse_stat(text, *length, &process)) return fail(Errc::kDamaged);
  return process;
}

uint32_t current_pid() {
  return static_cast<uint32_t>(raw_call(SYS_getpid));
}
uint32_t current_tid() {
  return static_cast<uint32_t>(raw_call(SYS_gettid));
}

bool process_exists(uint32_t pid) {
  return pid != 0 && raw_call(SYS_kill, static_cast<long>(pid), 0) != -ESRCH;
}

bool is_ending(Root root, uint32_t pid) {
  char target[8];
  auto length = read_link(root, ProcPath(pid, "exe").text, target, sizeof(target));
  return !length && length.error().code == Errc::kNotFound;
}

Result<uint64_t> pid_namespace(Root root, uint32_t pid) {
  char text[64];
  auto length = read_link(root, ProcPath(pid, "ns/pid").text, text, sizeof(text));
  if (!length) return tl::unexpected<Error>(length.error());
  constexpr std::string_view kPrefix = "pid:[";
  const char* at = text + kPrefix.size();
  const char* end = text + *length;
  uint64_t inode;
  if (*length <= kPrefix.size() || std::string_view(text, kPrefix.size()) != kPrefix ||
      !read_u64(&at, end, &inode)) {
    return fail(Errc::kDamaged);
  }
  return inode;
}

Result<void> boot_id(Root root, uint8_t out[16]) {
  char text[64];
  auto length = read_file(root, "/proc/sys/kernel/random/boot_id", text, sizeof(text));
  if (!length) return tl::unexpected<Error>(length.error());
  uint32_t digits = 0;
  uint8_t id[16] = {};
  for (uint32_t i = 0; i < *length && text[i] != '\n'; ++i) {
    if (text[i] == '-') continue;
    const char* at = &text[i];
    uint64_t digit;
    if (digits == 32 || !read_hex(&at, at + 1, &digit)) return fail(Errc::kDamaged);
    id[digits / 2] = static_cast<uint8_t>(id[digits / 2] << 4 | digit);
    ++digits;
  }
  if (digits != 32) return fail(Errc::kDamaged);
  __builtin_memcpy(out, id, sizeof(id));
  return {};
}

Result<MapKey> mapped_at(Root root, const void* address) {
  const uint64_t wanted = reinterpret_cast<uint64_t>(address);
  MapKey key = {};
  auto found = scan_maps(root, 0, [&](const MapLine& line) {
    if (wanted < line.begin || wanted >= line.end) return false;
    key = line.key;
    return true;
  });
  if (!found) return tl::unexpected<Error>(found.error());
  if (!*found || key.inode == 0) return fail(Errc::kNotFound);
  return key;
}

Result<uint32_t> writable_maps(Root root, uint32_t pid, MapKey key) {
  uint32_t count = 0;
  auto scanned = scan_maps(root, pid, [&](const MapLine& line) {
    if (line.writable && line.key.inode == key.inode && line.key.major == key.major &&
        line.key.minor == key.minor) {
      ++count;
    }
    return false;
  });
  if (!scanned) return tl::unexpected<Error>(scanned.error());
  return count;
}

Result<bool> process_maps(Root root, uint32_t pid, MapKey key) {
  return scan_maps(root, pid, [&](const MapLine& line) {
    return line.key.inode == key.inode && line.key.major == key.major &&
           line.key.minor == key.minor;
  });
}

}  // namespace allot::sys
