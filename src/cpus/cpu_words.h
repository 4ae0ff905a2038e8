// The lists of CPUs that a user may type: what the kernel's files take, and what people know from
// taskset, numactl and hwloc.
//
//   0-3,8        numbers; also the kernel's 0-31:2/16 (the first 2 of every 16), N (the machine's
//                last CPU), and all, which stands for all allowed ones
//   0-6:2        every second one, as taskset has it
//   0xff         a mask
//   +0-3         counted among the allowed CPUs, as numactl has it
//   !0-3         all allowed CPUs but these
//   core:0-1     whole cores, counted from package to package; package:0, l3:2 likewise;
//                node:1 by its memory node's number; pu:3 the same as 3
//
// Terms are joined by commas; a word with a colon holds until the next one, so core:0,2 are two
// cores. libhwloc has no parser for its locations (hwloc-calc has), hence this one.
#pragma once

#include <string_view>

#include "cpus/cpu_set.h"
#include "cpus/failure.h"
#include "cpus/topology.h"

namespace allot::cpus {

// The error of a text that has none of these forms.
inline constexpr std::string_view kNoCpuList = "not a list such as 0-3,8";

// The set that `text` names; it may hold CPUs that are offline or not there where they were given
// by number. Errors, the text without the list itself: kBadValue with EINVAL (no such form; a
// core, package, cache or node that is not there; more than is allowed after '+'), or ERANGE (a
// number beyond any machine). Any thread; allocates.
Expected<CpuSet> parse_cpu_words(const Topology& topology, const CpuSet& allowed,
                                 std::string_view text);

}  // namespace allot::cpus
