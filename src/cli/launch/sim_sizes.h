// Keeps the software machine that slices are on.
#pragma once

#include "cli/gpus/libraries.h"

namespace allot::cli {

// Throws a Failure (exit 125) when ALLOT_SIM_GPUS asks for other sizes than those of the software
// machine that stands, and a slice is on it. Its processes may use no GPU yet: the software GPU
// itself knows only those that do, and would make the machine anew under the others. Changes
// nothing. With `typed` (--sim=SPEC) a note says that the machine is about to change. Blocks up to
// 120 s; forks.
void refuse_other_sizes(const DriverFiles& sim, bool typed);

}  // namespace allot::cli
