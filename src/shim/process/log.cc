// One function per cause. Each remembers its own last message, so a flood of one cause hides no
// other.
#include "shim/process/log.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>

#include "abi/env.h"
#include "base/text.h"
#include "base/units.h"
#include "shim/process/start_environment.h"
#include "sys/clock.h"
#include "sys/file.h"
#include "sys/hold_signal.h"
#include "sys/keep_errno.h"
#include "sys/process.h"

namespace allot::shim {
namespace {

enum class Cause : uint32_t { kRefusal, kMissingLibrary, kNoSlice, kNoIpc, kGpusBeyond, kCount };

constexpr uint64_t kQuietMs = 1000;
constinit std::atomic<uint64_t> last_ms[static_cast<uint32_t>(Cause::kCount)] = {};

bool wanted(Cause cause) {
  if (start_variable(ALLOT_ENV_LOG) == nullptr) return false;
  const uint64_t now = sys::monotonic_ns() / 1000000 + kQuietMs;
  std::atomic<uint64_t>& last = last_ms[static_cast<uint32_t>(cause)];
  uint64_t before = last.load(std::memory_order_relaxed);
  return now >= before + kQuietMs && last.compare_exchange_strong(before, now);
}

TextBuf& begin(TextBuf& line) {
  return line.text("allot ")
      .u64(sys::current_pid())
      .put(' ')
      .u64(sys::monotonic_ns() / 1000000)
      .text(": ");
}

void write(TextBuf& line) {
  line.put('\n');
  const sys::KeepErrno keep;
  const sys::HoldSignal too_large(SIGXFSZ);
  const sys::Fd file(
      static_cast<int>(syscall(SYS_openat, AT_FDCWD, start_variable(ALLOT_ENV_LOG),
                               O_WRONLY | O_CREAT | O_APPEND | O_NOCTTY | O_CLOEXEC, 0644)));
  // With O_APPEND the kernel writes at the end, whatever the offset is.
  if (file) static_cast<void>(sys::write_at(file.get(), line.view().data(), line.length(), 0));
}

TextBuf& size(TextBuf& line, uint64_t bytes) {
  char text[32];
  format_size(bytes, text, sizeof(text));
  return line.text(text);
}

const char* kind_name(AllotKind kind) {
  static constexpr const char* kNames[ALLOT_KINDS] = {"linear", "array", "managed", "pool",
                                                      "vmm",    "graph", "import",  "driver"};
  return kind < ALLOT_KINDS ? kNames[kind] : "?";
}

}  // namespace

void log_refusal(uint32_t gpu, AllotKind kind, uint64_t bytes, uint64_t used, uint64_t limit) {
  if (!wanted(Cause::kRefusal)) return;
  char room[256];
  TextBuf line(room, sizeof(room));
  size(begin(line).text("refused "), bytes)
      .text(" of ")
      .text(kind_name(kind))
      .text(" memory on GPU ");
  size(line.u64(gpu).text(" of the slice: "), used);
  size(line.text(" of "), limit).text(" in use");
  write(line);
}

void log_missing_library(const char* soname) {
  if (!wanted(Cause::kMissingLibrary)) return;
  char room[256];
  TextBuf line(room, sizeof(room));
  begin(line).text("the driver's ").text(soname).text(" was not found or cannot be opened");
  write(line);
}

void log_no_ipc() {
  if (!wanted(Cause::kNoIpc)) return;
  char room[256];
  TextBuf line(room, sizeof(room));
  begin(line).text(
      "no IPC handle: with --swap fast, blocks of more than 1 MiB cannot be shared with other "
      "processes");
  write(line);
}

namespace {

// The user must see it, whether or not a log is kept.
void tell(TextBuf& line) {
  line.put('\n');
  const sys::KeepErrno keep;
  const sys::HoldSignal no_reader(SIGPIPE);
  static_cast<void>(syscall(SYS_write, STDERR_FILENO, line.view().data(), line.length()));
}

}  // namespace

void log_no_slice(const char* why, int os_errno, bool closed) {
  char room[512];
  TextBuf line(room, sizeof(room));
  line.text("allot: ").text(why);
  if (os_errno != 0) line.text(" (errno ").i64(os_errno).put(')');
  line.text(closed ? "; GPU work is refused" : "; this process continues without limits");
  tell(line);
  if (!wanted(Cause::kNoSlice)) return;
  char entry_room[512];
  TextBuf entry(entry_room, sizeof(entry_room));
  begin(entry).text(why);
  if (os_errno != 0) entry.text(" (errno ").i64(os_errno).put(')');
  entry.text(closed ? "; GPU work is refused" : "; this process continues without limits");
  write(entry);
}

void log_less(const char* why) {
  char room[512];
  TextBuf line(room, sizeof(room));
  line.text("allot: ").text(why).text("; this process continues without it");
  tell(line);
  if (!wanted(Cause::kNoSlice)) return;
  char entry_room[512];
  TextBuf entry(entry_room, sizeof(entry_room));
  begin(entry).text(why).text("; this process continues without it");
  write(entry);
}

void log_gpus_beyond(uint32_t count, bool closed) {
  if (!wanted(Cause::kGpusBeyond)) return;
  char room[256];
  TextBuf line(room, sizeof(room));
  begin(line)
      .text("a slice holds 16 GPUs: ")
      .u64(count)
      .text(count == 1 ? " more is " : " more are ")
      .text(closed ? "refused" : "not limited")
      .text("; choose with CUDA_VISIBLE_DEVICES");
  write(line);
}
static_assert(ALLOT_MAX_GPUS == 16, "the message says so");

}  // namespace allot::shim
