// Rules that a test may break on purpose, one at a time.
//
// A model that is compared with real kernels proves something only if the comparison would notice a
// wrong rule. So each rule below can be switched to a plausible mistake; tests/kernel replays
// recorded kernel runs against every one and expects each to be caught. Mutation 0 is the true
// model. What must not happen here: use of a mutation outside tests.
#pragma once

#include <cstddef>
#include <string_view>

namespace allot::model {

enum class Broken : int {
  kNothing = 0,
  // v1 writes
  kChildAfterParent,          // EACCES (parent) is checked before EBUSY (child)
  kOfflineAllowed,            // v1: CPUs that are offline may be written
  kPopulatedMayEmpty,         // no ENOSPC for a populated group
  kPopulatedOwnTasksOnly,     // populated looks at the group's own tasks, not at descendants
  kSiblingForgotten,          // exclusive siblings may overlap
  kSiblingOnlyMine,           // only the writer's exclusive flag counts, not the sibling's
  kMemsOverlapAllowed,        // mem_exclusive does not keep siblings' nodes apart
  kExclusiveUnderShared,      // an exclusive child needs no exclusive parent
  kExclusiveDropsUnderChild,  // a parent may stop being exclusive under an exclusive child
  kFlagKeepsWideValue,        // a flag written as 2^32 counts as set
  kRootWritable,              // EINVAL instead of EACCES on the root's cpus
  kRangeIsInvalid,            // EINVAL instead of ERANGE for a bit outside the mask
  kRelaxBoundTight,           // sched_relax_domain_level_max is the largest level
  kCloneIgnoresExclusive,     // clone_children copies although a sibling is exclusive
  kCloneNotInherited,         // clone_children is not passed to new groups
  kWriteReachesChildren,      // a write updates the tasks of child groups too
  kWriteKeepsTaskMasks,       // a write does not touch the tasks' masks
  kSpreadNotInherited,        // memory_spread_page is not passed to new groups
  // attach, fork, affinity
  kAttachEmptyMems,       // attach needs no mems
  kAttachEmptyCpus,       // attach needs no cpus
  kAttachSameResets,      // attaching to the own group resets the mask
  kAttachOneThread,       // cgroup.procs moves one thread only
  kAttachKeepsMems,       // attach does not change Mems_allowed
  kAttachRootActiveOnly,  // attach to the root gives the active CPUs, not the possible ones
  kForkFullMask,          // a child gets its group's CPUs instead of the parent's mask
  kForkRootGroup,         // a child starts in the root group
  kExitKeepsThreads,      // exit of a leader leaves its threads
  kAffinityUnclipped,     // sched_setaffinity is not cut to the cpuset
  kAffinityEmptyOk,       // an empty intersection is accepted
  kAffinityOfflineOk,     // the root keeps offline CPUs in a requested mask (6.1 cuts them)
  kUserMaskKept,          // 6.1: the requested mask survives a cpuset change; 6.12: it does not
  kFallbackKeepsMask,     // a wake-up with only offline CPUs keeps the mask
  kFallbackToEffective,   // ... and falls back to the effective set, not the configured or possible
  // hotplug
  kOnlineRestoresV1,         // v1: an onlined CPU returns to the cpusets that lost it
  kOfflineKeepsTasks,        // v1: tasks stay in an emptied cpuset
  kTransferToRoot,           // v1: tasks of an emptied cpuset always go to the root
  kOfflineTouchesRootTasks,  // hotplug changes the masks of the root's tasks
  kOfflineDropsConfigured,   // v2: hotplug changes cpuset.cpus
  kHotplugKeepsInheritor,    // v2: hotplug leaves the tasks of a group without cpus alone
  kOnlineNotSeen,            // v2: an onlined CPU does not return to the effective sets
  // v2
  kEmptyResultStaysEmpty,     // an empty effective set does not fall back to the parent's
  kChildLimitedByParent,      // v2 refuses cpus outside the parent's (EACCES)
  kPopulatedClearsV2,         // clearing cpus of a populated group is allowed
  kEnableKeepsMasks,          // +cpuset keeps the masks of the tasks below (6.1 resets them)
  kDisableKeepsMasks,         // -cpuset keeps the masks of the tasks below
  kDisableUnderUser,          // -cpuset is allowed while a child hands cpuset on
  kEnableUnavailable,         // +cpuset is allowed where the parent does not hand it down
  kMoveSameCssResets,         // moving between groups of one cpuset resets masks
  kInvalidDomainAttach,       // tasks may enter a "domain invalid" group
  kThreadAcrossDomains,       // a single thread may change its domain
  kInternalProcessAllowed,    // a group that hands domain controllers on may take tasks
  kThreadedWhilePopulated,    // a populated group may become threaded
  kUnchangedEffectiveResets,  // a write that leaves the effective set as it was resets masks
  kAttachComparesCpusOnly,    // 6.12: a move between equal CPUs changes no node either
  // partitions
  kPartitionLeavesParent,     // its CPUs stay in the parent's effective set
  kPartitionKeepsCpus,        // its CPUs do not come back to the parent
  kPartitionTakesLastCpus,    // a parent with tasks may be left without CPUs
  kPartitionUnderMember,      // the parent need not be a partition
  kPartitionOverlapAllowed,   // siblings may overlap it when it is made
  kPartitionSurvivesOverlap,  // a sibling's write over it does not invalidate it
  kPartitionStaysInvalid,     // an invalid one does not become valid by itself
  kPartitionSurvivesHotplug,  // the last CPU may go off line beneath its tasks
  kExclusiveOverlapAllowed,   // 6.12: siblings' exclusive CPUs may overlap
  kCount,
};

constexpr int mutation_count() {
  return static_cast<int>(Broken::kCount);
}

}  // namespace allot::model
