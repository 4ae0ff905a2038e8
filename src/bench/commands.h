// The subcommands of `allot bench`.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace allot::bench {

// Adds load, alloc, latency and hooks to `bench_app`. Each runs when the parsed command line names
// it, prints to stdout (JSON with --json, else a line a figure), and writes its exit status to
// *exit_status: 0; 125 when there is no driver or GPU; 1 when the driver refused on the way; 2 for
// a value that makes no sense. One line on stderr says why. Both pointers must outlive the parse.
void add_commands(CLI::App& bench_app, int* exit_status);

// Refuses what is not a number from `least` to `most`, and says both.
CLI::Validator number_within(double least, double most);

// Runs a subcommand's work; what it throws becomes one line on stderr and the exit status above.
void guarded(int* exit_status, const std::function<void()>& work);

}  // namespace allot::bench
