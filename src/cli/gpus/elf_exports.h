// The names that a shared library exports, read from the file: nothing is loaded or run.
#pragma once

#include <string>
#include <vector>

namespace allot::cli {

// The defined function symbols in the dynamic symbol table of the 64-bit ELF file at `path`, in
// file order, without versions. Empty when the file cannot be read or contradicts itself. Any
// thread; allocates.
std::vector<std::string> exported_functions(const std::string& path);

}  // namespace allot::cli
