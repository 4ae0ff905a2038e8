// One operation on a cpuset hierarchy, its one-line form, and the random generator of operations.
//
// The same generator runs in the guest, beside the real kernel, and on the host, where recorded
// runs are replayed against broken models: equal seeds give equal operations as long as the model
// the generator looks at is the true one. Tasks have virtual ids (1 is the driver, others from 101
// up, never reused within an episode), because real ones differ from run to run.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model/cpuset.h"

namespace allot::kernel_test {

enum class Kind : uint8_t {
  kMkdir,
  kRmdir,
  kWrite,
  kFork,
  kThread,
  kForkInto,
  kExit,
  kWake,
  kAffinity,
  kOffline,
  kOnline
};

struct Op {
  Kind kind = Kind::kWake;
  std::string path;  // mkdir, rmdir, write, fork_into
  std::string file;  // write
  std::string text;  // write: the bytes, "@101" stands for a task's id; affinity: a CPU list
  int tid = 0;       // fork, exit, wake, affinity
  int child = 0;     // fork
  int cpu = 0;       // hotplug

  // One line without spaces inside fields and without a newline: "write /a cpuset.cpus 0-3%0a".
  std::string line() const;
  static bool parse(std::string_view line, Op* op);
};

// splitmix64: the sequence is part of the recorded runs, so it must not come from a library.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next();
  int below(int bound) { return static_cast<int>(next() % static_cast<uint64_t>(bound)); }
  bool chance(int percent) { return below(100) < percent; }

 private:
  uint64_t state_;
};

class Generator {
 public:
  explicit Generator(uint64_t seed) : random_(seed) {}
  Op next(const model::Cpusets& model);

 private:
  Op write_op(const model::Cpusets& model);
  Op partition_op(const model::Cpusets& model);
  bool memory_move(const model::Cpusets& model, Op* op);
  Op attach_op(const model::Cpusets& model);
  Op hotplug_op(const model::Cpusets& model);
  std::string group(const model::Cpusets& model, bool with_root);
  int task(const model::Cpusets& model);
  std::string cpu_text(const model::Cpusets& model, const std::string& path);
  std::string mem_text(const model::Cpusets& model, const std::string& path);
  model::Mask some_of(const model::Mask& from);
  std::string flag_text();

  Random random_;
  int next_task_ = 101;
};

// The outcome of one operation on the model: the errno, 0 for success.
int apply(const Op& op, model::Cpusets* model);
// A run in which every episode starts from a fresh machine; its seed follows from the run's.
uint64_t episode_seed(uint64_t seed, uint64_t episode);
constexpr int kOpsPerEpisode = 200;
constexpr int kNoSuchTask = 4000000;
// A number for errno and complete state; equal numbers for equal states.
uint32_t state_hash(int err, const std::vector<std::string>& lines);

}  // namespace allot::kernel_test
