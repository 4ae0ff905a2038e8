// The public face of the model: making and removing groups, dispatching writes, reading back.
#include "model/cpuset.h"

#include <algorithm>
#include <cerrno>

#include "model/cpuset_state.h"

namespace allot::model {

Machine Machine::flat(int cpus, int nodes) {
  Machine machine;
  machine.possible_cpus = machine.online_cpus = Mask::range(0, cpus - 1);
  machine.possible_nodes = machine.memory_nodes = Mask::range(0, nodes - 1);
  return machine;
}

Cpusets::Cpusets(const Machine& machine, Era era, Hierarchy hierarchy, Mutation mutation)
    : state_(std::make_unique<State>()) {
  State& state = *state_;
  state.machine = machine;
  state.era = era;
  state.hierarchy = hierarchy;
  state.broken = static_cast<Broken>(mutation);
  Group root;
  root.path = "/";
  Cpuset top;
  top.effective_cpus = machine.online_cpus;
  top.effective_mems = machine.memory_nodes;
  top.cpus = state.v2_mode() ? machine.possible_cpus : machine.online_cpus;
  top.mems = state.v2_mode() ? machine.possible_nodes : machine.memory_nodes;
  top.cpu_exclusive = top.mem_exclusive = true;
  top.partition = kRootPartition;
  top.effective_xcpus = top.exclusive_cpus = machine.possible_cpus;
  root.cpuset = top;
  state.domains = {{machine.online_cpus, true}};
  state.groups.emplace(0, root);
}

Cpusets::~Cpusets() = default;
Cpusets::Cpusets(Cpusets&&) noexcept = default;
Cpusets& Cpusets::operator=(Cpusets&&) noexcept = default;
Cpusets::Cpusets(const Cpusets& other) : state_(std::make_unique<State>(*other.state_)) {}
Cpusets& Cpusets::operator=(const Cpusets& other) {
  *state_ = *other.state_;
  return *this;
}

// A new group's cpuset: nothing configured; on v2 it starts with the parent's effective sets.
void State::create_css(int group) {
  const Cpuset& above = css(at(group).parent);
  Cpuset own;
  own.spread_page = above.spread_page && !is(Broken::kSpreadNotInherited);
  own.spread_slab = above.spread_slab;
  if (v2_mode()) {
    own.effective_cpus = above.effective_cpus;
    own.effective_mems = above.effective_mems;
    own.use_parent_ecpus = true;
    own.memory_migrate = v2();
  }
  if (v2()) own.sched_load_balance = above.sched_load_balance;
  at(group).cpuset = own;
}

Outcome State::make_group(std::string_view path) {
  while (path.size() > 1 && path.ends_with('/')) path.remove_suffix(1);
  size_t slash = path.rfind('/');
  if (slash == std::string_view::npos || path.size() < 2)
    return failure(EEXIST, Why::kGroupExists, "/");
  Group* above = find(path.substr(0, slash));
  if (above == nullptr) return failure(ENOENT, Why::kNoGroup, path.substr(0, slash));
  if (find(path) != nullptr) return failure(EEXIST, Why::kGroupExists, path);
  if (path.find('\n') != std::string_view::npos) return failure(EINVAL, Why::kParse);
  Group group;
  group.id = group.domain = next_group++;
  group.parent = above->id;
  group.path = (above->id == 0 ? "" : above->path) + std::string(path.substr(slash));
  group.clone_children = above->clone_children && !is(Broken::kCloneNotInherited);
  above->children.push_back(group.id);
  int id = group.id;
  bool has_css = !v2() || (above->subtree_control & 1) != 0;
  groups.emplace(id, std::move(group));
  if (has_css) {
    create_css(id);
    if (!v2()) clone_parent(id);
  }
  return {};
}

Outcome State::remove_group(std::string_view path) {
  Group* group = find(path);
  if (group == nullptr) return failure(ENOENT, Why::kNoGroup, path);
  if (group->id == 0) return failure(EBUSY, Why::kHasChildren, "/");
  if (populated(group->id)) return failure(EBUSY, Why::kPopulated, group->path);
  if (!group->children.empty()) {
    return failure(EBUSY, Why::kHasChildren, at(group->children.front()).path);
  }
  if (group->cpuset && group->cpuset->partition > kMember) set_partition(group->id, kMember);
  int id = group->id;
  std::erase(at(group->parent).children, id);
  groups.erase(id);
  return {};
}

bool Cpusets::adopt_group(const GroupInit& init) {
  State& state = *state_;
  size_t slash = init.path.rfind('/');
  if (slash == std::string::npos) return false;
  Group* group = state.find(init.path);
  if (group == nullptr) {
    Group* above = state.find(init.path.substr(0, slash));
    if (above == nullptr) return false;
    if (state.v2() && init.cpuset_controller && !above->cpuset) return false;
    if (state.v2() && init.cpuset_controller && (above->subtree_control & 1) == 0) {
      // Groups adopted before their siblings' controller was known get theirs now.
      above->subtree_control |= 1;
      for (int child : above->children) {
        if (!state.at(child).cpuset) state.create_css(child);
      }
    }
    if (!state.make_group(init.path).ok()) return false;
    group = state.find(init.path);
  }
  group->clone_children = init.clone_children;
  if (state.v2() && init.threaded && group->id != 0) group->domain = state.at(group->parent).domain;
  if (!group->cpuset) return true;
  Cpuset& own = *group->cpuset;
  if (group->id != 0) {
    own.cpus = init.cpus;
    own.mems = init.mems;
  }
  own.cpu_exclusive = init.cpu_exclusive;
  own.mem_exclusive = init.mem_exclusive;
  own.mem_hardwall = init.mem_hardwall;
  own.sched_load_balance = init.sched_load_balance;
  own.memory_migrate = init.memory_migrate;
  own.spread_page = init.spread_page;
  own.spread_slab = init.spread_slab;
  own.relax_domain_level = init.relax_domain_level;
  if (group->id == 0) {
    if (init.effective_cpus) own.effective_cpus = *init.effective_cpus;
    return true;
  }
  const Cpuset& above = state.css(group->parent);
  own.effective_cpus = state.v2_mode() ? own.cpus & above.effective_cpus : own.cpus;
  own.effective_mems = state.v2_mode() ? own.mems & above.effective_mems : own.mems;
  own.use_parent_ecpus = state.v2_mode() && own.effective_cpus.empty();
  if (own.use_parent_ecpus) own.effective_cpus = above.effective_cpus;
  if (state.v2_mode() && own.effective_mems.empty()) own.effective_mems = above.effective_mems;
  if (init.effective_cpus) own.effective_cpus = *init.effective_cpus;
  if (state.v2()) state.adopt_partition(group->id, init);
  return true;
}

bool Cpusets::adopt_task(const TaskInit& init) {
  State& state = *state_;
  const Group* group = state.find(init.group);
  if (group == nullptr || state.tasks.count(init.tid) != 0) return false;
  Task task;
  task.tid = init.tid;
  task.tgid = init.tgid == 0 ? init.tid : init.tgid;
  task.group = -1;
  task.uid = init.uid;
  task.no_setaffinity = init.no_setaffinity;
  task.user = init.user;
  task.born = state.next_birth++;
  int css = state.effective_css(group->id);
  task.cpus =
      init.cpus.value_or(css == 0 ? state.machine.possible_cpus : state.css(css).effective_cpus);
  task.mems = init.mems.value_or(state.guarantee_mems(css));
  Task& placed = state.tasks.emplace(init.tid, task).first->second;
  state.move_task(&placed, group->id);
  return true;
}

Outcome Cpusets::mkdir(std::string_view path) {
  return state_->make_group(path);
}
Outcome Cpusets::rmdir(std::string_view path) {
  return state_->remove_group(path);
}

Outcome Cpusets::write(std::string_view path, std::string_view file, std::string_view text,
                       const Caller& caller) {
  const Group* group = state_->find(path);
  if (group == nullptr) return failure(ENOENT, Why::kNoGroup, path);
  std::vector<std::string> names = files(path);
  if (!state_->v2() && (file == "notify_on_release" || file == "cpuset.memory_pressure"))
    return State::write_plain(file, text);
  if (std::find(names.begin(), names.end(), file) == names.end())
    return failure(ENOENT, Why::kNoFile, path);
  if (text.empty()) return {};
  if (state_->v2()) return state_->write_v2(group->id, file, text, caller);
  return state_->write_v1(group->id, file, text, caller);
}

std::optional<std::string> Cpusets::read(std::string_view path, std::string_view file) const {
  const Group* group = state_->find(path);
  if (group == nullptr) return std::nullopt;
  return state_->v2() ? state_->read_v2(group->id, file) : state_->read_v1(group->id, file);
}

std::vector<std::string> Cpusets::files(std::string_view path) const {
  const Group* group = state_->find(path);
  if (group == nullptr) return {};
  if (!state_->v2()) {
    std::vector<std::string> names = {"cpuset.cpus",
                                      "cpuset.mems",
                                      "cpuset.effective_cpus",
                                      "cpuset.effective_mems",
                                      "cpuset.cpu_exclusive",
                                      "cpuset.mem_exclusive",
                                      "cpuset.mem_hardwall",
                                      "cpuset.sched_load_balance",
                                      "cpuset.sched_relax_domain_level",
                                      "cpuset.memory_migrate",
                                      "cpuset.memory_spread_page",
                                      "cpuset.memory_spread_slab",
                                      "cgroup.clone_children",
                                      "tasks",
                                      "cgroup.procs"};
    if (group->id == 0) names.push_back("cpuset.memory_pressure_enabled");
    return names;
  }
  std::vector<std::string> names = {"cgroup.controllers", "cgroup.subtree_control", "cgroup.procs",
                                    "cgroup.threads"};
  if (group->id != 0) names.push_back("cgroup.type");
  if (group->cpuset) {
    names.insert(names.end(), {"cpuset.cpus.effective", "cpuset.mems.effective"});
    if (group->id != 0)
      names.insert(names.end(), {"cpuset.cpus", "cpuset.mems", "cpuset.cpus.partition"});
    if (state_->era >= Era::k6_12 && group->id != 0)
      names.insert(names.end(), {"cpuset.cpus.exclusive", "cpuset.cpus.exclusive.effective"});
    if (state_->era >= Era::k6_12 && group->id == 0) names.push_back("cpuset.cpus.isolated");
  }
  return names;
}

Outcome Cpusets::attach_thread(std::string_view path, int tid, const Caller& caller) {
  return write(path, state_->v2() ? "cgroup.threads" : "tasks", std::to_string(tid), caller);
}

Outcome Cpusets::attach_process(std::string_view path, int tid, const Caller& caller) {
  return write(path, "cgroup.procs", std::to_string(tid), caller);
}

Outcome Cpusets::fork(int tid, int child_tid, bool thread) {
  return state_->fork(tid, child_tid, thread);
}
Outcome Cpusets::exit(int tid) {
  return state_->exit(tid);
}
Outcome Cpusets::set_affinity(int tid, const Mask& mask, const Caller& caller) {
  return state_->set_affinity(tid, mask, caller);
}
Outcome Cpusets::offline(int cpu) {
  return state_->plug(cpu, false);
}
Outcome Cpusets::online(int cpu) {
  return state_->plug(cpu, true);
}

Outcome Cpusets::wake(int tid) {
  auto found = state_->tasks.find(tid);
  if (found == state_->tasks.end()) return failure(ESRCH, Why::kNoTask);
  state_->wake(&found->second);
  return {};
}

Outcome Cpusets::fork_into(int tid, int child_tid, std::string_view path, const Caller&) {
  State& state = *state_;
  const Group* group = state.find(path);
  if (group == nullptr) return failure(ENOENT, Why::kNoGroup, path);
  auto parent = state.tasks.find(tid);
  if (parent == state.tasks.end()) return failure(ESRCH, Why::kNoTask);
  if (!state.v2()) return failure(EBADF, Why::kNoGroup, path);
  state.wake(&parent->second);
  if (Outcome vetted = state.vet_target(group->id); !vetted.ok()) return vetted;
  int target = state.effective_css(group->id);
  bool changes = target != state.effective_css(parent->second.group);
  if (changes) {
    if (Outcome allowed = state.can_attach(target, {}); !allowed.ok()) return allowed;
  }
  if (Outcome forked = state.fork(tid, child_tid, false); !forked.ok()) return forked;
  Task& child = state.tasks.at(child_tid);
  state.move_task(&child, group->id);
  if (changes) state.cpuset_attach_task(target, &child, state.guarantee_mems(target));
  return {};
}

Outcome Cpusets::get_affinity(int tid, Mask* mask) const {
  auto found = state_->tasks.find(tid);
  if (found == state_->tasks.end()) return failure(ESRCH, Why::kNoTask);
  *mask = found->second.cpus & state_->active();
  return {};
}

bool Cpusets::has_group(std::string_view path) const {
  return state_->find(path) != nullptr;
}

std::vector<std::string> Cpusets::groups() const {
  std::vector<std::string> paths;
  for (int group : state_->preorder(0)) paths.push_back(state_->at(group).path);
  return paths;
}

std::vector<int> Cpusets::tasks(std::string_view path) const {
  const Group* group = state_->find(path);
  std::vector<int> found;
  if (group == nullptr) return found;
  if (auto set = state_->css_sets.find(group->id); set != state_->css_sets.end())
    found = set->second.tasks;
  std::sort(found.begin(), found.end());
  return found;
}

std::vector<int> Cpusets::all_tasks() const {
  std::vector<int> found;
  for (const auto& [tid, task] : state_->tasks) found.push_back(tid);
  return found;
}

std::string Cpusets::group_of(int tid) const {
  auto found = state_->tasks.find(tid);
  return found == state_->tasks.end() ? "" : state_->at(found->second.group).path;
}

Mask Cpusets::cpus_mask(int tid) const {
  auto found = state_->tasks.find(tid);
  return found == state_->tasks.end() ? Mask() : found->second.cpus;
}

Mask Cpusets::mems_allowed(int tid) const {
  auto found = state_->tasks.find(tid);
  return found == state_->tasks.end() ? Mask() : found->second.mems;
}

std::optional<Mask> Cpusets::user_mask(int tid) const {
  auto found = state_->tasks.find(tid);
  return found == state_->tasks.end() || !state_->user_masks() ? std::nullopt : found->second.user;
}

int Cpusets::tgid_of(int tid) const {
  auto found = state_->tasks.find(tid);
  return found == state_->tasks.end() ? 0 : found->second.tgid;
}

Mask Cpusets::cpus(std::string_view path) const {
  const Group* group = state_->find(path);
  return group != nullptr && group->cpuset ? group->cpuset->cpus : Mask();
}

Mask Cpusets::mems(std::string_view path) const {
  const Group* group = state_->find(path);
  return group != nullptr && group->cpuset ? group->cpuset->mems : Mask();
}

Mask Cpusets::effective_cpus(std::string_view path) const {
  const Group* group = state_->find(path);
  return group == nullptr ? Mask() : state_->css(state_->effective_css(group->id)).effective_cpus;
}

Mask Cpusets::effective_mems(std::string_view path) const {
  const Group* group = state_->find(path);
  return group == nullptr ? Mask() : state_->css(state_->effective_css(group->id)).effective_mems;
}

Mask Cpusets::legal_cpus(int tid) const {
  return cpus_mask(tid) & state_->active();
}
Mask Cpusets::online_cpus() const {
  return state_->active();
}
Era Cpusets::era() const {
  return state_->era;
}
Hierarchy Cpusets::hierarchy() const {
  return state_->hierarchy;
}
const Machine& Cpusets::machine() const {
  return state_->machine;
}

std::vector<std::string> Cpusets::observe() const {
  std::vector<std::string> lines;
  for (const std::string& path : groups()) {
    for (const std::string& file : files(path)) {
      std::optional<std::string> content = read(path, file);
      std::string text = content ? *content : "-";
      std::replace(text.begin(), text.end(), '\n', ' ');
      lines.push_back(path + " " + file + " " + text);
    }
  }
  for (const auto& [tid, task] : state_->tasks) {
    lines.push_back("task " + std::to_string(tid) + " " + group_of(tid) + " cpus " +
                    task.cpus.list() + " mems " + task.mems.list());
  }
  return lines;
}

}  // namespace allot::model
