// What CLI11 does not say well: what is wrong with a line of words, and help.
//
// The words are checked against the commands and flags before CLI11 sees them, so that every
// complaint names what was typed, and the nearest right word.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace allot::cli {

// Throws a Failure (exit 2) at the first word that is no command or flag of `app`, a flag without
// its value or given twice, a word too many, a missing one. `words` are those after `allot`, those
// of `run`'s program taken away.
void check_words(const CLI::App& app, const std::vector<std::string>& words);

// "allot cpus plan".
std::string path_of(const CLI::App& app);

// The help of one command, in lines that fit the screen.
std::string help_of(const CLI::App& app);

// The command that `words` (of `allot help`) name; throws a Failure (exit 2) where there is none.
const CLI::App& command_named(const CLI::App& app, const std::vector<std::string>& words);

// A number from `least` to `most`, never nan. The complaint says what was typed and what would be
// right, such as `example`.
CLI::Validator number_from(double least, double most, const char* what, const char* example);

// A span of time from 0 to `most` seconds.
CLI::Validator seconds_up_to(double most);

}  // namespace allot::cli
