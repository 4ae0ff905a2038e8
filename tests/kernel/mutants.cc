// kernel_mutants TRACE...: replays recorded kernel runs against the true model and every broken
// one.
//
// A trace holds, for each episode of a seed, a hash of errno and complete state that the real
// kernel showed after every operation. The operations are generated anew from the seed. The true
// model must give every hash; each mutation must miss at least one of some trace, or the comparison
// has a hole. Prints one line per mutation; exit status 1 when the true model differs or a mutation
// survives.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "model/mutation.h"
#include "ops.h"

namespace allot::kernel_test {
namespace {

using model::Cpusets;
using model::Era;
using model::Hierarchy;

struct Trace {
  std::string name;
  Hierarchy hierarchy = Hierarchy::kV1;
  Era era = Era::k6_1;
  uint64_t seed = 0;
  std::map<uint64_t, std::vector<uint32_t>> episodes;
};

bool load(const char* path, Trace* trace) {
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line)) return false;
  char hierarchy[32];
  char kernel[128];
  unsigned long long seed = 0;
  if (std::sscanf(line.c_str(), "# %31s %127s seed %llu", hierarchy, kernel, &seed) != 3)
    return false;
  std::string word = hierarchy;
  trace->name = word + " " + kernel;
  trace->hierarchy = word == "v2"   ? Hierarchy::kV2
                     : word == "v1" ? Hierarchy::kV1
                                    : Hierarchy::kV1V2Mode;
  trace->era = trace->name.find("6.12") != std::string::npos ? Era::k6_12 : Era::k6_1;
  trace->seed = seed;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string tag;
    std::string hashes;
    uint64_t episode = 0;
    words >> tag >> episode >> hashes;
    for (size_t at = 0; at + 8 <= hashes.size(); at += 8) {
      trace->episodes[episode].push_back(
          static_cast<uint32_t>(std::strtoul(hashes.substr(at, 8).c_str(), nullptr, 16)));
    }
  }
  return true;
}

// The machine the traces were recorded on (tools/kernel_test.py).
Cpusets fresh(const Trace& trace, int mutation) {
  model::Machine machine = model::Machine::flat(8, 2);
  machine.sched_domain_level_max = 4;
  Cpusets model(machine, trace.era, trace.hierarchy, mutation);
  model::TaskInit driver;
  driver.tid = 1;
  model.adopt_task(driver);
  return model;
}

// The operations of an episode: the generator looks at the true model.
std::vector<Op> operations(const Trace& trace, uint64_t episode, size_t count) {
  Cpusets truth = fresh(trace, 0);
  Generator generator(episode_seed(trace.seed, episode));
  std::vector<Op> ops;
  for (size_t i = 0; i < count; ++i) {
    ops.push_back(generator.next(truth));
    apply(ops.back(), &truth);
  }
  return ops;
}

// The number of operations after which the model first differs from the kernel; 0: it never does.
size_t first_difference(const Trace& trace, uint64_t episode, const std::vector<Op>& ops,
                        int mutation) {
  Cpusets model = fresh(trace, mutation);
  const std::vector<uint32_t>& hashes = trace.episodes.at(episode);
  for (size_t i = 0; i < ops.size(); ++i) {
    int err = apply(ops[i], &model);
    if (state_hash(err, model.observe()) != hashes[i]) return i + 1;
  }
  return 0;
}

int check(const std::vector<Trace>& traces) {
  std::vector<bool> caught(static_cast<size_t>(model::mutation_count()), false);
  size_t operations_in_all = 0;
  int wrong = 0;
  for (const Trace& trace : traces) {
    size_t here = 0;
    for (const auto& [episode, hashes] : trace.episodes) {
      std::vector<Op> ops = operations(trace, episode, hashes.size());
      here += ops.size();
      if (size_t at = first_difference(trace, episode, ops, 0)) {
        std::printf("true model: differs from %s in episode %llu at operation %zu (%s)\n",
                    trace.name.c_str(), static_cast<unsigned long long>(episode), at,
                    ops[at - 1].line().c_str());
        ++wrong;
      }
      for (int mutation = 1; mutation < model::mutation_count(); ++mutation) {
        size_t index = static_cast<size_t>(mutation);
        if (caught[index]) continue;
        size_t at = first_difference(trace, episode, ops, mutation);
        if (at == 0) continue;
        caught[index] = true;
        std::printf("mutation %2d: caught by %s, episode %llu, operation %zu: %s\n", mutation,
                    trace.name.c_str(), static_cast<unsigned long long>(episode), at,
                    ops[at - 1].line().c_str());
      }
    }
    std::printf("%s: true model agrees with %zu operations\n", trace.name.c_str(), here);
    operations_in_all += here;
  }
  int survivors = 0;
  for (int mutation = 1; mutation < model::mutation_count(); ++mutation) {
    if (caught[static_cast<size_t>(mutation)]) continue;
    std::printf("mutation %2d: SURVIVES\n", mutation);
    ++survivors;
  }
  std::printf(
      "%d of %d mutations caught in %zu recorded operations, true model differs in %d episodes\n",
      model::mutation_count() - 1 - survivors, model::mutation_count() - 1, operations_in_all,
      wrong);
  return survivors == 0 && wrong == 0 ? 0 : 1;
}

}  // namespace
}  // namespace allot::kernel_test

int main(int argc, char** argv) {
  std::vector<allot::kernel_test::Trace> traces;
  for (int i = 1; i < argc; ++i) {
    allot::kernel_test::Trace trace;
    if (!allot::kernel_test::load(argv[i], &trace)) {
      std::fprintf(stderr, "kernel_mutants: %s is no trace\n", argv[i]);
      return 2;
    }
    traces.push_back(trace);
  }
  return allot::kernel_test::check(traces);
}
