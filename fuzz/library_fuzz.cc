// The dynamic linker's cache and /proc texts of any content: no crash, no read outside.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "sys/library.h"
#include "sys/process.h"

namespace {

using namespace allot::sys;

struct Machine {
  std::string path;
  Root root;
  Machine() {
    char text[] = "/dev/shm/allot-fuzz-XXXXXX";
    if (mkdtemp(text) == nullptr) std::abort();
    path = text;
    for (const char* folder : {"/etc", "/proc", "/proc/42"}) mkdir((path + folder).c_str(), 0700);
    root.fd = open(text, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  }
  ~Machine() {
    for (const char* file : {"/etc/ld.so.cache", "/proc/42/stat", "/proc/42/maps"}) {
      unlink((path + file).c_str());
    }
    for (const char* folder : {"/proc/42", "/proc", "/etc", ""}) rmdir((path + folder).c_str());
  }
  void write_file(const char* name, const uint8_t* data, size_t size) {
    const int fd = open((path + name).c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, data, size) != static_cast<ssize_t>(size)) std::abort();
    close(fd);
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Machine machine;
  machine.write_file("/etc/ld.so.cache", data, size);
  char out[128];
  (void)find_library(machine.root, LibraryQuery{"libcuda.so.1"}, out, sizeof(out));
  machine.write_file("/proc/42/stat", data, size);
  if (auto process = read_process(machine.root, 42)) {
    if (process->command[sizeof(process->command) - 1] != '\0') std::abort();
  }
  machine.write_file("/proc/42/maps", data, size);
  (void)process_maps(machine.root, 42, MapKey{1, 2, 3});
  return 0;
}
