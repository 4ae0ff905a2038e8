// The options of `bench share` and of the worker it starts.
#pragma once

#include <CLI/CLI.hpp>

namespace allot::bench {

// Adds `share` and the hidden `share-worker`. When one of them has run, *exit_status is the
// command's.
void add_share(CLI::App& app, int* exit_status);

}  // namespace allot::bench
