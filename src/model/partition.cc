// Partitions of v2, what 6.1 and 6.12 have in common: the words, and who counts as having tasks.
// partition_6_1.cc and partition_6_12.cc hold the rules of one kernel each; they differ in more
// than names, down to which stale mask a later step reads.
//
// A write to cpuset.cpus.partition succeeds also where the partition does not: the state becomes
// "... invalid (why)". Source: kernel/cgroup/cpuset.c of 6.1.192 and 6.12.117 (perr_strings,
// sched_partition_write, sched_partition_show, partition_is_populated).
#include <cerrno>

#include "model/cpuset_state.h"

namespace allot::model {

std::string_view partition_words(PartitionError error, Era era) {
  bool old = era < Era::k6_12;
  switch (error) {
    case PartitionError::kNone:
      return "";
    case PartitionError::kInvalidCpus:
      return old ? "Invalid cpu list in cpuset.cpus" : "Invalid cpu list in cpuset.cpus.exclusive";
    case PartitionError::kInvalidParent:
      return "Parent is an invalid partition root";
    case PartitionError::kNotPartition:
      return "Parent is not a partition root";
    case PartitionError::kNotExclusive:
      return "Cpu list in cpuset.cpus not exclusive";
    case PartitionError::kNoCpus:
      return "Parent unable to distribute cpu downstream";
    case PartitionError::kHotplug:
      return "No cpu available due to hotplug";
    case PartitionError::kEmpty:
      return old ? "cpuset.cpus is empty" : "cpuset.cpus and cpuset.cpus.exclusive are empty";
    case PartitionError::kAccess:
      return "Enable partition not permitted";
    case PartitionError::kRemote:
      return "Have remote partition underneath";
  }
  return "";
}

// Does a valid partition have tasks of its own? Those of partitions below do not count.
bool State::partition_populated(int group, int excluded) const {
  if (has_tasks(group)) return true;
  bool divided = era < Era::k6_12 ? !css(group).subparts_cpus.empty() : css(group).nr_subparts > 0;
  if (excluded < 0 && !divided) return populated(group);
  std::vector<int> pending = children_with_css(group);
  while (!pending.empty()) {
    int each = pending.back();
    pending.pop_back();
    if (each == excluded) {
      for (int child : children_with_css(each)) pending.push_back(child);
      continue;
    }
    if (css(each).partition > kMember) continue;
    if (populated(each)) return true;
    for (int child : children_with_css(each)) pending.push_back(child);
  }
  return false;
}

// A flag is changed as a write to its file would: only if the result is valid. False: it was not.
bool State::try_flag(int group, bool Cpuset::*flag, bool on) {
  Cpuset trial = css(group);
  trial.*flag = on;
  if (!validate(group, trial).ok()) return false;
  css(group).*flag = on;
  return true;
}

void State::partition_changed(int group, int before) {
  Cpuset& own = css(group);
  if (own.partition != before && own.partition > kMember)
    own.partition_error = PartitionError::kNone;
}

// Takes over a partition as its files show it; the effective sets around it are as they were read.
void State::adopt_partition(int group, const GroupInit& init) {
  Cpuset& own = css(group);
  int parent = at(group).parent;
  Cpuset& above = css(parent);
  own.exclusive_cpus = init.exclusive_cpus;
  own.effective_xcpus = init.effective_xcpus;
  std::string_view text = init.partition;
  int kind = text.starts_with("root")       ? kRootPartition
             : text.starts_with("isolated") ? kIsolated
                                            : kMember;
  own.partition = text.find("invalid") == std::string_view::npos ? kind : -kind;
  if (size_t from = text.find('('); own.partition < 0 && from != std::string_view::npos) {
    std::string_view words = text.substr(from + 1, text.rfind(')') - from - 1);
    for (int i = 1; i <= static_cast<int>(PartitionError::kRemote); ++i) {
      if (partition_words(static_cast<PartitionError>(i), era) == words)
        own.partition_error = static_cast<PartitionError>(i);
    }
  }
  if (own.partition <= kMember) return;
  own.cpu_exclusive = true;
  own.sched_load_balance = own.partition != kIsolated;
  if (era < Era::k6_12) {
    above.subparts_cpus = above.subparts_cpus | (own.cpus & above.cpus);
    return;
  }
  own.remote = above.partition <= kMember;
  if (own.effective_xcpus.empty()) own.effective_xcpus = own.cpus & above.effective_xcpus;
  if (!own.remote) ++above.nr_subparts;
  if (own.remote || parent == 0) subpartitions = subpartitions | own.effective_xcpus;
  if (own.partition == kIsolated) isolated = isolated | own.effective_xcpus;
  domains = {};
  for (const Mask& cpus : wanted_domains()) domains.push_back({cpus, true});
}

Outcome State::partition_outcome(int group) const {
  Outcome done;
  const Cpuset& own = css(group);
  if (own.partition < 0) {
    done.reason.why = Why::kPartition;
    done.reason.group = at(group).path;
    done.reason.detail = partition_words(own.partition_error, era);
  }
  return done;
}

Outcome State::write_partition(int group, std::string_view text) {
  if (text != "member" && text != "root" && text != "isolated") return failure(EINVAL, Why::kParse);
  set_partition(group, text == "member" ? kMember : text == "root" ? kRootPartition : kIsolated);
  return partition_outcome(group);
}

void State::set_partition(int group, int state) {
  if (css(group).partition == state) return;
  if (era < Era::k6_12) {
    set_partition_6_1(group, state);
  } else {
    set_partition_6_12(group, state);
  }
}

std::string State::partition_text(int group) const {
  const Cpuset& own = css(group);
  std::string word = own.partition == kMember ? "member"
                     : own.partition == kRootPartition || own.partition == -kRootPartition
                         ? "root"
                         : "isolated";
  if (own.partition >= 0) return word + "\n";
  std::string_view why = partition_words(own.partition_error, era);
  return word + " invalid" + (why.empty() ? "" : " (" + std::string(why) + ")") + "\n";
}

}  // namespace allot::model
