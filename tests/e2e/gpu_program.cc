// A program that uses a GPU as it is told on standard input, one command a line, one answer a line:
//
//   alloc BYTES   "ok", or the driver's error number
//   managed BYTES the same for managed memory
//   fill VALUE    writes VALUE into the first block, VALUE + 1 into the second and so on: "ok"
//   check VALUE   "ok", or "wrong" when a word is another
//   free          frees the last block: "ok"
//   info          "FREE TOTAL", as cuMemGetInfo says
//   devices       "COUNT UUID ..." (hexadecimal)
//   pid           the process
//   exit STATUS
//
// It opens libcuda.so.1 by name, as programs do, and ends with status 3 when there is none.
#include <dlfcn.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

namespace {

struct Driver {
  void* library = dlopen("libcuda.so.1", RTLD_NOW);

  template <class... Args>
  int call(const char* name, Args... args) const {
    const auto entry = reinterpret_cast<int (*)(Args...)>(dlsym(library, name));
    return entry == nullptr ? -1 : entry(args...);
  }
};

std::string devices(const Driver& driver) {
  int count = 0;
  driver.call("cuDeviceGetCount", &count);
  std::string text = std::to_string(count);
  for (int i = 0; i < count; ++i) {
    int device = 0;
    unsigned char uuid[16] = {};
    driver.call("cuDeviceGet", &device, i);
    driver.call("cuDeviceGetUuid_v2", &uuid[0], device);
    text += ' ';
    for (const unsigned char byte : uuid) {
      char hex[3];
      std::snprintf(hex, sizeof hex, "%02x", byte);
      text += hex;
    }
  }
  return text;
}

struct Block {
  unsigned long long at;
  size_t bytes;
};

int fill(const Driver& driver, const std::vector<Block>& blocks, unsigned value) {
  for (const Block& block : blocks) {
    const int result = driver.call("cuMemsetD32_v2", block.at, value++, block.bytes / 4);
    if (result != 0) return result;
  }
  return driver.call("cuCtxSynchronize");
}

bool holds(const Driver& driver, const std::vector<Block>& blocks, unsigned value) {
  for (const Block& block : blocks) {
    std::vector<unsigned> words(block.bytes / 4);
    void* to = words.data();
    if (driver.call("cuMemcpyDtoH_v2", to, block.at, block.bytes) != 0) return false;
    for (const unsigned word : words) {
      if (word != value) return false;
    }
    ++value;
  }
  return true;
}

}  // namespace

int main() {
  const Driver driver;
  if (driver.library == nullptr) {
    std::cout << "no libcuda" << std::endl;
    return 3;
  }
  void* context = nullptr;
  int started = driver.call("cuInit", 0u);
  if (started == 0) started = driver.call("cuDevicePrimaryCtxRetain", &context, 0);
  if (started == 0) started = driver.call("cuCtxSetCurrent", context);
  std::cout << (started == 0 ? "ready" : "error " + std::to_string(started)) << std::endl;

  std::vector<Block> blocks;
  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream words(line);
    std::string command;
    unsigned long long number = 0;
    words >> command >> number;
    if (command == "alloc") {
      unsigned long long block = 0;
      const int result = driver.call("cuMemAlloc_v2", &block, static_cast<size_t>(number));
      if (result == 0) blocks.push_back({block, static_cast<size_t>(number)});
      std::cout << (result == 0 ? "ok" : std::to_string(result)) << std::endl;
    } else if (command == "managed") {
      unsigned long long block = 0;
      const int result = driver.call("cuMemAllocManaged", &block, static_cast<size_t>(number), 1u);
      std::cout << (result == 0 ? "ok" : std::to_string(result)) << std::endl;
    } else if (command == "fill") {
      const int result = fill(driver, blocks, static_cast<unsigned>(number));
      std::cout << (result == 0 ? "ok" : std::to_string(result)) << std::endl;
    } else if (command == "check") {
      std::cout << (holds(driver, blocks, static_cast<unsigned>(number)) ? "ok" : "wrong")
                << std::endl;
    } else if (command == "free" && !blocks.empty()) {
      const int result = driver.call("cuMemFree_v2", blocks.back().at);
      blocks.pop_back();
      std::cout << (result == 0 ? "ok" : std::to_string(result)) << std::endl;
    } else if (command == "info") {
      size_t free = 0;
      size_t total = 0;
      driver.call("cuMemGetInfo_v2", &free, &total);
      std::cout << free << ' ' << total << std::endl;
    } else if (command == "devices") {
      std::cout << devices(driver) << std::endl;
    } else if (command == "pid") {
      std::cout << getpid() << std::endl;
    } else if (command == "exit") {
      return static_cast<int>(number);
    } else {
      std::cout << "what?" << std::endl;
    }
  }
  return 0;
}
