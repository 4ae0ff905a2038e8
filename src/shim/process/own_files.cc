// dladdr on an address of ours. The first thread stores the answer; all get the same.
#include "shim/process/own_files.h"

#include <dlfcn.h>

#include <atomic>

#include "base/text.h"
#include "shim/process/spin.h"
#include "sys/glibc_floor.h"

namespace allot::shim {
namespace {

constexpr uint32_t kRoom = 4096;  // PATH_MAX
constinit char path[kRoom] = {};
constinit char folder[kRoom] = {};
constinit std::atomic<bool> ready{false};

void find() {
  static constinit SpinLock finding;
  Dl_info info = {};
  const bool found =
      dladdr(reinterpret_cast<void*>(&path), &info) != 0 && info.dli_fname != nullptr;
  finding.lock();
  if (found && !ready.load(std::memory_order_relaxed)) {
    TextBuf whole(path, kRoom);
    whole.text(info.dli_fname);
    const char* name = base_name(path);
    TextBuf(folder, kRoom).text({path, static_cast<size_t>(name > path ? name - path - 1 : 0)});
    if (whole.cut()) path[0] = folder[0] = '\0';
  }
  ready.store(true, std::memory_order_release);
  finding.unlock();
}

}  // namespace

const char* base_name(const char* whole) {
  const char* name = whole;
  for (const char* at = whole; *at != '\0'; ++at) {
    if (*at == '/') name = at + 1;
  }
  return name;
}

const char* own_path() {
  if (!ready.load(std::memory_order_acquire)) find();
  return path;
}

const char* own_folder() {
  if (!ready.load(std::memory_order_acquire)) find();
  return folder;
}

bool beside_us(const char* file_name, char* out, uint32_t size) {
  TextBuf text(out, size);
  text.text(own_folder());
  if (text.length() > 0) text.put('/');
  text.text(file_name);
  return !text.cut() && own_path()[0] != '\0';
}

}  // namespace allot::shim
