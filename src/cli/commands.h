// One function per subcommand: it adds its flags and its help to the command line, and its work as
// the callback. A callback throws Failure, or sets *exit_status.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace allot::cli {

// `program` is the words after the flags of `run` (see split_program); it outlives the parse.
void add_run(CLI::App& app, const std::vector<std::string>& program, int* exit_status);
void add_ps(CLI::App& app, int* exit_status);
void add_gpus(CLI::App& app, int* exit_status);
void add_set(CLI::App& app, int* exit_status);
// freeze and thaw.
void add_freeze(CLI::App& app, int* exit_status);
void add_stop(CLI::App& app, int* exit_status);
// evict and restore.
void add_evict(CLI::App& app, int* exit_status);
void add_log(CLI::App& app, int* exit_status);
void add_doctor(CLI::App& app, int* exit_status);
void add_demo(CLI::App& app, int* exit_status);
void add_version(CLI::App& app, int* exit_status);
// "allot 0.1.0 (commit 0123abcd)".
std::string version_text();

// Splits the words after `allot run` into its own flags and the program with its arguments: the
// program begins after "--", or at the first word that is neither a flag nor a flag's value. A lone
// "--sim" becomes "--sim=" so that it does not take the next word.
void split_program(const CLI::App& run, const std::vector<std::string>& words,
                   std::vector<std::string>* flags, std::vector<std::string>* program);

// The command line of `allot` itself. Prints, and returns the exit status. Never throws.
int run_command(int argc, const char* const* argv);

}  // namespace allot::cli
