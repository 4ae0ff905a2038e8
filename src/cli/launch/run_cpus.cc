// See run_cpus.h.
#include "cli/launch/run_cpus.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <new>

#include "cli/cpus/cmd_cpus.h"
#include "cli/failure.h"
#include "cli/output.h"

namespace allot::cli {
namespace {

cpus::Placement place_or_throw(const cpus::PlacementRequest& request) {
  cpus::Expected<cpus::Placement> placement = cpus::place(request);
  if (!placement) throw_failure(placement.error());
  return *placement;
}

class CpuHook : public StartHook {
 public:
  explicit CpuHook(const cpus::PlacementRequest& request) : placement_(place_or_throw(request)) {
    void* page = mmap(nullptr, sizeof(cpus::Entered), PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) {
      const int why = errno;
      cpus::release(&placement_);
      refuse("mmap: {}", describe_errno(why));
    }
    entered_ = new (page) cpus::Entered;
  }

  // With --exec we get here only when exec failed: leave the group, or it cannot be removed.
  ~CpuHook() override {
    if (program_ == getpid()) {
      cpus::leave(placement_);
      placement_.lease.member = {};
    }
    cpus::release(&placement_);
    munmap(entered_, sizeof *entered_);
  }
  CpuHook(const CpuHook&) = delete;
  CpuHook& operator=(const CpuHook&) = delete;

  pid_t start() override { return cpus::fork_into(placement_); }
  bool enter() override {
    *entered_ = cpus::enter(placement_);
    return entered_->level != cpus::Level::kNone;
  }
  std::string refusal() const override { return "run: " + cpus::describe(placement_, *entered_); }
  void started(pid_t program) override {
    program_ = program;
    cpus::set_member(&placement_, program);
  }
  void say() const override {
    for (const std::string& line : placement_.notes) note(line);
    fmt::print(stderr, "allot: {}\n", harmless(cpus::describe(placement_, *entered_)));
  }

 private:
  cpus::Placement placement_;
  cpus::Entered* entered_ = nullptr;  // shared with the child
  pid_t program_ = 0;
};

}  // namespace

void RunCpus::add_flags(CLI::App& run) {
  flags_ = std::make_shared<CpuFlags>();
  add_cpu_flags(run, flags_.get());
}

bool RunCpus::wanted() const {
  require_cpus(*flags_);
  return flags_->wants_cpus();
}

bool RunCpus::only(const CLI::App& run) const {
  constexpr const char* kNotOfGpus[] = {
      "--cpus",     "--cores",    "--threads", "--mems", "--exclusive", "--isolated", "--any-cpu",
      "--cpu-list", "--mem-policy", "--near-gpu", "--name",    "--exec", "--fail",      "--help"};
  const auto speaks_of_gpus = [&](const CLI::Option* option) {
    return option->count() > 0 &&
           std::none_of(std::begin(kNotOfGpus), std::end(kNotOfGpus),
                        [&](const char* name) { return option->check_name(name); });
  };
  const auto options = run.get_options();
  return wanted() && std::none_of(options.begin(), options.end(), speaks_of_gpus);
}

std::unique_ptr<StartHook> RunCpus::place(const std::string& name, int gpu, size_t gpus) const {
  if (!wanted()) return nullptr;
  cpus::PlacementRequest request = placement_request(*flags_, name);
  if (request.gpu < 0 && gpu >= 0) {
    // sysfs and the driver both order GPUs by bus address, unless one of them hides some GPUs.
    const cpus::Expected<cpus::Topology> topology = cpus::read_topology(cpus::FsRoot());
    if (topology && topology->gpus.size() == gpus) request.gpu = gpu;
  }
  return std::make_unique<CpuHook>(request);
}

}  // namespace allot::cli
