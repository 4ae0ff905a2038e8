// Where our own two libraries are, from the dynamic linker's list.
#pragma once

#include <cstdint>

namespace allot::shim {

// Path of the library that contains this code, as the linker knows it (so that opening it again
// costs no file access), or "" when it is not known. Any thread; does not allocate.
const char* own_path();

// Its folder, without the last slash.
const char* own_folder();

// Path of the library with that file name in our folder; false when it does not fit.
bool beside_us(const char* file_name, char* out, uint32_t size);

// The file name of a path.
const char* base_name(const char* path);

}  // namespace allot::shim
