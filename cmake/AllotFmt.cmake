# allot_fmt: libfmt's compiled half, built once.
#
# Debian ships it only as a shared library, and our programs link nothing but libc; fmt header-only costs
# a third of the compile time of every file that prints. fmt_library.cc knows libfmt 9 (Debian 12); with
# another version the target falls back to header-only use.
find_package(fmt REQUIRED)
if(fmt_VERSION MATCHES "^9\\.")
  add_library(allot_fmt STATIC EXCLUDE_FROM_ALL ${CMAKE_CURRENT_LIST_DIR}/fmt_library.cc)
  allot_quick_build(allot_fmt)
else()
  add_library(allot_fmt INTERFACE)
  target_link_libraries(allot_fmt INTERFACE fmt::fmt-header-only)
endif()
