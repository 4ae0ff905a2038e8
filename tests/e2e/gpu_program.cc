// A program that uses a GPU as it is told on standard input, one command a line, one answer a line:
//
//   alloc BYTES   "ok", or the driver's error number
//   managed BYTES the same for managed memory
//   fill VALUE    writes VALUE into the first block, VALUE + 1 into the second and so on: "ok"
//   check VALUE   "ok", or "wrong" when a word is another
//   free          frees the last block: "ok"
//   info          "FREE TOTAL", as cuMemGetInfo says
//   wait, poll    the result of cuCtxSynchronize, of cuStreamQuery
//   devices       "COUNT UUID ..." (hexadecimal)
//   range         "ok" when the driver describes every block as one of cuMemAlloc
//   ipc           the driver's error number for an IPC handle of the first block, 0 = it gave one
//   pin           SYNC_MEMOPS for the first block, as users of RDMA set it: the error number
//   churn         fills, copies and compares blocks of its own, also allocating and freeing,
//                 until the next line comes: "ok" and how often, or "wrong"
//   capture       begins to capture a graph that fills the first block: "ok"
//   launch VALUE  ends the capture and launches the graph, which fills with VALUE: "ok"
//   pid           the process
//   exec          calls exec: "there", and after the next line begins again as this program
//   exit STATUS
//
// It opens libcuda.so.1 by name, as programs do, and ends with status 3 when there is none.
#include <dlfcn.h>
#include <poll.h>
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

std::string described(const Driver& driver, const std::vector<Block>& blocks) {
  for (const Block& block : blocks) {
    unsigned long long base = 0;
    unsigned long long start = 0;
    size_t bytes = 0;
    size_t range = 0;
    unsigned type = 0;
    void* context = nullptr;
    void* current = nullptr;
    const unsigned long long inside = block.at + block.bytes / 2;
    if (driver.call("cuCtxGetCurrent", &current) != 0) return "no context";
    if (driver.call("cuMemGetAddressRange_v2", &base, &bytes, inside) != 0) return "no range";
    if (base != block.at || bytes != block.bytes) return "wrong range";
    int which[] = {1, 2, 11, 12};  // context, memory type, start and size of the range
    void* out[] = {&context, &type, &start, &range};
    if (driver.call("cuPointerGetAttributes", 4u, &which[0], &out[0], inside) != 0) return "none";
    if (context != current || type != 2 || start != base || range != bytes) return "wrong";
    context = nullptr;
    void* one = &context;
    if (driver.call("cuPointerGetAttribute", one, 1, inside) != 0 || context != current) return "?";
  }
  return "ok";
}

// Blocks of 4 MiB, and now and then one that comes and goes.
std::string churn(const Driver& driver) {
  constexpr size_t kBytes = 4 << 20;
  unsigned long long from = 0;
  unsigned long long to = 0;
  if (driver.call("cuMemAlloc_v2", &from, kBytes) != 0) return "no memory";
  if (driver.call("cuMemAlloc_v2", &to, kBytes) != 0) return "no memory";
  void* stream = nullptr;
  unsigned rounds = 0;
  pollfd input = {STDIN_FILENO, POLLIN, 0};
  for (; poll(&input, 1, 0) == 0; ++rounds) {
    unsigned long long extra = 0;
    unsigned last = 0;
    void* word = &last;
    const bool made = rounds % 64 == 0 && driver.call("cuMemAlloc_v2", &extra, kBytes) == 0;
    driver.call("cuMemsetD32Async", from, rounds, kBytes / 4, stream);
    driver.call("cuMemcpyDtoDAsync_v2", to, from, kBytes, stream);
    if (made) driver.call("cuMemcpyDtoDAsync_v2", extra, to, kBytes, stream);
    const unsigned long long at = (made ? extra : to) + kBytes - 4;
    if (driver.call("cuMemcpyDtoH_v2", word, at, size_t{4}) != 0 || last != rounds) return "wrong";
    if (made && driver.call("cuMemFree_v2", extra) != 0) return "wrong";
  }
  std::string stop;
  std::getline(std::cin, stop);
  driver.call("cuMemFree_v2", from);
  driver.call("cuMemFree_v2", to);
  return "ok " + std::to_string(rounds);
}

struct Capture {
  void* stream = nullptr;
  void* graph = nullptr;
  void* exec = nullptr;
};

std::string capture(const Driver& driver, Capture& it) {
  if (it.stream == nullptr) driver.call("cuStreamCreate", &it.stream, 1u);
  return std::to_string(driver.call("cuStreamBeginCapture_v2", it.stream, 2));
}

std::string launch(const Driver& driver, Capture& it, const Block& block, unsigned value) {
  int result = driver.call("cuMemsetD32Async", block.at, value, block.bytes / 4, it.stream);
  if (result == 0) result = driver.call("cuStreamEndCapture", it.stream, &it.graph);
  if (result == 0)
    result = driver.call("cuGraphInstantiateWithFlags", &it.exec, it.graph, size_t{0});
  if (result == 0) result = driver.call("cuGraphLaunch", it.exec, it.stream);
  if (result == 0) result = driver.call("cuStreamSynchronize", it.stream);
  return std::to_string(result);
}

// What only some tests need. Empty: not one of these.
std::string special(const Driver& driver, const std::vector<Block>& blocks,
                    const std::string& command, unsigned long long number) {
  static Capture it;
  if (command == "range") return described(driver, blocks);
  if (command == "churn") return churn(driver);
  if (command == "capture") return capture(driver, it);
  if (blocks.empty()) return "";
  if (command == "launch") {
    return launch(driver, it, blocks.front(), static_cast<unsigned>(number));
  }
  if (command == "ipc") {
    char handle[64];
    return std::to_string(driver.call("cuIpcGetMemHandle", &handle[0], blocks.front().at));
  }
  if (command == "pin") {
    const unsigned on = 1;
    const void* value = &on;
    return std::to_string(driver.call("cuPointerSetAttribute", value, 6, blocks.front().at));
  }
  return "";
}

}  // namespace

int main(int, char** argv) {
  const char* program = argv[0];
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
    } else if (command == "wait") {
      std::cout << driver.call("cuCtxSynchronize") << std::endl;
    } else if (command == "poll") {
      std::cout << driver.call("cuStreamQuery", static_cast<void*>(nullptr)) << std::endl;
    } else if (command == "devices") {
      std::cout << devices(driver) << std::endl;
    } else if (command == "pid") {
      std::cout << getpid() << std::endl;
    } else if (command == "exec") {
      execl("/bin/sh", "sh", "-c", "echo there; read x; exec \"$0\"", program, nullptr);
      return 4;
    } else if (command == "exit") {
      return static_cast<int>(number);
    } else {
      const std::string answer = special(driver, blocks, command, number);
      std::cout << (answer.empty() ? "what?" : answer) << std::endl;
    }
  }
  return 0;
}
