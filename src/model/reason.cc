// The reasons of cpuset.h in words.
#include <cerrno>

#include "model/cpuset.h"

namespace allot::model {
namespace {

std::string sets(const Reason& reason) {
  std::string text;
  if (!reason.cpus.empty()) {
    text += (reason.cpus.count() == 1 ? "CPU " : "CPUs ") + reason.cpus.list();
  }
  if (!reason.mems.empty()) {
    if (!text.empty()) text += " and ";
    text += (reason.mems.count() == 1 ? "memory node " : "memory nodes ") + reason.mems.list();
  }
  return text.empty() ? "nothing" : text;
}

}  // namespace

std::string_view why_name(Why why) {
  switch (why) {
    case Why::kNone:
      return "none";
    case Why::kUnknown:
      return "unknown";
    case Why::kNoGroup:
      return "no_group";
    case Why::kNoFile:
      return "no_file";
    case Why::kReadOnly:
      return "read_only";
    case Why::kGroupExists:
      return "group_exists";
    case Why::kParse:
      return "parse";
    case Why::kTooLong:
      return "too_long";
    case Why::kRootFixed:
      return "root_fixed";
    case Why::kNotInTop:
      return "not_in_top";
    case Why::kChildNeeds:
      return "child_needs";
    case Why::kChildExclusive:
      return "child_exclusive";
    case Why::kParentLacks:
      return "parent_lacks";
    case Why::kParentNotExclusive:
      return "parent_not_exclusive";
    case Why::kPopulated:
      return "populated";
    case Why::kSiblingOverlap:
      return "sibling_overlap";
    case Why::kEmptyTarget:
      return "empty_target";
    case Why::kNoTask:
      return "no_task";
    case Why::kBoundTask:
      return "bound_task";
    case Why::kNotOwner:
      return "not_owner";
    case Why::kNoCpuLeft:
      return "no_cpu_left";
    case Why::kHasChildren:
      return "has_children";
    case Why::kNotAvailable:
      return "not_available";
    case Why::kChildUsesControl:
      return "child_uses_control";
    case Why::kInvalidDomain:
      return "invalid_domain";
    case Why::kInternalTasks:
      return "internal_tasks";
    case Why::kClipped:
      return "clipped";
    case Why::kInherited:
      return "inherited";
    case Why::kTransferred:
      return "transferred";
    case Why::kLastOfDomain:
      return "last_of_domain";
    case Why::kPartition:
      return "partition";
  }
  return "?";
}

std::string sentence(const Reason& reason) {
  const std::string& group = reason.group;
  switch (reason.why) {
    case Why::kNone:
      return "";
    case Why::kUnknown:
      return "the model does not know this kernel's rule";
    case Why::kNoGroup:
      return "there is no group " + group;
    case Why::kNoFile:
      return "group " + group + " has no such file (controller not enabled in its parent)";
    case Why::kReadOnly:
      return "the file cannot be written";
    case Why::kGroupExists:
      return "group " + group + " is there already";
    case Why::kParse:
      return "the text is not a valid value for this file";
    case Why::kTooLong:
      return "the text is longer than the kernel accepts";
    case Why::kRootFixed:
      return "the root's CPUs and memory nodes follow the machine and cannot be written";
    case Why::kNotInTop:
      return sets(reason) + " is offline or not in this machine";
    case Why::kChildNeeds:
      return "child " + group + " uses " + sets(reason);
    case Why::kChildExclusive:
      return "child " + group + " is exclusive, so its parent must be";
    case Why::kParentLacks:
      return "parent " + group + " does not have " + sets(reason);
    case Why::kParentNotExclusive:
      return "parent " + group + " is not exclusive";
    case Why::kPopulated:
      return "group " + group + " or a group below it has tasks, which would be left without " +
             (reason.cpus.empty() && reason.mems.empty() ? std::string("a group") : sets(reason));
    case Why::kSiblingOverlap:
      return "sibling " + group + " shares " + sets(reason) + " and one of the two is exclusive";
    case Why::kEmptyTarget:
      return "group " + group + " has no " + reason.detail;
    case Why::kNoTask:
      return "there is no such task";
    case Why::kBoundTask:
      return "the task is a kernel thread bound to its CPUs";
    case Why::kNotOwner:
      return "the task belongs to another user";
    case Why::kNoCpuLeft:
      return "none of the wanted CPUs is online in cpuset " + group + " (" + sets(reason) + ")";
    case Why::kHasChildren:
      return "group " + group + " is below it";
    case Why::kNotAvailable:
      return "parent " + group + " does not hand the controller down";
    case Why::kChildUsesControl:
      return "child " + group + " hands the controller on";
    case Why::kInvalidDomain:
      return "group " + group + " cannot take it: threaded groups and domains do not mix";
    case Why::kInternalTasks:
      return "group " + group + " hands controllers down and so may hold no tasks of its own";
    case Why::kClipped:
      return sets(reason) + " was dropped: not in " + group;
    case Why::kInherited:
      return "nothing of it is usable in " + group + ", so the parent's set is used";
    case Why::kTransferred:
      return "tasks of " + reason.detail + " were moved to " + group;
    case Why::kLastOfDomain:
      return sets(reason) + " is the last one of a partition, whose deadline server it carries";
    case Why::kPartition:
      return "the partition is not valid: " + reason.detail;
  }
  return "?";
}

}  // namespace allot::model
