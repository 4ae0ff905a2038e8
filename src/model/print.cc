// See print.h. Two passes, so that no text is cut at a buffer's end.
#include "model/print.h"

#include <cstdarg>
#include <cstdio>

namespace allot::model {

void print_to(std::string* out, const char* format, ...) {
  va_list arguments, again;
  va_start(arguments, format);
  va_copy(again, arguments);
  const int size = std::vsnprintf(nullptr, 0, format, arguments);
  va_end(arguments);
  if (size > 0) {
    const size_t at = out->size();
    out->resize(at + static_cast<size_t>(size) + 1);
    std::vsnprintf(out->data() + at, static_cast<size_t>(size) + 1, format, again);
    out->pop_back();
  }
  va_end(again);
}

}  // namespace allot::model
