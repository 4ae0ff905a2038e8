// Which CPUs a request gets, given what the machine has and what is leased: the first half of
// place(), without any change to the machine, so that `plan` can say the same.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

#include "cpus/cpu_words.h"
#include "cpus/memory_policy.h"
#include "cpus/placement.h"

namespace allot::cpus {
namespace {

// The request as the user wrote it: "--cpus 0-3", "--slice alice=4".
std::string asked(const PlacementRequest& request) {
  return request.option + request.cpus;
}

tl::unexpected<Failure> bad_list(const PlacementRequest& request, const std::string& why,
                                 int os_errno = EINVAL) {
  return failure(Errc::kBadValue, fmt::format("{}: {}", asked(request), why), os_errno);
}

Expected<CpuSet> cpus_of_list(const Topology& t, const CpuSet& allowed,
                              const PlacementRequest& request) {
  Expected<CpuSet> set = parse_cpu_words(t, allowed, request.cpus);
  if (!set && set.error().os_errno == ERANGE)
    return bad_list(request, fmt::format("this machine has CPUs {}", to_list(t.present)), ERANGE);
  if (!set) {
    const bool no_form = set.error().text == kNoCpuList && !request.is_list;
    return bad_list(request,
                    no_form ? "not a number, a list such as 0-3,8, or gpu" : set.error().text);
  }
  if (set->empty()) return bad_list(request, "the list is empty");
  if (CpuSet none = *set - t.present; !none.empty()) {
    return bad_list(
        request,
        fmt::format("there is no CPU {}; this machine has {}", to_list(none), to_list(t.present)),
        ERANGE);
  }
  if (CpuSet off = *set - t.online; !off.empty())
    return bad_list(request, fmt::format("CPU {} is offline", to_list(off)));
  if (CpuSet out = *set - allowed; !out.empty()) {
    return bad_list(request, fmt::format("CPU {} is not allowed here, only {}", to_list(out),
                                         to_list(allowed)));
  }
  return *set;
}

struct Held {
  CpuSet exclusive, shared, all;
  std::string owner_of(const CpuSet& cpus, const std::vector<Lease>& leases,
                       bool exclusive_only) const {
    for (const Lease& lease : leases) {
      if ((lease.exclusive || !exclusive_only) && (lease.cpus | lease.blocked).overlaps(cpus))
        return lease.name;
    }
    return "";
  }
};

Held held_by(const std::vector<Lease>& leases) {
  Held held;
  for (const Lease& lease : leases) {
    (lease.exclusive ? held.exclusive : held.shared) |= lease.cpus | lease.blocked;
  }
  held.all = held.exclusive | held.shared;
  return held;
}

// A list, or the CPUs of a GPU, as it stands: no planning, only the check against leases.
Expected<void> take_fixed(const Topology& t, const CpuSet& allowed,
                          const std::vector<Lease>& leases, const PlacementRequest& request,
                          Placement* p) {
  Held held = held_by(leases);
  CpuSet whole = t.threads_of_cores_touching(p->cpus);
  CpuSet taken = request.exclusive ? held.all : held.exclusive;
  if (!request.is_list && trim(request.cpus) == "gpu") {
    p->cpus -= t.threads_of_cores_touching(taken);
    if (request.exclusive) p->cpus -= default_housekeeping(t, allowed);
    if (!p->cpus.empty()) return {};
    return failure(Errc::kFull, asked(request) + ": all CPUs near the GPU are leased");
  }
  if (CpuSet clash = p->cpus & taken; !clash.empty()) {
    return failure(Errc::kFull,
                   fmt::format("{}: CPU {} is leased to {}", asked(request), to_list(clash),
                               held.owner_of(clash, leases, !request.exclusive)),
                   EBUSY);
  }
  if (CpuSet clash = (whole - p->cpus) & taken; !clash.empty()) {
    p->notes.push_back(fmt::format("CPU {} of the same core is leased to {}", to_list(clash),
                                   held.owner_of(clash, leases, !request.exclusive)));
  }
  if (request.exclusive) p->lease.blocked = (whole - p->cpus) & allowed;
  return {};
}

Expected<void> take_planned(const Topology& t, const CpuSet& allowed,
                            const std::vector<Lease>& leases, const PlacementRequest& request,
                            int count, Placement* p) {
  Held held = held_by(leases);
  CpuSet housekeeping = default_housekeeping(t, allowed);
  Need need{request.name, count, request.unit, -1};
  if (request.gpu >= 0 && request.gpu < static_cast<int>(t.gpus.size())) {
    need.node = t.gpus[static_cast<size_t>(request.gpu)].node;
    if (need.node < 0 && t.numa)
      p->notes.push_back(fmt::format("the place of GPU {} is unknown", request.gpu));
  }
  // CPUs kept from the scheduler at boot are for those who name them.
  CpuSet free = allowed - t.isolated - t.threads_of_cores_touching(held.all);
  if (request.exclusive) free -= housekeeping;
  Expected<Plan> plan = plan_cpus(t, free, housekeeping, {need});
  if (!plan && plan.error().code == Errc::kFull && !request.exclusive &&
      held.shared.overlaps(allowed)) {
    // Nothing is promised to a shared slice but not to be on exclusive CPUs.
    free = allowed - t.isolated - t.threads_of_cores_touching(held.exclusive);
    plan = plan_cpus(t, free, housekeeping, {need});
    if (plan) p->notes.push_back("shares CPUs with other slices: no free ones are left");
  }
  if (!plan) {
    std::string text = fmt::format("{}: {}", asked(request), plan.error().text);
    if (request.exclusive)
      text += fmt::format(" (core of CPU {} is kept for the system)", housekeeping.first());
    if (!held.all.empty()) text += fmt::format("; {} are leased", to_list(held.all));
    return failure(plan.error().code, text);
  }
  p->cpus = plan->grants[0].cpus;
  p->lease.blocked = plan->grants[0].blocked;
  return {};
}

Expected<void> take_mems(const Topology& t, const PlacementRequest& request, Placement* p) {
  p->policy = request.policy;
  if (request.policy == MemoryPolicy::kLocal) {
    if (request.mems.empty()) return {};
    return failure(Errc::kBadValue,
                   "--mem-policy local takes memory from the node of the CPU that asks: leave "
                   "--mems out",
                   EINVAL);
  }
  if (request.mems.empty() && request.policy == MemoryPolicy::kNone) return {};
  if (request.mems.empty() || request.mems == "auto") {
    p->mems = nodes_for(t, p->cpus);
    if (p->mems.empty()) p->policy = MemoryPolicy::kNone;
    if (p->mems.empty())
      p->notes.push_back("memory is not bound: the memory nodes of these CPUs are unknown");
    return {};
  }
  Result<CpuSet> set = parse_list(request.mems);
  if (!set || set->empty())
    return failure(Errc::kBadValue,
                   fmt::format("--mems {}: not auto or a list such as 0,1", request.mems), EINVAL);
  for (int id = set->first(); id >= 0; id = set->next(id)) {
    const Node* node = t.node(id);
    if (node == nullptr)
      return failure(Errc::kBadValue,
                     fmt::format("--mems {}: there is no memory node {}", request.mems, id),
                     EINVAL);
    if (!node->has_memory)
      return failure(Errc::kBadValue,
                     fmt::format("--mems {}: node {} has no memory", request.mems, id), EINVAL);
    if (!t.allowed_mems.empty() && !t.allowed_mems.has(id)) {
      return failure(Errc::kBadValue,
                     fmt::format("--mems {}: node {} is not allowed here, only {}", request.mems,
                                 id, to_list(t.allowed_mems)),
                     EINVAL);
    }
  }
  p->mems = *set;
  return {};
}

}  // namespace

// A list with one CPU is written "3," or "3-3", or said to be one.
std::optional<int> cpu_count_of(const PlacementRequest& request) {
  const std::string_view text = trim(request.cpus);
  if (request.is_list || text.empty()) return std::nullopt;
  int value = 0;
  auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (end != text.data() + text.size()) return std::nullopt;
  if (ec == std::errc::result_out_of_range) return kTooManyCpus;
  return ec == std::errc{} ? std::optional<int>(std::min(value, kTooManyCpus)) : std::nullopt;
}

Expected<Placement> choose(const Topology& t, const CpuSet& allowed,
                           const std::vector<Lease>& leases, const PlacementRequest& request) {
  Placement p;
  p.name = request.name;
  Expected<void> done;
  std::string_view text = trim(request.cpus);
  if (request.gpu >= static_cast<int>(t.gpus.size())) {
    return failure(Errc::kNotFound, fmt::format("there is no GPU {}: {} are on the PCI bus",
                                                request.gpu, t.gpus.size()));
  }
  if (text == "gpu" && !request.is_list) {
    Expected<CpuSet> near = cpus_near_gpu(t, request.gpu < 0 ? 0 : request.gpu);
    // Without a GPU on the bus (the software GPU has no place) and none named, every CPU is near.
    if (!near && near.error().code == Errc::kNotFound && request.gpu >= 0)
      return tl::unexpected<Failure>(near.error());
    p.cpus = near ? *near & allowed : allowed - t.isolated;
    if (!near) p.notes.push_back(near.error().text + ": all allowed CPUs are taken");
    done = take_fixed(t, allowed, leases, request, &p);
  } else if (std::optional<int> count = cpu_count_of(request); count == kTooManyCpus) {
    return failure(Errc::kFull, fmt::format("{}: no room for so many: this machine has {} CPUs",
                                            asked(request), t.online.count()));
  } else if (count) {
    done = take_planned(t, allowed, leases, request, *count, &p);
  } else {
    // A partition takes its CPUs out of what others are allowed; who has them is the better answer.
    CpuSet reach = allowed | (held_by(leases).exclusive & t.online);
    Expected<CpuSet> list = cpus_of_list(t, reach, request);
    if (!list) return tl::unexpected<Failure>(list.error());
    p.cpus = *list;
    done = take_fixed(t, allowed, leases, request, &p);
  }
  if (CpuSet still = p.cpus & t.isolated; done && still.count() > 0 && p.cpus.count() > 1) {
    p.notes.push_back(
        fmt::format("CPU {} is isolated at boot (isolcpus): the kernel does not spread threads "
                    "there, so all stay on "
                    "one CPU unless the program binds each",
                    to_list(still)));
  }
  if (done) done = take_mems(t, request, &p);
  if (!done) return tl::unexpected<Failure>(done.error());
  p.lease.name = p.name;
  p.lease.cpus = p.cpus;
  p.lease.exclusive = request.exclusive;
  return p;
}

}  // namespace allot::cpus
