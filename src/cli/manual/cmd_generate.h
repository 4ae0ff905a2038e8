// `allot generate`: hidden from --help; the build runs it to write what is installed beside the
// command.
#pragma once

#include <CLI/CLI.hpp>

namespace allot::cli {

// `app` must be whole when the command line is parsed; it is read then.
void add_generate(CLI::App& app, int* exit_status);

}  // namespace allot::cli
